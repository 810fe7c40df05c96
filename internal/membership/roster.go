package membership

import (
	"cmp"
	"maps"
	"math"
	"net/netip"
	"slices"
	"time"

	"github.com/peerlimit/peerlimit/internal/ring"
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

	// hearsayMemory is how long names count that gossip alone has told a node of which has not met its cluster yet: time for
	// their links to come up, or for a member to tell of them.
	hearsayMemory = 5 * time.Second

	// doubtMemory is how long a doubted name is asked for, at least. After that it goes when it is lost.
	doubtMemory = 30 * time.Second

	// maxDoubtsOfOne bounds the names that are asked for on one member's word, and maxDoubts those on anybody's. More join
	// a cluster in the same moment, but of those most prove themselves before they are told of.
	maxDoubtsOfOne = 64
	maxDoubts      = 512
)

// rosterSet is the set of members that a limit is divided by: every member that was ever seen alive and may still be
// there. A name leaves it when the member has left, when another member lives at its address, or when it has been lost
// for so long that it counts as dead. Dividing by too many only wastes a part of the limit for a while; dividing by too
// few exceeds it, so a name in doubt stays.
//
// A name counts forever when its bearer has proved itself to this node: by a link, a ping, a request or an answer, on the
// authenticated connection. A member's word that it proved itself there counts as well, but not against quorum: a node
// that has a majority without a name goes on having it until the name proves itself, or a second member vouches for it.
// Until then the name is doubted, which means that it must answer in rounds like those that count [DoubtedAreAsked].
// Gossip's word does not count: a peer that records it can say it again. Only a node that has not met its cluster yet counts by it
// for some seconds, or the first few that it meets would be a majority to it.
//
// It is plain data: it reads no clock, does no I/O and is not safe for concurrent use. Times passed in must not go back.
type rosterSet struct {
	self   string
	memory time.Duration // Config.SplitMemory

	// expect is Config.ExpectMembers until that many were known at once, then 0: from there on the set is the better
	// judge, also of members that left.
	expect int

	// seeds is the number of other nodes that there are to join. It counts until another member was met: a node that has met
	// nobody cannot know that the seeds are all there is.
	seeds int
	met   bool

	// young says that this node has seeds, and has not met its cluster: it has had no quorum with another, nor heard from
	// a member that has. youngUntil is when that ends, once gossip has told of anybody.
	young      bool
	youngUntil time.Time

	// unproved are the members that gossip tells of and that do not count.
	unproved []Info

	// doubts are the names that are doubted.
	doubts map[string]doubt

	// lost says whether a member is lost by the witnesses' word. It may be nil: nobody is.
	lost func(name string) bool

	// members has an entry for every known name, self included.
	members map[string]*rosterMember
	alive   int // entries that are not lost, self included

	// majoritySince is when more than half came into reach; zero while they are not.
	majoritySince time.Time

	// words has what those said last that left lately: news for those that have not heard it.
	words map[string]lastWord

	// left has the tombstones: the names that left, and until when that is remembered. No name in it is in members.
	left map[string]time.Time

	// forgotten has the names that were given up here, and until when they are not taken in from hearsay again: two nodes
	// would keep a dead name alive between them forever.
	forgotten map[string]time.Time
}

// rosterMember is one member as it was last seen.
type rosterMember struct {
	Info
	failedAt time.Time // zero while gossip counts it as a member

	// hearsay says that only other members have told of it, by its name. It counts as lost since then: gossip, which has
	// more to tell, is behind, or has given it up.
	hearsay bool

	proved   bool   // to this node
	vouchers int    // how many others it has proved itself to, as far as it matters: 2 for more
	voucher  string // the first of them
}

// lastWord is what a member said last, and until when it is told on.
type lastWord struct {
	word  []byte
	until time.Time
}

// lastWordMemory is how long a last word is told on: for longer than it takes others to replace a witness without it.
const lastWordMemory = time.Minute

// doubt is what is remembered of a name that is doubted.
type doubt struct {
	teller string // the member that told of it first
	vouch  bool   // and that it has proved itself there
	since  time.Time
}

