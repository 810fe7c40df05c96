package panel_test

import (
	"cmp"
	"fmt"
	"math"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/peerlimit/peerlimit/internal/panel"
	"github.com/peerlimit/peerlimit/internal/wire"
)

var cluster = wire.Origin{Founded: 1, Name: "a"}

func of(number uint64, witnesses ...string) panel.Panel {
	return panel.Panel{Origin: cluster, Number: number, Witnesses: witnesses, Members: len(witnesses)}
}

// at returns the state of a member that has adopted p long ago.
func at(name string, p panel.Panel) *panel.State {
	s := panel.New(name, cluster, 1)
	s.Panel = p
	return s
}

func all(string) bool  { return true }
func none(string) bool { return false }
func only(names ...string) func(string) bool {
	return func(n string) bool { return slices.Contains(names, n) }
}

// agreeable looks so that whatever is proposed is accepted.
var agreeable = panel.Look{Misses: all, Hears: all, Met: func(wire.Origin) bool { return true }, Members: panel.MaxMembers}

const ms = int64(time.Millisecond)

// agree has by propose next to the witnesses given, and returns its error, or what was to be accepted.
func agree(t *testing.T, by *panel.State, next panel.Panel, now int64, witnesses ...*panel.State) panel.Accept {
	t.Helper()
	prepare, err := by.Propose(next, all, now)
	require.NoError(t, err)
	for _, w := range witnesses {
		promise, err := w.OnPrepare(prepare)
		require.NoError(t, err)
		accept, ready, err := by.OnPromise(w.Self, promise, all, now)
		require.NoError(t, err)
		if ready {
			return accept
		}
	}
	require.Fail(t, "no majority promised")
	return panel.Accept{}
}

func TestPanelsThatNobodyMakesAreRefused(t *testing.T) {
	long := strings.Repeat("n", panel.MaxName+1)
	many := make([]string, panel.MaxWitnesses+1)
	for i := range many {
		many[i] = fmt.Sprintf("%03d", i)
	}
	for name, p := range map[string]panel.Panel{
		"no number":          of(0, "a"),
		"no witness":         {Origin: cluster, Number: 2, Members: 1},
		"too many witnesses": of(2, many...),
		"unsorted":           of(2, "b", "a"),
		"twice":              of(2, "a", "a"),
		"empty name":         of(2, "", "a"),
		"long name":          of(2, "a", long),
		"too few members":    {Origin: cluster, Number: 2, Witnesses: []string{"a", "b"}, Members: 1},
		"too many members":   {Origin: cluster, Number: 2, Witnesses: []string{"a"}, Members: panel.MaxMembers + 1},
		"own successor":      {Origin: cluster, Number: 2, Witnesses: []string{"a"}, Members: 1, Successor: cluster},
		"nameless successor": {Origin: cluster, Number: 2, Witnesses: []string{"a"}, Members: 1, Successor: wire.Origin{Era: 1}},
		"nameless origin":    {Origin: wire.Origin{Era: 1}, Number: 2, Witnesses: []string{"a"}, Members: 1},
	} {
		assert.ErrorIs(t, p.Check(), panel.ErrInvalid, name)
	}
	assert.NoError(t, of(2, "a", "b").Check())
	assert.NoError(t, of(2, many[1:]...).Check())
}

// OneWitnessAtATime
func TestAPanelDiffersFromTheOneBeforeInOneWitness(t *testing.T) {
	for name, next := range map[string]panel.Panel{
		"a swap":             of(2, "a", "c"),
		"two more":           of(2, "a", "b", "c", "d"),
		"not the next":       of(3, "a", "b", "c"),
		"the same":           of(2, "a", "b"),
		"another origin":     {Origin: wire.Origin{Name: "z"}, Number: 2, Witnesses: []string{"a"}, Members: 2},
		"ends with one less": {Origin: cluster, Number: 2, Witnesses: []string{"a"}, Members: 2, Successor: wire.Origin{Name: "z"}},
		"one less, members":  {Origin: cluster, Number: 2, Witnesses: []string{"a"}, Members: 5},
	} {
		_, err := at("a", of(1, "a", "b")).Propose(next, all, 0)
		assert.ErrorIs(t, err, panel.ErrInvalid, name)
		err = at("a", of(1, "a", "b")).OnAccept(panel.Accept{Ballot: wire.Ballot{Number: 1, By: "b"}, Panel: next}, agreeable, 0)
		assert.Error(t, err, name)
	}
	ends := of(1, "a", "b").EndingFor(wire.Origin{Name: "z"})
	assert.NoError(t, at("a", of(1, "a", "b")).OnAccept(panel.Accept{Ballot: wire.Ballot{Number: 1, By: "b"}, Panel: ends}, agreeable, 0))
	_, err := at("a", ends).Propose(of(3, "a"), all, 0)
	assert.ErrorIs(t, err, panel.ErrNotWitness)
	assert.False(t, at("a", ends).Majority(all, 0), "an origin that has ended gives no quorum")
}

