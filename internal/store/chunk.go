package store

import (
	"math/bits"

	"github.com/peerlimit/peerlimit/internal/rule"
)

// chunk is a hash table with linear probing, for hashes that have their first bits in common.
type chunk struct {
	slots []slot // at most 3/4 of them in use; nil when empty
	used  int32
	depth uint8 // how many bits that are
}

const (
	minSlots = 8

	// fullChunk is how many slots a chunk has, at most, unless its hashes are so alike that splitting does not help.
	fullChunk = 1024

	// maxDepth bounds the bits that a directory looks at.
	maxDepth = 24
)

// find returns the bucket of that name, or nil.
func (c *chunk) find(hash uint64, id rule.BucketKey) *bucket {
	if len(c.slots) == 0 {
		return nil
	}
	for i := c.first(hash); c.slots[i].bucket != nil; i = c.next(i) {
		if c.slots[i].hash == hash && c.slots[i].bucket.name() == id {
			return c.slots[i].bucket
		}
	}
	return nil
}

// first returns the slot of its own that a hash has: where it lies among all hashes of the chunk. So the number of slots
// can be any, and a table that grows by half wastes less than one that doubles.
func (c *chunk) first(hash uint64) int {
	high, _ := bits.Mul64(hash<<c.depth, uint64(len(c.slots)))
	return int(high)
}

func (c *chunk) next(i int) int {
	if i++; i == len(c.slots) {
		return 0
	}
	return i
}

// distance returns how many steps of next lead from one slot to another.
func (c *chunk) distance(from, to int) int {
	if to < from {
		to += len(c.slots)
	}
	return to - from
}

// place puts a slot's content into the first free slot from its own.
func (c *chunk) place(content slot) {
	i := c.first(content.hash)
	for c.slots[i].bucket != nil {
		i = c.next(i)
	}
	c.slots[i] = content
}

// resize moves everything to another number of slots.
func (c *chunk) resize(slots int) {
	Probe.move(int(c.used))
	old := c.slots
	c.slots = make([]slot, slots)
	for _, content := range old {
		if content.bucket != nil {
			c.place(content)
		}
	}
}

// remove drops a bucket and reports whether it was there. What stood behind it moves up.
func (c *chunk) remove(hash uint64, b *bucket) bool {
	if len(c.slots) == 0 {
		return false
	}
	free := c.first(hash)
	for c.slots[free].bucket != b {
		if c.slots[free].bucket == nil {
			return false
		}
		free = c.next(free)
	}
	for i := c.next(free); c.slots[i].bucket != nil; i = c.next(i) {
		if c.distance(c.first(c.slots[i].hash), i) >= c.distance(free, i) { // it may stand that far up
			c.slots[free] = c.slots[i]
			free = i
		}
	}
	c.slots[free] = slot{}
	c.used--
	if len(c.slots) > minSlots && 4*int(c.used) <= len(c.slots) {
		c.resize(len(c.slots) / 2)
	}
	return true
}

// inOrder is what buckets.inOrder does, for one chunk; no says that visit did.
//
// What is between two free slots is together in the order as well: it has the hashes of those slots. So it is sorted, and
// shown, one such run after the other. The run that goes on at the beginning, when the last slots are full, comes last.
func (c *chunk) inOrder(from uint32, visit func(hash uint64, b *bucket) bool) (next uint32, no bool) {
	if c.used == 0 {
		return 0, false
	}
	var room [64]slot
	run := room[:0]
	begin := 0
	if low := uint64(from) << 32; low<<c.depth != 0 {
		begin = c.first(low)
	}
	for i := begin; i < len(c.slots) || c.slots[i-len(c.slots)].bucket != nil; i++ {
		wrapped := i >= len(c.slots)
		content := c.slots[i%len(c.slots)]
		if content.bucket != nil && uint32(content.hash>>32) >= from && (c.first(content.hash) > i%len(c.slots)) == wrapped {
			run = sortIn(run, content)
		}
		if content.bucket == nil {
			if next, no = show(run, visit); no {
				return next, true
			}
			run = run[:0]
		}
	}
	return show(run, visit)
}

// sortIn adds to what is in the order of the hashes.
func sortIn(run []slot, content slot) []slot {
	run = append(run, content)
	for i := len(run) - 1; i > 0 && run[i-1].hash > content.hash; i-- {
		run[i], run[i-1] = run[i-1], content
	}
	return run
}

