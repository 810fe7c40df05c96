package quorum

import (
	"context"
	"errors"
	"math"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/peerlimit/peerlimit/internal/panel"
	"github.com/peerlimit/peerlimit/internal/wire"
)

// agreementOf returns the part of a member in a panel that stays as it is: nobody answers who is asked to agree on another.
func agreementOf(self string, now func() int64, witnesses ...string) *Agreement {
	a := NewAgreement(self, 0, AgreementIO{
		Now: now, Linked: func() []Candidate { return nil }, Count: func() int { return len(witnesses) },
		Needs: func() int { return 1 }, Silent: func(string) bool { return false },
		Ask: func(context.Context, string, wire.PanelRequest) (wire.PanelAnswer, error) {
			return wire.PanelAnswer{}, errors.New("no answer")
		},
	})
	a.state.Panel = panel.Panel{Origin: wire.Origin{Name: "a"}, Number: 7, Witnesses: witnesses, Members: len(witnesses)}
	return a
}

func noClock() int64 { return 0 }

// hear has a member answer a ping, which was sent now, under that panel.
func hear(a *Agreement, from string, id wire.PanelID, now int64) {
	w := wire.PanelWord{ID: id}
	if id != a.ID() {
		p := wire.Panel(a.Panel())
		p.Origin, p.Number = id.Origin, id.Number
		w.Panel = p
	}
	a.Answered(from, a.ID(), now, &wire.Pong{Panel: w}, now)
}

// A witness that has told others that a member is silent refuses its pings for a second. Its refusal names the panel like any answer,
// and must not become a part of the quorum under the next one.
func TestARefusalIsNoQuorumUnderAnyPanel(t *testing.T) {
	a := agreementOf("a", noClock, "a", "b", "c")
	id := a.ID()
	now := int64(time.Second)
	a.Answered("b", id, now, &wire.Pong{Refused: true, Panel: wire.PanelWord{ID: id}}, now)
	assert.False(t, a.HasQuorum(now))
	assert.Equal(t, []int64{never, never, never}, a.Seats(now).Granted)
	assert.True(t, a.answers("b", now), "it answers all the same, and may be asked to agree")

	a.Answered("b", id, now, &wire.Pong{Panel: wire.PanelWord{ID: id}}, now)
	assert.True(t, a.HasQuorum(now))
}

func TestNobodyHasAQuorumWhenAnOriginEnds(t *testing.T) {
	a := agreementOf("a", noClock, "a", "b", "c")
	r := New("a", func() {})
	now := testSecond
	hear(a, "b", a.ID(), now)
	r.SetSeats(a.Seats(now), now)
	require.True(t, r.IsFull(now))

	last := a.state.Panel.EndingFor(wire.Origin{Name: "x"})
	a.state.Panel = last
	now += 100 * testMs
	s := a.Seats(now)
	assert.Equal(t, Seats{Panel: last.ID()}, s)
	r.SetSeats(s, now)
	assert.True(t, r.IsFull(testSecond+int64(AnswerAge)-1), "what it had counts on")
	assert.False(t, r.IsFull(testSecond+int64(AnswerAge)))
	hear(a, "b", last.ID(), now)
	r.answered("b", now, now)
	assert.False(t, a.HasQuorum(now) || r.IsFull(testSecond+int64(AnswerAge)))
	r.judged("b", now, []string{"c"}, []string{"c"}, now)
	assert.False(t, r.Lost("c", now))
}

// A witness that is in touch with too few of the members that are expected gives nobody a quorum, not even itself.
func TestNoSeatsWhileTooFewAreInTouch(t *testing.T) {
	needs := 2
	a := agreementOf("a", noClock, "a")
	a.io.Needs = func() int { return needs }
	now := testSecond
	assert.Empty(t, a.Seats(now).Witnesses)
	assert.True(t, a.Refuses(a.ID(), now))
	a.Pinged("b", a.ID(), now)
	assert.Equal(t, []string{"a"}, a.Seats(now+int64(AnswerAge)-1).Witnesses)
	assert.False(t, a.Refuses(a.ID(), now+int64(AnswerAge)-1))
	assert.Empty(t, a.Seats(now+int64(AnswerAge)).Witnesses, "b has not been heard since")
	needs = 1
	assert.Equal(t, []string{"a"}, a.Seats(now+int64(AnswerAge)).Witnesses)

	learner := agreementOf("x", noClock, "a")
	learner.io.Needs = func() int { return 5 }
	assert.Equal(t, []string{"a"}, learner.Seats(now).Witnesses, "a learner gives quorum to nobody")
}

