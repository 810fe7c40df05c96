package peerlimit

import (
	"hash/maphash"
	"strings"
)

// buckets is the set of buckets of one partition: a hash table with linear probing. A Go map would do the same with
// three more cache misses for each take, which with many keys is most of what a take costs; see BenchmarkLocalDecision
// in the bench module.
//
// The zero value is empty. It is not safe for concurrent use.
type buckets struct {
	slots []slot // a power of two of them, at most 3/4 in use; nil when empty
	used  int
}

// slot is a place for a bucket; nil when free.
type slot struct {
	hash   uint64
	bucket *bucket
}

// bucket is what one key has taken under one limiter.
type bucket struct {
	bucketState
	bucketKey
	home  *partition
	place int32 // in the table's order of eviction
	dirty bool  // listed in its partition's dirty
	rare  *rare // nil for most
}

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
	mask := uint64(len(s.slots) - 1)
	for i := hash & mask; s.slots[i].bucket != nil; i = (i + 1) & mask {
		if s.slots[i].hash == hash && s.slots[i].bucket.bucketKey == id {
			return s.slots[i].bucket
		}
	}
	return nil
}

// insert adds a bucket whose name is not there yet. It keeps a copy of the key: the one that was looked up may be part
// of a request's buffer, or of a large string of the user's.
func (s *buckets) insert(hash uint64, id bucketKey, state bucketState) *bucket {
	if 4*(s.used+1) > 3*len(s.slots) {
		s.resize(max(minSlots, 2*len(s.slots)))
	}
	id.key = strings.Clone(id.key)
	b := &bucket{bucketState: state, bucketKey: id}
	s.place(slot{hash, b})
	s.used++
	return b
}

// place puts a slot's content into the first free slot from its own.
func (s *buckets) place(content slot) {
	mask := uint64(len(s.slots) - 1)
	i := content.hash & mask
	for s.slots[i].bucket != nil {
		i = (i + 1) & mask
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
	mask := uint64(len(s.slots) - 1)
	free := hash & mask
	for s.slots[free].bucket != b {
		free = (free + 1) & mask
	}
	for i := (free + 1) & mask; s.slots[i].bucket != nil; i = (i + 1) & mask {
		if own := s.slots[i].hash & mask; (i-own)&mask >= (i-free)&mask { // it may stand that far up
			s.slots[free] = s.slots[i]
			free = i
		}
	}
	s.slots[free] = slot{}
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
