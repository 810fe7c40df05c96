package schedule

import (
	"fmt"
	"maps"
	"math"
	"slices"
	"strings"
	"time"

	"github.com/peerlimit/peerlimit"
	"github.com/peerlimit/peerlimit/internal/oracle"
)

// Judging a run: what each event may cost, by the guarantees, and whether it cost more. A join, a leave and a slow network
// may cost nothing. What is allowed is counted in tokens of one key under one limit, on top of B + R·w for each window w.

const (
	// unreplicated is how far back a crash may forget: what was admitted after the last round of replication was sent, and
	// while its acknowledgement was on its way.
	unreplicated = 2*peerlimit.DefaultReplicaInterval + 4*time.Millisecond

	// leaseTime is how long after it was granted a lease may be used: what was leased is admitted then.
	leaseTime = 10 * time.Millisecond

	// quorumLasts is how long a holder that is cut off may go on deciding in full.
	quorumLasts = 500 * time.Millisecond

	// rejoin is how long after the end of a cut, a freeze or loss the links may take to be up again everywhere, so that
	// nobody decides by a share any more.
	rejoin = 10 * time.Second

	// together is how close two crashes must be for the second to strike before the new holder had a standby of its own.
	together = 3 * time.Second

	// inOrder is how much later one may have come that has its turn before another, where messages take no time: what each has
	// waited is counted from when it is heard of, and it is seen to be served when it hears of that.
	inOrder = 50 * time.Millisecond

	// healthyWay is more than a message takes there and back where the network is healthy.
	healthyWay = 5 * time.Millisecond

	// askedAgain is how long after another node began to hold all that wait have asked it.
	askedAgain = callBound

	// fullRate is the part of a limit that must be given out under saturation.
	fullRate = 0.98
)

// allowance returns what all events of the run together may cost a key under a limit: allowances add up.
func (r *Run) allowance(k *keyRun, l peerlimit.Limit) (tokens float64) {
	for _, e := range r.happened {
		switch e.kind {
		case kill:
			tokens += r.killAllowance(e, k, l)
		case freeze:
			tokens += r.freezeAllowance(e, k, l)
		case cutWay, cutLink:
			tokens += r.cutAllowance(e, k, l)
		case split:
			tokens += r.splitAllowance(e, k, l)
		case degrade:
			tokens += r.lossAllowance(e, l)
		}
	}
	return tokens
}

// grown is B + R·d: what a whole bucket gives out in a time.
func grown(l peerlimit.Limit, d time.Duration) float64 {
	return burstOf(l) + l.Tokens*float64(d)/float64(l.Period)
}

// oracleFor returns what judges a key under a limit.
func oracleFor(l peerlimit.Limit) *oracle.Oracle {
	return oracle.New(oracle.Limit{Tokens: l.Tokens, Period: l.Period, Burst: burstOf(l)})
}

func burstOf(l peerlimit.Limit) float64 {
	if l.Burst == 0 {
		return math.Max(l.Tokens, 1)
	}
	return l.Burst
}

// A killed holder takes with it what it admitted or leased since its last acknowledged replication. A node that was killed together
// with it may have been its standby: then all that the bucket knew, one burst, is lost too.
func (r *Run) killAllowance(e event, k *keyRun, l peerlimit.Limit) float64 {
	if !k.heldBy(1<<e.node, e.at-unreplicated, e.at) {
		return 0
	}
	tokens := r.admitted(k, e.at-unreplicated, e.at) + r.admittedByLease(k, e.at, e.at+leaseTime)
	for _, other := range r.happened {
		if other.kind == kill && other.node != e.node && (other.at-e.at).Abs() < together {
			tokens += burstOf(l)
		}
	}
	return tokens
}

