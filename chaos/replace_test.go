//go:build linux

package chaos

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"time"

	"github.com/peerlimit/peerlimit"
)

// Members that are killed, each replaced by a new process with an identity of its own, and what is judged of that.

const (
	// holdsWithin is how soon after its start a newcomer must hold all that is its own.
	holdsWithin = 3 * time.Second

	// forgottenWithin is how soon a member that was killed counts nowhere any more.
	forgottenWithin = 10 * time.Second

	// calm is the part of the limit that must be admitted in each calmWindow once no sudden event is near.
	calm       = 0.9
	calmWindow = time.Second
)

// newcomer is a node that was started in place of one that was killed.
type newcomer struct {
	node  *node
	took  time.Duration // until it held all that is its own; forever: longer than holdsWithin
	lacks string        // what it had not by then
}

// replace kills a node, starts another one immediately, and has it asked as soon as it holds all that is its own, or should.
func (r *run) replace(old *node) {
	r.kill(old)
	n := r.newNode()
	r.note(false, "%s starts", n.name)
	started := clock()
	r.start(n)
	ctx, cancel := context.WithTimeout(context.Background(), holdsWithin)
	defer cancel()
	came := newcomer{node: n, took: forever}
	if err := poll(ctx, func() error { return n.holdsItsOwn(ctx, len(r.nodes)) }); err != nil {
		came.lacks = err.Error()
	} else if took := clock() - started; took <= holdsWithin {
		came.took = took
	}
	r.newcomers = append(r.newcomers, came)
	r.drive(n)
}

// replaceEach replaces nodes, the oldest first, so many and with so much time from one kill to the next. Where that is time enough, and
// after the last one, it looks whether the dead count no more.
func (r *run) replaceEach(count int, pause time.Duration) {
	next := clock()
	for i := range count {
		time.Sleep(next - clock())
		next += pause
		r.replace(r.nodes[0])
		if pause > forgottenWithin || i == count-1 {
			time.Sleep(r.lastSudden() + forgottenWithin - clock())
			r.lookForDead()
		}
	}
}

// lookForDead notes which nodes do not hold all that is their own, or divide limits by members that are not there.
func (r *run) lookForDead() {
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	for _, n := range r.nodes {
		err := n.holdsItsOwn(ctx, len(r.nodes))
		if s, failed := n.stats(ctx); err == nil && failed == nil && s.Known != len(r.nodes) {
			err = fmt.Errorf("%s divides limits by %d members", n.name, s.Known)
		}
		if err != nil {
			r.unsettled = append(r.unsettled, fmt.Sprintf("%v after the kill at %.1f s, of %d nodes: %v", forgottenWithin, (r.lastSudden()-r.began).Seconds(), len(r.nodes), err))
		}
	}
}

// stats asks a node what it has seen.
func (n *node) stats(ctx context.Context) (s peerlimit.Stats, err error) {
	text, err := n.get(ctx, "/stats")
	if err != nil {
		return s, err
	}
	if err := json.Unmarshal([]byte(text), &s); err != nil {
		return s, fmt.Errorf("the stats of %s: %w", n.name, err)
	}
	return s, nil
}

// holdsItsOwn returns nil when a node has found the others, has a quorum and decides about all that the ring gives it. One that is
// alone still owns everything.
func (n *node) holdsItsOwn(ctx context.Context, members int) error {
	s, err := n.stats(ctx)
	if err != nil {
		return err
	}
	if s.Members < members || !s.HasQuorum || s.PartitionsOwned == 0 || s.PartitionsHeld < s.PartitionsOwned {
		return fmt.Errorf("%s sees %d members, quorum %v, and holds %d of %d partitions", n.name, s.Members, s.HasQuorum, s.PartitionsHeld, s.PartitionsOwned)
	}
	return nil
}

