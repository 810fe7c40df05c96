package panel_test

import (
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/peerlimit/peerlimit/internal/panel"
	"github.com/peerlimit/peerlimit/internal/wire"
)

// seen is a member that has been there for long.
func seen(name string) panel.Member {
	return panel.Member{Name: name, MissedSince: panel.Never, Serving: true}
}

func viewOf(members ...panel.Member) panel.View {
	return panel.View{HasQuorum: true, Others: members, Members: len(members) + 1}
}

const long = int64(time.Hour)

func TestWhatIsProposed(t *testing.T) {
	three := of(3, "a", "b", "c")
	three.Members = 4
	lost := func(name string, since int64) panel.Member {
		return panel.Member{Name: name, HeardSince: panel.Never, MissedSince: since, Serving: true}
	}
	leaving := seen("c")
	leaving.Leaving = true
	handedOver := leaving
	handedOver.HandedOver = true
	gone := handedOver
	gone.Name = "b"
	starting := seen("d")
	starting.Serving = false
	for name, c := range map[string]struct {
		self  string
		panel panel.Panel
		view  panel.View
		next  panel.Panel // none when it does not exist
	}{
		"nothing":                      {"a", three, viewOf(seen("b"), seen("c"), seen("d")), panel.Panel{}},
		"no quorum":                    {"a", three, panel.View{Others: []panel.Member{seen("b"), lost("c", 0)}, Members: 4}, panel.Panel{}},
		"no witness":                   {"d", three, viewOf(seen("a"), seen("b"), lost("c", 0)), panel.Panel{}},
		"one is lost":                  {"a", three, viewOf(seen("b"), lost("c", long-1000*ms), seen("d")), three.Without("c")},
		"one is lost not long":         {"a", three, viewOf(seen("b"), lost("c", long-999*ms), seen("d")), panel.Panel{}},
		"one is lost, the second":      {"b", three, viewOf(seen("a"), lost("c", long-1199*ms), seen("d")), panel.Panel{}},
		"one is lost, the second, now": {"b", three, viewOf(seen("a"), lost("c", long-1200*ms), seen("d")), three.Without("c")},
		"one leaves":                   {"a", three, viewOf(seen("b"), leaving, seen("d")), three.With("d")}, // before it is removed
		"one leaves, none is left":     {"a", of(3, "a", "b", "c"), viewOf(seen("b"), leaving), panel.Panel{}},
		"one has handed over":          {"a", of(3, "a", "b", "c"), viewOf(seen("b"), handedOver), of(3, "a", "b", "c").Without("c")},
		"two leave":                    {"a", of(3, "a", "b", "c"), viewOf(gone, handedOver, seen("d")), of(3, "a", "b", "c").Without("b")},
		"two can be added":             {"a", of(3, "a"), viewOf(seen("d"), seen("e")), of(3, "a").With("e")}, // by hash
		"one can be added to two":      {"a", of(3, "a", "b"), viewOf(seen("b"), seen("d")), of(3, "a", "b").With("d")},
		"one alone cannot be added":    {"a", panel.Panel{Origin: cluster, Number: 3, Witnesses: []string{"a"}, Members: 2}, viewOf(seen("d")), panel.Panel{}},
		"one that does not serve":      {"a", panel.Panel{Origin: cluster, Number: 3, Witnesses: []string{"a", "b"}, Members: 3}, viewOf(seen("b"), starting), panel.Panel{Origin: cluster, Number: 4, Witnesses: []string{"b"}, Members: 3}},
		"more members":                 {"a", of(3, "a"), viewOf(seen("d")), of(3, "a").Counting(2)},
		"fewer members":                {"a", three, viewOf(seen("b"), seen("c")), three.Counting(3)},
		"two are even":                 {"a", of(3, "a", "b"), viewOf(seen("b")), of(3, "a", "b").Without("a")}, // by hash
		"two are even, one is lost":    {"a", of(3, "a", "b"), viewOf(lost("b", long)), panel.Panel{}},
	} {
		if c.view.Members < c.panel.Members && name != "fewer members" {
			c.view.CountedSince = long
		}
		if name == "two can be added" || name == "one can be added to two" {
			c.panel.Members = c.view.Members
			c.next.Members = c.view.Members
		}
		next, wishes := at(c.self, c.panel).Wish(c.view, long)
		assert.Equal(t, c.next.Exists(), wishes, name)
		if wishes {
			assert.Equal(t, c.next, next, name)
		}
	}
}

// Found by internal/model: a, which leaves, was proposed to be removed first, for ever; of the other three only d answered.
func TestADeadWitnessIsRemovedBeforeOneThatLeavesWhenTheRestWouldNotAnswer(t *testing.T) {
	s := at("a", of(3, "a", "b", "c", "d"))
	view := viewOf(panel.Member{Name: "b", HeardSince: panel.Never, MissedSince: panel.Never, Goodbye: true},
		panel.Member{Name: "c", HeardSince: panel.Never}, seen("d"))
	view.Leaving, view.HandedOver = true, true
	next, wishes := s.Wish(view, long)
	assert.True(t, wishes)
	assert.Equal(t, s.Panel.Without("b"), next)
}

func TestWhatAnotherHasBegunIsFinishedFirst(t *testing.T) {
	p := of(3, "a", "b", "c")
	a, b := at("a", p), at("b", p)
	require.NoError(t, b.OnAccept(agree(t, b, p.With("d"), 0, b, at("c", p)), agreeable, 0))
	a.Hear("b", b.Tell(), long)
	view := viewOf(seen("b"), panel.Member{Name: "c", HeardSince: panel.Never}, seen("d"))
	_, wishes := a.Wish(view, long+199*ms)
	assert.False(t, wishes)
	next, wishes := a.Wish(view, long+200*ms)
	assert.True(t, wishes)
	assert.Equal(t, p.With("d"), next)
}

