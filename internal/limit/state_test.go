package limit

import (
	"fmt"
	"math"
	"math/big"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

// logarithmic draws from low to high, every order of magnitude as likely as the next.
func logarithmic(low, high float64) *rapid.Generator[float64] {
	return rapid.Map(rapid.Float64Range(math.Log(low), math.Log(high)), func(e float64) float64 {
		return min(max(math.Exp(e), low), high)
	})
}

// anyLimit draws limits from one token a day to ten million a second, with bursts from half a token to a thousand
// million.
func anyLimit() *rapid.Generator[Limit] {
	return rapid.Custom(func(t *rapid.T) Limit {
		rate := rapid.OneOf(
			logarithmic(1.0/86400, 1e7),
			rapid.SampledFrom([]float64{1.0 / 86400, 1.0 / 60, 1, 3, 10, 1000, 1e7}),
		).Draw(t, "tokens a second")
		period := rapid.OneOf(
			rapid.SampledFrom([]time.Duration{time.Nanosecond, time.Millisecond, time.Second, time.Minute, time.Hour, 24 * time.Hour}),
			rapid.Map(logarithmic(1, 1e18), func(n float64) time.Duration { return time.Duration(n) }),
		).Draw(t, "period")
		burst := rapid.OneOf(
			rapid.SampledFrom([]float64{0, 0.5, 1, 10, 1e9}),
			logarithmic(0.5, 1e9),
		).Draw(t, "burst")
		l := Limit{Tokens: rate * period.Seconds(), Period: period, Burst: burst}
		if rapid.Bool().Draw(t, "leaky") {
			l = leaky(l)
		}
		return l
	})
}

// anyCost draws costs that fit under burst, tiny ones and all of it among them.
func anyCost(burst float64) *rapid.Generator[float64] {
	return rapid.Map(rapid.OneOf(
		logarithmic(1e-9, math.Max(burst, 1e-9)),
		rapid.SampledFrom([]float64{1e-9, 0.1, 1.0 / 3, 1, burst, burst / 2, burst / 3}),
	), func(cost float64) float64 { return math.Min(cost, burst) })
}

// anyStep draws how far the clock moves, in nanoseconds: mostly about as long as cost takes to drain, sometimes not at
// all, back, or ahead by years.
func anyStep(set *Set, cost float64) *rapid.Generator[int64] {
	m := set.Meters[0]
	drains := math.Min(cost*m.period/m.tokens, 1e16)
	return rapid.OneOf(
		rapid.Map(logarithmic(0.01, 100), func(f float64) int64 { return int64(f * drains) }),
		rapid.Map(rapid.Float64Range(0, 2), func(f float64) int64 { return int64(f * drains) }),
		rapid.Int64Range(-int64(time.Hour), int64(time.Hour)),
		rapid.SampledFrom([]int64{0, 0, 1, -1, int64(time.Second), 5 * 365 * 24 * int64(time.Hour)}),
	)
}

// spent is a take that was admitted.
type spent struct {
	at   int64
	cost float64
}

// requireNoWindowExceeds looks at every window of a run in turn: none may have more than the ceiling and what the rate
// adds in that time. Of spending that was put off, the instants are rounded to the nanosecond: grain is 1 for those.
func requireNoWindowExceeds(t require.TestingT, l Limit, run []spent, grain int64) {
	ceiling, rate := exactCeiling(l), exactRate(l)
	for first := range run {
		sum := new(big.Rat)
		for last := first; last < len(run); last++ {
			require.LessOrEqual(t, run[first].at, run[last].at, "not in order")
			sum.Add(sum, exact(run[last].cost))
			allowed := new(big.Rat).SetInt64(run[last].at - run[first].at + grain)
			allowed.Mul(allowed, rate).Add(allowed, ceiling)
			require.LessOrEqual(t, sum.Cmp(allowed), 0, "%v: %v tokens from %v to %v", l, sum.FloatString(12),
				time.Duration(run[first].at), time.Duration(run[last].at))
		}
	}
}

// The state must decide as the exact model does: one limit or several, all or nothing, whatever the clock does.
func TestStateMatchesTheExactModel(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		limits := rapid.SliceOfN(anyLimit(), 1, 3).Draw(t, "limits")
		set := NewSet(limits)
		now := rapid.Int64Range(0, math.MaxInt64/8).Draw(t, "start")
		j := newJudge(t, set, now)
		var run []spent
		latest := now
		for range rapid.IntRange(1, 60).Draw(t, "steps") {
			cost := anyCost(set.SmallestBurst()).Draw(t, "cost")
			now = max(0, now+anyStep(set, cost).Draw(t, "step"))
			if now > math.MaxInt64/2 {
				break // the clock of the test ends here, after centuries
			}
			switch rapid.IntRange(0, 9).Draw(t, "operation") {
			case 0:
				j.peek(set, now)
			case 1: // as much as there is
				if left := j.state.Peek(set, now).Remaining; left > 0 && set.Fits(left) {
					cost = left
				}
				fallthrough
			default:
				if j.take(set, cost, now).Allowed {
					latest = max(latest, now)
					run = append(run, spent{at: latest, cost: cost})
				}
			}
		}
		for _, l := range limits {
			requireNoWindowExceeds(t, l, run, 0)
		}
	})
}

