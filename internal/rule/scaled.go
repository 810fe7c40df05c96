package rule

import (
	"hash/maphash"
	"math"

	"github.com/peerlimit/peerlimit/internal/limit"
)

// Scaled returns the rule with all rates and bursts multiplied by share. The last one is kept: shares change only when
// members do.
func (r *Rule) Scaled(share float64) *Rule {
	if last := r.lastScaled.Load(); last != nil && last.share == share {
		return last.rule
	}
	limits := make([]limit.Limit, len(r.Set.Limits))
	for i, l := range r.Set.Limits {
		limits[i] = l
		limits[i].Burst = math.Max(l.Capacity()*share, math.SmallestNonzeroFloat64)
		limits[i].Tokens = math.Max(l.Tokens*share, limit.MinRate*float64(l.Period))
	}
	scaled := &Rule{name: r.name, ID: r.ID, Set: limit.NewSet(limits), Encoded: r.Encoded, Hash: r.Hash}
	r.lastScaled.Store(&scaledRule{share: share, rule: scaled})
	return scaled
}

// scaledRule is a rule under a share.
type scaledRule struct {
	share float64
	rule  *Rule
}

// BucketKey names a bucket.
type BucketKey struct {
	Key     string
	Limiter LimiterID
}

// Hash is seeded in each process: a caller that chooses the keys can aim at a partition, whose formula is public, and
// still not at a slot.
func (k BucketKey) Hash(seed maphash.Seed) uint64 {
	return maphash.String(seed, k.Key) + uint64(k.Limiter)*0x9E3779B97F4A7C15
}
