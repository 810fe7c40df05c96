package schedule

import (
	"cmp"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/peerlimit/peerlimit"
	"github.com/peerlimit/peerlimit/internal/oracle"
	"github.com/peerlimit/peerlimit/peerlimittest"
)

// The judge is judged: schedules make sense, allowances are what they say, what is wrong is reported and shown.

// A schedule follows from its seed, and nothing happens to a node that is not there.
func TestSchedulesMakeSense(t *testing.T) {
	kinds := make(map[eventKind]int)
	for i := range uint64(2500) {
		seed := 1 + i
		if i >= 2000 {
			seed += (i-2000)/100*ownSeeds + ownSeeds
		}
		s := New(seed)
		require.Equal(t, s.String(), New(seed).String())
		require.NoError(t, senseless(s), "%v", s)
		for _, e := range s.events {
			kinds[e.kind]++
		}
	}
	for _, kind := range []eventKind{join, leave, kill, freeze, cutWay, cutLink, split, degrade} {
		assert.Greater(t, kinds[kind], 100, kind)
	}
}

// senseless says what cannot be done of what a schedule says, or breaks what its family promises.
func senseless(s *Schedule) error {
	alive, next, killed, last := make(map[int]bool), s.nodes, 0, time.Duration(0)
	whole := time.Duration(0) // until when nobody was cut off
	for i := range s.nodes {
		alive[i] = true
	}
	leaving := make(map[int]bool) // one that leaves may be killed, cut off and so on
	for _, e := range s.events {
		if e.at <= last {
			return fmt.Errorf("at %v: not after the one before", e.at)
		}
		if e.kind == split && s.family == newcomersFamily && !s.foundsApart(e) {
			if !s.cutBefore(e) {
				whole = e.at
			}
			if e.end()-whole >= apartForever {
				return fmt.Errorf("at %v: members are cut off from %v to %v", e.at, whole, e.end())
			}
		}
		last = e.at
		switch e.kind {
		case join:
			if e.node != next {
				return fmt.Errorf("at %v: node%d joins, not %d", e.at, e.node, next)
			}
			alive[next] = true
			next++
		case cutWay, cutLink:
			if e.node == e.peer || !alive[e.peer] && !leaving[e.peer] {
				return fmt.Errorf("at %v: no node%d to cut off", e.at, e.peer)
			}
		}
		if e.kind != split && e.kind != degrade && !alive[e.node] && !leaving[e.node] {
			return fmt.Errorf("at %v: no node%d there", e.at, e.node)
		}
		if e.kind == leave || e.kind == kill {
			leaving[e.node] = e.kind == leave
			delete(alive, e.node)
		}
		if e.kind == kill {
			killed++
		}
		if len(alive) < 1 || len(alive) > maxNodes+1 || killed > 0 && killed >= len(alive) && !s.family.goesOn() || next > 64 {
			return fmt.Errorf("at %v: %d are left, %d were killed, %d were there in all", e.at, len(alive), killed, next)
		}
	}
	if longest := 90 * time.Second; s.lastEnd() > longest && !s.family.goesOn() || s.lastEnd() > 5*longest {
		return fmt.Errorf("it lasts %v", s.lastEnd())
	}
	return nil
}

// madeUp is a run in which node 1 of 5 decided about a key of 60 a minute, and admitted a token every 10 ms, until 2 s.
func madeUp() (*Run, *keyRun) {
	l := peerlimit.PerMinute(60)
	p := &plan{name: "made-up", limits: []peerlimit.Limit{l}, use: exhausted}
	k := &keyRun{plan: p, name: "key", oracles: []*oracle.Oracle{oracleFor(l)}, holders: []holding{{0, 1 << 1}, {3 * time.Second, 1 << 2}}}
	r := &Run{
		s: &Schedule{seed: 7, family: killFamily, nodes: 5, plans: []plan{*p}}, keys: []*keyRun{k}, began: time.Now(),
		wrong: make(map[string]*wrong), finished: 20 * time.Second, settled: 19 * time.Second,
	}
	for at := time.Duration(0); at < 2*time.Second; at += 10 * time.Millisecond {
		origin := peerlimit.OriginRemote
		if at == 1510*time.Millisecond {
			origin = peerlimit.OriginLease
		}
		r.calls = append(r.calls, call{start: at, end: at, key: k, node: 3, origin: origin, cost: 1, admitted: true})
		k.oracles[0].Admit(oracle.Take{Start: at, End: at, Cost: 1})
	}
	return r, k
}

