package panel

import (
	"errors"
	"fmt"

	"github.com/peerlimit/peerlimit/internal/wire"
)

// Why a proposal or an answer is refused. To refuse is always safe.
var (
	ErrNotWitness = errors.New("peerlimit: this member is not a witness of the panel")
	ErrOther      = errors.New("peerlimit: panels differ: one of the two members is behind")
	ErrOutbid     = errors.New("peerlimit: a higher ballot was promised")
	ErrTooSoon    = errors.New("peerlimit: panel was adopted less than 500 ms ago")
	ErrNotSeen    = errors.New("peerlimit: this member does not see what the proposal says")
	ErrNoAnswer   = errors.New("peerlimit: less than half of the proposed witnesses answer")
)

// Proposal is one attempt of a witness to have the next panel agreed on.
type Proposal struct {
	Ballot    wire.Ballot
	Value     Panel                 // what it wishes for; once Accepting, what the witnesses are asked to accept
	Promises  map[string]Acceptance // by witness: what it had accepted when it promised
	Accepting bool
}

// Prepare asks a witness for its promise.
type Prepare struct {
	ID     wire.PanelID // of the panel that is to be followed
	Ballot wire.Ballot
}

// Promise is a witness's answer to a Prepare: it accepts nothing in a lower ballot.
type Promise struct {
	ID       wire.PanelID
	Ballot   wire.Ballot // the one of the Prepare
	Accepted Acceptance  // before
}

// Accept asks a witness to accept the panel that follows its own.
type Accept struct {
	Ballot wire.Ballot
	Panel  Panel
}

// Look is what a witness sees itself of the members. All fields are needed.
type Look struct {
	Misses  func(name string) bool        // no ping of it has come for half a second, or it has said goodbye, or it, or this member itself, is leaving
	Hears   func(name string) bool        // its pings come, and name a panel of this origin: one of another would never answer
	Met     func(origin wire.Origin) bool // a member of that origin was met over its own link
	Members int                           // how many members there are, as far as it knows
}

// mayTakePart reports why this member answers no proposal that follows that panel.
func (s *State) mayTakePart(base wire.PanelID) error {
	switch {
	case base != s.Panel.ID():
		return ErrOther
	case s.Parted || s.Panel.Ends() || !s.Panel.Has(s.Self):
		return ErrNotWitness
	}
	return nil
}

// OnPrepare answers a Prepare. The caller has seen to it that the ballot bears the name of the member that asks. It returns ErrOther, ErrNotWitness, ErrOutbid or an error that wraps ErrInvalid.
func (s *State) OnPrepare(p Prepare) (Promise, error) {
	if err := s.mayTakePart(p.ID); err != nil {
		return Promise{}, err
	}
	if p.Ballot.Below(s.Promised) {
		return Promise{}, ErrOutbid
	}
	if !s.believes(p.Ballot) {
		return Promise{}, fmt.Errorf("%w: ballot is %d; it must be at most %d above %d", ErrInvalid, p.Ballot.Number, uint64(MaxLeap), s.TopBallot)
	}
	s.Promised = p.Ballot
	return Promise{ID: p.ID, Ballot: p.Ballot, Accepted: s.Accepted}, nil
}

// OnAccept accepts a panel as the next one, or returns why not: ErrOther, ErrNotWitness, ErrOutbid, ErrTooSoon, ErrNotSeen, or an
// error that wraps ErrInvalid. The one that was accepted may be agreed on by that: the caller then calls Hear with what this member
// tells itself.
func (s *State) OnAccept(a Accept, look Look, now int64) error {
	base := a.Panel.ID()
	base.Number--
	if err := s.mayTakePart(base); err != nil {
		return err
	}
	if a.Ballot.Below(s.Promised) {
		return ErrOutbid
	}
	if s.Since != Never && now-s.Since < int64(AnswerAge) { // [NextPanelWaits]
		return ErrTooSoon
	}
	c, err := s.Panel.next(a.Panel)
	if err != nil {
		return err
	}
	if !s.believes(a.Ballot) || a.Ballot.Number == 0 {
		return fmt.Errorf("%w: ballot is %d; it must be 1 to %d above %d", ErrInvalid, a.Ballot.Number, uint64(MaxLeap), s.TopBallot)
	}
	if a.Ballot == s.Accepted.Ballot && !a.Panel.Equal(s.Accepted.Panel) {
		return fmt.Errorf("%w: its proposer has proposed another one in the same ballot", ErrInvalid)
	}
	if !s.sees(c, a.Panel, look) && !s.goesOn(c, a.Panel) || !s.answered(a.Panel, look.Hears, now) {
		return ErrNotSeen
	}
	s.Promised, s.Accepted = a.Ballot, Acceptance(a)
	return nil
}

