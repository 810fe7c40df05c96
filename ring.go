package peerlimit

import (
	"slices"
	"sync"
	"sync/atomic"

	"github.com/buraksezer/consistent"
	"github.com/cespare/xxhash/v2"
)

// Protocol constants: all nodes of a cluster must agree on them and on the formulas below, or they will disagree about
// who owns what. Tests pin their results.
const (
	// partitionCount is the number of partitions, the unit of ownership and hand-over. It is prime, so that no pattern
	// in the hashes survives the modulo, and large enough to give each of 300 members about a dozen.
	partitionCount = 4093

	// ringLoad and ringReplicationFactor (virtual nodes a member) were chosen by BenchmarkRingSettings. The bound never
	// binds: a join or a leave moves that member's partitions and no others, and an heir that lives is the next owner
	// after any number of deaths. At the usual 1.25 and 20, survivors also trade partitions, up to seven times what a
	// newcomer gets. The price is imbalance, 1.5 at 100 members against 1.27, which one hot key outweighs; with 128
	// virtual nodes most of it is the noise of few partitions a member. Builds are slow, but ringBuilder avoids them.
	ringLoad              = 1 << 32
	ringReplicationFactor = 128

	// limiterSaltMultiplier makes the roles of limiter name and key differ, so that a key equal to its limiter's name
	// does not cancel out. It is odd, which keeps distinct name hashes distinct: 2^64 divided by the golden ratio.
	limiterSaltMultiplier = 0x9E3779B97F4A7C15
)

// partitionOf returns the partition of a key under a limiter, in [0, partitionCount):
//
//	(XXH64(limiter) * 0x9E3779B97F4A7C15 mod 2^64  XOR  XXH64(key)) mod 4093
//
// with XXH64 of seed 0 over the bytes of each string. Name and key are hashed apart and need no framing: no boundary
// between them can be misread. For one limiter the formula is a bijection of the key's hash before the modulo, so keys
// spread as evenly as XXH64 spreads them.
func partitionOf(limiter, key string) uint16 {
	return newKeyHasher(limiter).partition(key)
}

// keyHasher finds the partitions of one limiter's keys without hashing the limiter's name again.
type keyHasher struct {
	salt uint64
}

func newKeyHasher(limiter string) keyHasher {
	return keyHasher{salt: xxhash.Sum64String(limiter) * limiterSaltMultiplier}
}

// partition returns what partitionOf returns for the limiter's name and key.
func (h keyHasher) partition(key string) uint16 {
	return uint16((h.salt ^ xxhash.Sum64String(key)) % partitionCount)
}

// ring says which member owns each partition. It is a pure function of the member set, so that nodes with the same
// members agree without talking, and it never changes: a node swaps in another one when the set does. All methods are
// safe for concurrent use. Partitions out of range have no owner and no heir.
type ring struct {
	names  []string // sorted, distinct
	owners []uint32 // of each partition: an index into names; nil when there are no members

	// reduced holds the ring without each member, by index, once somebody has asked for it; see without.
	reduced []atomic.Pointer[ring]
}

// newRing returns the ring of a set of members, whose names are given in any order, repeated or not. An empty name is
// not a member's. Much of the work is saved when the set differs little from the last one built in this process.
func newRing(names []string) *ring {
	set := slices.Clone(names)
	slices.Sort(set)
	set = slices.Compact(set)

	sharedRingBuilder.mu.Lock()
	defer sharedRingBuilder.mu.Unlock()
	return sharedRingBuilder.build(set)
}

// members returns the names in ascending order. The caller must not modify them.
func (r *ring) members() []string { return r.names }

func (r *ring) contains(name string) bool {
	_, found := slices.BinarySearch(r.names, name)
	return found
}

// owner returns the name of the member that owns a partition, "" when the ring is empty.
func (r *ring) owner(partition uint16) string {
	if int(partition) >= len(r.owners) {
		return ""
	}
	return r.names[r.owners[partition]]
}

// ownerIndex returns the owner's index in members, -1 when the ring is empty.
func (r *ring) ownerIndex(partition uint16) int {
	if int(partition) >= len(r.owners) {
		return -1
	}
	return int(r.owners[partition])
}

// heir returns the owner of a partition in the ring without its owner: the member that owns it next if the owner goes,
// and until then keeps the replica. It is "" for fewer than two members. The first question about an owner builds that
// ring, as without does; the others are look-ups.
func (r *ring) heir(partition uint16) string {
	owner := r.ownerIndex(partition)
	if owner < 0 {
		return ""
	}
	return r.withoutIndex(owner).owner(partition)
}

// heirIfBuilt is heir, or "" when that would have to build a ring first.
func (r *ring) heirIfBuilt(partition uint16) string {
	owner := r.ownerIndex(partition)
	if owner < 0 {
		return ""
	}
	reduced := r.reduced[owner].Load()
	if reduced == nil {
		return ""
	}
	return reduced.owner(partition)
}

// withoutIfBuilt is without, or nil when that would have to build a ring first.
func (r *ring) withoutIfBuilt(name string) *ring {
	i, found := slices.BinarySearch(r.names, name)
	if !found {
		return r
	}
	return r.reduced[i].Load()
}

// without returns the ring of the same set without one member; it is r itself when name is not a member.
//
// It is built on first use, once, and kept as long as r; building waits its turn among the builds of this process. A node
// asks for itself and for owners it cannot reach, so few are kept. Each holds about 24 KB at 300 members and 40 KB at
// 1,000: 7 and 40 MB were every member asked for.
func (r *ring) without(name string) *ring {
	i, found := slices.BinarySearch(r.names, name)
	if !found {
		return r
	}
	return r.withoutIndex(i)
}