func TestAllowances(t *testing.T) {
	// Of what node 1 admitted until 2 s, a token every 10 ms, 44 ms before an event hold 4 or 5; B is 60 and R 1 a second.
	for name, c := range map[string]struct {
		events []event
		want   float64
	}{
		"nothing":                   {nil, 0},
		"join and leave":            {[]event{{at: time.Second, kind: join, node: 5}, {at: 2 * time.Second, kind: leave, node: 1}}, 0},
		"the holder is killed":      {[]event{{at: time.Second, kind: kill, node: 1}}, 5},
		"when a lease was out":      {[]event{{at: 1502 * time.Millisecond, kind: kill, node: 1}}, 5 + 1},
		"another one is killed":     {[]event{{at: time.Second, kind: kill, node: 2}}, 0},
		"with another one":          {[]event{{at: time.Second, kind: kill, node: 1}, {at: 1500 * time.Millisecond, kind: kill, node: 2}}, 5 + 60},
		"once it holds no more":     {[]event{{at: 4 * time.Second, kind: kill, node: 1}}, 0},
		"the holder is frozen":      {[]event{{at: time.Second, kind: freeze, node: 1, lasts: 10 * time.Second}}, 5 + 61.0/5},
		"and goes on soon":          {[]event{{at: time.Second, kind: freeze, node: 1, lasts: 500 * time.Millisecond}}, 5 + 60.5/5 + 21},
		"a caller is frozen":        {[]event{{at: 1990 * time.Millisecond, kind: freeze, node: 3, lasts: time.Second}}, 1},
		"its link is cut":           {[]event{{at: time.Second, kind: cutWay, node: 4, peer: 1, lasts: 2 * time.Second}}, 72 * 2.0 / 5},
		"another link is cut":       {[]event{{at: time.Second, kind: cutLink, node: 4, peer: 3, lasts: time.Second}}, 0},
		"it is in the minority":     {[]event{{at: 3500 * time.Millisecond, kind: split, sides: [][]int{{2}, {0, 1, 3, 4}}, lasts: 10 * time.Second}}, 80.0 / 5},
		"no majority":               {[]event{{at: 4 * time.Second, kind: split, sides: [][]int{{0, 1}, {2, 3}, {4}}, lasts: 10 * time.Second}}, 60.5 + 10*3.0/5},
		"a slow network":            {[]event{{at: time.Second, kind: degrade, lasts: time.Second, conditions: peerlimittest.Healthy}}, 0},
		"a network that loses much": {[]event{{at: time.Second, kind: degrade, lasts: 5 * time.Second, conditions: peerlimittest.Conditions{Loss: 0.1}}}, 75},
	} {
		t.Run(name, func(t *testing.T) {
			r, k := madeUp()
			r.s.seed = 0 // all are witnesses from the first
			r.happened = c.events
			assert.InDelta(t, c.want, r.allowance(k, k.plan.limits[0]), 1e-9)
		})
	}
}

// Of a burst below the number of members, a member that is cut off may give out a whole token, at as many as there are tokens.
func TestAllowancesOfSmallBursts(t *testing.T) {
	for _, c := range []struct {
		bursts   []float64
		apart, n int
		want     []float64
	}{
		{[]float64{5}, 2, 5, []float64{0}},
		{[]float64{12}, 2, 5, []float64{0}},
		{[]float64{4.5}, 2, 5, []float64{0.2}},
		{[]float64{2}, 1, 5, []float64{0.6}},
		{[]float64{2}, 2, 5, []float64{1.2}},
		{[]float64{2}, 3, 7, []float64{2 * 5.0 / 7}},
		{[]float64{1.5}, 2, 5, []float64{0.7}},
		{[]float64{1}, 2, 5, []float64{0.8}},
		{[]float64{0.5}, 2, 5, []float64{0.4}},
		{[]float64{2, 10, 3}, 2, 5, []float64{1.2, 0, 0.8}},
	} {
		p := &plan{name: "made-up"}
		for _, burst := range c.bursts {
			p.limits = append(p.limits, peerlimit.PerSecond(20).WithBurst(burst))
		}
		k := &keyRun{plan: p}
		for i, l := range p.limits {
			assert.InDelta(t, c.want[i], k.wholeTokens(l, c.apart, c.n), 1e-9, "%v of %v, %d of %d", l, c.bursts, c.apart, c.n)
		}
	}
}