// b has accepted a panel of a, b, d and e, and has ended with d: a and e are no half of it, and a, c and e can agree on another.
func TestWhatHasNoMajorityAnyMoreIsNotFinished(t *testing.T) {
	p := of(3, "a", "b", "c", "d", "e")
	a := at("a", p)
	b := at("b", p)
	require.NoError(t, b.OnAccept(panel.Accept{Ballot: wire.Ballot{Number: 1, By: "b"}, Panel: p.Without("c")}, agreeable, 0))
	a.Hear("b", b.Tell(), 0)
	dead := func(name string) panel.Member { return panel.Member{Name: name, HeardSince: panel.Never} }
	next, wishes := a.Wish(viewOf(dead("b"), seen("c"), dead("d"), seen("e")), long)
	require.True(t, wishes)
	assert.Equal(t, []string{"a", "c", "d", "e"}, next.Witnesses)
}

func TestOriginsThatCannotBeAreNotJoined(t *testing.T) {
	s := panel.New("a", wire.Origin{Founded: 1}, 1)
	for _, met := range []panel.Panel{
		{},
		panel.First(wire.Origin{Era: panel.MaxLeap + 1, Name: "b"}, 1),
		{Origin: wire.Origin{Name: "b"}, Number: 5, Members: 1},
	} {
		_, wishes := s.Wish(panel.View{HasQuorum: true, Members: 1, Met: []panel.Panel{met}}, long)
		assert.False(t, wishes, "%v", met)
	}
}

// A founder alone that counted others would make its origin an established one, which a newcomer's must not be.
func TestAFounderAloneCountsNobody(t *testing.T) {
	stranger := seen("b")
	stranger.HeardSince = panel.Never
	_, wishes := at("a", of(1, "a")).Wish(viewOf(stranger), long)
	assert.False(t, wishes)
	next, wishes := at("a", of(1, "a")).Wish(viewOf(seen("b")), long)
	require.True(t, wishes)
	assert.Equal(t, of(1, "a").Counting(2), next, "one that names its origin is a learner")
}

// Of two founders alone that meet one ends, and the other does not end for it.
func TestAnOriginThatHasEndedDoesNotStay(t *testing.T) {
	older, younger := panel.First(wire.Origin{Founded: 1, Name: "a"}, 1), panel.First(wire.Origin{Founded: 2, Name: "b"}, 1)
	established := panel.Panel{Origin: younger.Origin, Number: 2, Witnesses: []string{"b"}, Members: 2}
	ended := older.EndingFor(younger.Origin)
	assert.False(t, panel.Stays(ended, established), "all it has agreed on is its end")
	v := viewOf()
	v.Met = []panel.Panel{ended}
	s := panel.New("b", younger.Origin, 1)
	_, wishes := s.Wish(v, long)
	assert.False(t, wishes)
}

func TestTheLastWitnessThatLeavesIsReplaced(t *testing.T) {
	s := at("a", of(3, "a"))
	view := viewOf(seen("b"))
	view.Leaving, view.HandedOver = true, true
	next, wishes := s.Wish(view, long)
	require.True(t, wishes)
	assert.Equal(t, of(4, "a", "b"), next)
	s = at("a", next)
	next, wishes = s.Wish(view, long)
	require.True(t, wishes)
	assert.Equal(t, []string{"b"}, next.Witnesses)
}

// OddPanels: of members that all answer the panel becomes odd and stays so, however many there are.
func TestPanelsBecomeOddAndStaySo(t *testing.T) {
	for n := 1; n <= 40; n++ {
		var members []panel.Member
		for i := 1; i < n; i++ {
			members = append(members, seen(string(rune('a'+i/26))+string(rune('a'+i%26))))
		}
		s := at("a", of(1, "a"))
		view := viewOf(members...)
		for range 100 {
			next, wishes := s.Wish(view, long)
			if !wishes {
				break
			}
			s = at("a", next)
		}
		want := min(panel.MaxWitnesses, n)
		if want%2 == 0 {
			want--
		}
		assert.Len(t, s.Panel.Witnesses, want, "%d members", n)
		assert.Equal(t, n, s.Panel.Members)
		if n == 2 {
			assert.True(t, s.Majority(only("a"), long), "the death of the other costs nothing")
		}
	}
}

func TestOneThatWasRemovedAliveWaitsLongerEachTime(t *testing.T) {
	s := at("a", of(2, "a", "b", "c"))
	s.Removed = map[string]panel.Removal{"d": {Times: 3, At: long - 9000*ms}}
	s.Panel = of(2, "a", "b")
	s.Panel.Members = 3
	d := seen("d")
	d.HeardSince = long - 7999*ms
	_, wishes := s.Wish(viewOf(seen("b"), d), long)
	assert.True(t, wishes, "it is still even, and is made odd instead")
	s.Since = long - 1000*ms
	_, wishes = s.Wish(viewOf(seen("b"), d), long)
	assert.False(t, wishes)
	d.HeardSince = long - 8000*ms
	next, wishes := s.Wish(viewOf(seen("b"), d), long)
	assert.True(t, wishes)
	assert.Equal(t, []string{"a", "b", "d"}, next.Witnesses)
}