// AdoptedByHearing, AcceptedGoesOn
func TestWhoeverHearsOfAMajorityInOneBallotAdopts(t *testing.T) {
	first := of(1, "a", "b", "c")
	a, b, c, learner := at("a", first), at("b", first), at("c", first), at("x", first)
	one := agree(t, a, first.With("x"), 0, a, b)
	require.NoError(t, a.OnAccept(one, agreeable, 0))
	assert.False(t, learner.Hear("a", a.Tell(), 0))
	other := agree(t, c, first.Without("a"), 0, c, b)
	assert.Equal(t, first.Without("a"), other.Panel, "neither of its promises names what a has accepted")
	require.NoError(t, b.OnAccept(other, agreeable, 0))
	assert.False(t, learner.Hear("b", b.Tell(), 0), "two have accepted, in two ballots")
	again := agree(t, a, first.Without("c"), 0, a, b)
	assert.Equal(t, first.Without("a"), again.Panel, "what was accepted in the highest ballot goes on")
	require.NoError(t, a.OnAccept(again, agreeable, 0))
	assert.False(t, learner.Hear("a", a.Tell(), 0), "the same panel in two ballots")
	require.NoError(t, b.OnAccept(again, agreeable, 0))
	assert.True(t, learner.Hear("b", b.Tell(), 0))
	assert.Equal(t, first.Without("a"), learner.Panel)
	assert.False(t, c.Hear("a", a.Tell(), 0))
	assert.True(t, b.Hear("b", b.Tell(), 0) || b.Hear("a", a.Tell(), 0))
	assert.True(t, c.Hear("b", b.Tell(), 0), "one has accepted it and one has adopted it")
}

// NextPanelWaits
func TestAWitnessWaitsBeforeItAcceptsTheNextPanel(t *testing.T) {
	s := at("a", of(1, "a"))
	require.NoError(t, s.OnAccept(agree(t, s, s.Panel.With("b"), 0, s), agreeable, 0))
	require.True(t, s.Hear("a", s.Tell(), 7*ms))
	b := at("b", s.Panel)
	b.Since = 7 * ms
	next := agree(t, s, s.Panel.With("c"), 506*ms, s, b)
	assert.ErrorIs(t, s.OnAccept(next, agreeable, 506*ms), panel.ErrTooSoon)
	assert.NoError(t, s.OnAccept(next, agreeable, 507*ms))
}

// OldPanelCountsOn
func TestAQuorumOfThePanelBeforeCountsUntilItsAnswersHaveAged(t *testing.T) {
	s := at("a", of(2, "a", "b"))
	s.Since = 1000 * ms
	assert.Equal(t, 1200*ms, s.CountOn(1200*ms))
	assert.Equal(t, 1500*ms, s.CountOn(math.MaxInt64), "one that was a panel alone has a quorum without end")
}

// NewerPanelRefuses
func TestAWitnessOfALaterPanelRefuses(t *testing.T) {
	s := at("a", of(5, "a", "b"))
	assert.True(t, s.Refuses(of(4, "a", "b").ID()))
	assert.False(t, s.Refuses(of(5, "a", "b").ID()))
	assert.False(t, s.Refuses(of(6, "a", "b").ID()))
	assert.True(t, s.Refuses(wire.PanelID{Origin: wire.Origin{Name: "z"}, Number: 6}))
	require.NoError(t, s.OnAccept(agree(t, s, s.Panel.With("c"), 0, s, at("b", s.Panel)), agreeable, 0))
	assert.False(t, s.Refuses(s.Panel.ID()), "to accept refuses nobody")
	s.SayGoodbye()
	assert.True(t, s.Refuses(of(6, "a", "b").ID()))
}

