package membership

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/peerlimit/peerlimit/internal/ring"
	"github.com/peerlimit/peerlimit/internal/wire"
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

// knownScript drives a rosterSet by what gossip lists, and by what quorum says. Member "x" is at address 'x'.
type knownScript struct {
	*rosterSet
	now       time.Time
	noQuorum  bool
	lost      string // members that the witnesses do not hear
	agreed    int
	witnesses []string
}

func newKnownScript(expect, seeds int) *knownScript {
	s := &knownScript{now: knownEpoch}
	s.rosterSet = newRosterSet(knownMemberAt("a", 'a'), expect, seeds, Fate{
		HasQuorum: func() bool { return !s.noQuorum },
		Lost:      func(name string) bool { return strings.Contains(s.lost, name) },
		Panel:     func() (int, []string) { return s.agreed, s.witnesses },
	})
	return s
}

// alive lists single-letter members, self among them, after a pause. They are heard, and those that were and are not any more are lost.
func (s *knownScript) alive(after time.Duration, names string) {
	s.now = s.now.Add(after)
	var members []Info
	for _, r := range names {
		members = append(members, knownMemberAt(string(r), int(r)))
		s.lost = strings.ReplaceAll(s.lost, string(r), "")
		s.addHeardFrom(string(r), s.now) // a link has come up
	}
	for name := range s.members {
		if !strings.Contains(names, name) {
			s.lost += name
		}
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

// told takes in a member's word.
func (s *knownScript) told(teller string, names ...string) bool {
	return s.mergeNames(&Word{Teller: teller, Names: names}, s.now)
}

// toldLost takes in a member's word of one that is lost there.
func (s *knownScript) toldLost(teller, name string, since time.Duration) bool {
	return s.mergeNames(&Word{Teller: teller, Names: []string{name}, Lost: []wire.LostName{{Name: name, For: since}}}, s.now)
}

// look makes a view after a pause.
func (s *knownScript) look(after time.Duration) {
	s.now = s.now.Add(after)
	s.expire(s.now)
}

func TestKnownGivesUpTheLostAfterSeconds(t *testing.T) {
	s := newKnownScript(0, 0)
	s.alive(0, "abc")
	s.assertReach(t, 3, 3)
	s.alive(time.Hour, "ab")
	s.assertReach(t, 3, 2)
	require.Len(t, s.failedMembers(), 1)
	assert.Equal(t, Failed, s.failedMembers()[0].State)
	s.look(deadAfter - 1)
	s.assertReach(t, 3, 2)
	at, ok := s.nextExpiry(s.now)
	require.True(t, ok)
	assert.Equal(t, s.now.Add(1), at, "the next expiry is when the member is given up")
	s.look(1)
	s.assertReach(t, 2, 2)
	require.Contains(t, s.dead, "c")
	_, ok = s.nextExpiry(s.now)
	assert.False(t, ok)

	require.True(t, s.addHeardFrom("c", s.now), "it is a member like any other when it comes back")
	s.assertReach(t, 3, 2)
	require.NotContains(t, s.dead, "c")
}

// The witnesses' word decides, and not gossip's, which is later, or wrong.
func TestKnownGivesUpByTheWitnessesWord(t *testing.T) {
	s := newKnownScript(0, 0)
	s.alive(0, "abcd")
	s.lost = "c"
	s.look(0)
	s.gossip(time.Second, "d") // still lists c
	s.look(deadAfter - time.Second)
	require.Equal(t, "abd", s.names())
	s.gossip(0, "d")
	require.Equal(t, "abd", s.names(), "by gossip alone it does not come back")

	s.lost = ""
	s.update([]Info{knownMemberAt("a", 'a'), knownMemberAt("b", 'b')}, s.now)
	s.look(time.Hour)
	require.Equal(t, "abd", s.names(), "d is heard, whatever gossip says")
}

// Without quorum nobody can tell who is dead: on the smaller side of a split all others would seem so.
func TestKnownGivesUpNobodyWithoutQuorum(t *testing.T) {
	s := newKnownScript(0, 0)
	s.alive(0, "abcde")
	s.noQuorum = true
	s.alive(time.Second, "ab")
	s.look(24 * time.Hour)
	s.assertReach(t, 5, 2)
	s.noQuorum = false
	s.look(0)
	s.look(deadAfter - 1)
	s.assertReach(t, 5, 2)
	s.look(1)
	s.assertReach(t, 2, 2)
}

// Names that it would give up are looked at again, as nothing tells that there is quorum.
func TestKnownLooksAgainWithoutQuorum(t *testing.T) {
	s := newKnownScript(0, 0)
	s.alive(0, "ab")
	s.alive(0, "a")
	s.noQuorum = true
	s.look(time.Minute)
	at, ok := s.nextExpiry(s.now)
	require.True(t, ok)
	assert.Equal(t, s.now.Add(lookAgain), at)
}

func TestKnownLearnsFromOthers(t *testing.T) {
	s := newKnownScript(0, 0)
	s.alive(0, "ab")
	require.True(t, s.told("b", "a", "b", "x"))
	require.False(t, s.told("b", "a", "b", "x"), "no news")
	s.assertReach(t, 3, 2)
	require.Empty(t, s.failedMembers(), "nobody has said where it is")
	require.Equal(t, []string{"x"}, s.hearsay())
	s.look(time.Hour)
	s.assertReach(t, 3, 2) // nobody says that it is lost
	s.lost = "x"
	s.look(0)
	s.look(deadAfter)
	s.assertReach(t, 2, 2)

	s.lost = ""
	require.True(t, s.addHeardFrom("x", s.now))
	require.False(t, s.addHeardFrom("x", s.now))
	require.Empty(t, s.hearsay())
	s.retire("x", time.Hour, s.now)
	require.False(t, s.told("b", "x"), "a member that has left does not come back")
	require.False(t, s.addHeardFrom("x", s.now), "nor when it is still to be heard")
	s.assertReach(t, 2, 2)
}

// Of a dead member newcomers hear for as long as others still count it, and count on from there.
func TestKnownTakesOverSinceWhenOneIsLost(t *testing.T) {
	s := newKnownScript(0, 0)
	s.alive(0, "ab")
	require.True(t, s.toldLost("b", "x", 5*time.Second))
	require.False(t, s.toldLost("b", "y", deadAfter-goesSoon), "some have given it up")
	require.Equal(t, []lostSince{{"x", s.now.Add(-5 * time.Second)}}, s.rosterSet.lost())
	s.look(0)
	require.Len(t, s.rosterSet.lost(), 1, "that this node has asked nobody yet does not say that it is heard")
	s.lost = "x"
	s.look(time.Second)
	s.look(2*time.Second - 1)
	require.Equal(t, "abx", s.names())
	s.look(1)
	require.Equal(t, "ab", s.names())

	s.lost = ""
	require.True(t, s.toldLost("b", "z", 5*time.Second))
	require.False(t, s.told("b", "z"), "it is heard again there")
	require.Empty(t, s.rosterSet.lost())
	s.lost = "z"
	s.look(0)
	since := s.rosterSet.lost()
	require.False(t, s.told("c", "z"), "and lost here, whatever another says")
	require.Equal(t, since, s.rosterSet.lost())
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
	require.True(t, s.addHeardFrom("v", s.now))
	s.gossip(0, "vwxyz")
	s.assertReach(t, 4, 4)
	require.True(t, s.told("b", "w"))
	s.assertReach(t, 5, 4)
	s.gossip(0, "vwxyz")
	s.assertReach(t, 5, 5)
	require.Len(t, s.unproved, 3)
	require.Equal(t, []string{"w"}, s.hearsay())
}

// A lost member is not given up for one at its address that has not proved itself.
func TestKnownIsNotReplacedByGossipAlone(t *testing.T) {
	s := newKnownScript(0, 0)
	s.alive(0, "abc")
	s.update([]Info{knownMemberAt("a", 'a'), knownMemberAt("b", 'b'), knownMemberAt("ghost", 'c')}, s.now)
	s.assertReach(t, 3, 2)
}

// Without quorum what was agreed on counts as well: a node that hears nobody any more divides by as many as before.
func TestKnownCountsThePanel(t *testing.T) {
	s := newKnownScript(0, 0)
	s.alive(0, "ab")
	s.agreed, s.witnesses = 9, []string{"a", "b", "c", "d"}
	s.assertReach(t, 2, 2)
	s.noQuorum = true
	s.assertReach(t, 9, 2)
	s.agreed = 2
	s.assertReach(t, 4, 2)
	s.retire("c", time.Minute, s.now)
	s.assertReach(t, 3, 2)
}

// Until it has met anybody a node takes gossip's word, for the ring and for shares; quorum settles who counts.
func TestKnownCountsByGossipUntilItHasMetItsCluster(t *testing.T) {
	s := newKnownScript(4, 1)
	s.noQuorum = true
	s.gossip(0, "")
	s.assertReach(t, 4, 3)
	require.Equal(t, []string{"a"}, s.rosterSet.told(), "nobody is told of them, and nobody was met")
	require.Equal(t, 4, s.expect)
	require.True(t, s.addHeardFrom("b", s.now))
	s.gossip(0, "x")
	require.Equal(t, "abc", s.names(), "it has met one that will tell")
	require.True(t, s.told("b", "a", "b", "d"))
	require.True(t, s.toldLost("b", "c", 3*time.Second))
	require.Equal(t, []lostSince{{"c", s.now.Add(-3 * time.Second)}}, s.rosterSet.lost(), "it is told of, as lost")
	s.noQuorum, s.lost = false, "c"
	s.look(0)
	require.Equal(t, "abcd", s.names())
	s.look(deadAfter - 3*time.Second)
	require.Equal(t, "abd", s.names())
	s.gossip(0, "x")
	require.Len(t, s.unproved, 2)

	s = newKnownScript(0, 1)
	s.noQuorum = true
	s.gossip(0, "x")
	s.addHeardFrom("b", s.now)
	require.False(t, s.toldLost("b", "x", time.Minute))
	s.told("b", "a", "b", "c")
	s.noQuorum = false
	s.look(0)
	require.Equal(t, "abc", s.names(), "nobody speaks for x")
	require.Len(t, s.unproved, 1)
}

// One member in error may invent names without end.
func TestKnownInventedNamesAreBounded(t *testing.T) {
	s := newKnownScript(0, 0)
	s.alive(0, "abc")
	var invented []string
	for i := range 9000 {
		invented = append(invented, fmt.Sprintf("invented-%08x", i))
	}
	s.told("b", invented...)
	s.assertReach(t, 3+maxToldByOne, 3)
	s.told("b", invented[1000:]...)
	s.assertReach(t, 3+maxToldByOne, 3)
	s.gossip(0, "xyz")
	require.True(t, s.told("b", "x", "y"), "gossip lists these")
	s.assertReach(t, 5+maxToldByOne, 3)
}

func TestKnownToldNamesAreBounded(t *testing.T) {
	s := newKnownScript(0, 0)
	s.alive(0, "ab")
	for i := range 1 + ring.MaxMembers/maxToldByOne {
		names := make([]string, maxToldByOne)
		for j := range names {
			names[j] = fmt.Sprintf("hearsay-%d-%d", i, j)
		}
		s.told(fmt.Sprint("teller", i), names...)
		require.LessOrEqual(t, len(s.members), ring.MaxMembers)
	}
	s.alive(0, "abcdef")
	require.LessOrEqual(t, len(s.members), ring.MaxMembers)
	for _, name := range "abcdef" {
		require.Contains(t, s.members, string(name))
	}
	require.LessOrEqual(t, len(s.dead), maxTombstones)
}

func TestKnownMembersThatComeBackCountAsBefore(t *testing.T) {
	s := newKnownScript(0, 0)
	s.alive(0, "abc")
	s.alive(time.Second, "ab")
	s.alive(deadAfter-1, "abc")
	s.assertReach(t, 3, 3)
	s.alive(time.Second, "ab")
	s.alive(deadAfter-1, "ab")
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
	assert.True(t, s.retire("c", time.Minute, s.now))
	s.assertReach(t, 2, 2)
	assert.False(t, s.retire("c", time.Minute, s.now), "heard a second time")

	s.alive(10*time.Second, "abc") // gossip older than the departure
	s.assertReach(t, 2, 2)
	s.alive(10*time.Second, "ab")
	s.assertReach(t, 2, 2)
	assert.Empty(t, s.failedMembers())

	assert.Equal(t, []departure{{"c", 40 * time.Second}}, s.departures(s.now), "what is left of the minute")
	s.alive(40*time.Second, "ab")
	assert.Empty(t, s.departures(s.now))
	s.retire("z", time.Hour, s.now)
	assert.Equal(t, tombstoneMemory, s.departures(s.now)[0].remember, "nobody can ask for more")
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
	for i := range ring.MaxMembers + 10 {
		name := fmt.Sprintf("c%05d", i)
		s.members[name] = &rosterMember{Info: knownMemberAt(name, i), proved: i > 20, teller: "b"}
	}
	s.expire(s.now)
	assert.Len(t, s.members, ring.MaxMembers)
	assert.Contains(t, s.members, "a")
	assert.Contains(t, s.members, "b")
	assert.NotContains(t, s.members, "c00011", "it has not proved itself")
	assert.Contains(t, s.members, "c00012")

	for i := range maxTombstones + 10 {
		s.left[fmt.Sprintf("d%d", i)] = s.now.Add(time.Duration(i+1) * time.Second)
	}
	s.expire(s.now)
	assert.Len(t, s.left, maxTombstones)
	assert.NotContains(t, s.left, "d9")
	assert.Contains(t, s.left, "d10")
}

// TestKnownProperties drives the set with arbitrary gossip, losses and quorum, and compares it with a record of what happened.
func TestKnownProperties(t *testing.T) {
	type record struct {
		seen, lost, left time.Time // last seen alive, first missed with quorum after that, when it left
	}
	rapid.Check(t, func(t *rapid.T) {
		expect := rapid.IntRange(0, 6).Draw(t, "expect")
		lost, hasQuorum := make(map[string]bool), true
		k := newRosterSet(knownMemberAt("m0", 0), expect, 0, Fate{
			HasQuorum: func() bool { return hasQuorum }, Lost: func(name string) bool { return lost[name] },
			Panel: func() (int, []string) { return 1, nil },
		})
		records := make([]record, 8)
		now, expectMet := knownEpoch, false
		for range rapid.IntRange(1, 40).Draw(t, "steps") {
			now = now.Add(time.Duration(rapid.Int64Range(0, int64(10*time.Second)).Draw(t, "pause")))
			hasQuorum = rapid.IntRange(0, 3).Draw(t, "quorum") > 0
			if i := rapid.IntRange(0, 40).Draw(t, "leaves"); i > 0 && i < len(records) {
				k.retire(fmt.Sprint("m", i), time.Minute, now)
				if records[i].left.IsZero() || now.Sub(records[i].left) >= time.Minute {
					records[i] = record{left: now}
				}
			}
			alive := rapid.SliceOfNDistinct(rapid.IntRange(1, len(records)-1), 0, -1, rapid.ID).Draw(t, "alive")
			members := []Info{knownMemberAt("m0", 0)}
			for i := 1; i < len(records); i++ {
				name := fmt.Sprint("m", i)
				if lost[name] = !slices.Contains(alive, i); !lost[name] {
					k.addHeardFrom(name, now)
					members = append(members, knownMemberAt(name, i))
				}
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
				case !r.left.IsZero() && now.Sub(r.left) < time.Minute:
					require.False(t, isKnown, "%s has left", name)
				case slices.Contains(alive, i):
					*r = record{seen: now}
					require.True(t, isKnown && m.listed && m.lostAt.IsZero(), "%s is alive", name)
				case r.seen.IsZero():
					require.False(t, isKnown, "%s was never seen", name)
				default:
					if r.lost.IsZero() && hasQuorum {
						r.lost = now
					}
					if r.lost.IsZero() || now.Sub(r.lost) < deadAfter {
						require.True(t, isKnown, "%s was lost just now, if anybody can tell", name)
					}
					if hasQuorum && now.Sub(r.lost) >= deadAfter {
						require.False(t, isKnown, "%s is dead", name)
					}
				}
			}
			if at, ok := k.nextExpiry(now); ok {
				require.True(t, at.After(now), "what was due has been done")
			}
		}
	})
}
