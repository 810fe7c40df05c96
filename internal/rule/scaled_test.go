package rule

import (
	"fmt"
	"math"
	"testing"
	"time"

	"github.com/peerlimit/peerlimit/internal/limit"
	"github.com/peerlimit/peerlimit/internal/oracle"
	"github.com/peerlimit/peerlimit/internal/ring"
	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

// divided is the cluster of a property test: members that have a share of a rule, and a holder that the others ask.
type divided struct {
	rule    *Rule
	shares  []*limit.State // of members that are cut off and have one, each deciding for a side
	holder  *limit.State   // nil when nobody has a majority
	members int
	apart   int // of them cut off
	holders int // of them with a share, as far as each decides for itself
}

// alone returns the bucket of a member that decides for as many as share it, or nil when it comes too late for the key.
func alone(r *Rule, names []string, self, sharing int, key string) *limit.State {
	n := len(names)
	share, holders := r.Divide(float64(sharing)/float64(n), sharing, n)
	rank := ring.NewRank(names[self], key)
	for _, name := range names {
		rank.Beside(name)
	}
	if rank.Before() >= holders {
		return nil
	}
	state := limit.NewState(r.Scaled(share).Set, 0)
	return &state
}

// anyDivision draws a rule, a cluster, and sides of it: the others have a majority or, when all are cut off, there are none.
func anyDivision(t *rapid.T) *divided {
	n := rapid.IntRange(2, 7).Draw(t, "members")
	bursts := rapid.OneOf(rapid.Float64Range(0.5, 2*float64(n)), rapid.Map(rapid.IntRange(1, 2*n), func(b int) float64 { return float64(b) }))
	limits := []limit.Limit{{Tokens: 10, Period: time.Second, Burst: bursts.Draw(t, "burst")}}
	if rapid.Bool().Draw(t, "two limits") {
		limits = append(limits, limit.Limit{Tokens: 300, Period: time.Minute, Burst: bursts.Draw(t, "other burst")})
	}
	d := &divided{rule: mustFind(t, New(1000), "api", limits), members: n, apart: rapid.IntRange(1, n).Draw(t, "apart")}
	if d.apart < n {
		full := limit.NewState(d.rule.Set, 0)
		d.holder = &full
	}
	var names []string
	for i := range n {
		names = append(names, fmt.Sprintf("web-%d-%08x", i, rapid.Uint32().Draw(t, "name")))
	}
	_, d.holders = d.rule.Divide(1/float64(n), 1, n)
	key := rapid.StringN(1, 8, 8).Draw(t, "key")
	next := 0
	if rapid.Bool().Draw(t, "last holder") { // it decides for some of them; it is any of those
		next = rapid.IntRange(1, d.apart).Draw(t, "its side")
		if state := alone(d.rule, names, rapid.IntRange(0, next-1).Draw(t, "which"), next, key); state != nil {
			d.shares = append(d.shares, state)
		}
	}
	for ; next < d.apart; next++ {
		if state := alone(d.rule, names, next, 1, key); state != nil {
			d.shares = append(d.shares, state)
		}
	}
	return d
}

// However a cluster falls apart and however large a burst is, what its sides admit in any window is within (B + R·w)(1 + m/N),
// where m members are cut off, and less than a token for each of them that holds one because its share is worth less.
func TestSharesOfAnyBurstKeepTheBoundOfASplit(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		d := anyDivision(t)
		n := float64(d.members)
		factor := float64(d.apart) / n
		if d.holder != nil {
			factor++
		}
		var judges []*oracle.Oracle
		for _, l := range d.rule.Set.Limits {
			judges = append(judges, oracle.New(oracle.Limit{Tokens: l.Tokens, Period: l.Period, Burst: l.Burst}.Times(factor)))
		}
		cost := math.Min(1, d.rule.Set.SmallestBurst())
		if rapid.Bool().Draw(t, "parts of tokens") {
			cost *= rapid.Float64Range(0.1, 1).Draw(t, "cost")
		}
		now := int64(0)
		for range rapid.IntRange(1, 40).Draw(t, "steps") {
			now += rapid.OneOf(rapid.Int64Range(0, int64(time.Second)), rapid.Int64Range(0, int64(time.Minute))).Draw(t, "pause")
			d.takeAll(now, cost, func() {
				for _, judge := range judges {
					judge.Admit(oracle.Take{Start: time.Duration(now), End: time.Duration(now), Cost: cost})
				}
			})
		}
		for i, judge := range judges {
			report, extra := judge.Report(), 0.0
			if b := d.rule.Set.Limits[i].Burst; b < n {
				extra = math.Min(float64(d.apart), float64(d.holders)) * (math.Min(b, 1) - b/n)
			}
			require.True(t, report.Within(extra), "%d of %v apart, %v, extra %v: %v", d.apart, n, d.rule.Set.Limits[i], extra, report)
		}
	})
}

// takeAll takes from everybody until all deny.
func (d *divided) takeAll(now int64, cost float64, admitted func()) {
	deciders := d.shares
	if d.holder != nil {
		deciders = append(deciders[:len(deciders):len(deciders)], d.holder)
	}
	for _, state := range deciders {
		for state.Decide(&limit.Request{Set: state.Set, Cost: cost}, now).Allowed {
			admitted()
		}
	}
}

// Of each key somebody has a share that a token fits into, or the whole burst where that is less; and where nobody has a majority
// the shares of all together are no more than the limit.
func TestSharesOfAnyBurstAddUpToTheLimit(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		n := rapid.IntRange(1, 60).Draw(t, "members")
		burst := rapid.OneOf(rapid.Float64Range(0.1, 2*float64(n)), rapid.Map(rapid.IntRange(1, 2*n), func(b int) float64 { return float64(b) })).Draw(t, "burst")
		policy := rapid.SampledFrom([]float64{1, 0.5, 0.01}).Draw(t, "of what policy divided would give")
		r := mustFind(t, New(1000), "api", []limit.Limit{{Tokens: 10, Period: time.Second, Burst: burst}})
		share, holders := r.Divide(policy/float64(n), 1, n)
		require.Positive(t, holders)
		require.LessOrEqual(t, holders, n)
		scaled := r.Scaled(share).Set
		require.InEpsilon(t, 10*policy/float64(n), scaled.Limits[0].Tokens, hair)
		require.LessOrEqual(t, float64(holders)*scaled.SmallestBurst(), burst*policy*(1+2*hair))
		require.True(t, scaled.Fits(math.Min(1, burst*policy)))
	})
}

// A whole share of as many tokens as there are members is a token each, also where the quotient is rounded down.
func TestSharesOfATokenEach(t *testing.T) {
	for n := 1; n <= 300; n++ {
		r := mustFind(t, New(1000), "api", []limit.Limit{{Tokens: 10, Period: time.Second, Burst: float64(n)}})
		share, holders := r.Divide(1/float64(n), 1, n)
		require.Equal(t, n, holders)
		require.True(t, r.Scaled(share).Set.Fits(1), n)
	}
}