// ProposedPanelAnswers
func TestOnlyAPanelThatAnswersIsProposed(t *testing.T) {
	s := at("a", of(3, "a", "b", "c"))
	_, err := s.Propose(s.Panel.Without("b"), only("b"), 0)
	assert.ErrorIs(t, err, panel.ErrNoAnswer, "a and c, of which a is alone")
	_, err = s.Propose(s.Panel.Without("c"), only("b"), 0)
	assert.NoError(t, err)
	prepare, err := s.Propose(s.Panel.With("d"), only("b", "c"), 0)
	require.NoError(t, err)
	b := at("b", s.Panel)
	require.NoError(t, b.OnAccept(panel.Accept{Ballot: wire.Ballot{Number: 1, By: "b"}, Panel: s.Panel.Without("b")}, agreeable, 0))
	for _, w := range []*panel.State{s, b} {
		promise, err := w.OnPrepare(prepare)
		require.NoError(t, err)
		_, ready, err := s.OnPromise(w.Self, promise, only("b"), 0)
		assert.False(t, ready)
		if w == b {
			assert.ErrorIs(t, err, panel.ErrNoAnswer, "what it must go on with has only a that answers")
		}
	}
	assert.Nil(t, s.Proposal)
}

// AcceptorsLook
func TestAWitnessAcceptsOnlyWhatItSees(t *testing.T) {
	p := of(3, "a", "b", "c")
	other := wire.Origin{Name: "z"}
	met := func(o wire.Origin) bool { return o == other }
	never := func(wire.Origin) bool { return false }
	for name, c := range map[string]struct {
		next panel.Panel
		look panel.Look
		ok   bool
	}{
		"removes one that it hears":   {p.Without("c"), panel.Look{Misses: none, Hears: all, Met: never}, false},
		"removes one that it misses":  {p.Without("c"), panel.Look{Misses: only("c"), Hears: only("a"), Met: never}, true},
		"removes all that it hears":   {p.Without("a"), panel.Look{Misses: only("a", "c"), Hears: none, Met: never}, false},
		"removes itself":              {p.Without("b"), panel.Look{Misses: none, Hears: all, Met: never}, false},
		"removes itself, it leaves":   {p.Without("b"), panel.Look{Misses: only("b"), Hears: all, Met: never}, true},
		"adds one that it hears":      {p.With("d"), panel.Look{Misses: none, Hears: only("a", "d"), Met: never}, true},
		"adds one that it hears not":  {p.With("d"), panel.Look{Misses: none, Hears: only("a", "c"), Met: never}, false},
		"ends for one that it met":    {p.EndingFor(other), panel.Look{Misses: none, Hears: all, Met: met}, true},
		"ends for one it has not met": {p.EndingFor(other), panel.Look{Misses: none, Hears: all, Met: never}, false},
		"counts more":                 {p.Counting(9), panel.Look{Misses: none, Hears: all, Met: never, Members: 9}, true},
		"counts too many":             {p.Counting(9), panel.Look{Misses: none, Hears: all, Met: never, Members: 8}, false},
	} {
		err := at("b", p).OnAccept(panel.Accept{Ballot: wire.Ballot{Number: 1, By: "a"}, Panel: c.next}, c.look, 0)
		assert.Equal(t, c.ok, err == nil, "%s: %v", name, err)
	}
	even := of(4, "a", "b", "c", "d")
	demotes := panel.Accept{Ballot: wire.Ballot{Number: 1, By: "a"}, Panel: even.Without("c")}
	assert.NoError(t, at("b", even).OnAccept(demotes, panel.Look{Misses: none, Hears: all}, 0), "to an odd number")
	assert.ErrorIs(t, at("b", even).OnAccept(demotes, panel.Look{Misses: only("d"), Hears: all}, 0), panel.ErrNotSeen)

	// d was missed by a only, and has come back; c has ended. a, b and d are the only majority.
	b := at("b", even)
	a := at("a", even)
	removes := panel.Accept{Ballot: wire.Ballot{Number: 1, By: "a"}, Panel: even.Without("d")}
	require.NoError(t, a.OnAccept(removes, panel.Look{Misses: only("d"), Hears: only("b", "c")}, 0))
	again := panel.Accept{Ballot: wire.Ballot{Number: 2, By: "b"}, Panel: even.Without("d")}
	look := panel.Look{Misses: only("c"), Hears: only("a", "d")}
	assert.ErrorIs(t, b.OnAccept(again, look, 0), panel.ErrNotSeen)
	b.Hear("a", a.Tell(), 0)
	assert.NoError(t, b.OnAccept(again, look, 0))
}