// What most takes are decided by decides as what all others are decided by, to the last bit.
func TestTakeOne(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		set := NewSet([]Limit{anyLimit().Draw(t, "limit")})
		now := rapid.Int64Range(0, math.MaxInt64/8).Draw(t, "start")
		fast, general := NewState(set, now), NewState(set, now)
		for range rapid.IntRange(1, 60).Draw(t, "steps") {
			a := Request{Set: set, Cost: anyCost(set.SmallestBurst()).Draw(t, "cost")}
			now = min(max(0, now+anyStep(set, a.Cost).Draw(t, "step")), math.MaxInt64/2)
			var d Decision
			ok := fast.takeOne(&d, a.Cost, now)
			v := general.examine(&a, now)
			require.Equal(t, v.allowed, ok)
			if ok {
				general.charge(a.Cost, &v, now)
				require.Equal(t, general.admission(&a, a.Cost, &v), d)
			}
			require.Equal(t, general, fast)
		}
	})
}

// Refunds let no level fall below the exact one either.
func TestRefundMatchesTheExactModel(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		set := NewSet(rapid.SliceOfN(anyLimit(), 1, 3).Draw(t, "limits"))
		now := int64(0)
		j := newJudge(t, set, now)
		for range rapid.IntRange(1, 40).Draw(t, "steps") {
			cost := anyCost(set.SmallestBurst()).Draw(t, "cost")
			now = min(max(0, now+anyStep(set, cost).Draw(t, "step")), math.MaxInt64/2)
			if rapid.Bool().Draw(t, "refund") {
				j.refund(set, cost, now)
			} else {
				j.take(set, cost, now)
			}
		}
	})
}

// A caller that takes whatever it gets must get all there is, with steady steps and at any rate.
func TestNeverStarved(t *testing.T) {
	const steps, longest = 20_000, 1e9 // seconds: some thirty years
	for _, rate := range []float64{1.0 / 86400, 1.0 / 7, 0.3, 1, 10, 1000, 1e6 / 3, 1e7} {
		for _, burst := range []float64{0.5, 1, 10, 1e4, 1e9} {
			for _, algorithm := range []Algorithm{TokenBucket, LeakyBucket} {
				l := withBurst(perSecond(rate), burst)
				l.Algorithm = algorithm
				t.Run(fmt.Sprintf("%v", l), func(t *testing.T) {
					const takeEvery = 7 // steps: not a divisor of anything
					cost := math.Min(burst/20, rate*longest/steps*takeEvery)
					step := int64(math.Max(1, cost/rate*1e9/takeEvery))
					set := NewSet([]Limit{l})
					s := NewState(set, 0)
					require.True(t, s.Decide(&Request{Set: set, Cost: burst}, 0).Allowed)
					now, admitted := int64(0), burst
					for range steps {
						for s.Decide(&Request{Set: set, Cost: cost}, now).Allowed {
							admitted += cost
						}
						now += step
					}
					assert.GreaterOrEqual(t, admitted, 0.999*(burst+rate*float64(now)/1e9))
				})
			}
		}
	}
}

// A small cost on a large level is below what a float64 can tell apart: it must be overcharged, not given away.
func TestTinyCostsOnALargeLevelAreNotFree(t *testing.T) {
	set := NewSet([]Limit{withBurst(per(1, 24*time.Hour), 1e9)})
	s := NewState(set, 0)
	require.True(t, s.Decide(&Request{Set: set, Cost: 1e9 - 1e-3}, 0).Allowed)
	admitted := 0
	for s.Decide(&Request{Set: set, Cost: 1e-9}, 0).Allowed {
		admitted++
		require.Less(t, admitted, 1_000_000, "no end")
	}
	assert.Positive(t, admitted)
}

