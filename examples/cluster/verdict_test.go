package main

import (
	"cmp"
	"errors"
	"maps"
	"math"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/peerlimit/peerlimit"
)

// The runs below have a limit of 10 per second with bursts of 5, and last 10 s.
const (
	testRate  = 10
	testBurst = 5
	testRun   = 10 * time.Second
)

var testLimit = peerlimit.PerSecond(testRate).WithBurst(testBurst)

// testKey is what the tests are about. The other keys are served as they should be.
const testKey = "alice"

// testCase is a run in which the key first gets its burst and then its rate, evenly, but for what is said.
type testCase struct {
	name  string
	done  []disturbance
	add   map[time.Duration]int // admitted beyond it, at these instants
	skip  func(at time.Duration) bool
	hush  func(at time.Duration) bool // when nothing was asked for, or answered
	share map[time.Duration]int       // admitted by node-1's share, at these instants; 0: denied
	by    string                      // the origin of that; empty: fallback
	told  reports                     // of the nodes, in which node-2 is the owner
	wrong string                      // a part of what the verdict must complain about; empty: it holds
}

func at(seconds float64) time.Duration { return time.Duration(seconds * float64(time.Second)) }

// testUnsent is what a crash may cost the key in these tests.
const testUnsent = 2

// disturb returns a disturbance that takes the key from its owner, or does not.
func disturb(kind disturbanceKind, from, until float64, moves bool) disturbance {
	d := disturbance{Kind: kind, Node: "node-1", At: at(from), Gone: at(from), Until: at(until), Done: true}
	d.Apart, d.Of = 1, 4
	d.Moved = map[string]move{"bob": {}}
	if moves {
		d.Moved[testKey] = move{From: "node-1", To: "node-2"}
		if kind.isSudden() {
			d.Moved[testKey] = move{From: "node-1", To: "node-2", Resumed: at(until), Unsent: testUnsent}
		}
	}
	return d
}

// stranded and withStandby make it one after which nobody has a majority, or one that took the key's standby as well.
func stranded(d disturbance) disturbance {
	d.Stranded = true
	return d
}

func withStandby(d disturbance) disturbance {
	d.StandbyToo = map[string]bool{testKey: true}
	return d
}

// inBursts says when a load is silent that asks for a lot in the first and the last tenth of each second.
func inBursts(at time.Duration) bool {
	at %= time.Second
	return at > 100*time.Millisecond && at < 900*time.Millisecond
}

// eachSecond is so many more in each second of a run.
func eachSecond(at time.Duration, more int) map[time.Duration]int {
	added := make(map[time.Duration]int)
	for ; at < testRun; at += time.Second {
		added[at] = more
	}
	return added
}

var testCases = slices.Concat(doneCases, toldCases)

