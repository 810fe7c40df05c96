package ring

import (
	"github.com/buraksezer/consistent"
	"github.com/cespare/xxhash/v2"
)

// member is a member as the library wants it.
type member string

func (m member) String() string { return string(m) }

// hasher is the library's hash function, XXH64. It also notices when two virtual nodes fall on one position.
//
// The library hashes the virtual nodes of the members it was given before it hashes any partition, so a countdown tells
// the two kinds apart.
type hasher struct {
	joining   int // virtual nodes that are still to come and will be added
	leaving   int // the same, to be removed
	positions map[uint64]struct{}
	collided  bool // two virtual nodes shared a position at some time
}

func (h *hasher) Sum64(key []byte) uint64 {
	position := xxhash.Sum64(key)
	switch {
	case h.joining > 0:
		h.joining--
		if _, taken := h.positions[position]; taken {
			h.collided = true
		}
		h.positions[position] = struct{}{}
	case h.leaving > 0:
		h.leaving--
		delete(h.positions, position)
	}
	return position
}

// moveTo makes hash hold the given set, which is not empty.
func (b *Builder) moveTo(names []string) {
	leaving, joining := subtractSorted(b.names, names), subtractSorted(names, b.names)
	// Starting again was measured to cost as much as walking a fifth to a third of the members, at 10 to 100 of them.
	if 4*(len(leaving)+len(joining)) > len(names) || !b.walk(leaving, joining) {
		b.startFrom(names)
	}
	b.names = names
}

// walk removes and adds members one by one. It reports false when that cannot give the one right ring of the set.
func (b *Builder) walk(leaving, joining []string) bool {
	if b.hasher.collided {
		return false
	}
	b.names = nil // should the library panic half-way, the next set starts from nothing
	for _, name := range leaving {
		b.hasher.leaving = virtualNodes
		b.hash.Remove(name)
	}
	for _, name := range joining {
		b.hasher.joining = virtualNodes
		b.hash.Add(member(name))
	}
	return !b.hasher.collided
}

func (b *Builder) startFrom(names []string) {
	members := make([]consistent.Member, len(names))
	for i, name := range names {
		members[i] = member(name)
	}
	count := len(names) * virtualNodes
	b.hasher = &hasher{joining: count, positions: make(map[uint64]struct{}, count)}
	b.hash = consistent.New(members, consistent.Config{
		Hasher:            b.hasher,
		PartitionCount:    Partitions,
		ReplicationFactor: virtualNodes,
		Load:              load,
	})
}

// subtractSorted returns the names in a that are not in b; both are sorted.
func subtractSorted(a, b []string) []string {
	var rest []string
	for _, name := range a {
		for len(b) > 0 && b[0] < name {
			b = b[1:]
		}
		if len(b) == 0 || b[0] != name {
			rest = append(rest, name)
		}
	}
	return rest
}
