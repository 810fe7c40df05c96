package store

import (
	"fmt"
	"math"
	"testing"
	"time"

	"github.com/peerlimit/peerlimit/internal/limit"
	"github.com/peerlimit/peerlimit/internal/rule"
	"github.com/peerlimit/peerlimit/internal/wire"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

// mustFind returns the rule that requests with these limits use.
func mustFind(t require.TestingT, known *rule.Rules, name string, limits []limit.Limit) *rule.Rule {
	found, err := known.Find(wire.AppendRule(nil, name, limits))
	require.NoError(t, err)
	return found
}

// bucketOf returns the bucket of a key under a limiter, or nil.
func bucketOf(t require.TestingT, tab *Table, part uint16, known *rule.Rules, limiter, key string) *bucket {
	name := rule.BucketKey{Key: key, Limiter: known.NameOf(limiter)}
	require.NotNil(t, name.Limiter)
	return tab.partitions[part].buckets.find(name.Hash(tab.seed), name)
}

// collect is what AddCopy does for an answer.
func (t *Table) collect(part uint16, from uint32, maxBytes int, now int64) (content wire.Content, next uint32, more bool) {
	c := newCollector(t, maxBytes, now)
	next = from
	t.InSteps(part, func(p *Partition) (more bool) {
		next = c.step(p, next)
		return next != 0 && !c.full
	})
	return c.content, next, next != 0
}

// sendPieces moves a partition from one table to another, in pieces, in the bytes of messages.
func sendPieces(t require.TestingT, from, to *Table, knownTo *rule.Rules, part uint16, maxBytes int, now, nowThere int64) (pieces int) {
	for next, more := uint32(0), true; more; pieces++ {
		var content wire.Content
		content, next, more = from.collect(part, next, maxBytes, now)
		encoded := wire.AppendReplicaRequest(nil, &wire.ReplicaRequest{Parts: []wire.ReplicaPart{{Part: part, Content: content}}})
		if len(content.Buckets) > 1 {
			require.LessOrEqual(t, len(encoded), maxBytes+20, "%d buckets", len(content.Buckets))
		}
		if more {
			require.NotEmpty(t, content.Buckets)
		}
		decoded, err := (&wire.ReplicaMemory{Message: encoded}).Decode(knownTo.PlainSet)
		require.NoError(t, err)
		p := &to.partitions[part]
		p.mu.Lock()
		p.store(to, decoded.Parts[0].Content.Buckets, knownTo, nowThere)
		p.mu.Unlock()
	}
	return pieces
}

// A partition that has moved decides as it would have where it came from: with several versions of several limiters,
// with what they remember of each other, and on a node whose clock shows another time.
func TestMovedBucketsDecideTheSame(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		const part = 5
		limits := rapid.SliceOfN(rapid.SliceOfN(anyLimitOfFewKinds(), 1, limit.MaxCombined), 1, 3).Draw(t, "versions")
		here, there := New(Config{MaxKeys: 1000}), New(Config{MaxKeys: 1000})
		knownHere, knownThere := rule.New(1000), rule.New(1000)
		mustFind(t, knownThere, "something else first", []limit.Limit{perSecond(1)}) // ids differ from node to node
		type request struct {
			limiter, key string
			limits       []limit.Limit
		}
		draw := rapid.Custom(func(t *rapid.T) request {
			return request{
				limiter: rapid.SampledFrom([]string{"a", "b"}).Draw(t, "limiter"),
				key:     rapid.SampledFrom([]string{"k", "l", "m", "\x00"}).Draw(t, "key"),
				limits:  rapid.SampledFrom(limits).Draw(t, "version"),
			}
		})
		take := func(tab *Table, known *rule.Rules, q request, cost float64, now int64) limit.Decision {
			r := mustFind(t, known, q.limiter, q.limits)
			d, ok := tab.decide(part, r.Bucket(q.key), &limit.Request{Set: r.Set, Cost: cost}, now)
			require.True(t, ok)
			return d
		}
		cost := rapid.SampledFrom([]float64{0.1, 1.0 / 3, 1, 2, 5})
		step := rapid.Int64Range(0, int64(3*time.Second))
		now := rapid.Int64Range(0, math.MaxInt64/4).Draw(t, "now")
		for range rapid.IntRange(0, 40).Draw(t, "takes before") {
			now += step.Draw(t, "step")
			take(here, knownHere, draw.Draw(t, "request"), cost.Draw(t, "cost"), now)
		}

		now += step.Draw(t, "step")
		ahead := rapid.Int64Range(0, math.MaxInt64/4).Draw(t, "clocks differ by") - now
		sendPieces(t, here, there, knownThere, part, rapid.IntRange(1, 2000).Draw(t, "bytes"), now, now+ahead)
		here.Sweep(part, now)
		require.Equal(t, here.keys.Load(), there.keys.Load())
		for _, content := range allIn(&here.partitions[part].buckets) {
			b := content.bucket
			b.Advance(now) // the one that was sent is as of now
			moved := bucketOf(t, there, part, knownThere, b.Set.Name.Text, b.key())
			require.NotNil(t, moved)
			require.Equal(t, b.Set.Limits, moved.Set.Limits)
			require.Equal(t, b.Set.Active, moved.Set.Active)
			require.Equal(t, b.Set.IDs, moved.Set.IDs)
			for i := range b.Set.Meters {
				require.Equal(t, math.Float64bits(b.Level(i)), math.Float64bits(moved.Level(i)))
			}
		}
		for range rapid.IntRange(0, 40).Draw(t, "takes after") {
			q, c := draw.Draw(t, "request"), cost.Draw(t, "cost")
			require.Equal(t, take(here, knownHere, q, c, now), take(there, knownThere, q, c, now+ahead))
			now += step.Draw(t, "step")
		}
	})
}

