package peerlimit

import (
	"github.com/peerlimit/peerlimit/internal/limit"
	"hash/maphash"
	"math"
)

// scaled returns the rule with all rates and bursts multiplied by share. The last one is kept: shares change only when
// members do.
func (r *rule) scaled(share float64) *rule {
	if last := r.lastScaled.Load(); last != nil && last.share == share {
		return last.rule
	}
	limits := make([]limit.Limit, len(r.set.Limits))
	for i, l := range r.set.Limits {
		limits[i] = l
		limits[i].Burst = math.Max(l.Capacity()*share, math.SmallestNonzeroFloat64)
		limits[i].Tokens = math.Max(l.Tokens*share, limit.MinRate*float64(l.Period))
	}
	scaled := &rule{name: r.name, id: r.id, set: limit.NewSet(limits), encoded: r.encoded, hash: r.hash}
	r.lastScaled.Store(&scaledRule{share: share, rule: scaled})
	return scaled
}

// scaledRule is a rule under a share.
type scaledRule struct {
	share float64
	rule  *rule
}

// bucketKey names a bucket.
type bucketKey struct {
	key     string
	limiter limiterID
}

// hash is seeded in each process: whoever chooses the keys can aim at a partition, whose formula is public, and
// still not at a slot.
func (k bucketKey) hash(seed maphash.Seed) uint64 {
	return maphash.String(seed, k.key) + uint64(k.limiter)*0x9E3779B97F4A7C15
}
