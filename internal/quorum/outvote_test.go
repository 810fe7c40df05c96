package quorum

import (
	"context"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/peerlimit/peerlimit/internal/panel"
	"github.com/peerlimit/peerlimit/internal/wire"
)

// stuckNode is a node that ticks at times of the test's own.
type stuckNode struct {
	*Agreement
	t      *testing.T
	now    time.Duration
	linked []Candidate
	names  []string
	needs  int
}

const (
	testOutvoteAfter = 10 * time.Second
	testSplitMemory  = 30 * time.Second
)

// stuckOf returns a witness of a panel, to which nobody answers, and that has links to some of all names.
func stuckOf(t *testing.T, self string, witnesses, linked, names []string) *stuckNode {
	n := &stuckNode{t: t, names: names, needs: 1}
	for _, name := range linked {
		n.linked = append(n.linked, Candidate{Name: name, Serving: true})
	}
	n.Agreement = NewAgreement(self, 5, AgreementIO{
		Now: func() int64 { return int64(n.now) }, Linked: func() []Candidate { return n.linked }, Count: func() int { return len(n.names) },
		Silent: func(string) bool { return true }, Needs: func() int { return n.needs }, Names: func() []string { return n.names },
		OutvoteAfter: testOutvoteAfter, SplitMemory: testSplitMemory,
	})
	n.begin = func(func(context.Context)) {}
	n.state.Panel = panel.Panel{Origin: wire.Origin{Name: "a"}, Number: 7, Witnesses: witnesses, Members: len(witnesses)}
	n.Tick(0)
	return n
}

// foundsWithin returns when the node founds a later era, or 0 when it does not for so long.
func (n *stuckNode) foundsWithin(d time.Duration) time.Duration {
	for end := n.now + d; n.now < end; {
		n.now += pingInterval
		if n.Tick(int64(n.now)) {
			id := n.ID()
			assert.Equal(n.t, wire.PanelID{Origin: wire.Origin{Era: 1, Founded: 5 + int64(n.now), Name: n.state.Self}, Number: 1}, id)
			assert.True(n.t, n.HasQuorum(int64(n.now)))
			return n.now
		}
	}
	return 0
}

// hear has a member answer a ping that was sent now.
func (n *stuckNode) hear(from string, p wire.Pong) {
	n.Answered(from, n.ID(), int64(n.now), &p, int64(n.now))
}

func TestALaterEraIsFoundedAfterAWhileWithoutAQuorum(t *testing.T) {
	abc := []string{"a", "b", "c"}
	abcd := []string{"a", "b", "c", "d"}
	for name, c := range map[string]struct {
		self              string
		witnesses, linked []string
		at                time.Duration
	}{
		"most of all":           {"a", abc, []string{"d", "e", "f"}, testOutvoteAfter},
		"the third by name":     {"c", abc, []string{"a", "b", "d", "e"}, testOutvoteAfter + 2*foundPause},
		"no witness":            {"d", abc, []string{"e", "f", "g"}, testOutvoteAfter},
		"half of all":           {"a", abcd, []string{"b"}, testSplitMemory},
		"one that is alone":     {"a", abc, nil, testSplitMemory},
		"strangers do not vote": {"a", abc, []string{"x", "y", "z"}, testSplitMemory},
	} {
		t.Run(name, func(t *testing.T) {
			names := append([]string{"a", "b", "c"}, c.linked...)
			if name == "strangers do not vote" {
				names = abc
			}
			n := stuckOf(t, c.self, c.witnesses, c.linked, names)
			assert.Equal(t, c.at, n.foundsWithin(time.Minute))
		})
	}
}

func TestWhoHasNotMetItsClusterOutvotesNobody(t *testing.T) {
	n := stuckOf(t, "a", []string{"a", "b", "c"}, []string{"c", "d"}, []string{"a", "b", "c", "d"})
	n.needs = 3
	assert.Zero(t, n.foundsWithin(2*testSplitMemory))

	n = stuckOf(t, "a", []string{"a", "b", "c"}, []string{"c", "d"}, []string{"a", "b", "c", "d"})
	n.state.Panel = panel.First(wire.Origin{Name: "a"}, 1)
	assert.Zero(t, n.foundsWithin(2*testSplitMemory), "a founder alone has a quorum, or waits")
}