// anyLimitOfFewKinds draws limits of which versions have some in common and some not.
func anyLimitOfFewKinds() *rapid.Generator[limit.Limit] {
	return rapid.Custom(func(t *rapid.T) limit.Limit {
		l := limit.Limit{
			Tokens: rapid.SampledFrom([]float64{1.0 / 7, 3, 10, 60}).Draw(t, "tokens"),
			Period: rapid.SampledFrom([]time.Duration{time.Second, time.Minute, time.Hour}).Draw(t, "period"),
			Burst:  rapid.SampledFrom([]float64{0, 5, 20}).Draw(t, "burst"),
		}
		if rapid.Bool().Draw(t, "leaky") {
			l = leaky(l)
		}
		return l
	})
}

// A level is remembered as the third of its kind; when it moves without the first two it is still the third. Were it
// taken for the second, those that know all three would find the third full of tokens.
func TestMovedLevelKeepsItsOrdinal(t *testing.T) {
	three := []limit.Limit{perSecond(10), withBurst(perSecond(1000), 100), withBurst(perSecond(1), 100)}
	here, there, knownHere, knownThere := New(Config{MaxKeys: 10}), New(Config{MaxKeys: 10}), rule.New(1000), rule.New(1000)
	all, one := mustFind(t, knownHere, "api", three), mustFind(t, knownHere, "api", three[:1])
	k := all.Bucket("k")
	for second := range 10 {
		require.True(t, Allowed(here.decide(0, k, &limit.Request{Set: all.Set, Cost: 10}, int64(second)*int64(time.Second))))
	}
	now := int64(10 * time.Second)
	require.True(t, Allowed(here.decide(0, k, &limit.Request{Set: one.Set, Cost: 1}, now)), "only the third is remembered besides")
	sendPieces(t, here, there, knownThere, 0, 1000, now, 0)

	allThere := mustFind(t, knownThere, "api", three)
	d, _ := there.Peek(0, allThere.Bucket("k"), allThere.Set, 0)
	assert.Equal(t, three[2], d.Limit)
	assert.Equal(t, 10.0, d.Remaining)
}

// A large partition moves in pieces near the size asked for, and each bucket once.
func TestCollectCutsIntoPieces(t *testing.T) {
	here, there, known := New(Config{MaxKeys: 10_000}), New(Config{MaxKeys: 10_000}), rule.New(1000)
	r := mustFind(t, known, "api", []limit.Limit{perHour(100)})
	for i := range 5000 {
		here.decide(7, r.Bucket(fmt.Sprintf("user-%015d", i)), &limit.Request{Set: r.Set, Cost: 0.1}, 0)
	}
	pieces := sendPieces(t, here, there, known, 7, 16<<10, 1, 1)
	assert.Equal(t, int64(5000), there.keys.Load())
	assert.LessOrEqual(t, pieces, 5000*40/(16<<10)+1, "pieces are about as large as allowed")
}

