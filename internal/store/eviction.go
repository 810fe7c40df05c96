package store

import (
	"math"
	"math/rand/v2"
	"sync"
	"time"
)

// Eviction: which bucket goes when there are too many. A caller that sends endless fresh keys must not make a node forget the
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

	heap evictionHeap // a binary heap by fullAt

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
func (t *Table) admit(p *Partition, b *bucket, now int64) {
	o := &t.order
	o.mu.Lock()
	defer o.mu.Unlock()
	t.placeNewest(p, now)
	t.makeRoom(p, t.maxKeys-1, now)
	b.home, b.place = p.number, notPlaced
	o.newest = b
	t.keys.Add(1)
}

// admitLate puts a bucket of p into the order that was counted already, unless it is there. The caller holds p.mu.
func (t *Table) admitLate(p *Partition, b *bucket, now int64) {
	o := &t.order
	o.mu.Lock()
	defer o.mu.Unlock()
	if b.home != p.number || b.place != notPlaced || b == o.newest {
		return // it has been dropped meanwhile, or was inserted later than the others
	}
	o.push(evictionEntry{after(now, b.State.FullIn(now)), b})
	t.makeRoom(p, t.maxKeys, now)
}

// makeRoom evicts while there are more than that many keys, but only some. The caller holds own.mu and order.mu.
func (t *Table) makeRoom(own *Partition, most int64, now int64) {
	for i := 0; i < evictionsAtOnce && t.keys.Load() > most; i++ {
		if !t.evict(own, now) {
			break // the bound gives way
		}
	}
}

// homeOf returns the partition that a bucket is in.
func (t *Table) homeOf(b *bucket) *Partition { return &t.partitions[b.home] }

// discount takes a bucket out of the order that is about to be dropped or was. The caller holds its partition's mu.
func (t *Table) discount(b *bucket) {
	t.order.mu.Lock()
	t.order.remove(b)
	t.order.mu.Unlock()
	t.keys.Add(-1)
}

// forget takes a bucket out of the order that is not in its partition any more, and not counted. The caller holds its
// partition's mu.
func (t *Table) forget(b *bucket) {
	t.order.mu.Lock()
	t.order.remove(b)
	t.order.mu.Unlock()
	b.home = nowhere
}

// placeNewest puts the bucket inserted last into the heap. One that is still being taken from is put at the top, to be
// looked at again. The caller holds own.mu and order.mu.
func (t *Table) placeNewest(own *Partition, now int64) {
	o := &t.order
	b := o.newest
	if b == nil {
		return
	}
	o.newest = nil
	fullAt := now
	if own.tryLockToo(t.homeOf(b)) {
		fullAt = after(now, b.DrainsIn(now))
		own.unlockToo(t.homeOf(b))
	}
	o.push(evictionEntry{fullAt, b})
}

// evict drops a bucket, and reports whether it could. The caller holds own.mu and order.mu.
func (t *Table) evict(own *Partition, now int64) bool {
	b := t.chooseVictim(own, now)
	if b == nil || !own.tryLockToo(t.homeOf(b)) {
		return false
	}
	defer own.unlockToo(t.homeOf(b))
	if b.FullIn(now) > 0 {
		t.evicted.Add(1)
	}
	home := t.homeOf(b)
	if b.HasTurns() {
		t.dismiss(home, b)
	}
	t.order.remove(b)
	home.buckets.remove(b.name().Hash(t.seed), b)
	t.keys.Add(-1)
	return true
}

// chooseVictim returns the bucket to drop, or nil when none may be.
func (t *Table) chooseVictim(own *Partition, now int64) *bucket {
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
		if o.heap.len() == 0 {
			return victim
		}
		top := o.heap.at(0)
		if t.forgotten(own, top.bucket) {
			continue
		}
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
		o.down(0, evictionEntry{fullAt, top.bucket})
	}
	for i := 0; i < evictionSample && o.heap.len() > 0; i++ {
		b := o.heap.at(rand.IntN(o.heap.len())).bucket // #nosec G404 -- a sample
		if !t.forgotten(own, b) {
			look(b)
		}
	}
	return victim
}

