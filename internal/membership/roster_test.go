package membership

import (
	"fmt"
	"math"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/peerlimit/peerlimit/internal/ring"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

var knownEpoch = time.Date(2030, 1, 1, 0, 0, 0, 0, time.UTC)

// knownMemberAt returns a member whose address is told by a number.
func knownMemberAt(name string, addr int) Info {
	gossip := netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 0, byte(addr >> 8), byte(addr)}), 7946)
	return Info{Name: name, Gossip: gossip}
}

// knownScript drives a rosterSet of SplitMemory one minute by what gossip lists. Member "x" is at address 'x'.
type knownScript struct {
	*rosterSet
	now time.Time
}

func newKnownScript(expect, seeds int) *knownScript {
	return &knownScript{newRosterSet(knownMemberAt("a", 'a'), expect, seeds, time.Minute), knownEpoch}
}

// alive lists single-letter members, self among them, after a pause.
func (s *knownScript) alive(after time.Duration, names string) {
	s.now = s.now.Add(after)
	var members []Info
	for _, r := range names {
		members = append(members, knownMemberAt(string(r), int(r)))
		s.addHeardFrom(string(r), s.now) // a link has come up
	}
	s.update(members, s.now)
}

func (s *knownScript) names() string {
	var names []string
	for name := range s.members {
		names = append(names, name)
	}
	slices.Sort(names)
	joined := ""
	for _, name := range names {
		joined += name
	}
	return joined
}

func (s *knownScript) assertReach(t *testing.T, known, reachable int) {
	t.Helper()
	k, r := s.divisor()
	assert.Equal(t, [2]int{known, reachable}, [2]int{k, r}, "known and reachable")
}

func TestKnownForgetsALostMemberAfterSplitMemoryWithAMajority(t *testing.T) {
	s := newKnownScript(0, 0)
	s.alive(0, "abc")
	s.assertReach(t, 3, 3)
	s.alive(time.Hour, "ab")
	s.assertReach(t, 3, 2)
	require.Len(t, s.failedMembers(), 1)
	assert.Equal(t, Failed, s.failedMembers()[0].State)
	s.alive(time.Minute-1, "ab")
	s.assertReach(t, 3, 2)
	at, ok := s.nextExpiry()
	require.True(t, ok)
	assert.Equal(t, s.now.Add(1), at, "the next expiry is when the member is forgotten")
	s.alive(1, "ab")
	s.assertReach(t, 2, 2)
	_, ok = s.nextExpiry()
	assert.False(t, ok)
}

// told takes in a member's word, of what has proved itself there. full says that this node has quorum.
func (s *knownScript) told(teller string, full bool, names ...string) bool {
	return s.mergeNames(&Word{Teller: teller, Names: names}, full, s.now)
}

// What other members tell of counts, but is no member, and passes like one that was lost.
func TestKnownLearnsFromHearsay(t *testing.T) {
	s := newKnownScript(0, 0)
	s.alive(0, "ab")
	require.True(t, s.told("b", false, "a", "b", "x"))
	require.False(t, s.told("b", false, "a", "b", "x"), "no news")
	s.assertReach(t, 3, 2)
	require.Empty(t, s.failedMembers(), "nobody has said where it is")
	s.alive(time.Minute-1, "ab")
	s.assertReach(t, 3, 2)
	s.alive(1, "ab")
	s.assertReach(t, 2, 2)
	require.False(t, s.told("b", false, "x"), "it is not taught back")
	require.True(t, s.addHeardFrom("x", s.now), "unless it says so itself")
	s.assertReach(t, 3, 2)
	require.False(t, s.addHeardFrom("x", s.now))
	s.alive(time.Second, "abx")
	s.assertReach(t, 3, 3)
	require.Empty(t, s.forgotten, "seen alive")

	s.retire("x", time.Hour, s.now)
	require.False(t, s.told("b", false, "x"), "a member that has left does not come back")
	require.False(t, s.addHeardFrom("x", s.now), "nor when it is still to be heard")
	s.assertReach(t, 2, 2)
}