// judgeCalm judges how much was admitted once the last sudden event was long ago.
func (r *run) judgeCalm(result *Result, hot served) {
	if r.scenario.calmAfter == 0 {
		return
	}
	from := r.lastSudden() + r.scenario.calmAfter
	least, at := hot.leastIn(calmWindow, from, r.over)
	percent := 100 * least / (r.scenario.hot.rate * calmWindow.Seconds())
	result.Measured = append(result.Measured, Measure{
		What:  fmt.Sprintf("Least admitted in a second, from %v after the last kill on", r.scenario.calmAfter),
		Value: percent, Unit: "% of the limit's rate", Promised: fmt.Sprintf("at least %.0f %%", 100*calm),
	})
	if percent < 100*calm {
		result.violate("%.1f %% of the limit's rate were admitted in the second from %.0f ms on, %.1f s after the last kill; promised are %.0f %%",
			percent, milliseconds(at-r.began), (at - r.lastSudden()).Seconds(), 100*calm)
	}
}

// leastIn returns the least that any window between two instants admitted, and where that window begins.
func (s served) leastIn(window, from, to time.Duration) (least float64, at time.Duration) {
	const step = 10 * time.Millisecond
	sorted := slices.Sorted(slices.Values(s))
	before := func(t time.Duration) int {
		i, _ := slices.BinarySearch(sorted, t)
		return i
	}
	count := -1
	for begin := from; begin+window <= to; begin += step {
		if n := before(begin+window) - before(begin); count < 0 || n < count {
			count, at = n, begin
		}
	}
	return float64(max(count, 0)), at
}

// byShare reports whether a share of the limit decided a take.
func (c *record) byShare() bool {
	return c.why == peerlimit.OriginFallback.String() || c.why == peerlimit.OriginStandby.String()
}

// judgeShares judges how many takes shares decided, admitted or not.
func (r *run) judgeShares(result *Result, records []record) {
	if r.scenario.calmAfter == 0 && r.scenario.mostShares == 0 {
		return
	}
	shares, decided := 0, 0
	for _, c := range records {
		if c.status != "allowed" && c.status != "denied" {
			continue
		}
		if decided++; c.byShare() {
			shares++
		}
	}
	m := Measure{What: "Takes decided by shares", Value: 100 * float64(shares) / float64(max(decided, 1)), Unit: "%"}
	if most := r.scenario.mostShares; most > 0 {
		m.Promised = fmt.Sprintf("at most %g %%", most)
		if m.Value > most {
			result.violate("shares decided %d of %d takes, %.2f %%; promised are %s", shares, decided, m.Value, m.Promised)
		}
	}
	result.Measured = append(result.Measured, m)
}

// judgeNewcomers judges how soon newcomers held all that is their own, and the dead were forgotten.
func (r *run) judgeNewcomers(result *Result) {
	if len(r.newcomers) == 0 {
		return
	}
	for _, u := range r.unsettled {
		result.violate("%s", u)
	}
	slowest := slices.MaxFunc(r.newcomers, func(a, b newcomer) int { return cmp.Compare(a.took, b.took) })
	for _, n := range r.newcomers {
		if n.took == forever {
			err := cmp.Or(n.lacks, "it answered too late")
			result.violate("%s did not hold all that is its own after %v: %s", n.node.name, holdsWithin, err)
		}
	}
	if slowest.took == forever {
		return
	}
	result.Measured = append(result.Measured, Measure{
		What:  fmt.Sprintf("Slowest of %d newcomers to hold all that is its own", len(r.newcomers)),
		Value: slowest.took.Seconds(), Unit: "s", Promised: fmt.Sprintf("at most %.0f s", holdsWithin.Seconds()),
	})
}

// lookForStandstills measures for how long the drivers sent nothing. They send every hundredth of a second, whatever the nodes do: a run in
// which they stood still for long says nothing of the nodes, because the machine stood still.
func (r *run) lookForStandstills(result *Result, records []record) {
	if len(r.newcomers) == 0 {
		return
	}
	starts := make([]time.Duration, 0, len(records)+1)
	for _, c := range records {
		starts = append(starts, c.start)
	}
	slices.Sort(starts)
	last, longest, at := r.began, time.Duration(0), r.began
	for _, start := range append(starts, r.over) {
		if start-last > longest {
			longest, at = start-last, last
		}
		last = start
	}
	result.Measured = append(result.Measured, Measure{
		What: fmt.Sprintf("Longest time in which the drivers sent nothing, at %.1f s", (at - r.began).Seconds()), Value: milliseconds(longest), Unit: "ms",
	})
}
