package oracle

import (
	"math/big"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

func exact(x float64) *big.Rat { return new(big.Rat).SetFloat64(x) }

// exactInflow is R·w.
func exactInflow(l Limit, w time.Duration) *big.Rat {
	r := new(big.Rat).Mul(exact(l.Tokens), big.NewRat(int64(w), 1))
	return r.Quo(r, big.NewRat(int64(l.Period), 1))
}

// exactExcess is the greatest excess over all windows from a start to an end,
// straight from the definition, in rational numbers.
func exactExcess(l Limit, takes, refunds []Take) *big.Rat {
	worst := new(big.Rat)
	for _, first := range takes {
		for _, last := range takes {
			from, to := first.Start, last.End
			if from > to {
				continue
			}
			excess := new(big.Rat).Neg(exact(l.Burst))
			excess.Sub(excess, exactInflow(l, to-from))
			for _, t := range takes {
				if from <= t.Start && t.End <= to {
					excess.Add(excess, exact(t.Cost))
				}
			}
			for _, t := range refunds {
				if t.Start <= to && from <= t.End {
					excess.Sub(excess, exact(t.Cost))
				}
			}
			if excess.Cmp(worst) > 0 {
				worst = excess
			}
		}
	}
	return worst
}

// drawLimit and drawTakes prefer small numbers, where edges coincide.
func drawLimit(t *rapid.T) Limit {
	return Limit{
		Tokens: rapid.OneOf(rapid.Float64Range(0, 100), rapid.Just(0.0), rapid.Just(1e9)).Draw(t, "tokens"),
		Period: time.Duration(rapid.OneOf(rapid.Int64Range(1, 10), rapid.Just(int64(time.Hour))).Draw(t, "period")),
		Burst:  rapid.Float64Range(0, 10).Draw(t, "burst"),
	}
}

func drawTakes(t *rapid.T, name string, most int) []Take {
	return rapid.SliceOfN(rapid.Custom(func(t *rapid.T) Take {
		start := rapid.Int64Range(-10, 30).Draw(t, "start")
		length := rapid.OneOf(rapid.Just(int64(0)), rapid.Int64Range(0, 20)).Draw(t, "length")
		return Take{time.Duration(start), time.Duration(start + length), rapid.Float64Range(0, 10).Draw(t, "cost")}
	}), 0, most).Draw(t, name)
}

func record(l Limit, takes, refunds []Take) *Oracle {
	o := New(l)
	for _, t := range takes {
		o.Admit(t)
	}
	for _, t := range refunds {
		o.Refund(t)
	}
	return o
}

func TestExcessIsThatOfTheDefinition(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		l := drawLimit(t)
		takes, refunds := drawTakes(t, "takes", 20), drawTakes(t, "refunds", 5)
		r := record(l, takes, refunds).Report()
		want, _ := exactExcess(l, takes, refunds).Float64()
		assert.InDelta(t, want, r.Excess, 1e-14*(r.Run.Allowed+r.Run.Admitted))
		if r.Excess > 0 {
			assert.InDelta(t, r.Excess, r.Worst.Admitted-r.Worst.Allowed, 1e-300)
		}
	})
}

// The same for more takes than big.Rat has time for, in integers, which
// float64 adds without rounding.
func TestExcessOfManyTakes(t *testing.T) {
	for seed := range uint64(10) {
		random := rand.New(rand.NewPCG(seed, 0))
		l := Limit{Tokens: float64(random.IntN(3)), Period: 1, Burst: float64(random.IntN(20))}
		draw := func(n int) []Take {
			takes := make([]Take, n)
			for i := range takes {
				start := time.Duration(random.IntN(250))
				takes[i] = Take{start, start + time.Duration(random.IntN(20)), float64(random.IntN(6))}
			}
			return takes
		}
		takes, refunds := draw(120), draw(12)
		worst := 0.0
		for _, first := range takes {
			for _, last := range takes {
				if first.Start <= last.End {
					worst = max(worst, l.window(takes, refunds, first.Start, last.End).Excess())
				}
			}
		}
		assert.Equal(t, worst, record(l, takes, refunds).Report().Excess, "seed %d", seed)
	}
}

// For takes without duration the excess is what an ideal bucket overflows by.
func TestExcessIsTheOverflowOfABucket(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		l := drawLimit(t)
		takes := drawTakes(t, "takes", 50)
		for i := range takes {
			takes[i].End = takes[i].Start
		}
		slices.SortFunc(takes, func(a, b Take) int { return int(a.Start - b.Start) })
		zero, level, overflow := new(big.Rat), new(big.Rat), new(big.Rat)
		for i, take := range takes {
			if i > 0 {
				level.Sub(level, exactInflow(l, take.Start-takes[i-1].Start))
			}
			if level.Cmp(zero) < 0 {
				level.Set(zero)
			}
			level.Add(level, exact(take.Cost))
			if over := new(big.Rat).Sub(level, exact(l.Burst)); over.Cmp(overflow) > 0 {
				overflow = over
			}
		}
		want, _ := overflow.Float64()
		r := record(l, takes, nil).Report()
		assert.InDelta(t, want, r.Excess, 1e-14*(r.Run.Allowed+r.Run.Admitted))
	})
}