// gossip lists members that have not proved themselves, beside a, b and c.
func (s *knownScript) gossip(after time.Duration, names string) {
	s.now = s.now.Add(after)
	var members []Info
	for _, r := range "abc" + names {
		members = append(members, knownMemberAt(string(r), int(r)))
	}
	s.update(members, s.now)
}

func TestKnownDoesNotCountWhatGossipAloneTellsOf(t *testing.T) {
	s := newKnownScript(0, 0)
	s.alive(0, "abc")
	s.gossip(0, "vwxyz")
	s.assertReach(t, 3, 3)
	require.Len(t, s.unproved, 5)
	require.False(t, s.heardOf([]string{"v", "u"}, s.now))
	require.True(t, s.addHeardFrom("v", s.now))
	s.gossip(0, "vwxyz")
	s.assertReach(t, 4, 4)
	require.True(t, s.told("b", true, "w"), "a member and gossip")
	s.assertReach(t, 5, 4)
	s.gossip(0, "vwxyz")
	s.assertReach(t, 5, 5)
	require.Len(t, s.unproved, 3)
	names, hearsay := s.rosterSet.told()
	require.Equal(t, []string{"a", "b", "c", "v", "w"}, names)
	require.Equal(t, []string{"w"}, hearsay)
}

// A lost member is not given up for one at its address that has not proved itself.
func TestKnownIsNotReplacedByGossipAlone(t *testing.T) {
	s := newKnownScript(0, 0)
	s.alive(0, "abc")
	s.update([]Info{knownMemberAt("a", 'a'), knownMemberAt("b", 'b'), knownMemberAt("ghost", 'c')}, s.now)
	s.assertReach(t, 3, 2)
}

func TestKnownCountsByGossipForSecondsWhileYoung(t *testing.T) {
	for _, meets := range []bool{false, true} {
		s := newKnownScript(0, 1)
		s.update([]Info{knownMemberAt("a", 'a'), knownMemberAt("b", 'b'), knownMemberAt("x", 'x')}, s.now)
		require.True(t, s.heardOf([]string{"y"}, s.now))
		s.assertReach(t, 4, 3)
		names, _ := s.rosterSet.told()
		require.Equal(t, []string{"a"}, names, "nobody is told by it")
		if meets {
			s.addHeardFrom("b", s.now)
		}
		at, ok := s.nextExpiry()
		require.True(t, ok)
		require.Equal(t, s.now.Add(hearsayMemory), at)
		s.now = at
		s.expire(s.now)
		if meets {
			s.assertReach(t, 2, 2)
		} else {
			s.assertReach(t, 2, 1) // the seed still counts
		}
		s.update([]Info{knownMemberAt("a", 'a'), knownMemberAt("b", 'b'), knownMemberAt("x", 'x')}, s.now)
		require.NotContains(t, s.members, "x")
	}
}

// Quorum with others, and the word of a member that has it, settle which names count.
func TestKnownIsSettled(t *testing.T) {
	s := newKnownScript(0, 1)
	s.gossip(0, "xyz")
	s.addHeardFrom("b", s.now)
	s.told("b", false, "a", "b", "c")
	s.assertReach(t, 6, 6)
	s.noteQuorum(s.now)
	s.assertReach(t, 3, 3)

	s = newKnownScript(0, 1)
	s.gossip(0, "xyz")
	s.addHeardFrom("b", s.now)
	s.addHeardFrom("c", s.now)
	s.told("c", false, "a", "c", "v", "w")
	s.assertReach(t, 8, 6)
	require.True(t, s.mergeNames(&Word{Teller: "b", Names: []string{"a", "b", "c"}, Full: true}, false, s.now))
	s.assertReach(t, 3, 3)
	require.Equal(t, []string{"v", "w"}, s.doubted())
}