// doneCases are about what the demo does to nodes; toldCases, in degraded_test.go, about what nodes report.
var doneCases = []testCase{
	{name: "exactly the limit"},
	{name: "one more at once", add: map[time.Duration]int{at(0): 1}, wrong: "1.0 more admitted than allowed"},
	{name: "one more later", add: map[time.Duration]int{at(6): 1}, wrong: "1.0 more admitted"},
	{
		name: "a window, though not the whole run", add: map[time.Duration]int{at(8): 20},
		skip: func(at time.Duration) bool { return at < 4*time.Second }, wrong: "more admitted",
	},
	{
		name: "what a crash allows: what it made the others forget",
		done: []disturbance{disturb(killed, 4, 5, true)}, add: map[time.Duration]int{at(4.5): 2},
	},
	{
		name: "one more than a crash allows",
		done: []disturbance{disturb(killed, 4, 5, true)}, add: map[time.Duration]int{at(4.5): 3}, wrong: "1.0 more",
	},
	{
		name: "what a crash allows, but not when it happened",
		done: []disturbance{disturb(killed, 4, 5, true)}, add: map[time.Duration]int{at(2): 2}, wrong: "2.0 more",
	},
	{
		name: "more than a burst after a crash was over",
		done: []disturbance{disturb(killed, 4, 5, true)}, add: map[time.Duration]int{at(7): 8}, wrong: "6.0 more",
	},
	{
		name: "more than a burst after a crash that used little of its allowance",
		done: []disturbance{disturb(killed, 3, 6, true)},
		add:  map[time.Duration]int{at(5.5): 1, at(8): 8}, wrong: "7.0 more",
	},
	{
		name: "a crash that did not concern the key",
		done: []disturbance{disturb(killed, 4, 5, false)}, add: map[time.Duration]int{at(4.5): 1}, wrong: "1.0 more",
	},
	{
		name: "exactly the limit, through a join and a leave",
		done: []disturbance{disturb(started, 4, 4.5, true), disturb(retired, 6, 6.5, true)},
	},
	{
		name: "a join allows nothing",
		done: []disturbance{disturb(started, 4, 4.5, true)}, add: map[time.Duration]int{at(4.2): 1}, wrong: "1.0 more",
	},
	{
		name: "a leave allows nothing",
		done: []disturbance{disturb(retired, 4, 4.5, true)}, add: map[time.Duration]int{at(4.2): 1}, wrong: "1.0 more",
	},
	{
		name: "allowances add up in windows that have both",
		done: []disturbance{disturb(killed, 3, 4, true), disturb(killed, 6, 6.5, true)},
		add:  map[time.Duration]int{at(3.5): 2, at(6.2): 2},
	},
	{
		name: "allowances do not lend to each other",
		done: []disturbance{disturb(killed, 3, 4, true), disturb(killed, 6, 6.5, true)},
		add:  map[time.Duration]int{at(3.5): 3, at(6.2): 1}, wrong: "1.0 more",
	},
	{
		name: "allowances of events that overlap",
		done: []disturbance{disturb(killed, 3, 6, true), disturb(killed, 5, 6, true)},
		add:  map[time.Duration]int{at(5.5): 4},
	},
	{
		name: "more than events that overlap allow",
		done: []disturbance{disturb(killed, 3, 6, true), disturb(killed, 5, 6, true), disturb(started, 5, 6, true)},
		add:  map[time.Duration]int{at(5.5): 5}, wrong: "1.0 more",
	},
	{
		name: "what a freeze allows: what it made the others forget",
		done: []disturbance{disturb(frozen, 4, 5, true)}, add: map[time.Duration]int{at(4.5): 2},
	},
	{
		name: "a wake-up allows the sleeper its share, 1 of 4 of 5 + 10 tokens",
		done: []disturbance{disturb(woken, 4, 5, false)}, add: map[time.Duration]int{at(4.5): 3},
	},
	{
		name: "more than a share after a wake-up",
		done: []disturbance{disturb(woken, 4, 5, false)}, add: map[time.Duration]int{at(4.5): 4}, wrong: "0.2 more",
	},
	{
		name: "a split allows those apart their shares, 1 of 4 of 5 + 20 tokens, and what the owner knew alone",
		done: []disturbance{disturb(split, 4, 6, true)}, add: map[time.Duration]int{at(4.5): 2, at(5.5): 6},
	},
	{
		name: "more than the shares in a split",
		done: []disturbance{disturb(split, 4, 6, true)}, add: map[time.Duration]int{at(4.5): 2, at(5.5): 7}, wrong: "0.8 more",
	},
	{
		name: "without a majority less than the limit once more, 5 + 20 tokens",
		done: []disturbance{stranded(disturb(killed, 4, 6, false))}, add: map[time.Duration]int{at(5): 25},
	},
	{
		name: "more than that",
		done: []disturbance{stranded(disturb(killed, 4, 6, false))}, add: map[time.Duration]int{at(5): 26}, wrong: "1.0 more",
	},
	{
		name: "owner and standby together may lose all that was spent: a burst",
		done: []disturbance{withStandby(disturb(killed, 4, 5, true))}, add: map[time.Duration]int{at(4.5): 2 + testBurst},
	},
	{
		name: "more than a burst by owner and standby",
		done: []disturbance{withStandby(disturb(killed, 4, 5, true))}, add: map[time.Duration]int{at(4.5): 3 + testBurst}, wrong: "1.0 more",
	},
	{
		name:  "starved",
		skip:  func(at time.Duration) bool { return at > 3*time.Second && at < 6*time.Second },
		wrong: "undisturbed seconds",
	},
	{
		name:  "starved by a seventh, hidden by the burst",
		skip:  func(at time.Duration) bool { return at/(time.Second/testRate)%7 == 0 },
		wrong: "only 77 admitted in 9 undisturbed seconds",
	},
	{
		name: "asked for more than a burst at a time, and then not for long enough",
		hush: inBursts, add: eachSecond(at(0.9), testBurst-1),
	},
	{
		name: "starved, and asked for a burst at a time",
		hush: inBursts, add: eachSecond(at(0.9), 1), wrong: "undisturbed seconds",
	},
	{
		name: "starved while a crash was dealt with",
		done: []disturbance{disturb(killed, 3, 6, true)},
		skip: func(at time.Duration) bool { return at > 3*time.Second && at < 6*time.Second },
	},
	{
		name: "starved while a join was dealt with",
		done: []disturbance{disturb(started, 3, 6, true)}, wrong: "undisturbed seconds",
		skip: func(at time.Duration) bool { return at > 3*time.Second && at < 6*time.Second },
	},
	{
		name: "starved while a crash of others was dealt with",
		done: []disturbance{disturb(killed, 3, 6, false)}, wrong: "undisturbed seconds",
		skip: func(at time.Duration) bool { return at > 3*time.Second && at < 6*time.Second },
	},
}