// byGossipAlone reports whether nothing speaks for a member but gossip.
func (m *rosterMember) byGossipAlone() bool { return !m.proved && m.voucher == "" }

// newRosterSet returns a set that has only self in it.
func newRosterSet(self Info, expect, seeds int, memory time.Duration) *rosterSet {
	return &rosterSet{
		self:    self.Name,
		memory:  memory,
		expect:  expect,
		seeds:   seeds,
		young:   seeds > 0,
		doubts:  make(map[string]doubt),
		members: map[string]*rosterMember{self.Name: {Info: self, proved: true}},
		alive:   1,
		left:    make(map[string]time.Time),
		words:   make(map[string]lastWord),

		forgotten: make(map[string]time.Time),
	}
}

// Word is what a member says of names.
type Word struct {
	Teller  string
	Names   []string // that count there
	Hearsay []string // those of them that have not proved themselves there, sorted
	Full    bool     // it decides in full, and these are all that count there
}

// mergeNames takes in a member's word, and reports whether there was news. full says that this node has quorum.
func (k *rosterSet) mergeNames(w *Word, full bool, now time.Time) (news bool) {
	for _, name := range w.Names {
		_, second := slices.BinarySearch(w.Hearsay, name)
		if name != k.self && k.mergeName(w.Teller, name, !second, full && !k.young, now) {
			news = true
		}
	}
	if w.Full && w.Teller != k.self {
		news = k.trimTo(w) || news
	}
	if news {
		k.expire(now)
	}
	return news
}

// mergeName takes in one name. vouch says that it has proved itself to the teller.
func (k *rosterSet) mergeName(teller, name string, vouch, full bool, now time.Time) (news bool) {
	if m := k.members[name]; m != nil {
		news = m.byGossipAlone() // it counts forever now, and is told of
		m.vouch(teller, vouch)
		return news
	}
	if k.hasLeft(name, now) || now.Before(k.forgotten[name]) || len(k.members) >= ring.MaxMembers {
		return false
	}
	d, doubted := k.doubts[name]
	switch {
	case !full, vouch && doubted && d.vouch && d.teller != teller, vouch && k.isUnproved(name):
		m := &rosterMember{Info: Info{Name: name}, failedAt: now, hearsay: true}
		if doubted {
			m.vouch(d.teller, d.vouch)
		}
		m.vouch(teller, vouch)
		k.members[name] = m
		delete(k.doubts, name)
		return true
	case doubted:
		if vouch && !d.vouch {
			d.teller, d.vouch = teller, true
			k.doubts[name] = d
		}
		return false
	}
	return k.doubt(name, doubt{teller, vouch, now})
}

// vouch takes in a member's word for a name. Without vouch it has it from others itself.
func (m *rosterMember) vouch(teller string, vouch bool) {
	switch {
	case m.voucher == "":
		m.voucher = teller
		if vouch {
			m.vouchers = 1
		}
	case vouch && (m.vouchers == 0 || m.voucher != teller):
		m.voucher = teller
		m.vouchers = min(m.vouchers+1, 2)
	}
}

// isUnproved reports whether gossip tells of a name that does not count.
func (k *rosterSet) isUnproved(name string) bool {
	return slices.ContainsFunc(k.unproved, func(m Info) bool { return m.Name == name })
}

// doubt begins to doubt a name, where there is room for one more.
func (k *rosterSet) doubt(name string, d doubt) (news bool) {
	ofTeller := 0
	for _, other := range k.doubts {
		if other.teller == d.teller {
			ofTeller++
		}
	}
	if ofTeller >= maxDoubtsOfOne || len(k.doubts) >= maxDoubts {
		return false
	}
	k.doubts[name] = d
	return true
}

// trimTo takes in the names that a member counts which decides in full: what one other alone has told of, and that one does not know,
// does not count here either; nor what gossip alone has told of.
func (k *rosterSet) trimTo(w *Word) (news bool) {
	k.young, news = false, k.young
	var counts map[string]bool // whether a name does there
	for name, m := range k.members {
		if m.proved || m.vouchers > 1 || m.voucher == w.Teller {
			continue
		}
		if counts == nil {
			counts = make(map[string]bool, len(w.Names))
			for _, name := range w.Names {
				counts[name] = true
			}
		}
		if counts[name] {
			continue
		}
		k.drop(name)
		if !m.byGossipAlone() {
			k.doubt(name, doubt{m.voucher, m.vouchers > 0, m.failedAt})
		}
		news = true
	}
	return news
}