// The bound of a split is judged in every window of it, when nothing else happened: one of three that is cut off may admit a third
// of the rate and one token, and no more.
func TestSplitsAreJudged(t *testing.T) {
	l := peerlimit.PerSecond(20).WithBurst(1)
	parted := event{at: 20 * time.Second, kind: split, sides: [][]int{{0}, {1, 2}}, lasts: 10 * time.Second}
	for name, c := range map[string]struct {
		apart float64 // a second, by the one that is cut off
		also  []event
		at    time.Duration // of the split, if not later
		wrong bool
	}{
		"its share":                 {apart: 20.0 / 3},
		"a whole limit":             {apart: 20, wrong: true},
		"half of a limit":           {apart: 10, wrong: true},
		"while something else goes": {apart: 20, also: []event{{at: 25 * time.Second, kind: cutLink, node: 1, peer: 2, lasts: time.Second}}},
		"among new witnesses":       {apart: 20, at: time.Second},
		"just after something else": {apart: 20, also: []event{{at: 19 * time.Second, kind: freeze, node: 1, lasts: 100 * time.Millisecond}}},
	} {
		t.Run(name, func(t *testing.T) {
			k := &keyRun{plan: &plan{name: "made-up", limits: []peerlimit.Limit{l}, use: cold}, name: "key"}
			r := &Run{s: &Schedule{nodes: 3, seed: 1}, keys: []*keyRun{k}, began: time.Now(), wrong: make(map[string]*wrong)}
			parted := parted
			parted.at = cmp.Or(c.at, parted.at)
			r.happened = append([]event{parted}, c.also...)
			for node, rate := range []float64{c.apart, 20} {
				for at := parted.at + time.Second; at < parted.end(); at += time.Duration(float64(time.Second) / rate) {
					r.calls = append(r.calls, call{start: at, end: at, key: k, node: node, cost: 1, admitted: true})
				}
			}
			r.judgeSplit(parted, k, l)
			assert.Equal(t, c.wrong, len(r.wrong) > 0, "%v", r.wrong)
		})
	}
}

// The bursts of the plan for small ones reach from half a token to two for each member.
func TestSmallBurstsAreDrawn(t *testing.T) {
	below, whole, between, above := 0, 0, 0, 0
	for seed := uint64(1); seed <= 1000; seed++ {
		nodes := 2 + int(seed%6)
		p := fewPlan(seed, nodes)
		burst := p.limits[0].Burst
		assert.NoError(t, p.limits[0].Validate())
		assert.True(t, burst >= 0.5 && burst <= 2*float64(nodes) || burst < 3.5, burst)
		assert.Positive(t, p.pause)
		switch {
		case burst < 1:
			below++
		case burst >= float64(nodes):
			above++
		case burst == float64(int(burst)):
			whole++
		default:
			between++
		}
	}
	for _, count := range []int{below, whole, between, above} {
		assert.Greater(t, count, 50)
	}
}

// What is wrong is named, with the seed, the schedule and a timeline that is not too long.
func TestFailuresAreReported(t *testing.T) {
	r, k := madeUp()
	r.judge()
	r.saw("errors", nil, "of %s", "some kind")
	r.s.events = []event{{at: time.Second, kind: leave, node: 1}}
	r.note("something was done")
	for i := range 500 {
		at := r.began.Add(time.Duration(i) * 30 * time.Millisecond)
		r.noted = append(r.noted, noted{at: at, node: i % 5, kind: peerlimit.EventMemberFailed, member: fmt.Sprintf("node%d", i)})
	}
	failure := r.Failure()
	for _, part := range []string{
		"-sim.seed=7", "kills, 5 nodes, seed 7", "1.000s leave node1", "OVER THE LIMIT, 1 times", "ERRORS, 1 times", "of some kind",
		"decided in full by node1", "decided in full by node2", "remote at node3", "TOO MANY", "failed node", "* something was done", "left out",
	} {
		assert.Contains(t, failure, part)
	}
	lines := r.timeline(k, k.plan.limits[0], time.Second)
	assert.Len(t, lines, maxTimeline)
	assert.LessOrEqual(t, strings.Count(failure, "\n"), maxTimeline+15)

	good, _ := madeUp()
	good.keys = nil
	good.judge()
	assert.Empty(t, good.Failure())
}
