package peerlimit

import (
	"cmp"
	"slices"

	"github.com/cespare/xxhash/v2"
)

// memberView is the cluster at one moment. It is never changed, nor is any slice that its methods return.
type memberView struct {
	// members has everyone that limits are divided by, sorted by name: this node, the members that gossip has not given
	// up, and the lost ones that still count. Who has left is not in it.
	members []memberInfo

	// unproved are members that gossip tells of and that do not count: they have not proved themselves yet. Links to them are
	// made, which is how they do.
	unproved []memberInfo

	names []string // of members
	ring  []string // of members that own keys

	// knownNames is whom a limit is divided by, and reachable how many of them gossip has not given up; this node is in
	// both. There are more of them than members as long as some are known by name only, or are expected.
	knownNames
	reachable int
}

// knownNames is the known set at one moment. It is never changed.
type knownNames struct {
	generation uint64   // counts the changes
	names      []string // sorted
	known      int      // how many count: more than names while ExpectMembers or seeds have not been met
	digest     uint64   // of names

	told    []string // what others are told: names but for what gossip alone says; sorted
	hearsay []string // those of told that have not proved themselves to this node, sorted
	doubted []string // who is asked in rounds and does not count, sorted
}

func newKnownNames(k *knownSet, generation uint64) *knownNames {
	names := k.names()
	known, _ := k.reach()
	var d xxhash.Digest
	d.Reset()
	for _, name := range names {
		_, _ = d.WriteString(name) // never fails
		_, _ = d.Write([]byte{0})
	}
	told, hearsay := k.told()
	return &knownNames{generation: generation, names: names, known: known, digest: d.Sum64(),
		told: told, hearsay: hearsay, doubted: k.doubted()}
}

// Generation is another number for each known set.
func (k *knownNames) Generation() uint64 { return k.generation }

// Asked returns all that a round must hear, which is not to be changed.
func (k *knownNames) Asked() []string {
	if len(k.doubted) == 0 {
		return k.names
	}
	return slices.Concat(k.names, k.doubted)
}

// IsAsked reports whether rounds must hear the member of that name.
func (k *knownNames) IsAsked(name string) bool {
	_, doubted := slices.BinarySearch(k.doubted, name)
	return doubted || k.isKnown(name)
}

// hasProved reports whether a known name has proved itself to this node.
func (k *knownNames) hasProved(name string) bool {
	_, hearsay := slices.BinarySearch(k.hearsay, name)
	_, told := slices.BinarySearch(k.told, name)
	return told && !hearsay
}

// isKnown reports whether limits are divided by the member of that name.
func (k *knownNames) isKnown(name string) bool {
	_, ok := slices.BinarySearch(k.names, name)
	return ok
}

// newView takes members over.
func newView(members, unproved []memberInfo, known *knownNames, reachable int) *memberView {
	slices.SortFunc(members, func(a, b memberInfo) int { return cmp.Compare(a.Name, b.Name) })
	slices.SortFunc(unproved, func(a, b memberInfo) int { return cmp.Compare(a.Name, b.Name) })
	v := &memberView{members: members, unproved: unproved, names: make([]string, len(members)), knownNames: *known, reachable: reachable}
	for i, m := range members {
		v.names[i] = m.Name
		if m.State == gossipIsAlive || m.State == gossipIsSuspect {
			v.ring = append(v.ring, m.Name)
		}
	}
	return v
}

func (v *memberView) equal(w *memberView) bool {
	return v.known == w.known && v.digest == w.digest && v.reachable == w.reachable && slices.Equal(v.members, w.members) &&
		slices.Equal(v.unproved, w.unproved)
}

// find returns the member of that name.
func (v *memberView) find(name string) (memberInfo, bool) {
	i, ok := slices.BinarySearch(v.names, name)
	if !ok {
		return memberInfo{}, false
	}
	return v.members[i], true
}

// ringNames returns the names of the members that own keys, neither leaving nor lost, sorted.
func (v *memberView) ringNames() []string { return v.ring }

// list returns all members, also those that have not proved themselves, sorted by name. The caller may keep and change it.
func (v *memberView) list() []memberInfo {
	list := slices.Concat(v.members, v.unproved)
	slices.SortFunc(list, func(a, b memberInfo) int { return cmp.Compare(a.Name, b.Name) })
	return list
}
