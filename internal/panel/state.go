package panel

import (
	"math"
	"slices"

	"github.com/peerlimit/peerlimit/internal/wire"
)

// Never is an instant before all others.
const Never = math.MinInt64

// State is what one member knows of its panel and of the next one. Times are nanoseconds of its monotonic clock. It has no locks:
// one goroutine at a time may use it.
//
// Invariants: Promised is not below Accepted.Ballot. Accepted and all of Heard are for Panel.Number+1 or, in Heard, say that a
// witness has adopted that. Heard and Goodbyes have only witnesses of Panel as keys, so at most MaxWitnesses. With the next panel
// all of these begin empty.
type State struct {
	Self  string
	Panel Panel
	Since int64 // when Panel was adopted; Never: it is the one that this member founded

	Promised wire.Ballot // the highest ballot that this witness has answered, for the next panel
	Accepted Acceptance  // what this witness has accepted as the next panel; zero: nothing

	// Heard has what each witness has said itself that it accepted, or adopted, as the next panel.
	Heard map[string]Acceptance

	// PendingSince is when the first acceptance of a next panel was heard of; Never: there is none.
	PendingSince int64

	// Goodbyes are of witnesses that have said one and not been heard since.
	Goodbyes map[string]Goodbye

	Proposal *Proposal // that this witness has under way; nil: none

	// TopBallot is the highest number of a ballot heard of.
	TopBallot uint64

	// Parted says that this member has said goodbye: it takes part in nothing more.
	Parted bool

	// Removed has witnesses that were removed, and may be added again after a while.
	Removed map[string]Removal

	// Ended has the last panels of origins that this member was of, for those that are left behind there: at most maxEnded.
	Ended map[wire.Origin]Panel

	// Moved has where origins that ended went, as others tell: at most maxMoves.
	Moved map[wire.Origin]wire.Origin
}

// Acceptance is what a witness has accepted for one number. The zero value is nothing.
type Acceptance struct {
	Ballot wire.Ballot // zero: the witness has adopted Panel
	Panel  Panel
}

func (a Acceptance) exists() bool { return a.Panel.Exists() }

func (a Acceptance) adopted() bool { return a.Ballot == wire.Ballot{} }

// countsFor reports whether the witness has accepted p in that ballot, or adopted it.
func (a Acceptance) countsFor(p Panel, ballot wire.Ballot) bool {
	return (a.Ballot == ballot || a.adopted()) && a.Panel.Equal(p)
}

// Goodbye is what a member says last. It takes part in nothing afterwards.
type Goodbye struct {
	ID       wire.PanelID // of the highest panel that it has adopted or accepted [GoodbyeNamesPanel]
	Promised wire.Ballot  // the highest ballot that it has promised [GoodbyeNamesPromise]
	At       int64        // when it was heard, by the clock of the one that heard it
}

// New returns the state of a member that begins alone.
func New(self string, origin wire.Origin, members int) *State {
	origin.Name = self
	return &State{Self: self, Panel: First(origin, members), Since: Never, PendingSince: Never}
}

// Majority reports whether more than half of the witnesses of the panel satisfy says [PanelDecides]. Those that have said goodbye
// and cannot have taken part in a later panel are left out. Where the origin has ended there is no majority.
func (s *State) Majority(says func(witness string) bool, now int64) bool {
	return !s.Panel.Ends() && s.majority(says, now, nil)
}

// majority is Majority, also of the last panel of an origin. For agreement on a ballot only those goodbyes are left out whose promise
// is not above it [GoodbyeNamesPromise]. Otherwise members that promised a higher ballot before they went could be the
// majority that a second proposer relies on, while the rest accepts what the first proposes.
func (s *State) majority(says func(witness string) bool, now int64, ballot *wire.Ballot) bool {
	all, saying := 0, 0
	for _, w := range s.Panel.Witnesses {
		if g, said := s.Goodbyes[w]; said && s.leavesOut(g, now) && (ballot == nil || !ballot.Below(g.Promised)) {
			continue
		}
		all++
		if says(w) {
			saying++
		}
	}
	return 2*saying > all
}