// drop takes a name out of the members.
func (k *rosterSet) drop(name string) {
	if m := k.members[name]; m != nil {
		delete(k.members, name)
		if m.failedAt.IsZero() {
			k.alive--
		}
	}
}

// noteQuorum takes in that this node has quorum with others: its cluster is the members it had quorum with, and those that they know.
func (k *rosterSet) noteQuorum(now time.Time) {
	if k.young {
		k.young = false
		k.expire(now)
	}
}

// heardOf takes in names that gossip tells of.
func (k *rosterSet) heardOf(names []string, now time.Time) (news bool) {
	for _, name := range names {
		if !k.countsByGossip(name, now) || k.members[name] != nil || len(k.members) >= ring.MaxMembers {
			continue
		}
		k.members[name] = &rosterMember{Info: Info{Name: name}, failedAt: now, hearsay: true}
		news = true
	}
	if news {
		k.expire(now)
	}
	return news
}

// countsByGossip reports whether a name counts that gossip tells of, for now.
func (k *rosterSet) countsByGossip(name string, now time.Time) bool {
	if !k.young || k.hasLeft(name, now) || now.Before(k.forgotten[name]) {
		return false
	}
	if k.youngUntil.IsZero() {
		k.youngUntil = now.Add(hearsayMemory)
	}
	return now.Before(k.youngUntil)
}

// bequeath takes in the names that a member knew which has left. They count whatever this node knows: with the one that has left its
// majority becomes smaller, and they may have one that is without this node [GoodbyeNamesRoster].
func (k *rosterSet) bequeath(leaver string, names []string, now time.Time) (news bool) {
	added := 0
	for _, name := range names {
		if k.members[name] == nil && added < maxDoubtsOfOne && k.mergeName(leaver, name, true, false, now) {
			news = true
			added++
		}
	}
	if news {
		k.expire(now)
	}
	return news
}

// addHeardFrom takes in that a member has proved itself, and reports whether that changes the names that count or are told; even where its name was given up. A split can last longer than the memory
// of it, and gossip may take longer than others to notice its end.
func (k *rosterSet) addHeardFrom(name string, now time.Time) (news bool) {
	if name == k.self || k.hasLeft(name, now) {
		return false
	}
	delete(k.forgotten, name)
	m := k.members[name]
	if m == nil {
		m = &rosterMember{Info: Info{Name: name}, failedAt: now, hearsay: true}
		k.members[name] = m
		delete(k.doubts, name)
	}
	news = m.byGossipAlone() // else it counts and is told of already
	m.proved, k.met = true, true
	if !m.failedAt.IsZero() {
		m.failedAt = now // it is there, whatever gossip says: it is not given up before it has been silent for as long as any
	}
	if news {
		k.expire(now)
	}
	return news
}

// forget gives up a name.
func (k *rosterSet) forget(name string, now time.Time) {
	delete(k.members, name)
	delete(k.doubts, name)
	k.forgotten[name] = now.Add(k.tombstoneMemory())
}

// names returns all names that count, sorted.
func (k *rosterSet) names() []string { return slices.Sorted(maps.Keys(k.members)) }

// doubted returns the names that are doubted, sorted.
func (k *rosterSet) doubted() []string { return slices.Sorted(maps.Keys(k.doubts)) }

// told returns the names that others are told, and those of them that have not proved themselves here. What gossip
// alone has told of is passed on by gossip alone.
func (k *rosterSet) told() (names, hearsay []string) {
	names = make([]string, 0, len(k.members))
	for name, m := range k.members {
		if m.byGossipAlone() {
			continue
		}
		names = append(names, name)
		if !m.proved {
			hearsay = append(hearsay, name)
		}
	}
	slices.Sort(names)
	slices.Sort(hearsay)
	return names, hearsay
}