// One member's word does not count against quorum; a second one's does, and its bearer's.
func TestKnownDoubtsOneWordAgainstEvidence(t *testing.T) {
	s := newKnownScript(0, 0)
	s.alive(0, "abc")
	require.True(t, s.told("b", true, "w", "x", "y"))
	s.assertReach(t, 3, 3)
	require.Equal(t, []string{"w", "x", "y"}, s.doubted())
	require.False(t, s.told("b", true, "x"), "the same member again")
	require.False(t, s.mergeNames(&Word{Teller: "c", Names: []string{"x"}, Hearsay: []string{"x"}}, true, s.now), "a teller that has it from others")
	require.True(t, s.told("c", true, "x"))
	require.True(t, s.addHeardFrom("y", s.now))
	s.assertReach(t, 5, 3)
	require.Equal(t, []string{"w"}, s.doubted())

	lost := false
	s.lost = func(string) bool { return lost }
	s.gossip(doubtMemory, "")
	require.Equal(t, []string{"w"}, s.doubted(), "it is not lost")
	at, _ := s.nextExpiry()
	require.Equal(t, s.now.Add(time.Second), at)
	lost = true
	s.gossip(time.Second, "")
	require.Empty(t, s.doubted())
	require.False(t, s.told("b", true, "w"), "it is not taught back")
}

func TestKnownDoubtsAreBounded(t *testing.T) {
	s := newKnownScript(0, 0)
	s.alive(0, "abc")
	var invented []string
	for i := range 9000 {
		invented = append(invented, fmt.Sprintf("invented-%08x", i))
	}
	for teller := range 20 {
		s.told(fmt.Sprint(teller), true, invented[teller*100:]...)
		require.LessOrEqual(t, len(s.doubts), min((teller+1)*maxDoubtsOfOne, maxDoubts))
	}
	s.assertReach(t, 3, 3)
}

// The members that one knew that has left count immediately, or the majority of the rest could be one without them.
func TestKnownCountsWhatALeaverKnew(t *testing.T) {
	s := newKnownScript(0, 0)
	s.alive(0, "ab")
	require.True(t, s.bequeath("b", []string{"a", "x", "y"}, s.now))
	s.retire("b", time.Hour, s.now)
	s.assertReach(t, 3, 1)
}

// A member that was lost, forgotten, and comes back after a long split is one like any other: it must be asked again.
func TestKnownForgottenMembersComeBack(t *testing.T) {
	s := newKnownScript(0, 0)
	s.alive(0, "abc")
	s.alive(time.Second, "ab")
	s.alive(time.Minute, "ab")
	s.assertReach(t, 2, 2)
	require.Contains(t, s.forgotten, "c")
	s.alive(time.Second, "abc")
	require.NotContains(t, s.forgotten, "c")
	s.assertReach(t, 3, 3)
}

func TestKnownHearsayIsBounded(t *testing.T) {
	s := newKnownScript(0, 0)
	s.alive(0, "ab")
	for i := range 3 {
		names := make([]string, ring.MaxMembers)
		for j := range names {
			names[j] = fmt.Sprintf("hearsay-%d-%d", i, j)
		}
		s.told("b", false, names...)
		require.LessOrEqual(t, len(s.members), ring.MaxMembers)
	}
	s.alive(0, "abcdef")
	require.LessOrEqual(t, len(s.members), ring.MaxMembers)
	for _, name := range "abcdef" {
		require.Contains(t, s.members, string(name))
	}
	require.LessOrEqual(t, len(s.forgotten), maxTombstones)
}

func TestKnownRemembersSixtyTimesAsLongWithoutAMajority(t *testing.T) {
	for _, test := range []struct{ all, side string }{{"ab", "a"}, {"abcd", "ab"}, {"abcde", "ab"}} {
		t.Run(test.side+" of "+test.all, func(t *testing.T) {
			s := newKnownScript(0, 0)
			s.alive(0, test.all)
			s.alive(0, test.side)
			s.alive(time.Hour-1, test.side)
			s.assertReach(t, len(test.all), len(test.side))
			s.alive(1, test.side)
			s.assertReach(t, len(test.side), len(test.side))
		})
	}
}

func TestKnownCountsSplitMemoryFromWhenAMajorityIsBack(t *testing.T) {
	s := newKnownScript(0, 0)
	s.alive(0, "abcde")
	s.alive(0, "ab")
	s.alive(30*time.Minute, "abc") // the others may be about to come back too
	s.assertReach(t, 5, 3)
	s.alive(time.Minute-1, "abc")
	s.assertReach(t, 5, 3)
	s.alive(1, "abc")
	s.assertReach(t, 3, 3)
}