// forgotten takes a bucket out of the order that is not in its partition any more, because the partition's buckets were
// replaced; see tidy. It reports whether that was so. The caller holds own.mu and order.mu.
func (t *Table) forgotten(own *Partition, b *bucket) bool {
	home := t.homeOf(b)
	if !own.tryLockToo(home) {
		return false // then it may not go anyway
	}
	defer own.unlockToo(home)
	if home.underway == nil || len(home.underway.old) == 0 {
		return false
	}
	if name := b.name(); home.buckets.find(name.Hash(t.seed), name) == b {
		return false
	}
	t.order.remove(b)
	b.home = nowhere
	return true
}

// look returns in what time a bucket is full; not ok says that it may not go.
func (t *Table) look(own *Partition, b *bucket, now int64) (fullIn time.Duration, ok bool) {
	if !own.tryLockToo(t.homeOf(b)) {
		return 0, false
	}
	defer own.unlockToo(t.homeOf(b))
	if now < t.homeOf(b).frozenUntil {
		return 0, false
	}
	t.leased(b, now) // what has ended drains
	return b.FullIn(now), true
}

// tryLockToo locks another partition if that can be done at once: no order of locking is agreed between partitions. The
// caller holds p.mu, which other may be, too.
func (p *Partition) tryLockToo(other *Partition) bool { return p == other || other.mu.TryLock() }

func (p *Partition) unlockToo(other *Partition) {
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
	o.heap.grow()
	o.up(o.heap.len()-1, e)
}

// remove takes a bucket out, if it is there, and gives memory back when most of it is not needed any more.
func (o *evictionOrder) remove(b *bucket) {
	if b == o.newest {
		o.newest = nil
		return
	}
	i := int(b.place)
	if i == notPlaced {
		return
	}
	b.place = notPlaced
	moved := o.heap.shrink()
	if i < o.heap.len() {
		o.down(i, moved)
		o.up(int(moved.bucket.place), moved)
	}
}

// up puts an entry where nothing above it is later, at i or above.
func (o *evictionOrder) up(i int, e evictionEntry) {
	for i > 0 {
		above := (i - 1) / 2
		if o.heap.at(above).fullAt <= e.fullAt {
			break
		}
		o.heap.set(i, *o.heap.at(above))
		i = above
	}
	o.heap.set(i, e)
}

// down puts an entry where nothing below it is earlier, at i or below.
func (o *evictionOrder) down(i int, e evictionEntry) {
	for {
		below := 2*i + 1
		if below >= o.heap.len() {
			break
		}
		if right := below + 1; right < o.heap.len() && o.heap.at(right).fullAt < o.heap.at(below).fullAt {
			below = right
		}
		if e.fullAt <= o.heap.at(below).fullAt {
			break
		}
		o.heap.set(i, *o.heap.at(below))
		i = below
	}
	o.heap.set(i, e)
}

// evictionHeap is the memory of a heap: pages, so that it never has to be moved as a whole. The zero value is empty.
type evictionHeap struct {
	pages []*[evictionPage]evictionEntry
	count int
}

const evictionPage = 1024

func (h *evictionHeap) len() int { return h.count }

func (h *evictionHeap) at(i int) *evictionEntry { return &h.pages[i/evictionPage][i%evictionPage] }

// set puts an entry at i, and tells its bucket.
func (h *evictionHeap) set(i int, e evictionEntry) {
	*h.at(i) = e
	e.bucket.place = int32(i)
}

// grow makes room for one more at the end.
func (h *evictionHeap) grow() {
	if h.count == len(h.pages)*evictionPage {
		h.pages = append(h.pages, new([evictionPage]evictionEntry))
	}
	h.count++
}

// shrink takes the last one out, and keeps memory for one page more than is needed, at most.
func (h *evictionHeap) shrink() evictionEntry {
	h.count--
	last := *h.at(h.count)
	*h.at(h.count) = evictionEntry{}
	if spare := len(h.pages) - 1; h.count+evictionPage <= spare*evictionPage {
		h.pages[spare] = nil
		h.pages = h.pages[:spare]
	}
	return last
}