// A model limiter decides exactly, at an instant within each call, and some
// calls give tokens back.
type exactBucket struct {
	limit Limit
	level *big.Rat
	at    time.Duration
}

func (b *exactBucket) drain(now time.Duration) {
	b.level.Sub(b.level, exactInflow(b.limit, now-b.at))
	b.at = now
	if b.level.Sign() < 0 {
		b.level.SetInt64(0)
	}
}

func (b *exactBucket) take(now time.Duration, cost float64) bool {
	b.drain(now)
	after := new(big.Rat).Add(b.level, exact(cost))
	if after.Cmp(exact(b.limit.Burst)) > 0 {
		return false
	}
	b.level = after
	return true
}

// refund gives back cost, of which a full bucket has no use.
func (b *exactBucket) refund(now time.Duration, cost float64) {
	b.drain(now)
	b.level.Sub(b.level, exact(cost))
	b.drain(now)
}

// No limiter that keeps to its limit is accused, whatever the calls' durations
// hide, and one with more to give is found out.
func TestAnExactLimiterIsAcquitted(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		l := drawLimit(t)
		bucket := &exactBucket{limit: l, level: new(big.Rat)}
		o := New(l)
		now := time.Duration(0)
		before, after := rapid.Int64Range(0, 5), rapid.Int64Range(0, 5)
		for range rapid.IntRange(1, 60).Draw(t, "calls") {
			now += time.Duration(rapid.Int64Range(0, 3).Draw(t, "pause"))
			call := Take{
				Start: now - time.Duration(before.Draw(t, "before")),
				End:   now + time.Duration(after.Draw(t, "after")),
				Cost:  rapid.Float64Range(0, 10).Draw(t, "cost"),
			}
			if rapid.IntRange(0, 4).Draw(t, "kind") == 0 {
				bucket.refund(now, call.Cost)
				o.Refund(call)
			} else if bucket.take(now, call.Cost) {
				o.Admit(call)
			}
		}
		r := o.Report()
		require.True(t, r.Within(0), "%v", r)
	})
}

func TestAGenerousLimiterIsFoundOut(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		l := Limit{Tokens: 10, Period: time.Second, Burst: rapid.Float64Range(1, 20).Draw(t, "burst")}
		extra := rapid.Float64Range(0.6, 5).Draw(t, "extra")
		generous := l
		generous.Burst += extra
		bucket := &exactBucket{limit: generous, level: new(big.Rat)}
		o := New(l)
		for i := range 200 {
			now := time.Duration(i) * 10 * ms
			for bucket.take(now, 0.5) {
				o.Admit(at(now, 0.5))
			}
		}
		r := o.Report()
		assert.False(t, r.Within(0), "%v", r)
		assert.InDelta(t, extra, r.Excess, 0.5, "all but what one take of 0.5 could not use")
		assert.True(t, r.Within(extra))
		assert.Greater(t, o.Utilization(0, 1990*ms), 0.95)
	})
}

func TestMaxRateIsThatOfTheDefinition(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		l := Limit{Tokens: 1, Period: time.Duration(rapid.Int64Range(1, 30).Draw(t, "period")), Burst: 1}
		takes := drawTakes(t, "takes", 30)
		most := 0.0
		for from := time.Duration(-50); from <= 60; from++ {
			most = max(most, l.window(takes, nil, from, from+l.Period).Admitted)
		}
		r := record(l, takes, nil).Report()
		assert.InEpsilon(t, 1+most/l.Period.Seconds(), 1+r.MaxRate, 1e-12)
	})
}

// Only differences of instants matter.
func TestTheOriginOfTimeDoesNotMatter(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		l := Limit{Tokens: 10, Period: 10, Burst: 5}
		takes, refunds := drawTakes(t, "takes", 10), drawTakes(t, "refunds", 3)
		shift := time.Duration(rapid.Int64Range(-1000, 1000).Draw(t, "shift"))
		o := record(l, takes, refunds)
		for _, calls := range [][]Take{takes, refunds} {
			for i := range calls {
				calls[i].Start += shift
				calls[i].End += shift
			}
		}
		shifted := record(l, takes, refunds)
		assert.InDelta(t, o.Report().Excess, shifted.Report().Excess, 1e-9)
		assert.InDelta(t, o.Report().MaxRate, shifted.Report().MaxRate, 1e-9)
		assert.InDelta(t, 1/(1+o.Utilization(10, 20)), 1/(1+shifted.Utilization(10+shift, 20+shift)), 1e-9)
	})
}

func TestSumKeepsWhatIsSmall(t *testing.T) {
	for _, amounts := range [][]float64{{6, 1e17, 6}, {1e17, 6, 6}, {6, 6, 1e17}} {
		var got sum
		for _, x := range amounts {
			got.add(x)
		}
		assert.Equal(t, 1e17+16, got.value(), "1e17 + 12, to the nearest float64")
	}
}

func TestSumIsExactToTheLastDigit(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var got sum
		want := new(big.Rat)
		for _, x := range rapid.SliceOfN(rapid.Float64Range(0, 1e12), 1, 200).Draw(t, "amounts") {
			got.add(x)
			want.Add(want, exact(x))
		}
		f, _ := want.Float64()
		assert.InDelta(t, f, got.value(), f*0x1p-52)
	})
}