func TestExactResultsStayExact(t *testing.T) {
	set := NewSet([]Limit{perSecond(10)})
	s := NewState(set, 0)
	require.True(t, s.Decide(&Request{Set: set, Cost: 10}, 0).Allowed)
	assert.Equal(t, 0.0, s.Peek(set, 0).Remaining)
	assert.Equal(t, 100*time.Millisecond, s.Peek(set, 0).RetryAfter)
	assert.Equal(t, time.Second, s.Peek(set, 0).ResetAfter)
	assert.Equal(t, 5.0, s.Peek(set, int64(500*time.Millisecond)).Remaining)
	assert.Equal(t, 10.0, s.Peek(set, int64(time.Second)).Remaining)
	assert.Equal(t, 10.0, s.Peek(set, int64(time.Hour)).Remaining, "never more than the burst")
	assert.False(t, s.Drained(int64(time.Second)-1))
	assert.True(t, s.Drained(int64(time.Second)))
	assert.Equal(t, 750*time.Millisecond, s.FullIn(int64(250*time.Millisecond)))
}

func TestFractionsAddUpToTheBurst(t *testing.T) {
	tests := []struct {
		burst, cost float64
		passes      int
	}{
		{1, 0.1, 10},
		{1, 1.0 / 3, 3},
		{1, 1.0 / 7, 7},
		{0.5, 0.1, 5},
		{0.3, 0.1, 3},
		{10, 0.1, 100},
		{100, 0.01, 10000},
		{1e9, 1e5, 10000},
	}
	for _, test := range tests {
		t.Run(fmt.Sprintf("%v of %v", test.cost, test.burst), func(t *testing.T) {
			set := NewSet([]Limit{withBurst(perHour(1), test.burst)})
			s := NewState(set, 0)
			passed := 0
			for s.Decide(&Request{Set: set, Cost: test.cost}, 0).Allowed {
				passed++
			}
			assert.Equal(t, test.passes, passed)
		})
	}
}

// A counter that starts again every minute would let both hundreds pass.
func TestNoFixedWindowFlaw(t *testing.T) {
	set := NewSet([]Limit{perMinute(100)})
	s := NewState(set, 0)
	take := func(now time.Duration) (admitted int) {
		for range 100 {
			if s.Decide(&Request{Set: set, Cost: 1}, int64(now)).Allowed {
				admitted++
			}
		}
		return admitted
	}
	assert.Equal(t, 100, take(time.Minute-10*time.Millisecond), "just before the end of a minute")
	assert.Zero(t, take(time.Minute+10*time.Millisecond), "just after the end of that minute")
	assert.Equal(t, 50, take(time.Minute+30*time.Second), "half a minute later")
}

// All limits or none: the strictest decides, and a denial costs nothing under the others.
func TestSeveralLimits(t *testing.T) {
	second, minute := perSecond(10), perMinute(30)
	set := NewSet([]Limit{second, minute})
	s := NewState(set, 0)
	take := func(cost float64, now time.Duration) Decision {
		return s.Decide(&Request{Set: set, Cost: cost}, int64(now))
	}

	d := take(10, 0)
	assert.True(t, d.Allowed)
	assert.Equal(t, second, d.Limit, "nothing is left of it")
	assert.Equal(t, 20*time.Second, d.ResetAfter, "the slower one is full again last")

	d = take(5, 0)
	assert.False(t, d.Allowed)
	assert.Equal(t, second, d.Limit)
	assert.Equal(t, 500*time.Millisecond, d.RetryAfter)

	assert.True(t, take(10, time.Second).Allowed)
	d = take(10, 2*time.Second)
	assert.True(t, d.Allowed, "the denied take cost nothing")
	assert.Equal(t, 1.0, d.Remaining+1, "nothing is left under the second")

	d = take(5, 3*time.Second)
	assert.False(t, d.Allowed)
	assert.Equal(t, minute, d.Limit, "the longest wait names the limit")
	assert.Equal(t, 1.5, d.Remaining)
	assert.Equal(t, 7*time.Second, d.RetryAfter)
}

