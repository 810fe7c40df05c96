package peerlimit

import (
	"math"
	"math/rand/v2"
	"sync"
	"time"
)

// Eviction: which bucket goes when there are too many. Whoever sends endless fresh keys must not make a node forget the
// keys that are exhausted, so it is the one that is full of tokens first; a drained one is full already.
//
// When a bucket is full does not change as time passes, and a take only puts it off. So the order in which buckets are
// full is a heap that takes do not have to keep up to date: an entry says "not before", it is looked at again when it
// has come to the top, and what is found unchanged there is the first of all.
//
// What is promised: the bucket that goes is the one of all buckets of the table that is full first. Buckets that tokens
// are set aside of go only when nothing else is found. There are three exceptions. A bucket whose partition is frozen,
// or locked at this moment, stays. One that tokens were given back to counts as before until it has come to the top.
// And when more than evictionLooks at the top have changed since they were last looked at, or may not go, it is the
// fullest of those and of evictionSample others that are chosen at random from all: where a part f of all buckets is
// exhausted, one of them goes with a probability of at most f^evictionSample. Each look brings an entry up to date, so
// that lasts only as long as there are such entries.

const (
	// evictionLooks bounds how many entries at the top are looked at for one eviction.
	evictionLooks = 16

	// evictionSample is how many are compared when none at the top was as expected.
	evictionSample = 16

	// evictionsAtOnce is how many buckets an insertion drops at most: more than one, so that the bound is soon kept again
	// when it could not be for a while.
	evictionsAtOnce = 2

	// fullAtSlack is by how much the time when a bucket is full may seem to change when it was only rounded anew.
	fullAtSlack = int64(time.Microsecond)
)

// evictionOrder has all buckets of a table, the one that is full first at the top.
type evictionOrder struct {
	// mu is held for one insertion, eviction or removal. It is taken with a partition's mu held; under it another
	// partition's is only tried.
	mu sync.Mutex

	heap []evictionEntry // a binary heap by fullAt

	// newest was inserted last and is not in the heap yet: only now is taken from it what it was made for. The next
	// insertion puts it there. Nil when there is none.
	newest *bucket
}

// evictionEntry is a bucket and a time before which it is not full, unless tokens were given back to it.
type evictionEntry struct {
	fullAt int64
	bucket *bucket
}

// notPlaced is the place of a bucket that is not in the heap.
const notPlaced = -1

// admit makes room for a bucket just inserted into p, and counts it. The caller holds p.mu.
func (t *table) admit(p *partition, b *bucket, now int64) {
	o := &t.order
	o.mu.Lock()
	defer o.mu.Unlock()
	t.placeNewest(p, now)
	for i := 0; i < evictionsAtOnce && t.keys.Load() >= t.maxKeys; i++ {
		if !t.evict(p, now) {
			break // the bound gives way
		}
	}
	b.home, b.place = p.number, notPlaced
	o.newest = b
	t.keys.Add(1)
}

// homeOf returns the partition that a bucket is in.
func (t *table) homeOf(b *bucket) *partition { return &t.partitions[b.home] }

// discount takes a bucket out of the order that is about to be dropped or was. The caller holds its partition's mu.
func (t *table) discount(b *bucket) {
	t.order.mu.Lock()
	t.order.remove(b)
	t.order.mu.Unlock()
	t.keys.Add(-1)
}

// placeNewest puts the bucket inserted last into the heap. One that is still being taken from is put at the top, to be
// looked at again. The caller holds own.mu and order.mu.
func (t *table) placeNewest(own *partition, now int64) {
	o := &t.order
	b := o.newest
	if b == nil {
		return
	}
	o.newest = nil
	fullAt := now
	if own.tryLockToo(t.homeOf(b)) {
		fullAt = after(now, b.bucketState.fullIn(now))
		own.unlockToo(t.homeOf(b))
	}
	o.push(evictionEntry{fullAt, b})
}

// evict drops a bucket, and reports whether it could. The caller holds own.mu and order.mu.
func (t *table) evict(own *partition, now int64) bool {
	b := t.chooseVictim(own, now)
	if b == nil || !own.tryLockToo(t.homeOf(b)) {
		return false
	}
	defer own.unlockToo(t.homeOf(b))
	if b.fullIn(now) > 0 {
		t.evicted.Add(1)
	}
	t.homeOf(b).buckets.remove(b.name().hash(t.seed), b)
	t.order.remove(b)
	t.keys.Add(-1)
	return true
}

