package store

import (
	"math"
	"unsafe"

	"github.com/peerlimit/peerlimit/internal/limit"
	"github.com/peerlimit/peerlimit/internal/ring"
	"github.com/peerlimit/peerlimit/internal/rule"
)

// buckets is the set of buckets of one partition: hash tables with linear probing. A Go map would do the same with three
// more cache misses for each take, which with many keys is most of what a take costs; see BenchmarkLocalDecision in the
// bench module.
//
// While there are few it is one table, a chunk. A chunk that is full is split in two, so nothing that is done to one
// bucket takes longer where there are a million of them: no table grows or shrinks by more than a chunk at a time.
//
// The zero value is empty. It is not safe for concurrent use.
type buckets struct {
	chunk            // all of it, while there is no directory; of use is then only how many there are in all
	dir   *directory // nil while one chunk is enough
}

// slot is a place for a bucket; nil when free.
type slot struct {
	hash   uint64
	bucket *bucket
}

// bucket is what one key has taken under one limiter. It begins with the first bytes of its key and mostly the others
// follow it in memory, so with a key of up to 23 bytes it is one cache line, and a take needs no other to compare the key.
type bucket struct {
	limit.State
	place  int32  // in the table's order of eviction
	home   uint16 // its partition; nowhere once it was removed
	length uint16 // of the key
	dirty  bool   // listed in its partition's dirty
	text   [shortKey]byte
}

// shortKey is the length of the keys that a bucket has room for itself, and nearKey of those that follow it.
const (
	shortKey = 23
	nearKey  = shortKey + 64
)

// nowhere is the home of a bucket that is in no table any more. A list that still has it, such as that of changes, can tell.
const nowhere = ring.Partitions

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

// name returns what the bucket is found by. All sets that it ever has are of one limiter, and as long as it has one of them, the
// limiter's name is no other. While the bucket is in a partition, the caller holds the partition's mu.
func (b *bucket) name() rule.BucketKey { return rule.BucketKey{Key: b.key(), Limiter: b.Set.Name} }

// newBucket returns a bucket with a copy of its key, and no state yet.
func newBucket(key string) (b *bucket) {
	n := len(key)
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
		text := []byte(key)
		b = &(&keyedApart{key: &text[0]}).bucket
	}
	if n <= nearKey {
		copy(unsafe.Slice(&b.text[0], n), key) // #nosec G103 -- there is room for it, see above
	}
	b.length = uint16(n)
	return b
}

// find returns the bucket of that name, or nil.
func (s *buckets) find(hash uint64, id rule.BucketKey) *bucket {
	return s.chunkOf(hash).find(hash, id)
}

// chunkOf returns the chunk that a hash belongs to.
func (s *buckets) chunkOf(hash uint64) *chunk {
	if s.dir != nil {
		return s.dir.chunkOf(hash)
	}
	return &s.chunk
}

// insert adds a bucket whose name is not there yet. It keeps a copy of the key: the one that was looked up may be part
// of a request's buffer, or of a large string of the user's.
func (s *buckets) insert(hash uint64, key string, state limit.State) *bucket {
	b := newBucket(key)
	b.State = state
	s.add(slot{hash, b})
	return b
}

// add adds a bucket that was made already.
func (s *buckets) add(content slot) {
	c := s.chunkOf(content.hash)
	for 4*(int(c.used)+1) > 3*len(c.slots) {
		s.grow(c, content.hash)
		c = s.chunkOf(content.hash)
	}
	c.place(content)
	c.used++
	if s.dir != nil {
		s.used++
	}
}

// remove drops a bucket, and gives memory back when most of it is not needed any more. It reports whether it was there.
func (s *buckets) remove(hash uint64, b *bucket) bool {
	c := s.chunkOf(hash)
	if !c.remove(hash, b) {
		return false
	}
	b.home = nowhere
	if s.dir != nil {
		s.used--
		for s.merge(hash) {
			continue
		}
	}
	if s.used == 0 {
		*s = buckets{}
	}
	return true
}

// inOrder calls visit for one bucket after the other, in the order of the upper halves of their hashes, beginning with
// those from a place on, 0 for all; until visit says no, or there are no more. It returns the place to go on from, where
// visit said no, or 0. A place means the same whatever is added, removed or moved in between. visit must not change the
// set. Buckets whose hashes
// begin alike, a few of a million, are on both sides of a place between them: visit must say yes to two at least, or it would
// not go on.
func (s *buckets) inOrder(from uint32, visit func(hash uint64, b *bucket) bool) (next uint32) {
	for {
		c := s.chunkOf(uint64(from) << 32)
		if next, no := c.inOrder(from, visit); no {
			return next
		}
		size := uint64(1) << (32 - c.depth) // of the hashes that are the chunk's, their upper halves
		end := (uint64(from)/size + 1) * size
		if end > math.MaxUint32 {
			return 0
		}
		from = uint32(end)
	}
}
