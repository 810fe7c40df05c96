package schedule

import (
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"

	"github.com/peerlimit/peerlimit"
	"github.com/peerlimit/peerlimit/internal/oracle"
)

// What is judged while members change is judged: how much is given out, newcomers, and how many count.

// The time after an event is judged however soon the next one comes. Rolls and loops of crashes kill too few at a time for any exception.
func TestAllChangesAreJudged(t *testing.T) {
	for f := crashRollFamily; f <= churnFamily; f++ {
		events, judged, crowded := 0, 0, 0
		for i := range uint64(100) {
			s := New(f.firstSeed() + i)
			r := &Run{s: s, happened: s.events, stopped: s.lastEnd() + calmFrom + calmFor + time.Second}
			for i, e := range s.events {
				if _, ok := r.calmAt(e, madeUpKey(s)); ok {
					judged++
				}
				if i > 0 && e.at-s.events[i-1].at < calmFrom {
					crowded++
				}
			}
			events += len(s.events)
		}
		if f == churnFamily {
			assert.Greater(t, judged, events*3/4, f)
		} else {
			assert.Equal(t, events, judged, f)
		}
		assert.Greater(t, crowded, events/2, "%v: events that come before the time after the last one", f)
	}
}

// madeUpKey is a saturated key of which nothing was given out.
func madeUpKey(s *Schedule) *keyRun {
	p := &s.plans[0]
	return &keyRun{plan: p, name: p.keys[0], oracles: []*oracle.Oracle{oracleFor(p.limits[0])}}
}

func TestHalvedIsHalfWithinSeconds(t *testing.T) {
	at := func(seconds float64, kind eventKind, node int) event {
		return event{at: time.Duration(seconds * float64(time.Second)), kind: kind, node: node}
	}
	for name, c := range map[string]struct {
		nodes  int
		events []event
		want   bool
	}{
		"nothing":                        {3, nil, false},
		"one of three":                   {3, []event{at(20, kill, 0)}, false},
		"one of two":                     {2, []event{at(20, kill, 0)}, true},
		"two of three, at once":          {3, []event{at(20, kill, 0), at(22.9, kill, 1)}, true},
		"two of three, one by one":       {3, []event{at(20, kill, 0), at(21, join, 3), at(25, kill, 1)}, false},
		"the second when none has come":  {3, []event{at(20, kill, 0), at(25, kill, 1)}, true},
		"two of five":                    {5, []event{at(20, kill, 0), at(21, kill, 1)}, false},
		"two of four":                    {4, []event{at(20, kill, 0), at(21, kill, 1)}, true},
		"two of five of which one left":  {5, []event{at(10, leave, 4), at(20, kill, 0), at(21, kill, 1)}, true},
		"one of three of which two left": {3, []event{at(10, leave, 0), at(11, leave, 1), at(20, kill, 2)}, true},
		"long ago":                       {2, []event{at(1, join, 2), at(1.5, kill, 0), at(1.6, kill, 1), at(2, join, 3)}, false},
		"later":                          {2, []event{at(150, kill, 0)}, false},
	} {
		t.Run(name, func(t *testing.T) {
			r := &Run{s: &Schedule{nodes: c.nodes}, happened: c.events}
			assert.Equal(t, c.want, r.halved(85*time.Second, 100*time.Second))
		})
	}
}