func TestCollectSkipsDrainedBuckets(t *testing.T) {
	tab, known := New(Config{MaxKeys: 10}), rule.New(1000)
	r := mustFind(t, known, "api", []limit.Limit{perSecond(10)})
	tab.decide(7, r.Bucket("drained"), &limit.Request{Set: r.Set, Cost: 1}, 0)
	tab.decide(7, r.Bucket("not yet"), &limit.Request{Set: r.Set, Cost: 10}, 0)
	content, _, more := tab.collect(7, 0, 1000, int64(500*time.Millisecond))
	require.False(t, more)
	assert.Equal(t, []wire.Image{{Limiter: "api", Key: "not yet", Set: r.Set, Levels: []float64{5}}}, content.Buckets)
}

// One bucket larger than the piece is sent all the same, or the move would never end.
func TestCollectAlwaysGoesOn(t *testing.T) {
	tab, known := New(Config{MaxKeys: 10}), rule.New(1000)
	r := mustFind(t, known, "api", []limit.Limit{perSecond(10)})
	for i := range 3 {
		tab.decide(7, r.Bucket(fmt.Sprint(i)), &limit.Request{Set: r.Set, Cost: 1}, 0)
	}
	assert.Equal(t, 3, sendPieces(t, tab, New(Config{MaxKeys: 10}), rule.New(1000), 7, 1, 0, 0))
}

// What is stored replaces what was there: a copy is never merged with another.
func TestStoreReplaces(t *testing.T) {
	tab, known := New(Config{MaxKeys: 10}), rule.New(1000)
	r := mustFind(t, known, "api", []limit.Limit{perHour(10)})
	two := mustFind(t, known, "api", []limit.Limit{perHour(20), perMinute(20)})
	p := &tab.partitions[7]
	keys := []rule.BucketKey{r.Bucket("more"), r.Bucket("less"), r.Bucket("zero"), r.Bucket("none"), r.Bucket("kept")}
	other := mustFind(t, known, "other", []limit.Limit{perHour(10)})
	for _, key := range keys {
		tab.decide(7, key, &limit.Request{Set: r.Set, Cost: 5}, 0)
	}
	cancelled := limit.Undo{After: limit.Snapshot{Count: 1, Levels: [limit.MaxCombined]float64{99}}} // others stand behind it
	tab.partitions[7].buckets.find(keys[0].Hash(tab.seed), keys[0]).CancelReserved(cancelled, 0)
	require.True(t, tab.partitions[7].buckets.find(keys[0].Hash(tab.seed), keys[0]).HasMore())
	image := func(key string, set *limit.Set, levels ...float64) wire.Image {
		return wire.Image{Limiter: "api", Key: key, Set: set, Levels: levels}
	}
	p.store(tab, []wire.Image{
		image("more", two.Set, 7, 3), image("less", r.Set, 1), image("zero", r.Set, 0), image("none", nil),
		image("new", r.Set, 2), image("never there", r.Set, 0), {Limiter: "other", Key: "less", Set: other.Set, Levels: []float64{9}},
		{Limiter: "never heard of", Key: "less"},
	}, known, 100)
	assert.Equal(t, int64(5), tab.keys.Load())
	assert.EqualValues(t, 5, p.buckets.used)
	for key, want := range map[string]float64{"more": 7, "less": 1, "kept": 5, "new": 2} {
		b := bucketOf(t, tab, 7, known, "api", key)
		require.NotNil(t, b, key)
		assert.Equal(t, want, b.Level(0), key)
		assert.Equal(t, b.Levels() > 1, b.HasMore(), "what was to be undone is not in what replaced it")
	}
	assert.Equal(t, 3.0, bucketOf(t, tab, 7, known, "api", "more").Level(1))
	assert.Equal(t, int64(100), bucketOf(t, tab, 7, known, "api", "new").At)
	for _, key := range []string{"zero", "none", "never there"} {
		assert.Nil(t, bucketOf(t, tab, 7, known, "api", key), key)
	}

	clearPart(tab, 7)
	assert.Zero(t, tab.keys.Load())
	assert.Zero(t, p.buckets)
}

// The bound on keys holds for buckets that come from elsewhere as well.
func TestStoreIsBounded(t *testing.T) {
	tab, known := New(Config{MaxKeys: 100}), rule.New(1000)
	r := mustFind(t, known, "api", []limit.Limit{perHour(10)})
	var images []wire.Image
	for i := range 1000 {
		images = append(images, wire.Image{Limiter: "api", Key: fmt.Sprint(i), Set: r.Set, Levels: []float64{5}})
	}
	tab.partitions[7].store(tab, images, known, 0)
	assert.Equal(t, int64(100), tab.keys.Load())
	assert.Equal(t, uint64(900), tab.evicted.Load())
}
