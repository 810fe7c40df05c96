package limit

import (
	"math"
	"math/big"
	"time"

	"github.com/stretchr/testify/require"
)

// exactModel is what limits mean, in rational numbers: slow, without rounding, and written with no look at the code that
// it judges. Tokens that were taken and have not drained are a level per limit; a take must fit under every burst.
type exactModel struct {
	levels map[exactID]*exactLevel
}

type exactID struct {
	period    time.Duration
	algorithm Algorithm
	ordinal   int
}

type exactLevel struct {
	level *big.Rat
	rate  *big.Rat // tokens per nanosecond
	at    int64
}

func exact(f float64) *big.Rat { return new(big.Rat).SetFloat64(f) }

func exactRate(l Limit) *big.Rat {
	return new(big.Rat).Quo(exact(l.Tokens), new(big.Rat).SetInt64(int64(l.Period)))
}

func exactBurst(l Limit) *big.Rat {
	if l.Burst != 0 {
		return exact(l.Burst)
	}
	return exact(math.Max(1, l.Tokens))
}

// at returns the level at an instant; time that went back drains nothing.
func (e *exactLevel) levelAt(now int64) *big.Rat {
	left := new(big.Rat).Set(e.level)
	if now > e.at {
		left.Sub(left, new(big.Rat).Mul(e.rate, new(big.Rat).SetInt64(now-e.at)))
	}
	if left.Sign() < 0 {
		left.SetInt64(0)
	}
	return left
}

// find returns the levels that belong to limits. What drained until now did so at the rates known before.
func (m *exactModel) find(limits []Limit, now int64) []*exactLevel {
	if m.levels == nil {
		m.levels = make(map[exactID]*exactLevel)
	}
	seen := make(map[exactID]int)
	var found []*exactLevel
	for _, l := range limits {
		kind := exactID{period: l.Period, algorithm: l.Algorithm}
		id := kind
		id.ordinal = seen[kind]
		seen[kind]++
		e := m.levels[id]
		if e == nil {
			e = &exactLevel{level: new(big.Rat), rate: exactRate(l), at: now}
			m.levels[id] = e
		}
		if rate := exactRate(l); rate.Cmp(e.rate) != 0 {
			e.level, e.at, e.rate = e.levelAt(now), max(e.at, now), rate
		}
		found = append(found, e)
	}
	return found
}

// charge counts cost, which was admitted, on the levels of limits.
func (m *exactModel) charge(limits []Limit, cost float64, now int64) {
	for _, e := range m.find(limits, now) {
		e.level = e.levelAt(now)
		e.level.Add(e.level, exact(cost))
		e.at = max(e.at, now)
	}
}

// refund takes cost off the levels of limits.
func (m *exactModel) refund(limits []Limit, cost float64, now int64) {
	for _, e := range m.find(limits, now) {
		e.level = e.levelAt(now)
		e.level.Sub(e.level, exact(cost))
		if e.level.Sign() < 0 {
			e.level.SetInt64(0)
		}
		e.at = max(e.at, now)
	}
}

// exactCeiling is the burst and the promised allowance for rounding, a relative 2^-36, and nothing else. The allowance
// is itself a float64: in the last digits of the burst it may be rounded.
func exactCeiling(l Limit) *big.Rat {
	factor := new(big.Rat).SetFrac64(1<<36+1, 1<<36)
	ceiling := factor.Mul(factor, exactBurst(l))
	ulp := exact(math.Nextafter(l.Capacity(), 0))
	return ceiling.Add(ceiling, ulp.Sub(exact(l.Capacity()), ulp))
}

// judge runs a State beside the exact model and checks every answer.
type judge struct {
	t     require.TestingT
	state State
	model exactModel

	// operations and highest bound how far the state may have strayed from the model: every operation rounds a level up
	// a few times, each time by an ulp of the highest level there was.
	operations int64
	highest    *big.Rat
}

func newJudge(t require.TestingT, set *Set, now int64) *judge {
	j := &judge{t: t, state: NewState(set, now), highest: new(big.Rat)}
	j.model.find(set.Limits, now)
	return j
}

// stray returns how far a level may stand above the exact one.
func (j *judge) stray() *big.Rat {
	perOperation := new(big.Rat).SetFrac(big.NewInt(1), new(big.Int).Lsh(big.NewInt(1), 49))
	perOperation.Mul(perOperation, j.highest)
	perOperation.Add(perOperation, exact(16*math.SmallestNonzeroFloat64))
	return perOperation.Mul(perOperation, new(big.Rat).SetInt64(j.operations))
}

// count notes one more operation with limits.
func (j *judge) count(limits []Limit) {
	j.operations++
	for _, l := range limits {
		if ceiling := exactCeiling(l); ceiling.Cmp(j.highest) > 0 {
			j.highest = ceiling
		}
	}
}

