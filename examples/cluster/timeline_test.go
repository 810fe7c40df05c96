package main

import (
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// stage is a timeline of three nodes that agree, with a clock that is set by hand.
type stage struct {
	*timeline
	now     time.Duration
	settled []disturbance
}

func newStage() *stage {
	s := &stage{}
	s.timeline = newTimeline(
		func() time.Duration { return s.now },
		func(ds []disturbance) { s.settled = append(s.settled, ds...) },
	)
	for _, node := range []string{"node-1", "node-2", "node-3"} {
		s.expect(node)
	}
	s.report(1, "123", "node-1", "node-1", "node-2", "node-3")
	return s
}

// report makes nodes report a ring of the members with the given digits, in which alice belongs to the owner, and bob to
// node-2.
func (s *stage) report(version uint64, members, owner string, nodes ...string) {
	v := ringView{Version: version, Size: len(members), Owners: map[string]string{"alice": owner, "bob": "node-2"}}
	for _, digit := range members {
		v.Members = append(v.Members, "node-"+string(digit))
	}
	for _, node := range nodes {
		s.update(node, v)
	}
}

func TestAgreementIsThatOfAllNodes(t *testing.T) {
	s := newStage()
	select {
	case <-s.agreed:
	default:
		t.Fatal("all three have reported the same ring")
	}
	assert.Equal(t, "node-1", s.owner("alice"))
	assert.Empty(t, s.settled)
}

func TestCrashLastsUntilTheLastNodeKnows(t *testing.T) {
	s := newStage()
	s.now = 4 * time.Second
	s.begin(killed, "node-1")
	s.now = 4100 * time.Millisecond
	s.gone("node-1")
	s.now = 6 * time.Second
	s.report(2, "23", "node-3", "node-2")
	assert.Empty(t, s.settled, "node-3 does not know yet")
	s.now = 7 * time.Second
	s.report(2, "23", "node-3", "node-3")

	require.Len(t, s.settled, 1)
	want := disturbance{
		Kind: killed, Node: "node-1", At: 4 * time.Second, Gone: 4100 * time.Millisecond, Until: 7 * time.Second, Done: true,
		Moved: map[string]move{"alice": {From: "node-1", To: "node-3"}},
	}
	assert.Equal(t, want, s.settled[0])
	assert.Equal(t, []disturbance{want}, s.finish(20*time.Second))
}

func TestCrashThatIsNotNoticedLastsToTheEnd(t *testing.T) {
	s := newStage()
	s.now = 4 * time.Second
	s.begin(killed, "node-1")
	s.now = 6 * time.Second
	s.report(2, "23", "node-3", "node-2")

	all := s.finish(9 * time.Second)
	require.Len(t, all, 1)
	assert.Equal(t, 9*time.Second, all[0].Until)
	assert.False(t, all[0].Done)
	assert.Equal(t, map[string]move{"alice": {From: "node-1"}}, all[0].Moved)
}

func TestNewcomerConcernsWhatOthersGiveToIt(t *testing.T) {
	s := newStage()
	s.begin(started, "node-4")
	s.report(1, "4", "node-4", "node-4") // alone at first, it believes to own everything
	s.report(2, "1234", "node-1", "node-4", "node-1", "node-2", "node-3")
	require.Len(t, s.settled, 1)
	assert.Empty(t, s.settled[0].Moved)

	s = newStage()
	s.begin(started, "node-4")
	s.report(2, "1234", "node-4", "node-4", "node-1", "node-2", "node-3")
	require.Len(t, s.settled, 1)
	assert.Equal(t, map[string]move{"alice": {From: "node-1", To: "node-4"}}, s.settled[0].Moved)
}

// A key that goes from a killed node to a newcomer concerns both events: there may have been an owner in between.
func TestEventsThatOverlapAreSettledTogether(t *testing.T) {
	s := newStage()
	s.begin(killed, "node-1")
	s.begin(started, "node-4")
	s.report(2, "234", "node-4", "node-2", "node-3")
	assert.Empty(t, s.settled)
	s.report(2, "234", "node-4", "node-4")
	require.Len(t, s.settled, 2)
	for _, d := range s.settled {
		assert.Equal(t, map[string]move{"alice": {From: "node-1", To: "node-4"}}, d.Moved)
	}
}

func TestOldNewsIsIgnored(t *testing.T) {
	s := newStage()
	s.begin(retired, "node-1")
	s.report(3, "23", "node-3", "node-2")
	s.report(2, "123", "node-1", "node-2") // was overtaken on its way
	s.report(3, "23", "node-3", "node-3")
	assert.Len(t, s.settled, 1)
}

// The old ring has as many members as the new one will have, but not the same.
func TestSizeIsNotAgreement(t *testing.T) {
	s := newStage()
	s.begin(retired, "node-3")
	s.begin(started, "node-4")
	s.report(2, "123", "node-1", "node-1", "node-2", "node-4")
	assert.Empty(t, s.settled)
	s.report(3, "124", "node-1", "node-1", "node-2", "node-4")
	assert.Len(t, s.settled, 2)
}
