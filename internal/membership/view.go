package membership

import (
	"cmp"
	"slices"
	"time"

	"github.com/cespare/xxhash/v2"
	"github.com/peerlimit/peerlimit/internal/wire"
)

// View is the cluster at one moment. It is never changed, nor is any slice that its methods return.
type View struct {
	// Members has everyone that limits are divided by, sorted by name: this node, the members that gossip has not given
	// up, and the failed ones that still count. Members that have left are not in it.
	Members []Info

	// Unproved are members that gossip tells of and that do not count: they have not proved themselves yet. Links to them are
	// made, which is how they do.
	Unproved []Info

	// LastWords are of those that have left, as far as no view before has told them.
	LastWords []LastWord

	// GivenUp are members that were in the view before and are dead.
	GivenUp []Info

	memberNames []string // of Members
	owners      []string // names of members that own keys

	// Roster has the names that a limit is divided by, and Reachable is how many of them gossip has not given up; this node is
	// in both. There are more names than members as long as some are known by name only, and more still while some are
	// expected.
	Roster
	Reachable int
}

// Roster is the set of members that a limit is divided by, at one moment. It is never changed.
type Roster struct {
	generation uint64   // counts the changes
	Names      []string // sorted
	Divisor    int      // how many count
	Expected   int      // how many must be there at least, as long as so many were not met
	Digest     uint64   // of Names
	Hearsay    []string // those of Names that have not proved themselves to this node, sorted
	Told       []string // those of Names that something speaks for beside gossip, sorted: they are told to others

	lost []lostSince // sorted
}

// lostSince is a member that is lost, and since when.
type lostSince struct {
	name string
	at   time.Time
}

func newRoster(k *rosterSet, generation uint64) *Roster {
	names := k.names()
	divisor, _ := k.divisor()
	var d xxhash.Digest
	d.Reset()
	for _, name := range names {
		_, _ = d.WriteString(name) // never fails
		_, _ = d.Write([]byte{0})
	}
	return &Roster{generation: generation, Names: names, Divisor: divisor, Expected: k.expected(), Digest: d.Sum64(),
		Hearsay: k.hearsay(), Told: k.told(), lost: k.lost()}
}

// Generation returns the number of the roster; each change makes a higher one.
func (r *Roster) Generation() uint64 { return r.generation }

// Asked returns all that a round must hear, which is not to be changed.
func (r *Roster) Asked() []string { return r.Names }

// IsAsked reports whether rounds must hear the member of that name.
func (r *Roster) IsAsked(name string) bool { return r.Has(name) }

// Lost returns which of the names are lost, and for how long, as others are to be told.
func (r *Roster) Lost() (lost []wire.LostName) {
	for _, l := range r.lost {
		lost = append(lost, wire.LostName{Name: l.name, For: time.Since(l.at)})
	}
	return lost
}

// IsLost reports whether the member of that name is lost.
func (r *Roster) IsLost(name string) bool {
	_, is := slices.BinarySearchFunc(r.lost, name, func(l lostSince, name string) int { return cmp.Compare(l.name, name) })
	return is
}

// Doubtful returns the names that this node must ask the witnesses about, as nobody else may miss them: those that it was only told
// of, and those that are lost.
func (r *Roster) Doubtful() []string {
	if len(r.lost) == 0 {
		return r.Hearsay
	}
	names := slices.Clone(r.Hearsay)
	for _, l := range r.lost {
		names = append(names, l.name)
	}
	return names
}

// hasProved reports whether a name of the roster has proved itself to this node.
func (r *Roster) hasProved(name string) bool {
	_, hearsay := slices.BinarySearch(r.Hearsay, name)
	return r.Has(name) && !hearsay
}

// Has reports whether limits are divided by the member of that name.
func (r *Roster) Has(name string) bool {
	_, ok := slices.BinarySearch(r.Names, name)
	return ok
}

// newView takes members over.
func newView(members, unproved []Info, known *Roster, reachable int) *View {
	slices.SortFunc(members, func(a, b Info) int { return cmp.Compare(a.Name, b.Name) })
	slices.SortFunc(unproved, func(a, b Info) int { return cmp.Compare(a.Name, b.Name) })
	v := &View{Members: members, Unproved: unproved, memberNames: make([]string, len(members)), Roster: *known, Reachable: reachable}
	for i, m := range members {
		v.memberNames[i] = m.Name
		if m.State == Alive || m.State == Suspect {
			v.owners = append(v.owners, m.Name)
		}
	}
	return v
}

func (v *View) equal(w *View) bool {
	return v.Divisor == w.Divisor && v.Digest == w.Digest && v.Reachable == w.Reachable && slices.Equal(v.Members, w.Members) &&
		slices.Equal(v.Unproved, w.Unproved) && slices.Equal(v.lost, w.lost)
}

// find returns the member of that name.
func (v *View) find(name string) (Info, bool) {
	i, ok := slices.BinarySearch(v.memberNames, name)
	if !ok {
		return Info{}, false
	}
	return v.Members[i], true
}

// Owners returns the names of the members that own keys, neither leaving nor lost, sorted.
func (v *View) Owners() []string { return v.owners }

// List returns all members, also those that have not proved themselves, sorted by name. The caller may keep and change it.
func (v *View) List() []Info {
	list := slices.Concat(v.Members, v.Unproved)
	slices.SortFunc(list, func(a, b Info) int { return cmp.Compare(a.Name, b.Name) })
	return list
}
