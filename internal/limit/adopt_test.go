package limit

import (
	"math"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

// takeFrom takes cost from s under limits.
func takeFrom(s *State, set *Set, cost float64, now time.Duration) Decision {
	return s.Decide(&Request{Set: set, Cost: cost}, int64(now))
}

func TestRaisedRateHelpsFromNowOn(t *testing.T) {
	slow, fast := NewSet([]Limit{perMinute(60)}), NewSet([]Limit{withBurst(perMinute(600), 60)})
	s := NewState(slow, 0)
	require.True(t, takeFrom(&s, slow, 60, 0).Allowed)

	// Ten seconds at one a second have passed; at ten a second they would have brought 100.
	d := takeFrom(&s, fast, 11, 10*time.Second)
	require.Same(t, fast, s.Set, "the level goes on under the new numbers; nothing is left of the old ones")
	require.False(t, d.Allowed, "the past drains no faster")
	assert.Equal(t, 10.0, d.Remaining)
	assert.Equal(t, 100*time.Millisecond, d.RetryAfter, "the new rate counts from now on")
	assert.True(t, takeFrom(&s, fast, 11, 10*time.Second+100*time.Millisecond).Allowed)
}

func TestLoweredRate(t *testing.T) {
	fast, slow := NewSet([]Limit{perMinute(600)}), NewSet([]Limit{perMinute(60)})
	s := NewState(fast, 0)
	require.True(t, takeFrom(&s, fast, 600, 0).Allowed)

	// Ten seconds at ten a second leave 500 where only 60 have room: 441 must go at one a second.
	d := takeFrom(&s, slow, 1, 10*time.Second)
	require.False(t, d.Allowed)
	assert.Zero(t, d.Remaining)
	assert.Equal(t, 441*time.Second, d.RetryAfter)
	assert.True(t, takeFrom(&s, slow, 1, 451*time.Second).Allowed)
}

func TestAddedLimitStartsFullOfTokens(t *testing.T) {
	one, two := NewSet([]Limit{perSecond(10)}), NewSet([]Limit{perMinute(15), perSecond(10)})
	s := NewState(one, 0)
	require.True(t, takeFrom(&s, one, 10, 0).Allowed)
	assert.False(t, takeFrom(&s, two, 1, 0).Allowed, "the old limit is still exhausted, though it is another one's turn now")
	require.True(t, takeFrom(&s, two, 10, time.Second).Allowed)
	d := takeFrom(&s, two, 10, 2*time.Second)
	require.False(t, d.Allowed)
	assert.Equal(t, perMinute(15), d.Limit)
	assert.Equal(t, 5.25, d.Remaining, "what was taken before it came is not held against it")
}

func TestRemovedLimitNoLongerDenies(t *testing.T) {
	two, one := NewSet([]Limit{perSecond(10), perMinute(10)}), NewSet([]Limit{perSecond(10)})
	s := NewState(two, 0)
	require.True(t, takeFrom(&s, two, 10, 0).Allowed)
	require.False(t, takeFrom(&s, two, 10, time.Second).Allowed)
	assert.True(t, takeFrom(&s, one, 10, time.Second).Allowed)
}

// While versions of the code mix, those that know a limit enforce it whatever the others do: it keeps draining, and
// takes of others are not charged to it.
func TestAbsentLimitDrainsAndIsNotCharged(t *testing.T) {
	two, one := NewSet([]Limit{perSecond(10), perMinute(12)}), NewSet([]Limit{perSecond(10)})
	s := NewState(two, 0)
	require.True(t, takeFrom(&s, two, 10, 0).Allowed)
	for second := 1; second <= 5; second++ {
		require.True(t, takeFrom(&s, one, 10, time.Duration(second)*time.Second).Allowed)
	}
	d := takeFrom(&s, two, 10, 6*time.Second)
	require.False(t, d.Allowed)
	assert.Equal(t, perMinute(12), d.Limit)
	assert.InDelta(t, 3.2, d.Remaining, 1e-9, "2 were left, and 6 seconds brought 1.2")
}

func TestLevelsFollowPeriodAlgorithmAndOrdinal(t *testing.T) {
	base := []Limit{perSecond(10), perSecond(20), perMinute(30), leaky(perSecond(40))}
	s := NewState(NewSet(base), 0)
	for i := range base {
		s.SetLevel(i, float64(i+1))
	}
	tests := []struct {
		name   string
		limits []Limit
		want   []float64
	}{
		{"the same numbers", []Limit{perSecond(10), perSecond(20), perMinute(30), leaky(perSecond(40))}, []float64{1, 2, 3, 4}},
		{"other numbers", []Limit{perSecond(99), withBurst(perSecond(98), 5), perMinute(97), leaky(perSecond(96))}, []float64{1, 2, 3, 4}},
		{"another order", []Limit{leaky(perSecond(40)), perMinute(30), perSecond(10), perSecond(20)}, []float64{4, 3, 1, 2}},
		{"equals by their order", []Limit{perSecond(20), perSecond(10)}, []float64{1, 2}},
		{"another period", []Limit{perHour(10)}, []float64{0}},
		{"another algorithm", []Limit{leaky(perMinute(30))}, []float64{0}},
		{"one more equal", []Limit{perSecond(1), perSecond(1), perSecond(1)}, []float64{1, 2, 0}},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			changed := s.Clone()
			changed.Adopt(NewSet(test.limits), 0)
			for i, want := range test.want {
				assert.Equal(t, want, changed.Level(i), "level %d", i)
			}
			changed.Adopt(NewSet(base), 0)
			for i := range base {
				assert.Equal(t, float64(i+1), changed.Level(i), "level %d comes back", i)
			}
		})
	}
}