// Counting returns the witnesses of the panel of which more than half are a majority: those that no goodbye leaves out.
func (s *State) Counting(now int64) (witnesses []string) {
	for _, w := range s.Panel.Witnesses {
		if g, said := s.Goodbyes[w]; !said || !s.leavesOut(g, now) {
			witnesses = append(witnesses, w)
		}
	}
	return witnesses
}

// leavesOut reports whether a witness that has said this goodbye does not count any more. It has taken part in no panel after its
// number, so whatever is agreed after a panel of that number or a higher one has a majority among the rest [GoodbyeNamesPanel]. Its
// last answers to others have aged by then [GoodbyeAfterAnswers].
func (s *State) leavesOut(g Goodbye, now int64) bool {
	return g.ID.Origin == s.Panel.Origin && g.ID.Number <= s.Panel.Number && now-g.At >= int64(AnswerAge)
}

// Refuses reports whether a ping of a member whose panel is that one gets no answer that counts: this member has adopted a later
// panel or is of another origin [NewerPanelRefuses].
func (s *State) Refuses(pinger wire.PanelID) bool {
	return s.Parted || pinger.Origin != s.Panel.Origin || pinger.Number < s.Panel.Number
}

// Told is what a member tells of itself in every pong.
type Told struct {
	Panel    Panel
	Accepted Acceptance
}

// Tell returns what this member tells others.
func (s *State) Tell() Told { return Told{s.Panel, s.Accepted} }

// maxEnded bounds how many last panels a member keeps. It was of more origins only where many clusters have met.
const maxEnded = 16

// TellTo returns what this member tells one whose panel is that one. One that is left behind in an origin that has ended is told of that
// end: it hears of it from nobody else, as those that agreed on it have gone on.
func (s *State) TellTo(id wire.PanelID) Told {
	if last, ended := s.Ended[id.Origin]; ended && id.Origin != s.Panel.Origin && id.Number < last.Number {
		return Told{Panel: last}
	}
	return s.Tell()
}

// Hear takes in what a member tells of itself. It returns true when that makes this member adopt the next panel: more than half of
// the witnesses of its own have accepted it in one ballot, or have adopted it [AdoptedByHearing]. What is not valid, or too far
// away to be true, is ignored.
func (s *State) Hear(from string, t Told, now int64) (adopted bool) {
	if !s.Panel.Has(from) || t.Panel.Origin != s.Panel.Origin {
		return false
	}
	var heard Acceptance
	switch {
	case t.Panel.Number == s.Panel.Number+1:
		heard = Acceptance{Panel: t.Panel}
	case t.Panel.Number == s.Panel.Number && t.Accepted.exists():
		heard = t.Accepted
		if !s.believes(heard.Ballot) {
			return false
		}
	default:
		return false
	}
	if _, err := s.Panel.next(heard.Panel); err != nil {
		return false
	}
	s.noteHeard(from, heard, now)
	return s.adoptAgreed(heard, now)
}

func (s *State) noteHeard(from string, a Acceptance, now int64) {
	if s.Heard == nil {
		s.Heard = make(map[string]Acceptance)
	}
	if s.PendingSince == Never {
		s.PendingSince = now
	}
	old := s.Heard[from]
	if old.exists() && (old.adopted() || !a.adopted() && a.Ballot.Below(old.Ballot)) {
		return // overtaken
	}
	s.Heard[from] = a
}

// adoptAgreed adopts what was heard of last if enough have said so.
func (s *State) adoptAgreed(last Acceptance, now int64) bool {
	ballot := last.Ballot
	if !last.adopted() {
		if !s.majority(func(w string) bool { return s.Heard[w].countsFor(last.Panel, ballot) }, now, &ballot) {
			return false
		}
		s.adopt(last.Panel, now)
		return true
	}
	// One that has adopted does not say by which ballot: any that another one names will do, or none.
	for _, a := range s.Heard {
		if a.Panel.Equal(last.Panel) && ballot.Below(a.Ballot) {
			ballot = a.Ballot
		}
	}
	all := func(w string) bool { return s.Heard[w].countsFor(last.Panel, ballot) }
	adopters := func(w string) bool { return s.Heard[w].countsFor(last.Panel, wire.Ballot{}) }
	if !s.majority(all, now, &ballot) && !s.majority(adopters, now, nil) {
		return false
	}
	s.adopt(last.Panel, now)
	return true
}