// chooseVictim returns the bucket to drop, or nil when none may be.
func (t *table) chooseVictim(own *partition, now int64) *bucket {
	var (
		o       = &t.order
		victim  *bucket
		least   time.Duration
		skipped [evictionLooks]evictionEntry // they may not go, or not yet
		skips   int
	)
	look := func(b *bucket) (fullIn time.Duration, ok bool) {
		if fullIn, ok = t.look(own, b, now); ok && (victim == nil || fullIn < least) {
			victim, least = b, fullIn
		}
		return fullIn, ok
	}
	defer func() {
		for _, e := range skipped[:skips] {
			o.push(e)
		}
	}()
	for range evictionLooks {
		if len(o.heap) == 0 {
			return victim
		}
		top := &o.heap[0]
		fullIn, ok := look(top.bucket)
		if !ok || fullIn == math.MaxInt64 {
			skipped[skips] = *top
			skips++
			o.remove(top.bucket)
			continue
		}
		fullAt := after(now, fullIn)
		if fullAt-fullAtSlack <= top.fullAt {
			return top.bucket
		}
		top.fullAt = fullAt
		o.down(0)
	}
	for i := 0; i < evictionSample && len(o.heap) > 0; i++ {
		look(o.heap[rand.IntN(len(o.heap))].bucket) // #nosec G404 -- a sample
	}
	return victim
}

// look returns in what time a bucket is full; not ok says that it may not go.
func (t *table) look(own *partition, b *bucket, now int64) (fullIn time.Duration, ok bool) {
	if !own.tryLockToo(t.homeOf(b)) {
		return 0, false
	}
	defer own.unlockToo(t.homeOf(b))
	if now < t.homeOf(b).frozenUntil {
		return 0, false
	}
	t.leased(b, now) // what has ended drains
	return b.fullIn(now), true
}

// tryLockToo locks another partition if that can be done at once: no order of locking is agreed between partitions. The
// caller holds p.mu, which other may be, too.
func (p *partition) tryLockToo(other *partition) bool { return p == other || other.mu.TryLock() }

func (p *partition) unlockToo(other *partition) {
	if p != other {
		other.mu.Unlock()
	}
}

// after returns the time d from now, or the last there is.
func after(now int64, d time.Duration) int64 {
	if int64(d) > math.MaxInt64-now {
		return math.MaxInt64
	}
	return now + int64(d)
}

// push adds an entry.
func (o *evictionOrder) push(e evictionEntry) {
	o.heap = append(o.heap, e)
	o.up(len(o.heap) - 1)
}

// remove takes a bucket out, and gives memory back when most of it is not needed any more.
func (o *evictionOrder) remove(b *bucket) {
	if b == o.newest {
		o.newest = nil
		return
	}
	i, last := int(b.place), len(o.heap)-1
	b.place = notPlaced
	moved := o.heap[last]
	o.heap[last] = evictionEntry{}
	o.heap = o.heap[:last]
	if i < last {
		o.set(i, moved)
		o.down(i)
		o.up(int(moved.bucket.place))
	}
	if c := cap(o.heap); c > 1024 && 4*last <= c {
		o.heap = append(make([]evictionEntry, 0, c/2), o.heap...)
	}
}

func (o *evictionOrder) set(i int, e evictionEntry) {
	o.heap[i] = e
	e.bucket.place = int32(i)
}

// up moves the entry at i to where nothing above it is later.
func (o *evictionOrder) up(i int) {
	e := o.heap[i]
	for i > 0 {
		above := (i - 1) / 2
		if o.heap[above].fullAt <= e.fullAt {
			break
		}
		o.set(i, o.heap[above])
		i = above
	}
	o.set(i, e)
}

// down moves the entry at i to where nothing below it is earlier.
func (o *evictionOrder) down(i int) {
	e := o.heap[i]
	for {
		below := 2*i + 1
		if below >= len(o.heap) {
			break
		}
		if right := below + 1; right < len(o.heap) && o.heap[right].fullAt < o.heap[below].fullAt {
			below = right
		}
		if e.fullAt <= o.heap[below].fullAt {
			break
		}
		o.set(i, o.heap[below])
		i = below
	}
	o.set(i, e)
}
