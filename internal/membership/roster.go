package membership

import (
	"cmp"
	"maps"
	"net/netip"
	"slices"
	"time"

	"github.com/peerlimit/peerlimit/internal/ring"
	"github.com/peerlimit/peerlimit/internal/wire"
)

const (
	// deadAfter is how long a lost member still counts when a limit is divided. Lost it is half a second after its last ping; the
	// agreed number of members follows within a second: 10 s after its death nothing of it counts.
	deadAfter = 8 * time.Second

	// goesSoon is how long before a name goes others do not learn it any more: some have given it up already.
	goesSoon = time.Second

	// heardAfter is after what time a member is not lost any more of which the witnesses have ceased to say so. New witnesses may be about
	// to say it.
	heardAfter = 3 * time.Second

	// lookAgain is when names are looked at again that would go if this node had quorum.
	lookAgain = time.Second

	// tombstoneMemory is how long a departure is remembered: longer than gossip that is older than the goodbye is still about.
	tombstoneMemory = 2 * time.Minute

	// deadMemory is how long the names of the dead are remembered, for rounds that have begun with them.
	deadMemory = 10 * time.Minute

	// maxTombstones bounds the departures remembered, and with them what a push/pull carries: 4,096 names of some 20
	// bytes are 100 kB. It is a cluster of 1,000 that is rolled four times in two minutes.
	maxTombstones = 4096

	// maxToldByOne bounds the names that count on one member's word and that gossip does not list. More join a cluster in the same
	// moment, but gossip lists those.
	maxToldByOne = 64
)

// Fate is what quorum says of members: membership takes from it whom to give up.
type Fate struct {
	HasQuorum func() bool            // this node has
	Lost      func(name string) bool // the witnesses hear no pings of that member

	// Panel returns the agreed number of members, and the witnesses.
	Panel func() (members int, witnesses []string)
}

// rosterSet is the set of members that a limit is divided by and that rounds must hear: every member that was heard by somebody and may
// still be there. Who has a majority is not decided by it: that is agreed on, see internal/panel. A name too many costs rounds half a
// second, and makes shares smaller; a name too few would make them too large.
//
// A name counts when its bearer has proved itself to this node: by a link, a ping, a request or an answer, on the
// authenticated connection; and when a member tells of it. Gossip's word does not count: a peer that records it can say it again. Only a
// node that has not met its cluster yet, and has no quorum, counts by it: it would decide alone, or by a share, in the milliseconds until its links are up.
// A name goes when its bearer has left, when another member lives at its address, or when it has been lost for deadAfter
// [ForgetOnlyLost]. Only a node that has quorum knows who is lost; without it, every name stays [ForgetOnlyWithMajority].
//
// What members tell of a name is how long it has been lost as well, so that those who hear of it count on from there: the names
// of the dead would never end where members come and go.
//
// It is plain data: it does no I/O, and is not safe for concurrent use. Times passed in must not go back.
type rosterSet struct {
	self string
	fate Fate

	// expect is Config.ExpectMembers until that many were known at once, then 0: from there on the set is the better
	// judge, also of members that left.
	expect int

	// seeds is the number of other nodes that there are to join. It counts until another member was met: a node that has met
	// nobody cannot know that the seeds are all there is.
	seeds int
	met   bool

	// unproved are the members that gossip tells of and that do not count.
	unproved []Info

	// members has an entry for every name that counts, self included.
	members map[string]*rosterMember
	alive   int // entries that gossip lists, self included

	// words has what those said last that left lately: news for those that have not heard it.
	words map[string]lastWord

	// left has the tombstones: the names that left, and until when that is remembered. No name in it is in members.
	left map[string]time.Time

	// givenUp are the members that were given up and that no view has told of yet.
	givenUp []Info

	// dead has the names that were given up, and until when that is remembered. They count again when they are heard, or told of.
	dead map[string]time.Time
}

// rosterMember is one member as it was last seen.
type rosterMember struct {
	Info
	listed bool      // gossip counts it as a member
	failed bool      // gossip did, and has given it up
	proved bool      // to this node
	teller string    // the member that told of it first, where it has not proved itself; none: only gossip has
	lostAt time.Time // since when nobody hears it; zero: somebody does, or nobody can tell

	// unsaidSince is since when the witnesses have not said that it is lost although it was; zero: they have.
	unsaidSince time.Time
}