func TestTwoValuesInOneBallotAreRefused(t *testing.T) {
	p := of(3, "a", "b", "c")
	s := at("b", p)
	ballot := wire.Ballot{Number: 1, By: "a"}
	require.NoError(t, s.OnAccept(panel.Accept{Ballot: ballot, Panel: p.With("d")}, agreeable, 0))
	assert.NoError(t, s.OnAccept(panel.Accept{Ballot: ballot, Panel: p.With("d")}, agreeable, 0))
	assert.ErrorIs(t, s.OnAccept(panel.Accept{Ballot: ballot, Panel: p.With("e")}, agreeable, 0), panel.ErrInvalid)
}

// GoodbyeNamesPanel, GoodbyeAfterAnswers
func TestAWitnessThatSaidGoodbyeIsLeftOut(t *testing.T) {
	p := of(3, "a", "b")
	a, b := at("a", p), at("b", p)
	g := b.SayGoodbye()
	a.HearGoodbye("b", g, 1000*ms)
	assert.False(t, a.Majority(only("a"), 1499*ms), "others may still count its last answer")
	assert.True(t, a.Majority(only("a"), 1500*ms))
	a.HearAgain("b")
	assert.False(t, a.Majority(only("a"), 1500*ms))

	b = at("b", p)
	require.NoError(t, b.OnAccept(panel.Accept{Ballot: wire.Ballot{Number: 1, By: "b"}, Panel: p.With("c")}, agreeable, 0))
	g = b.SayGoodbye()
	assert.EqualValues(t, 4, g.ID.Number)
	a.HearGoodbye("b", g, 0)
	assert.False(t, a.Majority(only("a"), 1000*ms), "b may have agreed on number 4 with others")
}

// GoodbyeNamesPromise: b and c promise a's ballot and go. d and e, to whom that leaves a majority of three with a, agree in a
// lower ballot. What a proposes in its own must not be agreed on as well.
func TestPromisesOfThoseThatHaveGoneAreOutbid(t *testing.T) {
	p := of(3, "a", "b", "c", "d", "e")
	states := make(map[string]*panel.State)
	for _, name := range p.Witnesses {
		states[name] = at(name, p)
	}
	a, d, e := states["a"], states["d"], states["e"]
	a.TopBallot = 5
	mine := agree(t, a, p.With("x"), 0, a, states["b"], states["c"])
	for _, name := range []string{"b", "c"} {
		g := states[name].SayGoodbye()
		for _, s := range []*panel.State{a, d, e} {
			s.HearGoodbye(name, g, 0)
		}
	}
	now := 1000 * ms
	assert.True(t, d.Majority(only("d", "e"), now))
	prepare, err := d.Propose(p.Without("b"), all, now)
	require.NoError(t, err)
	assert.True(t, mine.Ballot.Below(prepare.Ballot), "its ballot is above what those that have gone had promised")
	low := wire.Ballot{Number: 2, By: "d"}
	for _, s := range []*panel.State{d, e} {
		s.Promised = wire.Ballot{}
		require.NoError(t, s.OnAccept(panel.Accept{Ballot: low, Panel: p.Without("b")}, agreeable, now))
		assert.False(t, d.Hear(s.Self, s.Tell(), now), "in a lower one, two of three are not enough")
	}
	for _, s := range []*panel.State{a, d, e} {
		require.NoError(t, s.OnAccept(mine, agreeable, now))
	}
	assert.False(t, a.Hear("a", a.Tell(), now))
	assert.True(t, a.Hear("d", d.Tell(), now) || a.Hear("e", e.Tell(), now))
	assert.True(t, a.Panel.Equal(p.With("x")))
}