// Of 10 a second, 8.9 are too few and 9.1 are not, though another event comes every 5 seconds; unless half were gone.
func TestHowMuchIsGivenOutIsJudged(t *testing.T) {
	for name, c := range map[string]struct {
		rate  float64
		gone  bool
		wrong bool
	}{
		"enough": {rate: 9.1}, "too little": {rate: 8.9, wrong: true}, "half were gone": {rate: 3, gone: true},
	} {
		t.Run(name, func(t *testing.T) {
			s := &Schedule{family: crashRollFamily, nodes: 3}
			s.plans = changePlans(s)
			k := madeUpKey(s)
			r := &Run{s: s, keys: []*keyRun{k}, stopped: time.Minute, wrong: make(map[string]*wrong)}
			for i := range 12 {
				kind := []eventKind{kill, join}[i%2]
				r.happened = append(r.happened, event{at: time.Duration(5*i) * time.Second, kind: kind, node: i})
			}
			if c.gone {
				r.happened = append([]event{{kind: kill, node: 1}}, r.happened...)
			}
			for at := time.Duration(0); at < time.Minute; at += time.Duration(float64(time.Second) / c.rate) {
				k.oracles[0].Admit(oracle.Take{Start: at, End: at, Cost: 1})
			}
			r.judgeChanges()
			assert.Equal(t, c.wrong, r.wrong["much of a limit is lost"] != nil, "%v", r.wrong)
			assert.Len(t, r.wrong, map[bool]int{true: 1}[c.wrong])
		})
	}
}

// A newcomer that did not come to hold what is its own is a failure, unless it had no time, or could not.
func TestNewcomersAreJudged(t *testing.T) {
	parted := event{at: time.Minute, kind: split, sides: [][]int{{0, 5}, {1, 2, 3, 4, 6}}, lasts: 30 * time.Second}
	elsewhere := event{at: 50 * time.Second, kind: split, sides: [][]int{{1}, {0, 2, 3, 4}}, lasts: 9 * time.Second}
	for name, c := range map[string]struct {
		node         int
		since, ready time.Duration
		gone         bool
		happened     []event
		wrong        bool
	}{
		"ready":                         {node: 6, since: time.Second, ready: 2 * time.Second},
		"not ready":                     {node: 6, since: time.Second, wrong: true},
		"it was killed":                 {node: 6, since: time.Second, gone: true},
		"on the larger side":            {node: 6, since: 65 * time.Second, happened: []event{parted}, wrong: true},
		"on the smaller side":           {node: 5, since: 65 * time.Second, happened: []event{parted}},
		"as soon as it is split":        {node: 6, since: 61 * time.Second, happened: []event{parted}},
		"as soon as it was split again": {node: 6, since: 65 * time.Second, happened: []event{elsewhere, parted}},
		"when half are gone": {node: 6, since: 65 * time.Second, happened: []event{
			{at: time.Minute, kind: kill, node: 0}, {at: 61 * time.Second, kind: kill, node: 1}, {at: 62 * time.Second, kind: kill, node: 2},
		}},
	} {
		t.Run(name, func(t *testing.T) {
			r := &Run{s: &Schedule{family: newcomersFamily, nodes: 5, events: c.happened}, happened: c.happened, wrong: make(map[string]*wrong)}
			r.s.events = append(r.s.events, event{at: c.since, kind: join, node: c.node})
			r.joiners = []joiner{{node: &nodeRun{number: c.node, since: c.since}, ready: c.ready, gone: c.gone}}
			r.judgeChanges()
			assert.Equal(t, c.wrong, len(r.wrong) > 0, "%v", r.wrong)
		})
	}
}

// A node may count those that live, and one that has ended for ten seconds more.
func TestTheDeadMayCountForSomeSeconds(t *testing.T) {
	for name, c := range map[string]struct {
		ago   time.Duration
		may   int
		wrong bool
	}{
		"just now": {time.Second, 5, false}, "a while ago": {deadCount, 5, false}, "long ago": {deadCount + time.Second, 4, true},
	} {
		t.Run(name, func(t *testing.T) {
			killed := event{at: time.Second, kind: kill, node: 1}
			r := &Run{s: &Schedule{nodes: 4}, began: time.Now().Add(-time.Minute), wrong: make(map[string]*wrong)}
			r.happened = []event{killed, {at: 2 * time.Second, kind: join, node: 4}}
			for i := range 5 {
				n := &nodeRun{number: i}
				if i == killed.node {
					n.going.Store(true)
					n.ended.Store(int64(time.Minute - c.ago))
				}
				r.nodes = append(r.nodes, n)
			}
			counts := r.countOnce()
			assert.Len(t, counts, 4)
			for i := range counts {
				assert.Equal(t, c.may, counts[i].may)
				counts[i].counts = 5
			}
			r.counts = counts
			r.judgeChanges()
			assert.Equal(t, c.wrong, r.wrong["the dead still count"] != nil)
		})
	}
}