// A frozen holder is as a killed one; what was on its way to it when it stopped is decided when it goes on. Until it is
// known to be lost, which a freeze may be too short for and which needs a majority, its standby gives out a share of 1/N. And a
// node that is frozen while it waits for a response has given up on it when it goes on; it then decides by its share until its
// links, which the others have given up, are up again.
func (r *Run) freezeAllowance(e event, k *keyRun, l peerlimit.Limit) float64 {
	tokens := r.admittedOn(e.node, k, e.at, e.at)
	n := r.s.membersAt(e.at)
	share := func(d time.Duration) float64 { return grown(l, d)/float64(n) + k.wholeTokens(l, 1, n) }
	tokens += min(share(time.Second), r.admittedOn(e.node, k, e.end(), e.end()+time.Second))
	if !k.heldBy(1<<e.node, e.at-unreplicated, e.end()) {
		return tokens
	}
	untilLost := min(e.lasts, 2*quorumLasts)
	if n == 2 || r.overlaps(e) {
		untilLost = e.lasts + rejoin
	}
	tokens += r.admitted(k, e.at-unreplicated, e.at) + r.admittedByLease(k, e.at, e.at+leaseTime)
	tokens += r.admitted(k, e.end(), e.end()+2*peerlimit.DefaultRPCTimeout)
	return tokens + share(untilLost)
}

// overlaps reports whether something else is going on while an event lasts, and takes away a majority perhaps.
func (r *Run) overlaps(e event) bool {
	return slices.ContainsFunc(r.happened, func(other event) bool {
		return other.at != e.at && other.at <= e.end()+rejoin && other.end()+rejoin >= e.at
	})
}

// withoutMajority is what it may cost that nobody can decide in full. All decide by shares, which make up one whole and so
// cost nothing for as long as it lasts, but their buckets come on top of what was spent before, and the old holder goes
// on until its quorum lapses. At the end a new holder may decide in full while those of the smaller sides still find
// their way to it. It all stays below twice the limit.
func withoutMajority(l peerlimit.Limit, largestSide, members int) float64 {
	apart := float64(members-largestSide) / float64(members)
	return grown(l, quorumLasts) + apart*(grown(l, rejoin)-burstOf(l))
}

// Of a cut link each end may decide by a share of 1/N, when it reaches neither the holder nor its standby. Between two nodes
// it is a split.
func (r *Run) cutAllowance(e event, k *keyRun, l peerlimit.Limit) float64 {
	if !k.heldBy(1<<e.node|1<<e.peer, e.at-quorumLasts, e.end()+rejoin) {
		return 0
	}
	n := r.s.membersAt(e.at)
	if n == 2 {
		return r.splitAllowance(event{kind: split, at: e.at, lasts: e.lasts, sides: [][]int{{e.node}, {e.peer}}}, k, l)
	}
	return 2/float64(n)*grown(l, e.lasts+rejoin) + k.wholeTokens(l, 2, n)
}

// In a split one side decides in full, which of several that is cannot always be said, and the m others give out m/N of the limit. The
// old holder, when it is one of them, goes on until its quorum lapses. Or no side decides in full.
func (r *Run) splitAllowance(e event, k *keyRun, l peerlimit.Limit) (tokens float64) {
	if r.s.family == newcomersFamily {
		return r.newcomersAllowance(e, k, l)
	}
	n := r.s.membersAt(e.at)
	sides := r.s.mayDecide(e)
	for _, side := range sides {
		apart := n - len(side)
		tokens = max(tokens, float64(apart)/float64(n)*grown(l, e.lasts+rejoin)+k.wholeTokens(l, apart, n)+r.minorityAllowance(e, k, l, side))
	}
	if len(sides) != 1 {
		tokens = max(tokens, withoutMajority(l, len(r.s.largestSide(e)), n))
	}
	return tokens
}

// minorityAllowance is what it may cost that the old holder is not on the side of a split that decides.
func (r *Run) minorityAllowance(e event, k *keyRun, l peerlimit.Limit, deciding []int) (tokens float64) {
	var minority uint64
	for _, side := range e.sides {
		for _, i := range side {
			if !slices.Contains(deciding, i) {
				minority |= 1 << i
			}
		}
	}
	if k.heldBy(minority, e.at-unreplicated, e.end()) {
		tokens += r.admitted(k, e.at-unreplicated, e.at+quorumLasts) + r.admittedByLease(k, e.at+quorumLasts, e.at+quorumLasts+leaseTime)
	}
	if copies, noted := k.replicated[e.at]; noted && copies&^minority == 0 {
		tokens += burstOf(l) // to the majority it is as if holder and standby had been killed together
	}
	return tokens
}