// recorded returns a recorder of the case.
func (c testCase) recorded() *recorder {
	r := newRecorder(testLimit)
	admit := func(key string, at time.Duration) {
		r.add(call{key: key, node: "node-2", start: at, end: at, admitted: true, origin: "local"})
	}
	for _, key := range keyNames() {
		for range testBurst {
			admit(key, 0)
		}
		// The k-th token after the burst is there k/R after the beginning.
		for k := 1; k <= int(testRate*testRun.Seconds()); k++ {
			at := time.Duration(k) * time.Second / testRate
			if key == testKey && c.hush != nil && c.hush(at) {
				r.add(call{key: key, node: "node-1", start: at, end: at, err: errors.New("EOF"), cutOff: true})
				continue
			}
			if key != testKey || c.skip == nil || !c.skip(at) {
				admit(key, at)
			}
			for range 4 {
				r.add(call{key: key, node: "node-2", start: at, end: at, origin: "local"}) // denied
			}
		}
	}
	origin := cmp.Or(c.by, peerlimit.OriginFallback.String())
	for at, n := range c.share {
		shared := call{key: testKey, node: "node-1", start: at, end: at, origin: origin, admitted: n > 0}
		for range max(n, 1) {
			r.add(shared)
		}
	}
	for at, n := range c.add {
		for range n {
			admit(testKey, at)
		}
	}
	return r
}

func (c testCase) evidence() evidence {
	return evidence{limit: testLimit, to: testRun, disturbances: c.done, recorder: c.recorded(), reports: c.told}
}

func TestJudge(t *testing.T) {
	for _, c := range testCases {
		t.Run(c.name, func(t *testing.T) {
			v := judge(c.evidence())
			require.Equal(t, testKey, v.Keys[0].Key)
			assert.Equal(t, c.wrong == "", v.held())
			if c.wrong == "" {
				assert.Empty(t, v.Keys[0].Problems)
			} else {
				require.NotEmpty(t, v.Keys[0].Problems)
				assert.Contains(t, v.Keys[0].Problems[0], c.wrong)
			}
			for _, other := range v.Keys[1:] {
				assert.Empty(t, other.Problems, other.Key)
			}
		})
	}
}

func TestVerdictSaysHowTheNumbersCome(t *testing.T) {
	c := testCase{
		done: []disturbance{disturb(killed, 3, 4, true), disturb(retired, 6, 6.5, true)},
		add:  map[time.Duration]int{at(3.5): 1},
	}
	v := judge(c.evidence())

	k := v.Keys[0]
	assert.Equal(t, 106.0, k.Run.Admitted)
	assert.Equal(t, 105.0, k.Run.Bound)
	assert.Equal(t, 2.0, k.Run.Extra)
	assert.Equal(t, 1.0, k.Worst.Admitted-k.Worst.Bound)
	require.Len(t, v.Extras, 1) // for bob, whose owner has failed too, nothing was admitted so shortly before
	assert.Equal(t, testKey, v.Extras[0].Key)
	assert.Equal(t, []term{{2, "admitted within 20 ms before it"}}, v.Extras[0].Terms)
}

