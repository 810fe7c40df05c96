package peerlimit

import (
	"hash/maphash"
	"sync"
	"sync/atomic"
	"time"
)

// table keeps buckets by partition: the partition is the unit of ownership, of locking and of moving. Which partitions a
// node may decide is not the table's business.
type table struct {
	partitions [partitionCount]partition
	maxKeys    int64
	seed       maphash.Seed

	keys    atomic.Int64  // buckets in all partitions
	evicted atomic.Uint64 // buckets that still mattered when they had to go
}

// partition is a set of buckets under one lock. A bucket that is not there is full of tokens.
type partition struct {
	// mu guards the buckets and is held for one operation on one of them, or for one look over all of them; never across
	// I/O, a channel or a sleep.
	mu      sync.Mutex
	buckets buckets
}

func newTable(maxKeys int) *table { return &table{maxKeys: int64(maxKeys), seed: maphash.MakeSeed()} }

// decide takes a's cost from a bucket, or says why not. The key may be reused by the caller afterwards.
func (t *table) decide(part uint16, id bucketKey, a *ask, now int64) Decision {
	p, hash := &t.partitions[part], id.hash(t.seed)
	p.mu.Lock()
	b := p.buckets.find(hash, id)
	if b == nil {
		b = t.insert(p, hash, id, a.set, now)
	}
	d := b.decide(a, now)
	p.mu.Unlock()
	return d
}

// reserve is decide for a turn that may come later, and says how to undo it.
func (t *table) reserve(part uint16, id bucketKey, a *ask, now int64) (Decision, *undo) {
	p, hash := &t.partitions[part], id.hash(t.seed)
	p.mu.Lock()
	defer p.mu.Unlock()
	b := p.buckets.find(hash, id)
	if b == nil {
		b = t.insert(p, hash, id, a.set, now)
	}
	return b.reserve(a, now)
}

// peek tells how a bucket stands and changes nothing.
func (t *table) peek(part uint16, id bucketKey, set *limitSet, now int64) Decision {
	p := &t.partitions[part]
	p.mu.Lock()
	defer p.mu.Unlock()
	if b := p.buckets.find(id.hash(t.seed), id); b != nil {
		return b.peek(set, now)
	}
	fresh := newBucketState(set, now)
	return fresh.peek(set, now)
}

// cancel gives a reservation's tokens back, as [Reservation.Cancel] describes.
func (t *table) cancel(part uint16, id bucketKey, u undo, now int64) {
	p := &t.partitions[part]
	p.mu.Lock()
	defer p.mu.Unlock()
	b := p.buckets.find(id.hash(t.seed), id)
	if b == nil {
		return
	}
	if b.undone == nil {
		b.undone = new(undone)
	}
	b.undone.cancel(&b.bucketState, u, now)
	if len(b.undone.list) == 0 {
		b.undone = nil
	}
}

// refund gives cost tokens back to a bucket.
func (t *table) refund(part uint16, id bucketKey, set *limitSet, cost float64, now int64) {
	p := &t.partitions[part]
	p.mu.Lock()
	defer p.mu.Unlock()
	if b := p.buckets.find(id.hash(t.seed), id); b != nil {
		b.refund(set, cost, now)
	}
}

// reset makes a bucket full of tokens.
func (t *table) reset(part uint16, id bucketKey, now int64) {
	p := &t.partitions[part]
	p.mu.Lock()
	defer p.mu.Unlock()
	if b := p.buckets.find(id.hash(t.seed), id); b != nil {
		b.bucketState, b.undone = newBucketState(b.set.base, now), nil
	}
}

// exhaust makes a bucket empty of tokens, as far as the active limits of set go.
func (t *table) exhaust(part uint16, id bucketKey, set *limitSet, now int64) {
	p, hash := &t.partitions[part], id.hash(t.seed)
	p.mu.Lock()
	defer p.mu.Unlock()
	b := p.buckets.find(hash, id)
	if b == nil {
		b = t.insert(p, hash, id, set, now)
	}
	b.exhaust(set, now)
}

// insert adds a full bucket. The caller holds p.mu.
func (t *table) insert(p *partition, hash uint64, id bucketKey, set *limitSet, now int64) *bucket {
	if t.keys.Load() >= t.maxKeys {
		t.evict(p, now)
	}
	t.keys.Add(1)
	return p.buckets.insert(hash, id, newBucketState(set, now))
}

// evictionSample is how many buckets of a partition are compared to find one to evict: enough that an exhausted one is
// hardly ever the fullest among them, and few enough to look at under the partition's lock.
const evictionSample = 16

// evict drops the fullest of some buckets of p, to make room for another. With nothing in p, the bound is exceeded by
// one: by at most a bucket per partition. The caller holds p.mu.
func (t *table) evict(p *partition, now int64) {
	var victim *bucket
	var best time.Duration
	seen := 0
	for _, content := range p.buckets.slots {
		b := content.bucket
		if b == nil {
			continue
		}
		if left := b.fullIn(now); victim == nil || left < best {
			best, victim = left, b
		}
		if seen++; seen == evictionSample || best == 0 {
			break
		}
	}
	if victim == nil {
		return
	}
	if best > 0 {
		t.evicted.Add(1)
	}
	p.buckets.removeIf(func(b *bucket) bool { return b == victim })
	t.keys.Add(-1)
}

// sweep drops the drained buckets of one partition: they carry no information.
func (t *table) sweep(part uint16, now int64) {
	p := &t.partitions[part]
	p.mu.Lock()
	defer p.mu.Unlock()
	t.keys.Add(-int64(p.buckets.removeIf(func(b *bucket) bool { return b.drained(now) })))
}

// A round of sweeping takes half a minute, a small step at a time: a bucket that is done frees its memory within a
// minute, and no step is long.
const (
	sweepInterval = 250 * time.Millisecond
	sweepStep     = partitionCount/(30*4) + 1
)

// sweepForever sweeps partition after partition until done is closed.
func (t *table) sweepForever(done <-chan struct{}, clock func() int64) {
	ticker := time.NewTicker(sweepInterval)
	defer ticker.Stop()
	next := uint16(0)
	for {
		select {
		case <-done:
			return
		case <-ticker.C:
			for range sweepStep {
				t.sweep(next, clock())
				next = (next + 1) % partitionCount
			}
		}
	}
}