// A level that is remembered keeps its ordinal when an equal one before it has drained and is forgotten.
func TestRememberedLevelKeepsItsOrdinal(t *testing.T) {
	three := NewSet([]Limit{perSecond(10), withBurst(perSecond(1000), 100), withBurst(perSecond(1), 100)})
	one := NewSet([]Limit{perSecond(10)})
	s := NewState(three, 0)
	for second := range 10 {
		require.True(t, takeFrom(&s, three, 10, time.Duration(second)*time.Second).Allowed)
	}
	require.True(t, takeFrom(&s, one, 1, 10*time.Second).Allowed, "only the third is still remembered")

	d := s.Peek(three, int64(10*time.Second))
	assert.Equal(t, withBurst(perSecond(1), 100), d.Limit)
	assert.Equal(t, 10.0, d.Remaining, "90 of its 100 have not drained")
}

// What is remembered costs nothing on each take, and is forgotten when it has drained.
func TestRememberedLevelIsForgottenOnceDrained(t *testing.T) {
	minute, hour := NewSet([]Limit{perMinute(600)}), NewSet([]Limit{perHour(600)})
	s := NewState(minute, 0)
	require.True(t, takeFrom(&s, minute, 100, 0).Allowed)
	require.True(t, takeFrom(&s, hour, 1, 0).Allowed)
	assert.Zero(t, testing.AllocsPerRun(10, func() { takeFrom(&s, hour, 1, time.Second) }))
	assert.Equal(t, 510.0, s.Peek(minute, int64(time.Second)).Remaining)
	require.True(t, takeFrom(&s, hour, 1, 10*time.Second).Allowed)
	assert.Same(t, hour, s.Set)
}

// Undoing a reservation turns the time back; levels that it does not know of would drain a second time.
func TestReservationsBesideRememberedLevelsCannotBeUndone(t *testing.T) {
	minute, hour := NewSet([]Limit{perMinute(600)}), NewSet([]Limit{perHour(600)})
	s := NewState(minute, 0)
	require.True(t, takeFrom(&s, minute, 100, 0).Allowed)
	require.True(t, takeFrom(&s, hour, 1, 0).Allowed)
	d, u := s.Reserve(&Request{Set: hour, Cost: 1, Reserve: true}, int64(time.Second))
	assert.True(t, d.Allowed)
	assert.Nil(t, u)
}

// A reservation that was made under another number of limits is void, and not remembered.
func TestReservationUnderOtherLimitsCannotBeUndone(t *testing.T) {
	one, two := NewSet([]Limit{perMinute(10)}), NewSet([]Limit{perMinute(10), perHour(10)})
	s := NewState(one, 0)
	require.True(t, takeFrom(&s, one, 10, 0).Allowed)
	d, u := s.Reserve(&Request{Set: one, Cost: 5, Reserve: true, MaxDelay: time.Hour}, 0)
	require.True(t, d.Allowed)
	require.NotNil(t, u)
	s.Adopt(two, 0)
	before := s.Clone()
	assert.False(t, s.CancelReserved(*u, 0))
	assert.Equal(t, before.Levels(), s.Levels())
	for i := range s.Levels() {
		assert.Equal(t, before.LevelAt(i, 0), s.LevelAt(i, 0))
	}
	assert.Zero(t, s.Holes())
}

