package ring

import (
	"cmp"
	"encoding/binary"
	"slices"
	"strconv"

	"github.com/buraksezer/consistent"
	"github.com/cespare/xxhash/v2"
)

const (
	// load and virtualNodes, how many a member has, were chosen by BenchmarkSettings. The bound never
	// binds: a join or a leave moves that member's partitions and no others, and a successor that lives is the next owner
	// after any number of deaths. At the usual 1.25 and 20, survivors also trade partitions, up to seven times what a
	// newcomer gets. The price is imbalance, 1.5 at 100 members against 1.27, which one hot key outweighs; with 128
	// virtual nodes most of it is the noise of few partitions a member. Builds are slow, but Builder avoids them.
	load         = 1 << 32
	virtualNodes = 128

	// maxRecent bounds Builder.recent. A ring is 66 kilobytes and the names.
	maxRecent = 8
)

// Builder builds rings with one instance of the library, which it moves from member set to member set. Its zero value is
// ready. It is for one goroutine at a time. What it keeps is about 2 MB at 100 members and 20 MB at 1,000.
//
// consistent.New sorts all virtual nodes again for each member it is given, which takes about 0.1 s for 100 members and
// 1 s for 300. Adding or removing one takes about 3 and 6 ms, and changes come one by one.
//
// The outcome must not depend on the way. What the library computes is a function of the positions of the virtual nodes
// and of which member each belongs to, hence of the set alone, unless two members claim one position: then the last to be
// added has it, and removing either removes both. So a set that collides, which no random names do, is always built
// from nothing in the order of the names.
type Builder struct {
	names  []string // the set that hash holds, sorted; nil when hash is not to be relied on
	hash   *consistent.Consistent
	hasher *hasher // of hash

	// nodes are the virtual nodes of nodesOf, in their order round the ring.
	nodes   []virtualNode
	nodesOf []string

	// recent are the rings that were asked for last, the last one at the end: a member that comes back, as after a link
	// that was down for a moment, brings back the ring that there was.
	recent []*Ring
}

// Build returns the ring of a set of members, whose names are given in any order, repeated or not.
func (b *Builder) Build(names []string) *Ring {
	set := slices.Clone(names)
	slices.Sort(set)
	set = slices.Compact(set)
	i := slices.IndexFunc(b.recent, func(r *Ring) bool { return slices.Equal(r.names, set) })
	if i >= 0 {
		r := b.recent[i]
		b.recent = append(slices.Delete(b.recent, i, i+1), r)
		return r
	}
	r := b.build(set)
	if len(b.recent) == maxRecent {
		b.recent = slices.Delete(b.recent, 0, 1)
	}
	b.recent = append(b.recent, r)
	return r
}

// build makes the ring of a sorted set of distinct names.
func (b *Builder) build(names []string) *Ring {
	r := &Ring{names: names, depth: min(Depth, len(names))}
	if len(names) == 0 {
		return r
	}
	b.moveTo(names)
	b.moveNodesTo(names)

	index := make(map[string]uint16, len(names))
	for i, name := range names {
		index[name] = uint16(i) // #nosec G115 -- at most MaxMembers
	}
	r.order = make([]uint16, 0, Partitions*r.depth)
	for p := range uint64(Partitions) {
		owner := index[b.hash.GetPartitionOwner(int(p)).String()]
		var agreed bool
		if r.order, agreed = b.appendOrder(r.order, p, owner, r.depth, index); !agreed {
			r.disagreements++
		}
	}
	return r
}

// appendOrder appends the first depth members of a partition: the owner, then the others as their virtual nodes follow. It
// reports whether the first virtual node is the owner's.
func (b *Builder) appendOrder(order []uint16, partition uint64, owner uint16, depth int, index map[string]uint16) ([]uint16, bool) {
	var key [8]byte
	binary.LittleEndian.PutUint64(key[:], partition)
	start, _ := slices.BinarySearchFunc(b.nodes, xxhash.Sum64(key[:]), func(n virtualNode, position uint64) int {
		return cmp.Compare(n.position, position)
	})
	first := len(order)
	order = append(order, owner)
	for i := 0; len(order) < first+depth; i++ {
		next := index[b.nodes[(start+i)%len(b.nodes)].name]
		if !slices.Contains(order[first:], next) {
			order = append(order, next)
		}
	}
	return order, b.nodes[start%len(b.nodes)].name == b.names[owner]
}

// virtualNode is one of the places of a member on the ring.
type virtualNode struct {
	position uint64
	name     string
}

// compareNodes orders virtual nodes round the ring. Of two on one position the greater name comes first: the library, which is
// given the names in ascending order, lets the last one have it.
func compareNodes(a, b virtualNode) int {
	return cmp.Or(cmp.Compare(a.position, b.position), cmp.Compare(b.name, a.name))
}

// moveNodesTo makes nodes those of the given set.
func (b *Builder) moveNodesTo(names []string) {
	leaving, joining := subtractSorted(b.nodesOf, names), subtractSorted(names, b.nodesOf)
	kept := b.nodes
	if len(leaving) > 0 {
		kept = slices.DeleteFunc(kept, func(n virtualNode) bool {
			_, gone := slices.BinarySearch(leaving, n.name)
			return gone
		})
	}
	if len(joining) > 0 {
		var key []byte
		added := make([]virtualNode, 0, len(joining)*virtualNodes)
		for _, name := range joining {
			for i := range virtualNodes {
				key = append(append(strconv.AppendInt(key[:0], int64(i), 10), ':'), name...)
				added = append(added, virtualNode{xxhash.Sum64(key), name})
			}
		}
		slices.SortFunc(added, compareNodes)
		kept = mergeNodes(kept, added)
	}
	b.nodes, b.nodesOf = kept, names
}

// mergeNodes returns the virtual nodes of both in order.
func mergeNodes(a, b []virtualNode) []virtualNode {
	merged := make([]virtualNode, 0, len(a)+len(b))
	for len(a) > 0 && len(b) > 0 {
		if compareNodes(a[0], b[0]) < 0 {
			merged, a = append(merged, a[0]), a[1:]
		} else {
			merged, b = append(merged, b[0]), b[1:]
		}
	}
	return append(append(merged, a...), b...)
}