func TestAMemberThatWasAwayJumps(t *testing.T) {
	s := at("c", of(3, "a", "b", "c"))
	later := of(90, "a", "c", "e")
	assert.ErrorIs(t, s.Jump(later, "x", all, true, 0), panel.ErrHasQuorum)
	assert.ErrorIs(t, s.Jump(later, "x", none, false, 0), panel.ErrUnconfirmed)
	assert.ErrorIs(t, s.Jump(of(4, "c"), "x", all, false, 0), panel.ErrUnconfirmed, "nobody but itself")
	assert.ErrorIs(t, s.Jump(of(3, "a"), "x", all, false, 0), panel.ErrNotLater)
	assert.ErrorIs(t, s.Jump(of(4+panel.MaxLeap, "a"), "x", all, false, 0), panel.ErrNotLater)
	assert.ErrorIs(t, s.Jump(of(90, "a", "a"), "x", all, false, 0), panel.ErrInvalid)
	assert.NoError(t, s.Jump(later, "x", only("e"), false, 5), "it is one of its witnesses itself")
	assert.Equal(t, later, s.Panel)
	assert.EqualValues(t, 5, s.Since)
	assert.ErrorIs(t, s.Jump(of(91, "a", "b", "d"), "x", only("a"), false, 0), panel.ErrUnconfirmed)
}

// Found by internal/model: with two of five gone after a goodbye and one dead, whatever the other two proposed had no majority that
// answers.
func TestThoseThatSaidGoodbyeNeedNotAnswer(t *testing.T) {
	s := at("c", of(3, "a", "b", "c", "d", "e"))
	for _, name := range []string{"a", "b"} {
		_, err := s.Propose(s.Panel.Without("b"), only("d"), 1000*ms)
		assert.Equal(t, name == "b", err == nil, name)
		s.HearGoodbye(name, panel.Goodbye{ID: s.Panel.ID()}, 0)
	}
	_, err := s.Propose(s.Panel.Without("e"), only("d"), 499*ms)
	assert.ErrorIs(t, err, panel.ErrNoAnswer, "their last answers may count")
	_, err = s.Propose(s.Panel.Without("e"), only("d"), 500*ms)
	assert.NoError(t, err)
}

func TestOneThatHasAcceptedAPanelJumpsByTheWordOfAnyMember(t *testing.T) {
	p := of(3, "a", "b")
	b := at("b", p)
	assert.ErrorIs(t, b.Jump(p.Without("a"), "x", only("x"), false, 0), panel.ErrUnconfirmed)
	require.NoError(t, b.OnAccept(panel.Accept{Ballot: wire.Ballot{Number: 1, By: "a"}, Panel: p.Without("a")}, agreeable, 0))
	assert.ErrorIs(t, b.Jump(p.Without("a"), "b", all, false, 0), panel.ErrUnconfirmed)
	assert.NoError(t, b.Jump(p.Without("a"), "x", only("x"), false, 0))
}

// LeaverSeesAdoption
func TestALeaverGoesWhenItsPanelIsAdopted(t *testing.T) {
	s := at("a", of(4, "b", "c", "d"))
	assert.False(t, s.MayGo(only("b")))
	assert.True(t, s.MayGo(only("b", "d")))
	assert.False(t, at("b", of(4, "b", "c", "d")).MayGo(all), "it is a witness itself")
}