// adopt makes p the panel.
func (s *State) adopt(p Panel, now int64) {
	s.noteRemovals(p, now)
	if s.Panel.Ends() && len(s.Ended) < maxEnded {
		if s.Ended == nil {
			s.Ended = make(map[wire.Origin]Panel)
		}
		s.Ended[s.Panel.Origin] = s.Panel
	}
	goodbyes := s.Goodbyes
	s.Panel, s.Since = p, now
	s.Promised, s.Accepted, s.Proposal = wire.Ballot{}, Acceptance{}, nil
	s.Heard, s.Goodbyes, s.PendingSince = nil, nil, Never
	for name, g := range goodbyes {
		s.keepGoodbye(name, g)
	}
}

// CountOn returns until when the quorum that there was under the panel before counts, when it lasted until that [OldPanelCountsOn].
// Nobody is at the number after this panel's before that: see NextPanelWaits.
func (s *State) CountOn(until int64) int64 {
	if s.Since == Never {
		return until
	}
	return min(until, s.Since+int64(AnswerAge))
}

// SayGoodbye ends this member's part in everything, and returns what to tell the others. The caller answers no ping any more.
func (s *State) SayGoodbye() Goodbye {
	s.Parted = true
	g := Goodbye{ID: s.Panel.ID(), Promised: s.Promised}
	if s.Accepted.exists() {
		g.ID.Number++
	}
	return g
}

// MayGo reports whether a leaving member can go without being missed: it is no witness, and more than half of the witnesses of its
// panel, as adopted tells, have adopted that or a later one [LeaverSeesAdoption]. Otherwise one of two that leaves takes with it that
// both had agreed on a panel of the other alone.
func (s *State) MayGo(adopted func(witness string) bool) bool {
	if s.Panel.Has(s.Self) || s.Panel.Ends() {
		return false
	}
	return s.confirmed(s.Panel, adopted)
}

// HearGoodbye takes in what a witness said when it left. It counts from AnswerAge after this.
func (s *State) HearGoodbye(name string, g Goodbye, now int64) {
	if _, again := s.Goodbyes[name]; again || name == s.Self {
		return
	}
	s.believes(g.Promised)
	g.At = now
	s.keepGoodbye(name, g)
}

func (s *State) keepGoodbye(name string, g Goodbye) {
	if !s.Panel.Has(name) || len(g.Promised.By) > MaxName || len(g.ID.Origin.Name) > MaxName {
		return
	}
	if s.Goodbyes == nil {
		s.Goodbyes = make(map[string]Goodbye)
	}
	s.Goodbyes[name] = g
}

// HearAgain voids a goodbye: the link to the one that is said to have gone is up.
func (s *State) HearAgain(name string) { delete(s.Goodbyes, name) }

// believes takes in a ballot, and reports whether members can have come to it by counting.
func (s *State) believes(b wire.Ballot) bool {
	if b.Number > s.TopBallot && b.Number-s.TopBallot > MaxLeap || b.Number > math.MaxUint64-MaxLeap || len(b.By) > MaxName {
		return false
	}
	s.TopBallot = max(s.TopBallot, b.Number)
	return true
}

// pending returns the next panel that was accepted by a witness in the highest ballot, as far as it was heard.
func (s *State) pending() Acceptance {
	best := s.Accepted
	for _, name := range s.Panel.Witnesses {
		if a := s.Heard[name]; a.exists() && (!best.exists() || best.Ballot.Below(a.Ballot)) {
			best = a
		}
	}
	return best
}

// missesNobody reports whether no witness is missed.
func (s *State) missesNobody(misses func(string) bool) bool {
	return !slices.ContainsFunc(s.Panel.Witnesses, func(w string) bool { return w != s.Self && misses(w) })
}