// Loss cuts links for the time that TCP needs to send again, any of them at any time: overlapping cuts, less than twice
// the limit. Delay alone costs nothing: responses are slower than usual and still in time.
func (r *Run) lossAllowance(e event, l peerlimit.Limit) float64 {
	if e.conditions.Loss == 0 {
		return 0
	}
	return grown(l, e.lasts+rejoin)
}

// judge looks at everything that was seen once the run is over.
func (r *Run) judge() {
	for _, k := range r.keys {
		for i, o := range k.oracles {
			l := k.plan.limits[i]
			extra := r.allowance(k, l)
			if report := o.Report(); !report.Within(extra) {
				r.saw("over the limit", k, "%v (%v), allowed on top %.4g: %v", k, l, extra, report)
			}
			for _, e := range r.happened {
				if k.plan.use != refunding && k.plan.use != reserving {
					r.judgeSplit(e, k, l)
				}
			}
		}
		r.judgeRate(k)
		r.judgeQueue(k)
	}
	r.judgeChanges()
	for _, c := range r.calls {
		alone := c.origin == peerlimit.OriginFallback || c.origin == peerlimit.OriginStandby
		if alone && c.start > r.settled+calmAfter {
			r.saw("still deciding by a share", c.key, "%.3fs: %v on node%d, by %v", c.start.Seconds(), c.key, c.node, c.origin)
		}
	}
}

// asked reports whether there is always somebody who asks for a key. One after the other, callers that are far away do not
// ask for more than there is.
func (r *Run) asked(k *keyRun) bool {
	return k.plan.use == waiting || k.plan.use == saturated && (r.s.far == 0 || k.plan.remote)
}

// judgeRate judges whether enough was given out of a key that was saturated: all of the time when nothing happened, and
// again from one second after a crash.
func (r *Run) judgeRate(k *keyRun) {
	if !r.asked(k) {
		return
	}
	l := k.plan.limits[0]
	if r.s.family == steadyFamily {
		report := k.oracles[0].Report()
		due := (fullRate - r.onItsWay(k)) * math.Floor(grown(l, r.stopped-r.loaded))
		if due -= 1 + r.spentInVain(k, 0, r.stopped); report.Run.Admitted < due {
			r.saw("starved", k, "%v: %v of at least %.1f in %v", k, report.Run.Admitted, due, r.stopped-r.loaded)
		}
		return
	}
	if r.s.family != killFamily {
		return
	}
	for _, e := range r.happened {
		from, to := e.at+time.Second, e.at+3*time.Second
		crowded := func(other event) bool { return other.at > e.at && other.at <= to }
		if e.kind != kill || slices.ContainsFunc(r.happened, crowded) || to > r.finished {
			continue
		}
		inTime := k.oracles[0].Between(from, to).Report().Run.Admitted
		if k.plan.use == waiting {
			inTime = r.servedBetween(k, from, to)
		}
		if due := fullRate*l.Tokens*float64(to-from)/float64(l.Period) - 2 - r.spentInVain(k, from, to); inTime < due { // two calls straddle the edges
			r.saw("not at full rate", k, "%v: %v of at least %.1f admitted from 1 to 3 s after the kill of node%d at %.3fs",
				k, inTime, due, e.node, e.at.Seconds())
		}
	}
}

// onItsWay returns which part of the turns may come to callers that have just hung up: they hear of a turn, and the holder
// hears of them, as long after as the way is. It is twice what is to be expected, as chance has a part in it.
func (r *Run) onItsWay(k *keyRun) float64 {
	if k.plan.use != waiting {
		return 0
	}
	return 2 * float64(2*r.s.far) / float64(meanPatience)
}