func TestCrashAllowsWhatItCanHaveMadeForgotten(t *testing.T) {
	r := newRecorder(testLimit)
	for _, c := range []call{
		{start: at(1), end: at(3.9), admitted: true},     // was decided, and sent, before
		{start: at(1), end: at(3.98), admitted: true},    // may have been decided last
		{start: at(3.99), end: at(4), admitted: true},    // was
		{start: at(3.99), end: at(4)},                    // was denied
		{start: at(4.01), end: at(4.02), admitted: true}, // in the moment in which the process ended
		{start: at(4.1), end: at(4.2), admitted: true},   // another node decided
		{key: "bob", start: at(4), end: at(4), admitted: true},
	} {
		if c.key == "" {
			c.key = testKey
		}
		r.add(c)
	}
	assert.Equal(t, 3, r.admittedIn(testKey, at(4)-replicaInterval, at(4.05)))
}

// After a kill, what a standby lets through does not mean that there is an owner again.
func TestOwnerIsThereWhenItAdmits(t *testing.T) {
	r := newRecorder(testLimit)
	assert.Equal(t, never, r.resumed(testKey, 0))
	for seconds, origin := range map[float64]string{1: "local", 2.5: "standby", 2.6: "fallback", 2.9: "remote", 3: "local"} {
		r.add(call{key: testKey, start: at(seconds), end: at(seconds), admitted: true, origin: origin})
	}
	assert.Equal(t, at(2.9), r.resumed(testKey, at(2)))
}

func TestFailuresBreakTheVerdict(t *testing.T) {
	e := testCase{}.evidence()
	e.recorder.add(call{key: testKey, node: "node-2", start: at(10), end: at(10), err: errors.New("status 500")})
	v := judge(e)
	assert.False(t, v.held())
	assert.Equal(t, 1, v.Failed)
	assert.Contains(t, v.Problems[1], "status 500")

	e = testCase{}.evidence()
	e.recorder.add(call{key: testKey, node: "node-2", start: at(10), end: at(10), err: errors.New("EOF"), cutOff: true})
	v = judge(e)
	assert.True(t, v.held())
	assert.Equal(t, 1, v.CutOff)

	e = testCase{}.evidence()
	e.faults = []error{errors.New("node-2 ended by itself")}
	v = judge(e)
	assert.False(t, v.held())
	assert.Equal(t, []string{"node-2 ended by itself"}, v.Problems)
}

func TestNothingAskedForProvesNothing(t *testing.T) {
	e := evidence{limit: testLimit, to: testRun, recorder: newRecorder(testLimit)}
	for _, key := range keyNames() {
		for i := range 10 {
			e.add(call{key: key, node: "node-1", start: at(float64(i)), end: at(float64(i)), admitted: true, origin: "local"})
		}
	}
	v := judge(e)
	assert.False(t, v.held())
	assert.Contains(t, v.Keys[0].Problems[0], "too few requests")
}

// TestNoWindowEscapes compares the search over sets of disturbances with one that looks at every window.
func TestNoWindowEscapes(t *testing.T) {
	for _, c := range testCases {
		t.Run(c.name, func(t *testing.T) {
			e := c.evidence().withReports()
			admitted := make(map[time.Duration]float64) // calls take no time here
			for _, a := range e.admitted[testKey] {
				admitted[a.start]++
			}
			moments := slices.Sorted(maps.Keys(admitted))
			most := math.Inf(-1)
			for i, first := range moments {
				total := 0.0
				for _, last := range moments[i:] {
					total += admitted[last]
					w := span{From: first, To: last, Admitted: total, Bound: allowed(testLimit, last-first)}
					if w.excess() > most { // by how much is allowed beyond it, it can only be less
						most = max(most, e.span(testKey, w).excess())
					}
				}
			}
			worst := e.worst(testKey)
			assert.Equal(t, most > 1e-9, worst.broken())
			if worst.broken() {
				assert.InDelta(t, most, worst.excess(), 1e-9)
			}
		})
	}
}

// A share of less than a token is a whole token, at as many members as there are tokens.
func TestShares(t *testing.T) {
	limit := func(burst float64) peerlimit.Limit { return peerlimit.PerSecond(10).WithBurst(burst) }
	assert.InDelta(t, 2*(50+100)/5.0, shares(limit(50), 10*time.Second, 2, 5), 1e-9)
	assert.InDelta(t, 2*(5+100)/5.0, shares(limit(5), 10*time.Second, 2, 5), 1e-9)
	assert.InDelta(t, 2*(2+100)/5.0+2*0.6, shares(limit(2), 10*time.Second, 2, 5), 1e-9)
	assert.InDelta(t, 2*(1+100)/5.0+0.8, shares(limit(1), 10*time.Second, 2, 5), 1e-9)
}
