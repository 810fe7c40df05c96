package peerlimit

import (
	"hash/maphash"
	"math/bits"
	"unsafe"
)

// buckets is the set of buckets of one partition: a hash table with linear probing. A Go map would do the same with
// three more cache misses for each take, which with many keys is most of what a take costs; see BenchmarkLocalDecision
// in the bench module.
//
// The zero value is empty. It is not safe for concurrent use.
type buckets struct {
	slots []slot // at most 3/4 of them in use; nil when empty
	used  int
}

// slot is a place for a bucket; nil when free.
type slot struct {
	hash   uint64
	bucket *bucket
}

// bucket is what one key has taken under one limiter. It begins with the first bytes of its key and mostly the others
// follow it in memory, so with a key of up to 21 bytes it is one cache line, and a take needs no other to compare the key.
type bucket struct {
	bucketState
	place   int32 // in the table's order of eviction
	limiter limiterID
	home    uint16 // its partition; nowhere once it was removed
	length  uint16 // of the key
	dirty   bool   // listed in its partition's dirty
	text    [shortKey]byte
}

// shortKey is the length of the keys that a bucket has room for itself, and nearKey of those that follow it.
const (
	shortKey = 21
	nearKey  = shortKey + 64
)

// nowhere is the home of a bucket that is in no table any more. Who has kept it, as the list of changes does, can tell.
const nowhere = partitionCount

// keyedApart is a bucket whose key is too long to follow it.
type keyedApart struct {
	bucket
	key *byte
}

// key returns the bucket's own copy of its key.
func (b *bucket) key() string {
	if b.length > nearKey {
		return unsafe.String((*keyedApart)(unsafe.Pointer(b)).key, b.length) // #nosec G103 -- newBucket has made it one
	}
	return unsafe.String(&b.text[0], b.length) // #nosec G103 -- written once, by newBucket, which has made room for it
}

// name returns what the bucket is found by.
func (b *bucket) name() bucketKey { return bucketKey{b.key(), b.limiter} }

// bucketKey names a bucket.
type bucketKey struct {
	key     string
	limiter limiterID
}

const minSlots = 8

// hash is seeded in each process: whoever chooses the keys can aim at a partition, whose formula is public, and
// still not at a slot.
func (k bucketKey) hash(seed maphash.Seed) uint64 {
	return maphash.String(seed, k.key) + uint64(k.limiter)*0x9E3779B97F4A7C15
}

// find returns the bucket of that name, or nil.
func (s *buckets) find(hash uint64, id bucketKey) *bucket {
	if s.used == 0 {
		return nil
	}
	for i := s.first(hash); s.slots[i].bucket != nil; i = s.next(i) {
		if s.slots[i].hash == hash && s.slots[i].bucket.name() == id {
			return s.slots[i].bucket
		}
	}
	return nil
}

// first returns the slot of its own that a hash has: where it lies among all hashes. So the number of slots can be any, and
// a table that grows by half wastes less than one that doubles.
func (s *buckets) first(hash uint64) int {
	high, _ := bits.Mul64(hash, uint64(len(s.slots)))
	return int(high)
}

func (s *buckets) next(i int) int {
	if i++; i == len(s.slots) {
		return 0
	}
	return i
}

// distance returns how many steps of next lead from one slot to another.
func (s *buckets) distance(from, to int) int {
	if to < from {
		to += len(s.slots)
	}
	return to - from
}

// insert adds a bucket whose name is not there yet. It keeps a copy of the key: the one that was looked up may be part
// of a request's buffer, or of a large string of the user's.
func (s *buckets) insert(hash uint64, id bucketKey, state bucketState) *bucket {
	if 4*(s.used+1) > 3*len(s.slots) {
		s.resize(max(minSlots, 3*len(s.slots)/2))
	}
	b := newBucket(id)
	b.bucketState = state
	s.place(slot{hash, b})
	s.used++
	return b
}

// newBucket returns a bucket with a copy of its key.
func newBucket(id bucketKey) (b *bucket) {
	n := len(id.key)
	switch {
	case n <= shortKey:
		b = new(bucket)
	case n <= shortKey+16:
		b = &new(struct {
			bucket
			text [16]byte
		}).bucket
	case n <= shortKey+32:
		b = &new(struct {
			bucket
			text [32]byte
		}).bucket
	case n <= nearKey:
		b = &new(struct {
			bucket
			text [nearKey - shortKey]byte
		}).bucket
	default:
		text := []byte(id.key)
		b = &(&keyedApart{key: &text[0]}).bucket
	}
	if n <= nearKey {
		copy(unsafe.Slice(&b.text[0], n), id.key) // #nosec G103 -- there is room for it, see above
	}
	b.length, b.limiter = uint16(n), id.limiter
	return b
}

// place puts a slot's content into the first free slot from its own.
func (s *buckets) place(content slot) {
	i := s.first(content.hash)
	for s.slots[i].bucket != nil {
		i = s.next(i)
	}
	s.slots[i] = content
}

// resize moves everything to another number of slots.
func (s *buckets) resize(slots int) {
	old := s.slots
	s.slots = make([]slot, slots)
	for _, content := range old {
		if content.bucket != nil {
			s.place(content)
		}
	}
}

// remove drops a bucket that is there. What stood behind it moves up, and memory is given back, as removeIf does.
func (s *buckets) remove(hash uint64, b *bucket) {
	free := s.first(hash)
	for s.slots[free].bucket != b {
		free = s.next(free)
	}
	for i := s.next(free); s.slots[i].bucket != nil; i = s.next(i) {
		if s.distance(s.first(s.slots[i].hash), i) >= s.distance(free, i) { // it may stand that far up
			s.slots[free] = s.slots[i]
			free = i
		}
	}
	s.slots[free] = slot{}
	b.home = nowhere
	if s.used--; s.used == 0 {
		s.slots = nil
	} else if len(s.slots) > minSlots && 4*s.used <= len(s.slots) {
		s.resize(len(s.slots) / 2)
	}
}

// removeIf drops every bucket that drop says yes to, and gives memory back when most of it is not needed any more.
func (s *buckets) removeIf(drop func(*bucket) bool) (removed int) {
	for i := range s.slots {
		if b := s.slots[i].bucket; b != nil && drop(b) {
			s.slots[i] = slot{}
			b.home = nowhere
			removed++
		}
	}
	if removed == 0 {
		return 0
	}
	s.used -= removed
	if s.used == 0 {
		s.slots = nil
		return removed
	}
	size := len(s.slots)
	for size > minSlots && 4*s.used <= size {
		size /= 2
	}
	s.resize(size) // also where the size stays: what stood behind a removed one moves up
	return removed
}