// byGossipAlone reports whether nothing speaks for a member but gossip.
func (m *rosterMember) byGossipAlone() bool { return !m.proved && m.teller == "" }

// lastWord is what a member said last, and until when it is told on.
type lastWord struct {
	word  []byte
	until time.Time
}

// lastWordMemory is how long a last word is told on: for longer than it takes others to replace a witness without it.
const lastWordMemory = time.Minute

// newRosterSet returns a set that has only self in it.
func newRosterSet(self Info, expect, seeds int, fate Fate) *rosterSet {
	return &rosterSet{
		self: self.Name, fate: fate, expect: expect, seeds: seeds,
		members: map[string]*rosterMember{self.Name: {Info: self, listed: true, proved: true}},
		alive:   1,
		words:   make(map[string]lastWord),
		left:    make(map[string]time.Time),
		dead:    make(map[string]time.Time),
	}
}

// Word is what a member says of names.
type Word struct {
	Teller string
	Names  []string // that count there
	Lost   []wire.LostName
}

// lostAt returns since when those are lost of which the teller says so.
func (w *Word) lostAt(now time.Time) map[string]time.Time {
	if len(w.Lost) == 0 {
		return nil
	}
	at := make(map[string]time.Time, len(w.Lost))
	for i := range w.Lost {
		at[w.Lost[i].Name] = now.Add(-w.Lost[i].For)
	}
	return at
}

// mergeNames takes in a member's word, and reports whether there was news.
func (k *rosterSet) mergeNames(w *Word, now time.Time) (news bool) {
	told := 0 // names that count on the teller's word alone
	for _, m := range k.members {
		if !m.proved && !m.listed && m.teller == w.Teller {
			told++
		}
	}
	lost := w.lostAt(now)
	for _, name := range w.Names {
		lostAt := lost[name]
		isDead := !lostAt.IsZero() && now.Sub(lostAt) >= deadAfter-goesSoon
		switch m := k.members[name]; {
		case name == k.self || k.hasLeft(name, now):
		case m != nil && m.byGossipAlone():
			if !isDead {
				m.teller, m.lostAt, news = w.Teller, lostAt, true
			}
		case m != nil:
			k.noteTold(m, lostAt)
		case !isDead && len(k.members) < ring.MaxMembers && (told < maxToldByOne || k.isUnproved(name)):
			k.members[name] = &rosterMember{Info: Info{Name: name}, teller: w.Teller, lostAt: lostAt}
			delete(k.dead, name)
			told++
			news = true
		}
	}
	if news {
		k.expire(now)
	}
	return news
}

// noteTold takes in since when a member is lost where another one hears of it.
func (k *rosterSet) noteTold(m *rosterMember, lostAt time.Time) {
	if m.proved || m.lostAt.IsZero() || k.fate.Lost(m.Name) {
		return // this node can tell by itself
	}
	if lostAt.IsZero() || lostAt.After(m.lostAt) {
		m.lostAt = lostAt
	}
}

// isUnproved reports whether gossip tells of a name that does not count.
func (k *rosterSet) isUnproved(name string) bool {
	return slices.ContainsFunc(k.unproved, func(m Info) bool { return m.Name == name })
}

// addHeardFrom takes in that a member has proved itself, and reports whether that changes the names that count, or which of them have. A
// split can last longer than the memory of it, and gossip may take longer than others to notice its end.
func (k *rosterSet) addHeardFrom(name string, now time.Time) (news bool) {
	if name == k.self || k.hasLeft(name, now) {
		return false
	}
	m := k.members[name]
	if m == nil {
		m = &rosterMember{Info: Info{Name: name}}
		k.members[name] = m
		delete(k.dead, name)
	}
	news = !m.proved
	m.proved, m.lostAt, m.unsaidSince, k.met = true, time.Time{}, time.Time{}, true
	if news {
		k.expire(now)
	}
	return news
}

// giveUp drops a name.
func (k *rosterSet) giveUp(name string, now time.Time) {
	if m := k.members[name]; m != nil {
		k.givenUp = append(k.givenUp, m.Info)
	}
	k.drop(name)
	k.dead[name] = now.Add(deadMemory)
}

// drop takes a name out of the members.
func (k *rosterSet) drop(name string) {
	if m := k.members[name]; m != nil {
		delete(k.members, name)
		if m.listed {
			k.alive--
		}
	}
}

// names returns all names that count, sorted.
func (k *rosterSet) names() []string { return slices.Sorted(maps.Keys(k.members)) }

