package peerlimit

import (
	"cmp"
	"maps"
	"math"
	"net/netip"
	"slices"
	"time"
)

const (
	// isolatedMemoryFactor is how much longer than Config.SplitMemory a lost member counts while not more than half of
	// the known members are in reach. A node on the smaller side of a split cannot tell it from the death of all others;
	// forgetting them would let it hand out a larger share while they are still there.
	isolatedMemoryFactor = 60

	// tombstoneMargin is how much longer a departure is remembered than any node could remember the departed as lost.
	// It covers the time until gossip declared the departed dead at a node that did not hear of its departure.
	tombstoneMargin = 10 * time.Minute

	// maxTombstones bounds the departures remembered, and with them what a push/pull carries: 4,096 names of some 20
	// bytes are 100 kB. It is a cluster of 1,000 that is rolled four times in the hour for which they are kept.
	maxTombstones = 4096
)

// knownSet is the set of members that a limit is divided by: every member that was ever seen alive and may still be
// there. A name leaves it when the member has left, when another member lives at its address, or when it has been lost
// for so long that it counts as dead. Dividing by too many only wastes a part of the limit for a while; dividing by too
// few exceeds it, so a name in doubt stays.
//
// It is plain data: it reads no clock, does no I/O and is not safe for concurrent use. Times passed in must not go back.
type knownSet struct {
	self   string
	memory time.Duration // Config.SplitMemory

	// expect is Config.ExpectMembers until that many were known at once, then 0: from there on the set is the better
	// judge, also of members that left.
	expect int

	// seeds is the number of other nodes that there are to join. It counts until another member was met: who has met
	// nobody cannot know that the seeds are all there is.
	seeds int
	met   bool

	// members has an entry for every known name, self included.
	members map[string]*knownMember
	alive   int // entries that are not lost, self included

	// majoritySince is when more than half came into reach; zero while they are not.
	majoritySince time.Time

	// left has the tombstones: the names that left, and until when that is remembered. No name in it is in members.
	left map[string]time.Time

	// forgotten has the names that were given up here, and until when they are not taken in from hearsay again: two nodes
	// would keep a dead name alive between them for ever.
	forgotten map[string]time.Time
}

// knownMember is one member as it was last seen.
type knownMember struct {
	memberInfo
	lostAt time.Time // zero while gossip counts it as a member

	// hearsay says that only other members have told of it, by its name. It counts as lost since then: gossip, which has
	// more to tell, is behind, or has given it up.
	hearsay bool
}

// newKnownSet returns a set that has only self in it.
func newKnownSet(self memberInfo, expect, seeds int, memory time.Duration) *knownSet {
	return &knownSet{
		self:    self.Name,
		memory:  memory,
		expect:  expect,
		seeds:   seeds,
		members: map[string]*knownMember{self.Name: {memberInfo: self}},
		alive:   1,
		left:    make(map[string]time.Time),

		forgotten: make(map[string]time.Time),
	}
}

// learn takes in names that another member knows, and reports whether one was new.
func (k *knownSet) learn(names []string, now time.Time) (news bool) {
	for _, name := range names {
		if k.members[name] != nil || k.hasLeft(name, now) || now.Before(k.forgotten[name]) || len(k.members) >= maxMembers {
			continue
		}
		k.members[name] = &knownMember{memberInfo: memberInfo{Member: Member{Name: name}}, lostAt: now, hearsay: true}
		news = true
	}
	if news {
		k.expire(now)
	}
	return news
}

// meet takes in the name of a member that has been heard itself: that is no hearsay, even where the name was given up. A
// split can last longer than the memory of it, and gossip may take longer than others to notice its end.
func (k *knownSet) meet(name string, now time.Time) (news bool) {
	delete(k.forgotten, name)
	return k.learn([]string{name}, now)
}

// forget gives up a name.
func (k *knownSet) forget(name string, now time.Time) {
	delete(k.members, name)
	k.forgotten[name] = now.Add(k.tombstoneMemory())
}

// names returns all known names, sorted.
func (k *knownSet) names() []string { return slices.Sorted(maps.Keys(k.members)) }

// update takes in the complete list of members that gossip has not given up. Those that are not in it any more are lost
// from now on, except self.
func (k *knownSet) update(members []memberInfo, now time.Time) {
	present := make(map[string]bool, len(members))
	taken := make(map[netip.AddrPort]bool, len(members))
	for _, m := range members {
		if k.hasLeft(m.Name, now) {
			continue // gossip that is older than the departure
		}
		present[m.Name] = true
		taken[m.gossip] = true
		if k.members[m.Name] == nil {
			k.members[m.Name] = new(knownMember)
		}
		*k.members[m.Name] = knownMember{memberInfo: m}
		delete(k.forgotten, m.Name) // after a split that was longer than the memory of it
	}
	k.alive = 0
	for name, m := range k.members {
		switch {
		case name == k.self || present[name]:
			k.alive++
		case taken[m.gossip]:
			k.forget(name, now) // two processes cannot have one address, and the other one is alive
		case m.lostAt.IsZero():
			m.lostAt = now
			m.State = MemberLost
		}
	}
	if k.alive > 1 {
		k.met = true
	}
	k.expire(now)
	if len(k.members) >= k.expect {
		k.expect = 0
	}
}