// update takes in the complete list of members that gossip has not given up. Those that are not in it any more are lost
// from now on, except self. Those that are new and have not proved themselves do not count yet.
func (k *rosterSet) update(members []Info, now time.Time) {
	present := make(map[string]bool, len(members))
	taken := make(map[netip.AddrPort]bool, len(members))
	k.unproved = k.unproved[:0:0]
	for _, m := range members {
		if k.hasLeft(m.Name, now) {
			continue // gossip that is older than the departure
		}
		known := k.members[m.Name]
		if d, doubted := k.doubts[m.Name]; known == nil && doubted && d.vouch { // two speak for it
			known = &rosterMember{}
			known.vouch(d.teller, d.vouch)
			delete(k.doubts, m.Name)
		}
		if known == nil {
			if !k.countsByGossip(m.Name, now) {
				m.State = Suspect
				k.unproved = append(k.unproved, m)
				continue
			}
			known = &rosterMember{}
		}
		known.Info, known.failedAt, known.hearsay = m, time.Time{}, false
		k.members[m.Name] = known
		present[m.Name] = true
		if !known.byGossipAlone() {
			taken[m.Gossip] = true
		}
	}
	k.alive = 0
	for name, m := range k.members {
		switch {
		case name == k.self || present[name]:
			k.alive++
		case taken[m.Gossip]:
			k.forget(name, now) // two processes cannot have one address, and the other one is alive
		case m.failedAt.IsZero():
			m.failedAt = now
			m.State = Failed
		}
	}
	k.expire(now)
	if len(k.members) >= k.expect {
		k.expect = 0
	}
}

