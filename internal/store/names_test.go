package store

import (
	"fmt"
	"runtime"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/peerlimit/peerlimit/internal/limit"
	"github.com/peerlimit/peerlimit/internal/rule"
	"github.com/peerlimit/peerlimit/internal/wire"
)

// forgetfulNodes are a holder and its standby, which forget names and rules at every occasion, and what was taken of each key, by
// names in full.
type forgetfulNodes struct {
	holder, standby *Table
	known, there    *rule.Rules
	taken           map[[2]string]float64
	now             int64
}

// forgetfulBurst is the limit of each key. None refills while the test lasts.
const forgetfulBurst = 5

func (f *forgetfulNodes) limits(deploy int) []limit.Limit {
	return []limit.Limit{{Tokens: forgetfulBurst, Period: time.Duration(1000+deploy) * time.Hour}}
}

// take takes a token under limits that nothing but the bucket refers to afterwards.
func (f *forgetfulNodes) take(t require.TestingT, limiter, key string) {
	r := mustFind(t, f.known, limiter, f.limits(0))
	d, ok := f.holder.decide(rigPart, r.Bucket(key), &limit.Request{Set: r.Set, Cost: 1}, f.now)
	require.True(t, ok)
	at := [2]string{limiter, key}
	require.Equal(t, f.taken[at] < forgetfulBurst, d.Allowed, "%v: %v were taken", at, f.taken[at])
	if d.Allowed {
		f.taken[at]++
	}
}

// replicate has the standby take what the holder has.
func (f *forgetfulNodes) replicate(t require.TestingT) {
	content, _, more := f.holder.collect(rigPart, 0, 1<<20, f.now)
	require.False(t, more)
	encoded := wire.AppendReplicaRequest(nil, &wire.ReplicaRequest{Parts: []wire.ReplicaPart{{Part: rigPart, Content: content}}})
	decoded, err := (&wire.ReplicaMemory{Message: encoded}).Decode(f.there.PlainSet)
	require.NoError(t, err)
	p := f.standby.Lock(rigPart)
	p.store(f.standby, decoded.Parts[0].Content.Buckets, f.there, f.now)
	p.Unlock()
}

// reset empties a key and has the standby drop its bucket, which a message says by its names alone.
func (f *forgetfulNodes) reset(t require.TestingT, limiter, key string) {
	r := mustFind(t, f.known, limiter, f.limits(0))
	f.holder.Reset(rigPart, r.Bucket(key), f.now)
	delete(f.taken, [2]string{limiter, key})
	p := f.standby.Lock(rigPart)
	p.store(f.standby, []wire.Image{{Limiter: limiter, Key: key}}, f.there, f.now)
	p.Unlock()
}

// forget has both nodes forget what they can.
func (f *forgetfulNodes) forget() {
	for range 12 {
		f.known.ForgetUnused()
		f.there.ForgetUnused()
	}
	runtime.GC()
}

// requireModel fails unless both tables have what was taken, under the right names, and nothing else.
func (f *forgetfulNodes) requireModel(t require.TestingT) {
	f.replicate(t)
	for _, tab := range []*Table{f.holder, f.standby} {
		found := map[[2]string]float64{}
		for _, content := range allIn(&tab.partitions[rigPart].buckets) {
			b := content.bucket
			at := [2]string{b.Set.Name.Text, b.key()}
			for i, id := range b.Set.IDs {
				if id.Period == f.limits(0)[0].Period && b.Level(i) > 0 {
					require.NotContains(t, found, at, "two buckets of one key")
					found[at] = b.Level(i)
				}
			}
			require.Same(t, b, tab.partitions[rigPart].buckets.find(b.name().Hash(tab.seed), b.name()))
		}
		require.Equal(t, f.taken, found)
	}
}

// Names and rules are forgotten and come back, and a bucket is that of its limiter and key all the while, at the holder and where it
// was replicated to: none is lost, none is there twice, and none becomes another limiter's.
func TestBucketsKeepTheirLimitersNames(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		kept := rapid.SampledFrom([]int{0, 1, 1000}).Draw(t, "kept")
		f := &forgetfulNodes{
			holder: New(Config{MaxKeys: 10_000}), standby: New(Config{MaxKeys: 10_000}), known: rule.New(kept), there: rule.New(kept),
			taken: map[[2]string]float64{},
		}
		fresh := 0
		limiter := func(t *rapid.T) string { return rapid.SampledFrom([]string{"a", "b", "c"}).Draw(t, "limiter") }
		key := func(t *rapid.T) string { return rapid.SampledFrom([]string{"k", "l"}).Draw(t, "key") }
		t.Repeat(map[string]func(*rapid.T){
			"take":      func(t *rapid.T) { f.take(t, limiter(t), key(t)) },
			"reset":     func(t *rapid.T) { f.reset(t, limiter(t), key(t)) },
			"replicate": func(t *rapid.T) { f.replicate(t) },
			"forget":    func(*rapid.T) { f.forget() },
			"many new names": func(t *rapid.T) {
				for range 50 {
					fresh++
					mustFind(t, f.known, fmt.Sprint("fresh-", fresh), f.limits(0))
					mustFind(t, f.there, fmt.Sprint("fresh-", fresh), f.limits(0))
				}
			},
			"a name of one take": func(t *rapid.T) {
				fresh++
				f.take(t, fmt.Sprint("fresh-", fresh), "k")
			},
			"other limits": func(t *rapid.T) { // of another deploy: a bucket then remembers both
				r := mustFind(t, f.known, limiter(t), f.limits(rapid.IntRange(1, 3).Draw(t, "deploy")))
				f.holder.change(rigPart, r.Bucket(key(t)), f.now, func(b *bucket) { b.Adopt(r.Set, f.now) })
			},
			"evict": func(t *rapid.T) {
				f.holder.Sweep(rigPart, f.now)
				f.standby.Sweep(rigPart, f.now)
			},
		})
		f.requireModel(t)

		clear(f.taken)
		clearPart(f.holder, rigPart)
		clearPart(f.standby, rigPart)
		f.forget()
		f.forget()
		f.forget()
		for _, known := range []*rule.Rules{f.known, f.there} {
			rules, names := known.Len()
			require.Zero(t, rules+names, "nothing refers to them any more")
		}
	})
}