func TestDecisionNamesTheScarcestLimit(t *testing.T) {
	a, b := perSecond(100), perMinute(200)
	set := NewSet([]Limit{a, b})
	s := NewState(set, 0)
	d := s.Decide(&Request{Set: set, Cost: 50}, 0)
	assert.Equal(t, a, d.Limit, "half is left of the first, three quarters of the second")
	assert.Equal(t, 50.0, d.Remaining)
	d = s.Decide(&Request{Set: set, Cost: 50}, int64(time.Second))
	assert.Equal(t, a, d.Limit)
	d = s.Decide(&Request{Set: set, Cost: 50}, int64(2*time.Second))
	assert.Equal(t, b, d.Limit, "now less is left of the second, in proportion")
	assert.InDelta(t, 50+200.0/30, d.Remaining, 1e-9)
}

func TestLeakyBucketPutsRequestsInAQueue(t *testing.T) {
	set := NewSet([]Limit{leaky(withBurst(perSecond(10), 3))})
	s := NewState(set, 0)
	take := func(now time.Duration) Decision { return s.Decide(&Request{Set: set, Cost: 1}, int64(now)) }
	for i := range 3 {
		d := take(0)
		assert.True(t, d.Allowed)
		assert.Equal(t, time.Duration(i)*100*time.Millisecond, d.Delay)
	}
	d := take(0)
	assert.False(t, d.Allowed, "full")
	assert.Equal(t, 100*time.Millisecond, d.RetryAfter)
	assert.Zero(t, d.Delay)

	d = take(150 * time.Millisecond)
	assert.True(t, d.Allowed)
	assert.Equal(t, 150*time.Millisecond, d.Delay)
}

// A clock that goes back must not make RetryAfter a lie: the level drains again only once the clock has caught up.
func TestRetryAfterWhenTheClockWentBack(t *testing.T) {
	set := NewSet([]Limit{perSecond(1)})
	s := NewState(set, 0)
	require.True(t, s.Decide(&Request{Set: set, Cost: 1}, int64(10*time.Second)).Allowed)
	d := s.Decide(&Request{Set: set, Cost: 1}, int64(4*time.Second))
	assert.Equal(t, 7*time.Second, d.RetryAfter)
}

// Limits at the ends of what is valid work like any other: nothing overflows, nothing is NaN, nothing hangs.
func TestExtremeLimits(t *testing.T) {
	for _, tokens := range []float64{MinRate, 1e-9, 1, 1e9, 1e300, math.MaxFloat64} {
		for _, period := range []time.Duration{1, time.Second, 1<<53 + 1, math.MaxInt64} {
			for _, burst := range []float64{0, 1e-280, 0.5, 1e9, 1e300, math.MaxFloat64} {
				l := Limit{Tokens: tokens, Period: period, Burst: burst}
				if l.Problem() != "" {
					continue
				}
				for _, algorithm := range []Algorithm{TokenBucket, LeakyBucket} {
					l.Algorithm = algorithm
					t.Run(fmt.Sprintf("%v", l), func(t *testing.T) { runExtreme(t, l) })
				}
			}
		}
	}
}

func runExtreme(t *testing.T, l Limit) {
	set := NewSet([]Limit{l})
	j := newJudge(t, set, 0)
	costs := []float64{math.SmallestNonzeroFloat64, 1e-9, 1, 1e300, math.MaxFloat64, l.Capacity() / 2, l.Capacity()}
	for _, now := range []int64{0, 1, int64(time.Second), 1<<53 + 1, math.MaxInt64 / 2} {
		for _, cost := range costs {
			if cost > 0 && set.Fits(cost) {
				j.take(set, cost, now)
			}
		}
		j.peek(set, now)
	}
	for _, cost := range costs {
		if cost > 0 {
			j.refund(set, cost, math.MaxInt64/2)
		}
	}
}

// The smallest of all bursts: its thousandth part is zero.
func TestSmallestBurst(t *testing.T) {
	set := NewSet([]Limit{withBurst(perSecond(1), math.SmallestNonzeroFloat64)})
	s := NewState(set, 0)
	a := Request{Set: set, Cost: math.SmallestNonzeroFloat64}
	require.True(t, s.Decide(&a, 0).Allowed)
	d := s.Decide(&a, 0)
	require.False(t, d.Allowed)
	require.Positive(t, d.RetryAfter)
	assert.True(t, s.Decide(&a, int64(d.RetryAfter)).Allowed)
}