// judgeQueue judges whether turns came in the order in which their callers began to wait. That of one that hung up does not
// count; a moment is for what is on its way. When another node begins to hold, those that wait ask it again, and until all
// have, it can only keep the order of those that did.
func (r *Run) judgeQueue(k *keyRun) {
	if k.plan.use != waiting {
		return
	}
	slack := inOrder + 2*r.s.way()
	if r.s.pieces != (pieces{}) {
		slack += callBound // while a partition moves slowly, a request looks for its holder for as long as a call may
	}
	calls := r.callsOf(k)
	var latest call // of those that were told of their turns clearly before, the one that began last
	before := 0
	for _, c := range calls {
		for ; calls[before].end < c.end-2*r.s.way()-healthyWay; before++ {
			if b := calls[before]; b.start > latest.start && !k.heldSince(b.end-askedAgain, b.end+sampleEvery) {
				latest = b
			}
		}
		if late := latest.start - c.start; late > slack {
			if r.orderly() || r.s.family == steadyFamily {
				r.saw("out of turn", k, "%.3fs: %v on node%d waited until %.3fs; one that came %v later on node%d had its turn at %.3fs",
					c.start.Seconds(), k, c.node, c.end.Seconds(), late, latest.node, latest.end.Seconds())
			}
			r.outOfTurn = max(r.outOfTurn, late)
		}
	}
}

// heldSince reports whether another node was seen to begin to hold a key in a time.
func (k *keyRun) heldSince(from, to time.Duration) bool {
	return slices.ContainsFunc(k.holders, func(h holding) bool { return h.at >= from && h.at <= to })
}

// servedBetween returns how many tokens were given to those that wait in a time.
func (r *Run) servedBetween(k *keyRun, from, to time.Duration) (tokens float64) {
	for _, c := range r.calls {
		if c.key == k && c.end > from && c.end <= to {
			tokens += c.cost
		}
	}
	return tokens
}

// Failure describes a run in which something was wrong, or returns nothing.
func (r *Run) Failure() string {
	if len(r.wrong) == 0 {
		return ""
	}
	var b strings.Builder
	fmt.Fprintf(&b, "%v", r.s)
	if r.s.seed != 0 {
		fmt.Fprintf(&b, "run it again:  go test ./internal/schedule -run 'TestSchedules$' -sim.seed=%d\n", r.s.seed)
	} else {
		fmt.Fprintf(&b, "run it again:  go test ./internal/schedule -run '%s$'\n", r.s.test)
	}
	for _, kind := range slices.Sorted(maps.Keys(r.wrong)) {
		w := r.wrong[kind]
		fmt.Fprintf(&b, "%s, %d times:\n", strings.ToUpper(kind), w.count)
		for _, text := range w.first {
			fmt.Fprintf(&b, "    %s\n", text)
		}
	}
	k, i, focus := r.interesting()
	fmt.Fprintf(&b, "what happened to %v (partition %d), %v:\n", k, k.partition, k.plan.limits[i])
	for _, line := range r.timeline(k, k.plan.limits[i], focus) {
		fmt.Fprintf(&b, "    %s\n", line)
	}
	return b.String()
}

// interesting returns the key and limit that exceeded most what they may, relative to the burst, and when that began; or
// a key that the first thing that went wrong is about, and when it did.
func (r *Run) interesting() (key *keyRun, limit int, focus time.Duration) {
	worst := 0.0
	for _, k := range r.keys {
		for i, o := range k.oracles {
			l := k.plan.limits[i]
			extra, report := r.allowance(k, l), o.Report()
			if over := (report.Excess - extra) / burstOf(l); !report.Within(extra) && over > worst {
				worst, key, limit = over, k, i
				focus = r.overdrawn(k, l, report, extra)
			}
		}
	}
	if key != nil {
		return key, limit, focus
	}
	key, focus = r.keys[0], r.finished
	for _, kind := range slices.Sorted(maps.Keys(r.wrong)) {
		if w := r.wrong[kind]; w.since <= focus {
			focus = w.since
			if w.key != nil {
				key = w.key
			}
		}
	}
	return key, 0, focus
}

// overdrawn returns when a key's ideal bucket had given out too much for the first time in the worst window.
func (r *Run) overdrawn(k *keyRun, l peerlimit.Limit, report oracle.Report, extra float64) time.Duration {
	bucket := idealBucket{limit: l}
	for _, c := range r.callsOf(k) {
		if c.admitted && c.end >= report.Worst.From {
			if bucket.take(c.end, c.cost); bucket.level > burstOf(l)+extra {
				return c.end
			}
		}
	}
	return report.Worst.To
}
