package peerlimit

import (
	"context"
	"slices"
	"testing"
	"time"

	"github.com/peerlimit/peerlimit/internal/limit"
	"github.com/stretchr/testify/assert"
)

// endless admits whatever a benchmark can ask for.
func endless() Limit { return PerSecond(1e12) }

func BenchmarkBucketAllow(b *testing.B) {
	bucket := mustNewBucket(b, endless())
	b.ReportAllocs()
	for b.Loop() {
		if !bucket.Allow() {
			b.Fatal("denied")
		}
	}
}

func BenchmarkBucketAllowThreeLimits(b *testing.B) {
	bucket := mustNewBucket(b, endless(), endless(), endless())
	b.ReportAllocs()
	for b.Loop() {
		if !bucket.Allow() {
			b.Fatal("denied")
		}
	}
}

func BenchmarkBucketAllowDenied(b *testing.B) {
	bucket := mustNewBucket(b, PerHour(1))
	bucket.Allow()
	b.ReportAllocs()
	for b.Loop() {
		if bucket.Allow() {
			b.Fatal("allowed")
		}
	}
}

func BenchmarkBucketAllowParallel(b *testing.B) {
	bucket := mustNewBucket(b, endless())
	b.ReportAllocs()
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			bucket.Allow()
		}
	})
}

func BenchmarkBucketPeek(b *testing.B) {
	bucket := mustNewBucket(b, endless())
	b.ReportAllocs()
	for b.Loop() {
		bucket.Peek()
	}
}

// Two versions of a limiter's numbers on one bucket, in turns: what a key costs while a deployment is under way.
func BenchmarkStateMixedVersions(b *testing.B) {
	versions := [...]*limit.Set{limit.NewSet([]limit.Limit{perSecond(1e12)}), limit.NewSet([]limit.Limit{perSecond(2e12)})}
	s := limit.NewState(versions[0], 0)
	b.ReportAllocs()
	for i := int64(0); b.Loop(); i++ {
		s.Decide(&limit.Request{Set: versions[i&1], Cost: 1}, i)
	}
}

// BenchmarkBucketWaitLateness measures how long after its turn a wait returns, in real time.
func BenchmarkBucketWaitLateness(b *testing.B) {
	const pause = 2 * time.Millisecond
	bucket := mustNewBucket(b, Per(1, pause))
	var late []time.Duration
	for b.Loop() {
		bucket.Reset()
		bucket.Allow()
		due := time.Now().Add(bucket.Peek().RetryAfter)
		if err := bucket.Wait(context.Background()); err != nil {
			b.Fatal(err)
		}
		late = append(late, time.Since(due))
	}
	slices.Sort(late)
	b.ReportMetric(float64(late[len(late)/2])/float64(time.Microsecond), "us-late-median")
}

func TestDecidingAllocatesNothing(t *testing.T) {
	for name, limits := range map[string][]Limit{
		"one limit":    {PerHour(1e9)},
		"three limits": {PerHour(1e9), PerMinute(1e9), PerSecond(1e9).Leaky()},
		"exhausted":    {PerHour(1)},
	} {
		t.Run(name, func(t *testing.T) {
			bucket := mustNewBucket(t, limits...)
			assert.Zero(t, testing.AllocsPerRun(100, func() { bucket.Allow() }), "Allow")
			assert.Zero(t, testing.AllocsPerRun(100, func() { _, _ = bucket.Take(1) }), "Take")
			assert.Zero(t, testing.AllocsPerRun(100, func() { bucket.Peek() }), "Peek")
		})
	}
}