// hearsay returns the names that count on others' word, sorted.
func (k *rosterSet) hearsay() (names []string) {
	for name, m := range k.members {
		if !m.proved {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return names
}

// lost returns the members that are lost, sorted by name.
func (k *rosterSet) lost() (lost []lostSince) {
	for name, m := range k.members {
		if !m.lostAt.IsZero() {
			lost = append(lost, lostSince{name, m.lostAt})
		}
	}
	slices.SortFunc(lost, func(a, b lostSince) int { return cmp.Compare(a.name, b.name) })
	return lost
}

// update takes in the complete list of members that gossip has not given up. Those that have not proved themselves, and that nobody
// has told of, do not count.
func (k *rosterSet) update(members []Info, now time.Time) {
	present := make(map[string]bool, len(members))
	taken := make(map[netip.AddrPort]bool, len(members))
	k.unproved = k.unproved[:0:0]
	for _, m := range members {
		known := k.members[m.Name]
		if known == nil && k.countsByGossip() {
			known = &rosterMember{}
			k.members[m.Name] = known
		}
		switch {
		case k.hasLeft(m.Name, now): // gossip that is older than the departure
			delete(k.members, m.Name)
		case known == nil:
			m.State = Suspect
			k.unproved = append(k.unproved, m)
		default:
			known.Info, known.failed = m, false
			present[m.Name] = true
			if known.proved {
				taken[m.Gossip] = true
			}
		}
	}
	k.alive = 0
	for name, m := range k.members {
		was := m.listed
		m.listed = name == k.self || present[name]
		switch {
		case m.listed:
			k.alive++
		case taken[m.Gossip]:
			k.giveUp(name, now) // two processes cannot have one address, and the other one is alive
		case was:
			m.failed, m.State = true, Failed
		}
	}
	k.expire(now)
	if len(k.told()) >= k.expect {
		k.expect = 0
	}
}

// countsByGossip reports whether the members that gossip lists count.
func (k *rosterSet) countsByGossip() bool { return !k.met && k.seeds > 0 && !k.fate.HasQuorum() }

// retire takes in that a member has left forever, which is to be remembered for the given time, at most for
// tombstoneMemory. It reports whether the member was known, which is when others may need to be told too.
func (k *rosterSet) retire(name string, remember time.Duration, now time.Time) (wasKnown bool) {
	if name == k.self || k.hasLeft(name, now) {
		return false
	}
	k.left[name] = now.Add(min(remember, tombstoneMemory))
	wasKnown = k.members[name] != nil
	k.drop(name)
	k.expire(now)
	return wasKnown
}

// keepLastWord takes in what a member said last that has left, and reports whether that is news.
func (k *rosterSet) keepLastWord(w LastWord, now time.Time) (news bool) {
	if _, again := k.words[w.Name]; again || !k.hasLeft(w.Name, now) || len(k.words) >= maxLastWords {
		return false
	}
	k.words[w.Name] = lastWord{w.Word, now.Add(lastWordMemory)}
	return true
}

// lastWords returns what is still told on.
func (k *rosterSet) lastWords(now time.Time) (words []LastWord) {
	for name, w := range k.words {
		if now.Before(w.until) {
			words = append(words, LastWord{name, w.word})
		}
	}
	return words
}

// lastWordOf returns the last word of one member, if it is told on.
func (k *rosterSet) lastWordOf(name string) (words []LastWord) {
	if w, said := k.words[name]; said {
		words = append(words, LastWord{name, w.word})
	}
	return words
}

// hasLeft reports whether there is a tombstone for name.
func (k *rosterSet) hasLeft(name string, now time.Time) bool {
	until, ok := k.left[name]
	return ok && now.Before(until)
}

// expire gives up those that have been lost for long, and forgets what is not to be remembered any longer.
func (k *rosterSet) expire(now time.Time) {
	if k.fate.HasQuorum() {
		for name, m := range k.members {
			switch {
			case name == k.self:
				continue
			case m.byGossipAlone():
				m.State = Suspect
				k.unproved = append(k.unproved, m.Info)
				k.drop(name)
				continue
			}
			isLost := k.fate.Lost(name)
			m.noteLost(isLost, now)
			if !m.lostAt.IsZero() && now.Sub(m.lostAt) >= deadAfter && (isLost || !m.proved) {
				k.giveUp(name, now)
			}
		}
	}
	k.boundMembers(now)
	maps.DeleteFunc(k.words, func(_ string, w lastWord) bool { return !now.Before(w.until) })
	for _, memory := range []map[string]time.Time{k.left, k.dead} {
		maps.DeleteFunc(memory, func(_ string, until time.Time) bool { return !now.Before(until) })
		boundTombstones(memory)
	}
}

// noteLost takes in whether the witnesses say that a member is lost.
func (m *rosterMember) noteLost(isLost bool, now time.Time) {
	switch {
	case isLost:
		m.unsaidSince = time.Time{}
		if m.lostAt.IsZero() {
			m.lostAt = now
		}
	case m.lostAt.IsZero() || !m.proved: // of those that were told of somebody else knows since when
	case m.unsaidSince.IsZero():
		m.unsaidSince = now
	case now.Sub(m.unsaidSince) >= heardAfter:
		m.lostAt, m.unsaidSince = time.Time{}, time.Time{}
	}
}

// boundMembers gives up those that have not proved themselves, and then those that gossip has given up, while there are more members than
// a cluster may have. It takes a process that crashes and comes back at another address thousands of times in seconds to get there.
func (k *rosterSet) boundMembers(now time.Time) {
	excess := len(k.members) - ring.MaxMembers
	if excess <= 0 {
		return
	}
	first := func(name string) int {
		if m := k.members[name]; m.proved {
			return 1
		}
		return 0
	}
	unlisted := slices.DeleteFunc(k.names(), func(name string) bool { return k.members[name].listed })
	slices.SortStableFunc(unlisted, func(a, b string) int { return cmp.Compare(first(a), first(b)) })
	for _, name := range unlisted[:min(excess, len(unlisted))] {
		k.giveUp(name, now)
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
func (k *rosterSet) nextExpiry(now time.Time) (at time.Time, ok bool) {
	earliest := func(t time.Time) {
		if !ok || t.Before(at) {
			at, ok = t, true
		}
	}
	for _, m := range k.members {
		if !m.lostAt.IsZero() {
			due := m.lostAt.Add(deadAfter)
			if again := m.unsaidSince.Add(heardAfter); !m.unsaidSince.IsZero() && again.Before(due) {
				due = again
			}
			if !due.After(now) {
				due = now.Add(lookAgain)
			}
			earliest(due)
		}
	}
	for _, until := range k.left {
		earliest(until)
	}
	return at, ok
}

// told returns the names that something speaks for beside gossip, sorted. What gossip alone tells of is passed on by gossip alone.
func (k *rosterSet) told() (names []string) {
	for name, m := range k.members {
		if !m.byGossipAlone() {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return names
}

// expected returns how many members there must be at least, this node among them: those that are configured and not met yet.
func (k *rosterSet) expected() int {
	if !k.met {
		return max(k.expect, 1+k.seeds)
	}
	return k.expect
}

// divisor returns by how many members a limit is divided and how many of them gossip has not given up. Both count this
// node: 1 <= reachable <= divisor. Without quorum the agreed number and witnesses keep it from being too small: nothing can be agreed on.
func (k *rosterSet) divisor() (divisor, reachable int) {
	divisor = len(k.members)
	if k.fate.HasQuorum() {
		return max(divisor, k.expected()), k.alive
	}
	agreed, witnesses := k.fate.Panel()
	for _, w := range witnesses {
		if _, left := k.left[w]; k.members[w] == nil && !left {
			divisor++
		}
	}
	return max(divisor, agreed, k.expected()), k.alive
}

// presentMembers returns the members that count and that gossip has not given up.
func (k *rosterSet) presentMembers() []Info {
	present := make([]Info, 0, len(k.members))
	for _, m := range k.members {
		if m.listed {
			present = append(present, m.Info)
		}
	}
	return present
}

// failedMembers returns the members that gossip has given up and that still count, sorted by name. Where those are that are
// known from hearsay, nobody has said.
func (k *rosterSet) failedMembers() []Info {
	var failed []Info
	for _, m := range k.members {
		if m.failed {
			failed = append(failed, m.Info)
		}
	}
	slices.SortFunc(failed, func(a, b Info) int { return cmp.Compare(a.Name, b.Name) })
	return failed
}

// departures returns the tombstones.
func (k *rosterSet) departures(now time.Time) []departure {
	departures := make([]departure, 0, len(k.left))
	for name, until := range k.left {
		if now.Before(until) {
			departures = append(departures, departure{name, until.Sub(now)})
		}
	}
	return departures
}