func TestKnownMembersThatComeBackCountAsBefore(t *testing.T) {
	s := newKnownScript(0, 0)
	s.alive(0, "abc")
	s.alive(time.Second, "ab")
	s.alive(59*time.Second, "abc")
	s.assertReach(t, 3, 3)
	s.alive(time.Second, "ab")
	s.alive(59*time.Second, "ab")
	s.assertReach(t, 3, 2) // counted from the second loss
}

func TestKnownMemberAtTheAddressReplacesALostOne(t *testing.T) {
	s := newKnownScript(0, 0)
	s.alive(0, "abc")
	restarted := knownMemberAt("c2", 'c')
	all := []Info{knownMemberAt("a", 'a'), knownMemberAt("b", 'b'), knownMemberAt("c", 'c'), restarted}

	s.addHeardFrom("c2", s.now)
	s.update(all, s.now)
	s.assertReach(t, 4, 4) // gossip still holds the old one for alive: there is no telling which is older

	s.update([]Info{all[0], all[1], restarted}, s.now)
	s.assertReach(t, 3, 3)
	assert.Equal(t, "abc2", s.names())
}

func TestKnownLeftIsNotLost(t *testing.T) {
	s := newKnownScript(0, 0)
	s.alive(0, "abc")
	assert.True(t, s.retire("c", time.Hour, s.now))
	s.assertReach(t, 2, 2)
	assert.False(t, s.retire("c", time.Hour, s.now), "heard a second time")

	s.alive(time.Minute, "abc") // gossip older than the departure
	s.assertReach(t, 2, 2)
	s.alive(time.Minute, "ab")
	s.assertReach(t, 2, 2)
	assert.Empty(t, s.failedMembers())

	assert.Equal(t, []departure{{"c", 58 * time.Minute}}, s.departures(s.now), "what is left of the hour")
	s.alive(58*time.Minute, "ab")
	assert.Empty(t, s.departures(s.now))
}

func TestKnownRetiringALostMember(t *testing.T) {
	s := newKnownScript(0, 0)
	s.alive(0, "abc")
	s.alive(0, "ab")
	assert.True(t, s.retire("c", time.Hour, s.now))
	s.assertReach(t, 2, 2)
	assert.False(t, s.retire("z", time.Hour, s.now), "never heard of")
	assert.False(t, s.retire("a", time.Hour, s.now), "nobody retires this node")
	s.assertReach(t, 2, 2)
}

func TestKnownTombstonesOutliveEveryMemory(t *testing.T) {
	s := newKnownScript(0, 0)
	assert.Greater(t, s.tombstoneMemory(), s.isolatedMemory())
	s.retire("z", math.MaxInt64, s.now)
	assert.Equal(t, s.tombstoneMemory(), s.departures(s.now)[0].remember, "nobody can ask for more")

	s.memory = math.MaxInt64 / 2
	assert.Equal(t, time.Duration(math.MaxInt64), s.isolatedMemory())
	assert.Equal(t, time.Duration(math.MaxInt64), s.tombstoneMemory())
	s.alive(0, "ab")
	s.alive(0, "a")
	s.alive(1000*time.Hour, "a")
	s.assertReach(t, 2, 1)
}

func TestKnownExpectMembers(t *testing.T) {
	s := newKnownScript(3, 0)
	s.assertReach(t, 3, 1)
	s.alive(0, "ab")
	s.assertReach(t, 3, 2)
	s.alive(0, "abc")
	s.assertReach(t, 3, 3)
	s.retire("c", time.Hour, s.now)
	s.assertReach(t, 2, 2) // three have been seen
}

func TestKnownSeeds(t *testing.T) {
	s := newKnownScript(0, 3)
	s.assertReach(t, 4, 1)
	s.seeds = 2 // one of them is this node
	s.alive(0, "a")
	s.assertReach(t, 3, 1)
	s.alive(0, "ab")
	s.assertReach(t, 2, 2)
	s.alive(0, "a")
	s.seeds = 5
	s.assertReach(t, 2, 1) // from the first other member on, those that were seen count

	both := newKnownScript(7, 3)
	both.assertReach(t, 7, 1)
	both = newKnownScript(2, 3)
	both.assertReach(t, 4, 1)
}