// OriginsInOrder
func TestOfTwoClustersOneEnds(t *testing.T) {
	founder := func(era uint64, founded int64, name string) panel.Panel {
		return panel.First(wire.Origin{Era: era, Founded: founded, Name: name}, 1)
	}
	established := founder(0, 9, "z").With("y")
	for name, c := range map[string]struct{ stays, ends panel.Panel }{
		"a later era":        {founder(1, 9, "z"), established},
		"an established one": {established, founder(0, 1, "a")},
		"an older one":       {founder(0, 1, "b"), founder(0, 2, "a")},
		"a lower name":       {founder(0, 1, "a"), founder(0, 1, "b")},
	} {
		assert.True(t, panel.Stays(c.stays, c.ends), name)
		assert.False(t, panel.Stays(c.ends, c.stays), name)
	}
	s := panel.New("a", wire.Origin{Founded: 1}, 1)
	view := panel.View{HasQuorum: true, Members: 1, Met: []panel.Panel{founder(0, 5, "q"), established, founder(0, 0, "p")}}
	last, wishes := s.Wish(view, 0)
	require.True(t, wishes)
	assert.Equal(t, established.Origin, last.Successor)
	require.NoError(t, s.OnAccept(agree(t, s, last, 0, s), agreeable, 0))
	require.True(t, s.Hear("a", s.Tell(), 0))
	assert.ErrorIs(t, s.Jump(founder(0, 0, "p"), "x", all, false, 0), panel.ErrNotLater)
	s.HearMoved(established.Origin, wire.Origin{Name: "next"})
	s.HearMoved(wire.Origin{Name: "next"}, wire.Origin{Name: "last"})
	s.HearMoved(wire.Origin{Name: "last"}, established.Origin)
	assert.NotPanics(t, func() { s.Leads(established.Origin) }, "a cycle that a member in error tells of")
	s.Moved = nil
	s.HearMoved(established.Origin, wire.Origin{Name: "next"})
	assert.NoError(t, s.Jump(founder(0, 0, "next"), "x", all, false, 0), "ends are followed")
}

// Those that agreed on an end go on at once, and only they know of it.
func TestWhoIsLeftBehindIsToldOfTheEnd(t *testing.T) {
	p := of(4, "a", "b", "c")
	last := p.EndingFor(wire.Origin{Name: "x"})
	gone := at("b", last)
	require.NoError(t, gone.Jump(panel.First(last.Successor, 1), "x", all, false, 0))
	left := at("a", p)
	assert.False(t, left.Hear("b", gone.Tell(), 0))
	assert.False(t, left.Hear("b", gone.TellTo(p.ID()), 0), "one of three")
	assert.True(t, left.Hear("c", gone.TellTo(p.ID()), 0))
	assert.True(t, left.Panel.Equal(last))
	assert.Equal(t, last.Successor, gone.TellTo(last.ID()).Panel.Origin, "who knows of the end is told what comes next")
}

// One that was ended in favour of another and met nobody of that before its members had gone on would be alone for good.
func TestWhoMissedAnEndGoesOnWithAnEstablishedOrigin(t *testing.T) {
	first := panel.First(wire.Origin{Name: "b"}, 1)
	other := panel.First(wire.Origin{Name: "c"}, 1)
	s := at("a", panel.First(wire.Origin{Name: "a"}, 1).EndingFor(first.Origin))
	assert.ErrorIs(t, s.Jump(other, "c", all, false, 0), panel.ErrNotLater, "it may end itself")
	ended := other.With("d").EndingFor(wire.Origin{Name: "e"})
	assert.ErrorIs(t, s.Jump(ended, "c", all, false, 0), panel.ErrNotLater)
	assert.NoError(t, s.Jump(other.With("d"), "c", all, false, 0))

	s = at("a", first)
	assert.ErrorIs(t, s.Jump(other, "c", all, false, 0), panel.ErrNotLater)
	assert.NoError(t, s.Jump(other.With("d"), "c", all, false, 0), "the founder whose panel it learned from has gone")
	assert.ErrorIs(t, at("b", first).Jump(other.With("d"), "c", all, false, 0), panel.ErrNotLater, "a founder ends by agreement")
	assert.ErrorIs(t, at("a", first.With("d")).Jump(other.With("d"), "c", all, false, 0), panel.ErrNotLater)
}