// retire takes in that a member has left forever, which is to be remembered for the given time, at most for
// tombstoneMemory. It reports whether the member was known, which is when others may need to be told too.
func (k *rosterSet) retire(name string, remember time.Duration, now time.Time) (wasKnown bool) {
	if name == k.self || k.hasLeft(name, now) {
		return false
	}
	k.left[name] = now.Add(min(remember, k.tombstoneMemory()))
	m, wasKnown := k.members[name]
	if wasKnown {
		delete(k.members, name)
		if m.failedAt.IsZero() {
			k.alive--
		}
	}
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

// hasProved reports whether a member has proved itself to this node.
func (k *rosterSet) hasProved(name string) bool {
	m := k.members[name]
	return m != nil && m.proved
}

// hasLeft reports whether there is a tombstone for name.
func (k *rosterSet) hasLeft(name string, now time.Time) bool {
	until, ok := k.left[name]
	return ok && now.Before(until)
}

// tombstoneMemory is how long a departure is remembered: longer than any node that did not hear of it can remember the
// departed as lost, so that meeting such a node does not bring it back.
func (k *rosterSet) tombstoneMemory() time.Duration {
	if memory := k.isolatedMemory(); memory <= math.MaxInt64-tombstoneMargin {
		return memory + tombstoneMargin
	}
	return math.MaxInt64
}

// isolatedMemory is how long a lost member counts at most.
func (k *rosterSet) isolatedMemory() time.Duration {
	if k.memory > math.MaxInt64/isolatedMemoryFactor {
		return math.MaxInt64
	}
	return isolatedMemoryFactor * k.memory
}

// expire forgets what is not to be remembered any longer. Fewer known members may make those in reach a majority, which
// only starts the shorter memory, so one pass is enough.
func (k *rosterSet) expire(now time.Time) {
	k.expireHearsay(now)
	k.noteMajority(now)
	for name, m := range k.members {
		if !m.failedAt.IsZero() && !now.Before(k.forgetAt(m)) {
			k.forget(name, now)
		}
	}
	k.boundMembers(now)
	k.noteMajority(now)
	maps.DeleteFunc(k.words, func(_ string, w lastWord) bool { return !now.Before(w.until) })
	for _, memory := range []map[string]time.Time{k.left, k.forgotten} {
		maps.DeleteFunc(memory, func(_ string, until time.Time) bool { return !now.Before(until) })
		boundTombstones(memory)
	}
}

// expireHearsay drops what gossip alone has told of, when this node has met its cluster or has had the time to, and doubted
// names that are lost and that nobody has proved for long.
func (k *rosterSet) expireHearsay(now time.Time) {
	if k.young && !k.youngUntil.IsZero() && !now.Before(k.youngUntil) {
		k.young = false
	}
	if !k.young {
		for name, m := range k.members {
			if m.byGossipAlone() {
				if m.failedAt.IsZero() {
					m.State = Suspect
					k.unproved = append(k.unproved, m.Info)
				}
				k.drop(name)
			}
		}
	}
	for name, d := range k.doubts {
		switch {
		case now.Sub(d.since) < doubtMemory:
		case k.lost == nil || k.lost(name):
			k.forget(name, now)
		default:
			d.since = now.Add(time.Second - doubtMemory) // when to look again
			k.doubts[name] = d
		}
	}
}

// noteMajority keeps majoritySince.
func (k *rosterSet) noteMajority(now time.Time) {
	divisor, reachable := k.divisor()
	switch {
	case 2*reachable <= divisor:
		k.majoritySince = time.Time{}
	case k.majoritySince.IsZero():
		k.majoritySince = now
	}
}

// forgetAt is when a lost member is forgotten, if nothing changes until then: soon only where more than half are in reach
// [ForgetOnlyWithMajority], by gossip's word. After an hour or so it is forgotten in any case: the rest of a cluster that has
// lost its majority forever must become one again.
func (k *rosterSet) forgetAt(m *rosterMember) time.Time {
	latest := m.failedAt.Add(k.isolatedMemory())
	if k.majoritySince.IsZero() {
		return latest
	}
	since := m.failedAt
	if since.Before(k.majoritySince) {
		since = k.majoritySince
	}
	if soon := since.Add(k.memory); soon.Before(latest) {
		return soon
	}
	return latest
}

// boundMembers forgets those that have not proved themselves, and then those that were lost first, while there are more members than a cluster may have. It takes a
// process that crashes and comes back at another address thousands of times an hour to get there.
func (k *rosterSet) boundMembers(now time.Time) {
	if excess := len(k.members) - ring.MaxMembers; excess > 0 {
		lost := slices.DeleteFunc(k.names(), func(name string) bool { return k.members[name].failedAt.IsZero() })
		slices.SortStableFunc(lost, func(a, b string) int {
			x, y := k.members[a], k.members[b]
			switch {
			case x.proved && !y.proved:
				return 1
			case y.proved && !x.proved:
				return -1
			}
			return x.failedAt.Compare(y.failedAt)
		})
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
func (k *rosterSet) nextExpiry() (at time.Time, ok bool) {
	earliest := func(t time.Time) {
		if !ok || t.Before(at) {
			at, ok = t, true
		}
	}
	for _, m := range k.members {
		if !m.failedAt.IsZero() {
			earliest(k.forgetAt(m))
		}
	}
	for _, until := range k.left {
		earliest(until)
	}
	if k.young && !k.youngUntil.IsZero() {
		earliest(k.youngUntil)
	}
	for _, d := range k.doubts {
		earliest(d.since.Add(doubtMemory))
	}
	return at, ok
}

// divisor returns by how many members a limit is divided and how many of them gossip has not given up. Both count this
// node: 1 <= reachable <= divisor.
func (k *rosterSet) divisor() (divisor, reachable int) {
	divisor = max(len(k.members), k.expect)
	if !k.met {
		divisor = max(divisor, 1+k.seeds)
	}
	return divisor, k.alive
}

// presentMembers returns the members that count and that gossip has not given up.
func (k *rosterSet) presentMembers() []Info {
	present := make([]Info, 0, len(k.members))
	for _, m := range k.members {
		if m.failedAt.IsZero() {
			present = append(present, m.Info)
		}
	}
	return present
}

// failedMembers returns the members that gossip has given up and that still count, sorted by name. Where those are that are
// known from hearsay, nobody has said.
func (k *rosterSet) failedMembers() []Info {
	var lost []Info
	for _, m := range k.members {
		if !m.failedAt.IsZero() && !m.hearsay {
			lost = append(lost, m.Info)
		}
	}
	slices.SortFunc(lost, func(a, b Info) int { return cmp.Compare(a.Name, b.Name) })
	return lost
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