func TestKnownIsBounded(t *testing.T) {
	s := newKnownScript(0, 0)
	s.alive(0, "ab")
	for i := range ring.MaxMembers + 10 { // b is never lost, c0 is lost first
		name := fmt.Sprintf("c%d", i)
		s.now = s.now.Add(time.Millisecond)
		s.members[name] = &rosterMember{Info: knownMemberAt(name, i), failedAt: s.now, proved: true}
	}
	s.expire(s.now)
	assert.Len(t, s.members, ring.MaxMembers)
	assert.Contains(t, s.members, "a")
	assert.Contains(t, s.members, "b")
	assert.NotContains(t, s.members, "c11")
	assert.Contains(t, s.members, "c12")

	for i := range maxTombstones + 10 {
		s.left[fmt.Sprintf("d%d", i)] = s.now.Add(time.Duration(i+1) * time.Second)
	}
	s.expire(s.now)
	assert.Len(t, s.left, maxTombstones)
	assert.NotContains(t, s.left, "d9")
	assert.Contains(t, s.left, "d10")
}

// TestKnownProperties drives the set with arbitrary gossip and compares it with a record of what happened.
func TestKnownProperties(t *testing.T) {
	type record struct {
		seen, lost, left time.Time // last seen alive, first missed after that, when it left
	}
	rapid.Check(t, func(t *rapid.T) {
		expect := rapid.IntRange(0, 6).Draw(t, "expect")
		k := newRosterSet(knownMemberAt("m0", 0), expect, 0, time.Minute)
		records := make([]record, 8)
		now, expectMet := knownEpoch, false
		for range rapid.IntRange(1, 40).Draw(t, "steps") {
			now = now.Add(time.Duration(rapid.Int64Range(0, int64(20*time.Minute)).Draw(t, "pause")))
			if i := rapid.IntRange(0, 40).Draw(t, "leaves"); i > 0 && i < len(records) {
				k.retire(fmt.Sprint("m", i), time.Hour, now)
				if records[i].left.IsZero() || now.Sub(records[i].left) >= time.Hour {
					records[i] = record{left: now}
				}
			}
			alive := rapid.SliceOfNDistinct(rapid.IntRange(1, len(records)-1), 0, -1, rapid.ID).Draw(t, "alive")
			members := []Info{knownMemberAt("m0", 0)}
			for _, i := range alive {
				k.addHeardFrom(fmt.Sprint("m", i), now)
				members = append(members, knownMemberAt(fmt.Sprint("m", i), i))
			}
			k.update(members, now)

			known, reachable := k.divisor()
			expectMet = expectMet || len(k.members) >= expect
			require.Equal(t, k.alive, reachable)
			require.True(t, 1 <= reachable && reachable <= known, "1 <= %d <= %d", reachable, known)
			require.True(t, expectMet || known >= expect, "ExpectMembers not met")
			require.Contains(t, k.members, "m0")
			for i := 1; i < len(records); i++ {
				name, r := fmt.Sprint("m", i), &records[i]
				m, isKnown := k.members[name]
				switch {
				case !r.left.IsZero() && now.Sub(r.left) < time.Hour:
					require.False(t, isKnown, "%s has left", name)
				case slices.Contains(alive, i):
					*r = record{seen: now}
					require.True(t, isKnown && m.failedAt.IsZero(), "%s is alive", name)
				case r.seen.IsZero():
					require.False(t, isKnown, "%s was never seen", name)
				default:
					if r.lost.IsZero() {
						r.lost = now
					}
					if now.Sub(r.lost) < time.Minute {
						require.True(t, isKnown, "%s was lost just now", name)
					}
					if now.Sub(r.lost) >= time.Hour {
						require.False(t, isKnown, "%s was lost long ago", name)
					}
					if 2*reachable <= known && now.Sub(r.lost) < time.Hour && isKnown {
						require.Equal(t, r.lost.Add(time.Hour), k.forgetAt(m), "%s is remembered without a majority", name)
					}
				}
			}
			if at, ok := k.nextExpiry(); ok {
				require.True(t, at.After(now), "what was due has been done")
			}
		}
	})
}