// retire takes in that a member has left for good, which is to be remembered for the given time, at most for
// tombstoneMemory. It reports whether the member was known, which is when others may need to be told too.
func (k *knownSet) retire(name string, remember time.Duration, now time.Time) (wasKnown bool) {
	if name == k.self || k.hasLeft(name, now) {
		return false
	}
	k.left[name] = now.Add(min(remember, k.tombstoneMemory()))
	m, wasKnown := k.members[name]
	if wasKnown {
		delete(k.members, name)
		if m.lostAt.IsZero() {
			k.alive--
		}
	}
	k.expire(now)
	return wasKnown
}

// hasLeft reports whether there is a tombstone for name.
func (k *knownSet) hasLeft(name string, now time.Time) bool {
	until, ok := k.left[name]
	return ok && now.Before(until)
}

// tombstoneMemory is how long a departure is remembered: longer than any node that did not hear of it can remember the
// departed as lost, so that meeting such a node does not bring it back.
func (k *knownSet) tombstoneMemory() time.Duration {
	if memory := k.isolatedMemory(); memory <= math.MaxInt64-tombstoneMargin {
		return memory + tombstoneMargin
	}
	return math.MaxInt64
}

// isolatedMemory is how long a lost member counts at most.
func (k *knownSet) isolatedMemory() time.Duration {
	if k.memory > math.MaxInt64/isolatedMemoryFactor {
		return math.MaxInt64
	}
	return isolatedMemoryFactor * k.memory
}

// expire forgets what is not to be remembered any longer. Fewer known members may make those in reach a majority, which
// only starts the shorter memory, so one pass is enough.
func (k *knownSet) expire(now time.Time) {
	k.noteMajority(now)
	for name, m := range k.members {
		if !m.lostAt.IsZero() && !now.Before(k.forgetAt(m)) {
			k.forget(name, now)
		}
	}
	k.boundMembers(now)
	k.noteMajority(now)
	for _, memory := range []map[string]time.Time{k.left, k.forgotten} {
		maps.DeleteFunc(memory, func(_ string, until time.Time) bool { return !now.Before(until) })
		boundTombstones(memory)
	}
}

// noteMajority keeps majoritySince.
func (k *knownSet) noteMajority(now time.Time) {
	known, reachable := k.reach()
	switch {
	case 2*reachable <= known:
		k.majoritySince = time.Time{}
	case k.majoritySince.IsZero():
		k.majoritySince = now
	}
}

// forgetAt is when a lost member is forgotten, if nothing changes until then: soon only where more than half are in reach
// [ForgetOnlyWithMajority], by gossip's word. After an hour or so it is forgotten in any case: the rest of a cluster that has
// lost its majority for good must become one again.
func (k *knownSet) forgetAt(m *knownMember) time.Time {
	latest := m.lostAt.Add(k.isolatedMemory())
	if k.majoritySince.IsZero() {
		return latest
	}
	since := m.lostAt
	if since.Before(k.majoritySince) {
		since = k.majoritySince
	}
	if soon := since.Add(k.memory); soon.Before(latest) {
		return soon
	}
	return latest
}

// boundMembers forgets those that were lost first while there are more members than a cluster may have. It takes a
// process that crashes and comes back at another address thousands of times an hour to get there.
func (k *knownSet) boundMembers(now time.Time) {
	if excess := len(k.members) - maxMembers; excess > 0 {
		lost := slices.DeleteFunc(k.names(), func(name string) bool { return k.members[name].lostAt.IsZero() })
		slices.SortStableFunc(lost, func(a, b string) int { return k.members[a].lostAt.Compare(k.members[b].lostAt) })
		for _, name := range lost[:min(excess, len(lost))] {
			k.forget(name, now)
		}
	}
}

// boundTombstones drops what would be dropped first while there are more than maxTombstones.
func boundTombstones(memory map[string]time.Time) {
	if excess := len(memory) - maxTombstones; excess > 0 {
		names := slices.SortedFunc(maps.Keys(memory), func(a, b string) int { return memory[a].Compare(memory[b]) })
		for _, name := range names[:excess] {
			delete(memory, name)
		}
	}
}

// nextExpiry is when expire would next forget something; ok is false when there is nothing to forget.
func (k *knownSet) nextExpiry() (at time.Time, ok bool) {
	earliest := func(t time.Time) {
		if !ok || t.Before(at) {
			at, ok = t, true
		}
	}
	for _, m := range k.members {
		if !m.lostAt.IsZero() {
			earliest(k.forgetAt(m))
		}
	}
	for _, until := range k.left {
		earliest(until)
	}
	return at, ok
}

// reach returns by how many members a limit is divided and how many of them gossip has not given up. Both count this
// node: 1 <= reachable <= known.
func (k *knownSet) reach() (known, reachable int) {
	known = max(len(k.members), k.expect)
	if !k.met {
		known = max(known, 1+k.seeds)
	}
	return known, k.alive
}

// lostMembers returns the members that gossip has given up and that still count, sorted by name. Where those are that are
// known from hearsay, nobody has said.
func (k *knownSet) lostMembers() []memberInfo {
	var lost []memberInfo
	for _, m := range k.members {
		if !m.lostAt.IsZero() && !m.hearsay {
			lost = append(lost, m.memberInfo)
		}
	}
	slices.SortFunc(lost, func(a, b memberInfo) int { return cmp.Compare(a.Name, b.Name) })
	return lost
}

// departures returns the tombstones.
func (k *knownSet) departures(now time.Time) []departure {
	departures := make([]departure, 0, len(k.left))
	for name, until := range k.left {
		if now.Before(until) {
			departures = append(departures, departure{name, until.Sub(now)})
		}
	}
	return departures
}