// GoodbyeAfterAnswers
func TestAGoodbyeCountsAWitnessOut(t *testing.T) {
	a := agreementOf("a", noClock, "a", "b", "c")
	r := New("a", func() {})
	said := testSecond
	hear(a, "c", a.ID(), said-100*testMs)
	r.SetSeats(a.Seats(said), said)
	a.HearGoodbye("c", wire.Goodbye{ID: a.ID()}, said)
	until := said + int64(AnswerAge)
	assert.Equal(t, []string{"a", "b", "c"}, a.Seats(until-1).Witnesses, "what it answered last may still count")
	s := a.Seats(until)
	assert.Equal(t, []string{"a", "b"}, s.Witnesses)
	r.SetSeats(s, until)
	assert.False(t, r.IsFull(until), "both of two are needed now")
	hear(a, "b", a.ID(), until)
	r.answered("b", until, until)
	assert.True(t, r.IsFull(until) && a.HasQuorum(until))

	a.HearGoodbye("b", wire.Goodbye{ID: wire.PanelID{Origin: a.ID().Origin, Number: a.ID().Number + 1}}, until)
	assert.Equal(t, []string{"a", "b"}, a.Seats(until+testSecond).Witnesses, "b takes part in the next panel, perhaps")
	a.Pinged("c", a.ID(), until)
	assert.Equal(t, []string{"a", "b", "c"}, a.Seats(until).Witnesses, "it is there after all")
}

// LeaverSeesAdoption
func TestALeaverGoesWhenItsSuccessorsHaveAdopted(t *testing.T) {
	now, id := testSecond, agreementOf("x", noClock, "a").ID()
	before, other := id, id
	before.Number--
	other.Origin.Name = "other"
	leaver := agreementOf("x", noClock, "a", "b", "c")
	leaver.HandOver()
	hear(leaver, "a", id, now)
	hear(leaver, "b", before, now)
	hear(leaver, "c", other, now)
	assert.False(t, leaver.MayGo(false, now), "one of three")
	hear(leaver, "b", wire.PanelID{Origin: id.Origin, Number: id.Number + 1}, now+10)
	assert.True(t, leaver.MayGo(false, now+10), "b has adopted even a later one")
	assert.False(t, leaver.MayGo(false, now+int64(AnswerAge)), "a may not be there any more")

	leaver.io.Linked = func() (linked []Candidate) {
		for _, name := range []string{"a", "b", "c", "d", "e"} {
			linked = append(linked, Candidate{Name: name, Serving: true, Leaving: name == "e"})
		}
		return linked
	}
	assert.True(t, leaver.MayGo(false, now+10), "three witnesses of four that stay")
	leaver.state.Panel.Witnesses = []string{"a", "b"}
	assert.False(t, leaver.MayGo(false, now+10), "there can be a third")
	assert.True(t, leaver.MayGo(true, now+10))

	witness := agreementOf("b", noClock, "a", "b", "c")
	hear(witness, "a", id, now)
	hear(witness, "c", id, now)
	assert.False(t, witness.MayGo(false, now), "it is a witness still")
	assert.True(t, witness.MayGo(true, now), "it has waited, and its goodbye tells all")
	witness.state.Accepted = panel.Acceptance{Ballot: wire.Ballot{Number: 1, By: "a"}, Panel: witness.Panel().Without("b")}
	assert.False(t, witness.MayGo(true, now), "others rely on what it has accepted")
}

// NewerPanelRefuses
func TestWhichPanelsAWitnessRefuses(t *testing.T) {
	a := agreementOf("a", noClock, "a", "b")
	id := a.ID()
	for number, refused := range map[uint64]bool{0: true, 1: true, id.Number - 1: true, id.Number: false, id.Number + 1: false, math.MaxUint64: false} {
		assert.Equal(t, refused, a.Refuses(wire.PanelID{Origin: id.Origin, Number: number}, 0), "number %d", number)
	}
	for _, o := range []wire.Origin{{}, {Name: "b"}, {Name: "a", Founded: 1}, {Name: "a", Era: 1}} {
		assert.True(t, a.Refuses(wire.PanelID{Origin: o, Number: id.Number}, 0), "%v", o)
	}

	founder := NewAgreement("a", 5, a.io)
	assert.Equal(t, []string{"a"}, founder.Seats(0).Witnesses, "it has a quorum itself")
	assert.True(t, founder.Refuses(founder.ID(), 0), "a founder alone gives none to others")
	founder.state.Panel = founder.state.Panel.With("b")
	assert.False(t, founder.Refuses(founder.ID(), 0))
	founder.SayGoodbye()
	assert.True(t, founder.Refuses(founder.ID(), 0))
}