// show calls visit for all, until it says no.
func show(run []slot, visit func(hash uint64, b *bucket) bool) (next uint32, no bool) {
	for _, content := range run {
		if !visit(content.hash, content.bucket) {
			return uint32(content.hash >> 32), true
		}
		Probe.touch(1)
	}
	return 0, false
}

// directory has the chunks of a set by the first bits of a hash.
type directory struct {
	chunks []*chunk // one of less depth stands in several places
	depth  uint8    // how many bits are looked at

	depths [maxDepth + 1]int32 // how many chunks there are of each depth
}

// chunkOf returns the chunk that a hash belongs to.
func (d *directory) chunkOf(hash uint64) *chunk { return d.chunks[hash>>(64-d.depth)] }

// set puts a chunk where one of its hashes belongs.
func (d *directory) set(c *chunk, hash uint64) {
	span := uint64(1) << (d.depth - c.depth)
	begin := hash >> (64 - c.depth) * span
	for i := begin; i < begin+span; i++ {
		d.chunks[i] = c
	}
	d.depths[c.depth]++
}

// double has the directory look at one bit more.
func (d *directory) double() {
	chunks := make([]*chunk, 0, 2*len(d.chunks))
	for _, c := range d.chunks {
		chunks = append(chunks, c, c)
	}
	d.chunks = chunks
	d.depth++
}

// halve has the directory look at no more bits than its chunks need.
func (d *directory) halve() {
	for d.depth > 0 && d.depths[d.depth] == 0 {
		chunks := make([]*chunk, len(d.chunks)/2)
		for i := range chunks {
			chunks[i] = d.chunks[2*i]
		}
		d.chunks = chunks
		d.depth--
	}
}

// grow makes room in a full chunk, to which a hash belongs.
func (s *buckets) grow(c *chunk, hash uint64) {
	switch {
	case len(c.slots) < fullChunk:
		c.resize(min(fullChunk, max(minSlots, 3*len(c.slots)/2)))
	case s.dir == nil || c.depth < s.dir.depth || c.depth < maxDepth && len(s.dir.chunks)*fullChunk <= 4*int(s.used):
		s.split(c, hash)
	default: // half of it would be empty
		c.resize(3 * len(c.slots) / 2)
	}
}

// split makes two chunks of one.
func (s *buckets) split(c *chunk, hash uint64) {
	if s.dir == nil {
		whole := s.chunk
		c = &whole
		s.chunk = chunk{used: whole.used}
		s.dir = &directory{chunks: []*chunk{c}}
		s.dir.depths[0] = 1
	}
	d := s.dir
	if c.depth == d.depth {
		d.double()
	}
	Probe.move(int(c.used))
	var halves [2]*chunk
	for i := range halves {
		halves[i] = &chunk{depth: c.depth + 1}
	}
	half := func(hash uint64) *chunk { return halves[hash<<c.depth>>63] }
	for _, content := range c.slots {
		if content.bucket != nil {
			half(content.hash).used++
		}
	}
	d.depths[c.depth]--
	begin := hash >> (64 - c.depth) << (64 - c.depth)
	for i, h := range halves {
		h.slots = make([]slot, max(minSlots, 2*int(h.used)))
		d.set(h, begin|uint64(i)<<(63-c.depth))
	}
	for _, content := range c.slots {
		if content.bucket != nil {
			half(content.hash).place(content)
		}
	}
}

// merge makes one chunk of that of a hash and the other one that both were split from, when there is little in them. It
// reports whether it has.
func (s *buckets) merge(hash uint64) bool {
	if s.dir == nil {
		return false
	}
	d, c := s.dir, s.dir.chunkOf(hash)
	if c.depth == 0 || c.used > fullChunk/4 {
		return false
	}
	other := d.chunkOf(hash ^ 1<<(64-c.depth))
	if other.depth != c.depth || c.used+other.used > fullChunk/4 {
		return false
	}
	Probe.move(int(c.used + other.used))
	both := &chunk{used: c.used + other.used, depth: c.depth - 1}
	both.slots = make([]slot, max(minSlots, 2*int(both.used)))
	for _, from := range []*chunk{c, other} {
		for _, content := range from.slots {
			if content.bucket != nil {
				both.place(content)
			}
		}
	}
	d.depths[c.depth] -= 2
	d.set(both, hash)
	if d.halve(); d.depth == 0 {
		*s = buckets{chunk: *both}
	}
	return true
}