func (r *ring) withoutIndex(i int) *ring {
	if reduced := r.reduced[i].Load(); reduced != nil {
		return reduced
	}
	sharedRingBuilder.mu.Lock()
	defer sharedRingBuilder.mu.Unlock()
	if reduced := r.reduced[i].Load(); reduced != nil {
		return reduced // another caller built it while this one waited
	}
	reduced := sharedRingBuilder.build(slices.Delete(slices.Clone(r.names), i, i+1))
	r.reduced[i].Store(reduced)
	return reduced
}

// ringMember is a member as the library wants it.
type ringMember string

func (m ringMember) String() string { return string(m) }

// ringHasher is the library's hash function, XXH64. It also notices when two virtual nodes fall on one position.
//
// The library hashes the virtual nodes of the members it was given before it hashes any partition, so a countdown tells
// the two kinds apart.
type ringHasher struct {
	joining   int // virtual nodes that are still to come and will be added
	leaving   int // the same, to be removed
	positions map[uint64]struct{}
	collided  bool // two virtual nodes shared a position at some time
}

func (h *ringHasher) Sum64(key []byte) uint64 {
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

// ringBuilder builds rings with one instance of the library, which it moves from member set to member set.
//
// consistent.New sorts all virtual nodes again for each member it is given, which takes about 0.1 s for 100 members and
// 1 s for 300. Adding or removing one takes about 3 and 6 ms, and changes come one by one.
//
// The outcome must not depend on the way. What the library computes is a function of the positions of the virtual nodes
// and of which member each belongs to, hence of the set alone, unless two members claim one position: then the last to be
// added has it, and removing either removes both. So a set that collides, which no random names do, is always built
// from nothing in the order of the names.
type ringBuilder struct {
	// mu guards the fields. It is held for as long as the processor needs to build, never across I/O, a channel
	// operation or a sleep. No look-up in a finished ring needs it.
	mu     sync.Mutex
	names  []string // the set that hash holds, sorted; nil when hash is not to be relied on
	hash   *consistent.Consistent
	hasher *ringHasher // of hash

	// recent are the rings that were asked for last, the last one at the end: a member that comes back, as after a link
	// that was down for a moment, brings back the ring that there was.
	recent []*ring
}

// maxRecentRings bounds recent. Rings of up to 16 members are a few kilobytes each, those of 300 about 20.
const maxRecentRings = 64

// sharedRingBuilder serves the whole process, whose nodes, as in tests, mostly ask for the same sets. It is a cache and
// nothing more. What it retains, the last set's virtual nodes, is about 1 MB at 100 members and 13 MB at 1,000.
var sharedRingBuilder ringBuilder

// build returns the ring of a sorted set of distinct names, which it keeps. The caller holds b.mu.
func (b *ringBuilder) build(names []string) *ring {
	i := slices.IndexFunc(b.recent, func(r *ring) bool { return slices.Equal(r.names, names) })
	if i < 0 {
		r := b.buildNew(names)
		if len(b.recent) == maxRecentRings {
			b.recent = slices.Delete(b.recent, 0, 1)
		}
		b.recent = append(b.recent, r)
		return r
	}
	r := b.recent[i]
	b.recent = append(slices.Delete(b.recent, i, i+1), r)
	return r
}

func (b *ringBuilder) buildNew(names []string) *ring {
	r := &ring{names: names, reduced: make([]atomic.Pointer[ring], len(names))}
	if len(names) == 0 {
		return r
	}
	b.moveTo(names)

	index := make(map[string]uint32, len(names))
	for i, name := range names {
		index[name] = uint32(i)
	}
	r.owners = make([]uint32, partitionCount)
	for partition := range r.owners {
		r.owners[partition] = index[b.hash.GetPartitionOwner(partition).String()]
	}
	return r
}

// moveTo makes hash hold the given set, which is not empty.
func (b *ringBuilder) moveTo(names []string) {
	leaving, joining := subtractSorted(b.names, names), subtractSorted(names, b.names)
	// Starting again was measured to cost as much as walking a fifth to a third of the members, at 10 to 100 of them.
	if 4*(len(leaving)+len(joining)) > len(names) || !b.walk(leaving, joining) {
		b.startFrom(names)
	}
	b.names = names
}

// walk removes and adds members one by one. It reports false when that cannot give the one right ring of the set.
func (b *ringBuilder) walk(leaving, joining []string) bool {
	if b.hasher.collided {
		return false
	}
	b.names = nil // should the library panic half-way, the next set starts from nothing
	for _, name := range leaving {
		b.hasher.leaving = ringReplicationFactor
		b.hash.Remove(name)
	}
	for _, name := range joining {
		b.hasher.joining = ringReplicationFactor
		b.hash.Add(ringMember(name))
	}
	return !b.hasher.collided
}

func (b *ringBuilder) startFrom(names []string) {
	members := make([]consistent.Member, len(names))
	for i, name := range names {
		members[i] = ringMember(name)
	}
	virtualNodes := len(names) * ringReplicationFactor
	b.hasher = &ringHasher{joining: virtualNodes, positions: make(map[uint64]struct{}, virtualNodes)}
	b.hash = consistent.New(members, consistent.Config{
		Hasher:            b.hasher,
		PartitionCount:    partitionCount,
		ReplicationFactor: ringReplicationFactor,
		Load:              ringLoad,
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