// take asks the state for cost, checks what it says and charges the model with what it admits.
func (j *judge) take(set *Set, cost float64, now int64) Decision {
	j.count(set.Limits)
	before := j.state.Clone()
	levels := j.model.find(set.Limits, now)
	d := j.state.Decide(&Request{Set: set, Cost: cost}, now)
	if d.Allowed {
		j.model.charge(set.Limits, cost, now)
		for i, l := range set.Limits {
			require.LessOrEqual(j.t, levels[i].level.Cmp(exactCeiling(l)), 0,
				"%v is exceeded: %v tokens taken and not drained", l, levels[i].level.FloatString(30))
		}
		require.Zero(j.t, d.RetryAfter)
	} else {
		if j.state.Set == before.Set { // else the limits changed, and the level drains at their rate from now on
			require.Equal(j.t, before, j.state, "a denial writes nothing")
		}
		j.checkDenied(set, levels, cost, now)
		j.checkRetryAfter(set, d, cost, now)
	}
	j.checkLevels(set, levels, d, now)
	return d
}

// checkDenied demands that the exact model denies too, but for what rounding may have added to a level.
func (j *judge) checkDenied(set *Set, levels []*exactLevel, cost float64, now int64) {
	for i, l := range set.Limits {
		after := new(big.Rat).Add(levels[i].levelAt(now), exact(cost))
		edge := exactBurst(l)
		allowance := new(big.Rat).Mul(edge, new(big.Rat).SetFrac64(1, 1<<36+1<<20))
		if room := new(big.Rat).Sub(exact(math.MaxFloat64), edge); room.Cmp(allowance) < 0 {
			allowance = room // at the end of the numbers
		}
		if slack := new(big.Rat).Sub(allowance, j.stray()); slack.Sign() < 0 {
			edge.Add(edge, slack)
		}
		if after.Cmp(edge) > 0 {
			return
		}
	}
	require.Fail(j.t, "denied although it fits", "cost %v of %v", cost, set.Limits)
}

// checkRetryAfter demands that a take passes after exactly RetryAfter, and not much earlier.
func (j *judge) checkRetryAfter(set *Set, d Decision, cost float64, now int64) {
	require.Positive(j.t, d.RetryAfter)
	if d.RetryAfter > math.MaxInt64/4 {
		return // centuries: the clock of the test ends here
	}
	passes := func(at int64) bool {
		s := j.state.Clone()
		return s.Decide(&Request{Set: set, Cost: cost}, at).Allowed
	}
	require.True(j.t, passes(now+int64(d.RetryAfter)), "denied after RetryAfter: too early")

	// What may be too late: the nanosecond of rounding up, and the time in which the allowance drains.
	rate, _ := exactRate(d.Limit).Float64()
	late := 2 + math.Ceil(d.Limit.Capacity()/rate*roundingAllowance*1.01) + float64(d.RetryAfter)*1e-14
	if early := float64(d.RetryAfter) - late; early >= 0 {
		require.False(j.t, passes(now+int64(early)), "RetryAfter %v is lazy: %vns earlier passes too", d.RetryAfter, late)
	}
}

// checkLevels compares the state's levels, and what d says of them, with the exact ones.
func (j *judge) checkLevels(set *Set, levels []*exactLevel, d Decision, now int64) {
	var reset *big.Rat
	told := false
	for i, l := range set.Limits {
		want := levels[i].levelAt(now)
		level := j.state.Set.Meters[i].drain(j.state.Level(i), now-j.state.At)
		require.False(j.t, math.IsNaN(level) || math.IsInf(level, 0) || level < 0, "level %v", level)
		strayed := new(big.Rat).Sub(exact(level), want)
		require.GreaterOrEqual(j.t, strayed.Sign(), 0, "level %v of %v is too low by %v", level, l, strayed.FloatString(30))
		require.LessOrEqual(j.t, strayed.Cmp(j.stray()), 0, "level %v of %v is too high by %v", level, l, strayed.FloatString(30))

		if in := new(big.Rat).Quo(exact(level), exactRate(l)); reset == nil || in.Cmp(reset) > 0 {
			reset = in
		}
		left := math.Max(0, l.Capacity()-level)
		told = told || d.Limit == l && math.Abs(left-d.Remaining) <= l.Capacity()*1e-15
	}
	require.True(j.t, told, "of no limit is %v left, as of %v", d.Remaining, d.Limit)
	in, _ := reset.Float64()
	in = math.Min(in, math.MaxInt64)
	require.InDelta(j.t, in, float64(d.ResetAfter), 1.5+in*1e-12, "ResetAfter")
}

// refund gives cost back, to the state and to the model.
func (j *judge) refund(set *Set, cost float64, now int64) {
	j.count(set.Limits)
	j.state.Refund(set, cost, now)
	j.model.refund(set.Limits, cost, now)
	for i, e := range j.model.find(set.Limits, now) {
		require.GreaterOrEqual(j.t, exact(j.state.Level(i)).Cmp(e.levelAt(now)), 0, "refund gave more than it was given")
	}
}

// peek checks that a peek says what a take would, and changes nothing.
func (j *judge) peek(set *Set, now int64) {
	before := j.state.Clone()
	d := j.state.Peek(set, now)
	require.Equal(j.t, before, j.state, "a peek writes nothing")
	taken := j.state.Clone()
	got := taken.Decide(&Request{Set: set, Cost: math.Min(1, set.SmallestBurst())}, now)
	require.Equal(j.t, got.Allowed, d.Allowed)
	require.Equal(j.t, got.RetryAfter, d.RetryAfter)
	require.Equal(j.t, got.Delay, d.Delay)
	if d.Allowed {
		require.GreaterOrEqual(j.t, d.Remaining, got.Remaining)
	} else {
		require.Equal(j.t, got, d)
	}
}
