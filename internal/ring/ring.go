package ring

import "slices"

// Depth is how many members a Ring names for each partition, the owner among them: the owner, two standbys, and as many
// again as may be out of reach at the same time, with some to spare. A Ring of fewer members names all of them.
const Depth = 8

// Ring says which member owns each partition and which members follow. It is a pure function of the member set and never
// changes: a node swaps in another one when the set does. All methods are safe for concurrent use. Partitions out of range
// have no members.
type Ring struct {
	names []string // sorted, distinct

	// order holds for each partition the indexes of depth members into names: the owner, the owner in the ring without it,
	// the owner in the ring without these two, and so on.
	order []uint16
	depth int

	// disagreements counts the partitions whose owner the walk over the virtual nodes would have named differently.
	disagreements int
}

// New returns the ring of a set of members, whose names are given in any order, repeated or not. An empty name is
// not a member's. A Builder that is kept saves most of the work when sets differ little.
func New(names []string) *Ring { return new(Builder).Build(names) }

// Members returns the names in ascending order. The caller must not modify them.
func (r *Ring) Members() []string { return r.names }

// Contains reports whether a member of that name is in the ring.
func (r *Ring) Contains(name string) bool {
	_, found := slices.BinarySearch(r.names, name)
	return found
}

// Owner returns the name of the member that owns a partition, "" when the ring is empty.
func (r *Ring) Owner(partition uint16) string { return r.Successor(partition, 0) }

// OwnerIndex returns the owner's index in Members, -1 when the ring is empty.
func (r *Ring) OwnerIndex(partition uint16) int {
	if r.depth == 0 || int(partition) >= Partitions {
		return -1
	}
	return int(r.order[int(partition)*r.depth])
}

// Successor returns the member that is i places behind the owner of a partition: 0 is the owner, 1 the member that owns the
// partition once the owner has gone, 2 the one that does once both have. It is "" behind the last, at Depth at the latest.
func (r *Ring) Successor(partition uint16, i int) string {
	if i < 0 || i >= r.depth || int(partition) >= Partitions {
		return ""
	}
	return r.names[r.order[int(partition)*r.depth+i]]
}

// OwnerWithout returns the member that owns a partition in the ring without one member, "" when there is no other. Any name
// may be given; one that is not a member's changes nothing.
func (r *Ring) OwnerWithout(partition uint16, name string) string {
	if owner := r.Owner(partition); owner != name {
		return owner
	}
	return r.Successor(partition, 1)
}

// Without returns the ring of the same set without one member, or r itself when that is not a member. It names one member
// fewer for each partition than r does.
func (r *Ring) Without(name string) *Ring {
	gone, found := slices.BinarySearch(r.names, name)
	if !found {
		return r
	}
	rest := &Ring{names: slices.Delete(slices.Clone(r.names), gone, gone+1), depth: r.depth - 1}
	rest.order = make([]uint16, 0, Partitions*rest.depth)
	for p := range Partitions {
		left := rest.depth
		for _, i := range r.order[p*r.depth : (p+1)*r.depth] {
			if int(i) == gone || left == 0 {
				continue
			}
			if int(i) > gone {
				i--
			}
			rest.order = append(rest.order, i)
			left--
		}
	}
	return rest
}

// Disagreements returns for how many partitions the library's owner is not the member of the first virtual node behind the
// partition. It is 0 as long as the library is the version that this package was written for.
func (r *Ring) Disagreements() int { return r.disagreements }
