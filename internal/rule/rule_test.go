package rule

import (
	"fmt"
	"math/rand/v2"
	"runtime"
	"testing"

	"github.com/peerlimit/peerlimit/internal/limit"
	"github.com/peerlimit/peerlimit/internal/wire"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// forgetAll forgets all rules and names that nothing refers to.
func forgetAll(known *Rules) {
	for range 12 {
		known.ForgetUnused()
	}
	runtime.GC() // rules
	known.ForgetUnused()
	runtime.GC() // and what only rules referred to
	known.ForgetUnused()
}

// requireLen fails unless there are so many rules and names.
func requireLen(t *testing.T, known *Rules, rules, names int) {
	t.Helper()
	haveRules, haveNames := known.Len()
	require.Equal(t, [2]int{rules, names}, [2]int{haveRules, haveNames}, "rules and names")
}

func TestRequestsThatSayTheSameShareARule(t *testing.T) {
	known := New(1000)
	ten, twenty := []limit.Limit{perHour(10)}, []limit.Limit{perHour(20)}
	r := mustFind(t, known, "api", ten)
	require.Same(t, r, mustFind(t, known, "api", ten))
	require.Equal(t, "api", r.Name.Text)
	other := mustFind(t, known, "api", twenty)
	require.NotSame(t, r, other)
	require.Same(t, r.Name, other.Name, "limiters are told apart by their names alone")
	require.Equal(t, r.Bucket("k"), other.Bucket("k"))
	require.NotEqual(t, r.Bucket("k"), mustFind(t, known, "other", ten).Bucket("k"))
	plain, err := known.PlainSet("api", ten)
	require.NoError(t, err)
	require.Same(t, r.Set, plain)
	scaled := r.Scaled(Share{Rate: 0.5, All: 1})
	require.Same(t, scaled, r.Scaled(Share{Rate: 0.5, All: 1}))
	require.Equal(t, r.Bucket("k"), scaled.Bucket("k"))
	require.Same(t, r.Name, scaled.Set.Name)
	_, err = known.PlainSet("", ten)
	assert.ErrorIs(t, err, wire.ErrMalformed)
	require.Nil(t, known.NameOf("never heard of"))
}

// Whatever refers to a part of a rule has the same rule, and the same name, found again; when nothing does, both are forgotten.
func TestRulesAreFoundAsLongAsTheyAreInUse(t *testing.T) {
	for _, kept := range []int{0, 100_000} {
		known := New(kept)
		ten := []limit.Limit{perHour(10)}
		holders := map[string]func(*Rule) any{
			"a rule":            func(r *Rule) any { return r },
			"a bucket's limits": func(r *Rule) any { return r.Set },
			"those of another deploy": func(r *Rule) any {
				return r.Set.WithOthers([]limit.Limit{per(1, 1000)}, []limit.LevelID{{Period: 1000}})
			},
		}
		for name, hold := range holders {
			r := mustFind(t, known, name, ten)
			held, set, text := hold(r), uintptr(0), r.Name
			set = addressOf(r.Set)
			r = nil
			forgetAll(known)
			r = known.Lookup(wire.AppendRule(nil, name, ten))
			require.NotNil(t, r, name)
			require.Equal(t, set, addressOf(r.Set))
			require.Same(t, text, r.Name)
			requireLen(t, known, 1, 1)
			runtime.KeepAlive(held)
			held, r, text = nil, nil, nil
			forgetAll(known)
			requireLen(t, known, 0, 0)
		}

		bucket := mustFind(t, known, "a name", ten).Bucket("k")
		scaled := mustFind(t, known, "a share", ten).Scaled(Share{Rate: 0.5, All: 1}).Set
		forgetAll(known)
		requireLen(t, known, 0, 2)
		require.Same(t, bucket.Limiter, mustFind(t, known, "a name", ten).Name)
		require.Same(t, scaled.Name, known.NameOf("a share"))
	}
}

// Ever new names and limits leave nothing behind.
func TestEverNewRulesLeaveNothing(t *testing.T) {
	known := New(2000)
	mine := mustFind(t, known, "mine", []limit.Limit{perHour(10)})
	for i := range 100_000 {
		mustFind(t, known, fmt.Sprint("tenant-", i), []limit.Limit{perHour(10)})
		mustFind(t, known, "mine", []limit.Limit{perHour(10 + float64(i))})
		if i%10_000 == 0 {
			known.ForgetUnused()
		}
	}
	forgetAll(known)
	requireLen(t, known, 1, 1)
	require.Same(t, mine, mustFind(t, known, "mine", []limit.Limit{perHour(10)}))
}

// 100,000 rules in use are found without making any anew, in whatever order.
func TestManyRulesAreFoundWithoutAllocating(t *testing.T) {
	known := New(125_000)
	encoded := make([][]byte, 100_000)
	for i := range encoded {
		encoded[i] = wire.AppendRule(nil, "per-customer", []limit.Limit{perHour(1 + float64(i))})
		_, err := known.Find(encoded[i])
		require.NoError(t, err)
	}
	next := 0
	for range 3 {
		runtime.GC()
		assert.Zero(t, testing.AllocsPerRun(len(encoded), func() {
			if _, err := known.Find(encoded[next%len(encoded)]); err != nil {
				t.Error(err)
			}
			next++
		}))
		rand.Shuffle(len(encoded), func(i, j int) { encoded[i], encoded[j] = encoded[j], encoded[i] })
	}
}