// Members that are cut off decide by shares of as many as they have ever met, newcomers of theirs as well: 1/N each.
func TestSharesOfNewcomers(t *testing.T) {
	joins := []event{{at: 21 * time.Second, kind: join, node: 5}, {at: 22 * time.Second, kind: join, node: 6}}
	before := []event{{at: 15 * time.Second, kind: split, sides: [][]int{{0, 1}, {2, 3, 4}}}}
	for name, c := range map[string]struct {
		sides          [][]int
		before         []event
		part           float64
		apart, members int
	}{
		"no newcomers":                {[][]int{{0, 1}, {2, 3, 4}}, nil, 2.0 / 5, 2, 5},
		"of the smaller side":         {[][]int{{0, 1, 5, 6}, {2, 3, 4}}, nil, 2.0/5 + 1.0/6 + 1.0/7, 4, 7},
		"of the larger side":          {[][]int{{0, 1}, {2, 3, 4, 5, 6}}, nil, 2.0 / 5, 2, 5},
		"of each side":                {[][]int{{0, 1, 5}, {2, 3, 4, 6}}, nil, 2.0/5 + 1.0/6, 3, 6},
		"of one of two halves":        {[][]int{{0, 1, 5}, {2, 3}}, nil, 1.0/2 + 1.0/5, 3, 5},
		"of a side that may have won": {[][]int{{0, 5}, {1, 2, 3, 4}}, before, 4.0/5 + 1.0/6, 5, 6},
		"never more than a limit":     {[][]int{{0, 5, 6}, {1, 2, 3, 4}}, before, 1, 6, 7},
	} {
		t.Run(name, func(t *testing.T) {
			e := event{at: 20 * time.Second, kind: split, sides: c.sides, lasts: 20 * time.Second}
			s := &Schedule{family: newcomersFamily, nodes: 5, events: slices.Concat(c.before, []event{e}, joins)}
			part, apart, members := s.parted(e)
			assert.InDelta(t, c.part, part, 1e-9)
			assert.Equal(t, []int{c.apart, c.members}, []int{apart, members})
			assert.False(t, s.foundsApart(e))

			p := newPlan("made-up", cold, 1, 1, time.Second, peerlimit.PerSecond(1).WithBurst(10))
			r := &Run{s: s, happened: []event{e}}
			want := part * (10 + e.lasts.Seconds() + rejoin.Seconds())
			if len(c.before) > 0 || !s.hasMajority(e) {
				want += 10 + quorumLasts.Seconds()
			}
			assert.InDelta(t, want, r.allowance(&keyRun{plan: &p}, p.limits[0]), 1e-9)
		})
	}
}

// Of two clusters that were founded apart each has a limit of its own, until they have met.
func TestFoundedApart(t *testing.T) {
	e := event{at: time.Second, kind: split, sides: [][]int{{0, 1}, {2, 3}}, lasts: 20 * time.Second}
	s := &Schedule{family: newcomersFamily, nodes: 2, events: []event{
		e, {at: 2 * time.Second, kind: join, node: 2}, {at: 3 * time.Second, kind: join, node: 3},
	}}
	assert.True(t, s.foundsApart(e))
	assert.Equal(t, []int{0, 1}, s.cutOffAt(2, 2*time.Second))
	assert.Equal(t, []int{2}, s.cutOffAt(0, 2*time.Second), "node 3 has not started")
	assert.Empty(t, s.cutOffAt(2, 21*time.Second))
	assert.False(t, s.unmet(0))
	assert.True(t, s.unmet(30*time.Second))
	assert.False(t, s.unmet(32*time.Second))
	p := newPlan("made-up", cold, 1, 1, time.Second, peerlimit.PerSecond(1).WithBurst(10))
	r := &Run{s: s, happened: []event{e}}
	assert.InDelta(t, 10+20+rejoin.Seconds(), r.allowance(&keyRun{plan: &p}, p.limits[0]), 1e-9)
}