// Whatever periods are asked for: what a bucket remembers is bounded, and forgotten once it is drained.
func TestChangingPeriodsDoNotAccumulate(t *testing.T) {
	last := NewSet([]Limit{perSecond(1)})
	s := NewState(last, 0)
	for i := range 1000 {
		set := NewSet([]Limit{per(1000, time.Hour+time.Duration(i)), per(1000, 2*time.Hour+time.Duration(i))})
		require.True(t, takeFrom(&s, set, 1, time.Duration(i)*time.Millisecond).Allowed)
		require.LessOrEqual(t, len(s.Set.Meters), MaxLevels)
		assert.Equal(t, 999.0, s.Peek(set, int64(i)*int64(time.Millisecond)).Remaining, "those asked for are enforced")
	}
	require.True(t, takeFrom(&s, last, 1, 3*time.Hour).Allowed)
	assert.Same(t, last, s.Set, "all others are drained")
	assert.Nil(t, s.extra)
}

// As many limits as there may be, and as many of another version.
func TestTwoVersionsOfEightLimitsEach(t *testing.T) {
	var a, b []Limit
	for i := range MaxCombined {
		a = append(a, per(10, time.Hour+time.Duration(i)))
		b = append(b, per(20, 2*time.Hour+time.Duration(i)))
	}
	first, second := NewSet(a), NewSet(b)
	s := NewState(first, 0)
	for range 10 {
		require.True(t, takeFrom(&s, first, 1, 0).Allowed)
		require.True(t, takeFrom(&s, second, 2, 0).Allowed)
	}
	assert.False(t, takeFrom(&s, first, 1, 0).Allowed)
	assert.False(t, takeFrom(&s, second, 1, 0).Allowed)
}

// Any versions of a limiter's numbers, in any order on one bucket: each decides as the exact model does.
func TestMixedVersionsMatchTheExactModel(t *testing.T) {
	// Few periods and ordinals, so that versions share levels, and no more than a bucket remembers.
	limit := rapid.Custom(func(t *rapid.T) Limit {
		l := Limit{
			Tokens: rapid.SampledFrom([]float64{1, 3, 10, 60}).Draw(t, "tokens"),
			Period: rapid.SampledFrom([]time.Duration{time.Second, time.Minute}).Draw(t, "period"),
			Burst:  rapid.SampledFrom([]float64{0, 5, 20, 100}).Draw(t, "burst"),
		}
		if rapid.Bool().Draw(t, "leaky") {
			l = leaky(l)
		}
		return l
	})
	rapid.Check(t, func(t *rapid.T) {
		versions := rapid.SliceOfN(rapid.Custom(func(t *rapid.T) *Set {
			return NewSet(rapid.SliceOfN(limit, 1, 4).Draw(t, "limits"))
		}), 2, 3).Draw(t, "versions")
		j := newJudge(t, versions[0], 0)
		now := int64(0)
		for range rapid.IntRange(1, 60).Draw(t, "steps") {
			set := rapid.SampledFrom(versions).Draw(t, "version")
			now += rapid.Int64Range(0, int64(3*time.Second)).Draw(t, "step")
			if rapid.IntRange(0, 9).Draw(t, "operation") == 0 {
				j.peek(set, now)
			} else {
				j.take(set, anyCost(set.SmallestBurst()).Draw(t, "cost"), now)
			}
		}
	})
}

// Two versions of one limit in turns: in no window more than the larger burst and the larger rate allow.
func TestMixedVersionsAreBoundedByTheLargerOfEach(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		numbers := rapid.Float64Range(0.1, 100)
		versions := []*Set{}
		larger := Limit{Period: time.Second}
		for range 2 {
			l := withBurst(perSecond(numbers.Draw(t, "tokens")), numbers.Draw(t, "burst"))
			versions = append(versions, NewSet([]Limit{l}))
			larger.Tokens, larger.Burst = math.Max(larger.Tokens, l.Tokens), math.Max(larger.Burst, l.Burst)
		}
		s := NewState(versions[0], 0)
		now := int64(0)
		var run []spent
		for range rapid.IntRange(1, 80).Draw(t, "steps") {
			set := rapid.SampledFrom(versions).Draw(t, "version")
			cost := anyCost(set.SmallestBurst()).Draw(t, "cost")
			now += rapid.Int64Range(0, int64(time.Second)).Draw(t, "step")
			if s.Decide(&Request{Set: set, Cost: cost}, now).Allowed {
				run = append(run, spent{at: now, cost: cost})
			}
		}
		requireNoWindowExceeds(t, larger, run, 0)
	})
}