// sees reports whether this witness sees itself what a proposal says [AcceptorsLook]. So one that is in error alone removes nobody
// that is there and adds nobody that is not. More than half of the new panel must be heard in any case: a witness that has died since
// the panel was proposed would otherwise be one of those that must agree on the next.
func (s *State) sees(c change, next Panel, look Look) bool {
	switch {
	case c.added != "":
		return c.added == s.Self || look.Hears(c.added)
	case c.ends:
		return look.Met(next.Successor)
	case c.members:
		now, wants := s.Panel.Members, next.Members
		return now < wants && wants <= look.Members || look.Members <= wants && wants < now
	case look.Misses(c.removed):
		return true
	}
	odd := len(next.Witnesses)%2 == 1 // [OddPanels]
	return odd && s.missesNobody(look.Misses)
}

// goesOn reports whether another witness has told this one itself that it accepted next. Its proposer must then go on with that
// [AcceptedGoesOn], although what was true when it was accepted, such as that a member is silent, may not be true any more: if
// those that see otherwise refused, nothing would be agreed on again where the others are no majority.
func (s *State) goesOn(c change, next Panel) bool {
	if c.ends {
		return false // whoever has not met the other cluster yet is about to
	}
	for w, a := range s.Heard {
		if w != s.Self && a.Panel.Equal(next) {
			return true
		}
	}
	return false
}

// answered reports whether more than half of the witnesses of p satisfy answers, this member being one of those that do. Those whose
// goodbye leaves them out of the panel before are left out.
func (s *State) answered(p Panel, answers func(string) bool, now int64) bool {
	all, n := 0, 0
	for _, w := range p.Witnesses {
		if g, said := s.Goodbyes[w]; said && s.leavesOut(g, now) {
			continue
		}
		all++
		if w == s.Self || answers(w) {
			n++
		}
	}
	return 2*n > all
}

// Propose begins a proposal, which ends an earlier one, and returns what to ask the witnesses of the panel, this one among them.
// answers tells whether a member has answered this one within AnswerAge: more than half of the proposed witnesses must
// [ProposedPanelAnswers]. It returns ErrNotWitness, ErrNoAnswer, or an error that wraps ErrInvalid.
func (s *State) Propose(next Panel, answers func(name string) bool, now int64) (Prepare, error) {
	if err := s.mayTakePart(s.Panel.ID()); err != nil {
		return Prepare{}, err
	}
	if _, err := s.Panel.next(next); err != nil {
		return Prepare{}, err
	}
	if !s.answered(next, answers, now) {
		return Prepare{}, ErrNoAnswer
	}
	s.TopBallot++
	s.Proposal = &Proposal{Ballot: wire.Ballot{Number: s.TopBallot, By: s.Self}, Value: next, Promises: make(map[string]Acceptance)}
	return Prepare{s.Panel.ID(), s.Proposal.Ballot}, nil
}

// OnPromise takes in a witness's promise. When there are enough, it returns what to ask all witnesses to accept: the panel that was
// accepted in the highest ballot, or else what the proposer wishes for [AcceptedGoesOn]. It returns an error when the promise is of
// no use any more, or when too few of the witnesses answer that the panel to go on with would have: then the proposal has ended.
func (s *State) OnPromise(from string, p Promise, answers func(name string) bool, now int64) (a Accept, ready bool, err error) {
	q := s.Proposal
	switch {
	case p.ID != s.Panel.ID() || !s.Panel.Has(from):
		return Accept{}, false, ErrOther
	case q == nil || p.Ballot != q.Ballot || q.Accepting:
		return Accept{}, false, nil
	}
	if p.Accepted.exists() {
		if _, err := s.Panel.next(p.Accepted.Panel); err != nil {
			return Accept{}, false, err
		}
		if !s.believes(p.Accepted.Ballot) || !p.Accepted.Ballot.Below(q.Ballot) {
			return Accept{}, false, fmt.Errorf("%w: accepted ballot is %d; it must be below the one promised, %d", ErrInvalid, p.Accepted.Ballot.Number, q.Ballot.Number)
		}
	}
	q.Promises[from] = p.Accepted
	promised := func(w string) bool { _, has := q.Promises[w]; return has }
	if !s.majority(promised, now, &q.Ballot) {
		return Accept{}, false, nil
	}
	var best Acceptance
	for _, accepted := range q.Promises {
		if accepted.exists() && (!best.exists() || best.Ballot.Below(accepted.Ballot)) {
			best = accepted
		}
	}
	if best.exists() {
		q.Value = best.Panel
	}
	if !s.answered(q.Value, answers, now) {
		s.Proposal = nil
		return Accept{}, false, ErrNoAnswer
	}
	q.Accepting = true
	return Accept{q.Ballot, q.Value}, true, nil
}

// OnOutbid takes in that a witness refused because of a higher ballot: the next proposal is above that.
func (s *State) OnOutbid(promised wire.Ballot) {
	if s.believes(promised) && s.Proposal != nil && s.Proposal.Ballot.Below(promised) {
		s.Proposal = nil
	}
}