func TestALaterEraIsFoundedByMoreThanHalfOfAll(t *testing.T) {
	s := at("a", of(7, "a", "b"))
	said := at("a", of(7, "a", "b", "c"))
	said.HearGoodbye("b", panel.Goodbye{ID: said.Panel.ID()}, 0)
	for name, c := range map[string]struct {
		state *panel.State
		stuck panel.Stuck
		may   bool
	}{
		"one of two":                    {s, panel.Stuck{For: time.Minute, Names: []string{"a", "b"}}, false},
		"two of three":                  {s, panel.Stuck{For: time.Minute, Names: []string{"a", "b", "c"}, InTouch: []string{"c"}}, true},
		"two of three, too soon":        {s, panel.Stuck{For: time.Minute - 1, Names: []string{"a", "b", "c"}, InTouch: []string{"c"}}, false},
		"two of three, never":           {s, panel.Stuck{For: 59 * time.Minute, Names: []string{"a", "b", "c"}, InTouch: []string{"c"}, OutvoteAfter: -1}, false},
		"two of four":                   {s, panel.Stuck{For: 59 * time.Minute, Names: []string{"a", "b", "c", "d"}, InTouch: []string{"c"}}, false},
		"names that it does not know":   {s, panel.Stuck{For: time.Minute, Names: []string{"b"}, InTouch: []string{"x", "y", "z"}}, false},
		"two of three with a goodbye":   {said, panel.Stuck{For: time.Minute, Names: []string{"a", "c", "d"}, InTouch: []string{"d"}}, true},
		"one of two, after SplitMemory": {s, panel.Stuck{For: time.Hour, Names: []string{"a", "b"}}, true},
		"SplitMemory alone":             {s, panel.Stuck{For: time.Hour, Names: []string{"a", "b"}, OutvoteAfter: -1}, true},
		"SplitMemory of zero":           {s, panel.Stuck{For: 24 * time.Hour, Names: []string{"a", "b"}, SplitMemory: -1}, false},
	} {
		c.stuck.OutvoteAfter = cmp.Or(c.stuck.OutvoteAfter, time.Minute)
		c.stuck.SplitMemory = cmp.Or(c.stuck.SplitMemory, time.Hour)
		first, may := c.state.Refound(c.stuck, 5, long)
		assert.Equal(t, c.may, may, name)
		if may {
			assert.Equal(t, panel.First(wire.Origin{Era: 1, Founded: 5, Name: "a"}, 1), first, name)
		}
	}
	s.SayGoodbye()
	_, may := s.Refound(panel.Stuck{For: time.Hour, SplitMemory: time.Hour}, 5, long)
	assert.False(t, may, "it takes part in nothing more")
}

// A newcomer may be the one that founds, of an origin that has ended: the era must be above that of all that it is to lead.
func TestALaterEraIsAboveAllThatAreKnown(t *testing.T) {
	gone := wire.Origin{Era: 3, Name: "x"}
	s := at("a", panel.First(wire.Origin{Name: "a"}, 1).EndingFor(gone))
	first, may := s.Refound(panel.Stuck{For: time.Hour, SplitMemory: time.Hour}, 5, 0)
	require.True(t, may)
	assert.EqualValues(t, 4, first.Origin.Era)
	first, _ = s.Refound(panel.Stuck{For: time.Hour, SplitMemory: time.Hour, Era: 7}, 5, 0)
	assert.EqualValues(t, 8, first.Origin.Era)
}

func TestALaterEraReplacesTheOneBefore(t *testing.T) {
	s := at("a", of(7, "a", "b"))
	first, may := s.Refound(panel.Stuck{For: time.Hour, SplitMemory: time.Hour}, 5, 0)
	require.True(t, may)
	s.Restart(first)
	assert.True(t, s.Majority(only("a"), 0))
	assert.False(t, s.ComesLater(of(8, "a", "b")))

	other := at("c", of(7, "a", "b"))
	require.NoError(t, other.Jump(first, "x", only("a"), false, 0), "those without a quorum go to a later era")
	assert.ErrorIs(t, other.Jump(of(8, "b"), "b", all, false, 0), panel.ErrNotLater, "and not back, although they learn from a founder alone")

	outvoted := at("b", of(9, "b"))
	assert.ErrorIs(t, outvoted.Jump(first.With("c"), "a", all, true, 0), panel.ErrHasQuorum)
	last, wishes := outvoted.Wish(panel.View{HasQuorum: true, Members: 1, Met: []panel.Panel{first.With("c")}}, long)
	require.True(t, wishes, "those with one end their origin")
	assert.Equal(t, first.Origin, last.Successor)
}