func TestWhoIsToldOfAQuorumOutvotesNobody(t *testing.T) {
	n := stuckOf(t, "a", []string{"a", "b", "c"}, []string{"c", "d"}, []string{"a", "b", "c", "d"})
	for range 100 {
		require.Zero(t, n.foundsWithin(time.Second))
		n.hear("d", wire.Pong{HasQuorum: true, Refused: true, Panel: wire.PanelWord{ID: n.ID()}})
	}
	told := n.now
	assert.Equal(t, told+testOutvoteAfter, n.foundsWithin(time.Minute))
}

// The third by name waits for the others again, although it might have founded an era before it was told.
func TestWhoIsToldOfAQuorumWaitsForItsTurnAgain(t *testing.T) {
	abc := []string{"a", "b", "c"}
	n := stuckOf(t, "c", abc, []string{"a", "b"}, abc)
	require.Zero(t, n.foundsWithin(testOutvoteAfter+foundPause))
	n.hear("d", wire.Pong{HasQuorum: true, Refused: true, Panel: wire.PanelWord{ID: n.ID()}})
	told := n.now
	assert.Equal(t, told+testOutvoteAfter+2*foundPause, n.foundsWithin(time.Minute))
}

func TestAFounderAloneIsNoQuorumToWaitFor(t *testing.T) {
	n := stuckOf(t, "a", []string{"a", "b", "c"}, []string{"c", "d"}, []string{"a", "b", "c", "d"})
	require.Zero(t, n.foundsWithin(5*time.Second))
	alone := panel.First(wire.Origin{Name: "d"}, 1)
	n.hear("d", wire.Pong{HasQuorum: true, Panel: wire.PanelWord{ID: alone.ID(), Panel: wire.Panel(alone)}})
	assert.Equal(t, testOutvoteAfter, n.foundsWithin(time.Minute))
}

func TestTheWaitBeginsAnewAfterAQuorumOrAPause(t *testing.T) {
	n := stuckOf(t, "a", []string{"a", "b", "c"}, []string{"c", "d"}, []string{"a", "b", "c", "d"})
	require.Zero(t, n.foundsWithin(9*time.Second))
	n.hear("c", wire.Pong{Panel: wire.PanelWord{ID: n.ID()}})
	assert.Equal(t, 9*time.Second+AnswerAge+testOutvoteAfter, n.foundsWithin(time.Minute))

	n = stuckOf(t, "a", []string{"a", "b", "c"}, []string{"c", "d"}, []string{"a", "b", "c", "d"})
	require.Zero(t, n.foundsWithin(9*time.Second))
	n.now += time.Hour
	resumed := n.now + pingInterval
	assert.Equal(t, resumed+testOutvoteAfter, n.foundsWithin(time.Minute))
}

// One that has joined a later panel, whose witnesses have not answered it yet, does not found the next.
func TestWhoHasJustJoinedALaterEraGivesItTime(t *testing.T) {
	n := stuckOf(t, "a", []string{"a", "b", "c"}, []string{"c", "d"}, []string{"a", "b", "c", "d"})
	n.linked = nil
	require.Zero(t, n.foundsWithin(2*testOutvoteAfter))
	first := panel.First(wire.Origin{Era: 4, Name: "d"}, 1)
	n.hear("d", wire.Pong{Refused: true, Panel: wire.PanelWord{ID: first.ID(), Panel: wire.Panel(first)}})
	n.linked = []Candidate{{Name: "c"}, {Name: "d"}, {Name: "e"}}
	n.names = append(n.names, "e")
	require.True(t, n.Tick(int64(n.now)), "it joins")
	require.Equal(t, first.ID(), n.ID())
	joined := n.now
	for n.now-joined < joinPause {
		require.Equal(t, first.ID(), n.ID())
		n.now += pingInterval
		n.Tick(int64(n.now))
	}
	assert.Equal(t, wire.Origin{Era: 5, Founded: 5 + int64(n.now), Name: "a"}, n.ID().Origin, "its founder has died as well")
}
