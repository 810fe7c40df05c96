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
		Moved: map[string]move{"alice": {From: "node-1", To: "node-3"}}, StandbyToo: map[string]bool{}, wasStandby: map[string]bool{},
		Apart: 1, Of: 3,
	}
	assert.Equal(t, want, s.settled[0])
	assert.Equal(t, []disturbance{want}, s.until(20*time.Second))
}

func TestCrashThatIsNotNoticedLastsToTheEnd(t *testing.T) {
	s := newStage()
	s.now = 4 * time.Second
	s.begin(killed, "node-1")
	s.now = 6 * time.Second
	s.report(2, "23", "node-3", "node-2")

	all := s.until(9 * time.Second)
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

// Right after a split all still agree, because nobody has noticed yet. It lasts until the network is whole, and all agree.
func TestSplitLastsUntilItIsHealed(t *testing.T) {
	s := newStage()
	s.now = 4 * time.Second
	s.begin(split, "node-1")
	s.report(2, "123", "node-1", "node-2", "node-3", "node-1")
	s.report(3, "23", "node-3", "node-2", "node-3")
	assert.Empty(t, s.settled)
	s.now = 9 * time.Second
	s.healed()
	assert.Empty(t, s.settled, "node-1 is not with them yet")
	s.now = 10 * time.Second
	s.report(4, "123", "node-1", "node-2", "node-3")
	require.Len(t, s.settled, 1)
	d := s.settled[0]
	assert.Equal(t, split, d.Kind)
	assert.Equal(t, 10*time.Second, d.Until)
	assert.Equal(t, 1, d.Apart)
	assert.Equal(t, 3, d.Of)
	assert.False(t, d.Stranded)
	assert.Contains(t, d.Moved, "alice")
	assert.NotContains(t, d.Moved, "bob")
}

// A split that was too short for anybody to notice is over when it is healed.
func TestShortSplitIsOverAtOnce(t *testing.T) {
	s := newStage()
	s.begin(split, "node-1")
	s.healed()
	assert.Len(t, s.settled, 1)
}

func TestSleeperIsGoneAndComesBack(t *testing.T) {
	s := newStage()
	s.begin(frozen, "node-1")
	s.report(2, "23", "node-3", "node-2", "node-3")
	require.Len(t, s.settled, 1)
	s.begin(woken, "node-1")
	assert.True(t, s.isStarting("node-1"))
	s.report(3, "123", "node-1", "node-2", "node-3")
	require.Len(t, s.settled, 2)
	assert.Equal(t, map[string]move{"alice": {From: "node-3", To: "node-1"}}, s.settled[1].Moved)
	assert.Equal(t, 3, s.settled[1].Of)
}

func TestWhetherThereIsAMajority(t *testing.T) {
	s := newStage()
	s.begin(killed, "node-1")
	s.report(2, "23", "node-3", "node-2", "node-3")
	assert.False(t, s.settled[0].Stranded, "two of three")
	s.now = 10 * time.Second
	s.begin(killed, "node-2")
	assert.True(t, s.until(s.now)[1].Stranded, "one of the three that it knows")

	s = newStage()
	s.begin(killed, "node-1")
	s.report(2, "23", "node-3", "node-2", "node-3")
	s.now = 10 * time.Minute
	s.begin(killed, "node-2")
	assert.True(t, s.until(s.now)[1].Stranded, "one of the two that it has not forgotten")
}

// A key may begin full when its owner and its standby go within the time that it takes to make another standby.
func TestOwnerAndStandbyTogether(t *testing.T) {
	for _, c := range []struct {
		name   string
		second string
		after  time.Duration
		lost   bool
	}{
		{"the standby, at once", "node-3", time.Second, true},
		{"another one, at once", "node-2", time.Second, false},
		{"the standby, when there is another", "node-3", 10 * time.Second, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := newStage()
			v := s.views["node-1"]
			v.Standbys = map[string]string{"alice": "node-3", "bob": "node-1"}
			for _, node := range []string{"node-1", "node-2", "node-3"} {
				s.update(node, v)
			}
			s.begin(killed, "node-1")
			if c.after > shortlyAfter {
				s.report(2, "23", "node-3", "node-2", "node-3")
			}
			s.now = c.after
			s.begin(killed, c.second)
			assert.Equal(t, c.lost, s.until(s.now)[1].StandbyToo["alice"])
			assert.Equal(t, c.second == "node-2", s.until(s.now)[1].StandbyToo["bob"], "whose standby was killed first")
		})
	}
}
