package panel

import (
	"errors"
	"slices"
	"time"

	"github.com/peerlimit/peerlimit/internal/wire"
)

// maxMoves bounds how many ended origins are remembered.
const maxMoves = 64

// Why a member does not jump.
var (
	ErrHasQuorum   = errors.New("peerlimit: a member with a quorum changes its panel by agreement only")
	ErrNotLater    = errors.New("peerlimit: panel does not come after this member's")
	ErrUnconfirmed = errors.New("peerlimit: less than half of the panel's witnesses confirm it")
)

// Jump adopts a panel that a member, teller, has told of as its own, without its having been agreed on within hearing: this member was cut off, or its
// origin has ended. hasQuorum must be false, and more than half of its witnesses must confirm that it is theirs, so that nobody's
// word and no wild number takes a quorum away from one that has it. This member counts among them if it is one, but is never the
// only one. Where it has itself accepted the panel, the word of any member that has adopted it will do: the acceptances of others
// may be lost with them.
//
// The panel must be a later one: see ComesLater. It returns
// ErrHasQuorum, ErrNotLater, ErrUnconfirmed, or an error that wraps ErrInvalid.
func (s *State) Jump(to Panel, teller string, confirms func(member string) bool, hasQuorum bool, now int64) error {
	if err := to.Check(); err != nil {
		return err
	}
	switch {
	case hasQuorum:
		return ErrHasQuorum
	case !s.ComesLater(to) || s.Parted:
		return ErrNotLater
	}
	if !s.confirmed(to, confirms) && !(s.Accepted.Panel.Equal(to) && teller != s.Self && confirms(teller)) {
		return ErrUnconfirmed
	}
	s.adopt(to, now)
	return nil
}

// confirmed reports whether more than half of the witnesses of p confirm it, and not only this member.
func (s *State) confirmed(p Panel, confirms func(string) bool) bool {
	other := slices.ContainsFunc(p.Witnesses, func(w string) bool { return w != s.Self && confirms(w) })
	n := 0
	for _, w := range p.Witnesses {
		if w == s.Self || confirms(w) {
			n++
		}
	}
	return other && 2*n > len(p.Witnesses)
}

// ComesLater reports whether a panel may replace this member's, as far as the two tell. A member whose origin has ended goes on with
// the one that stays, or with any other that is established and has not ended: of a chain of ends it may have missed one, and
// everybody who could tell of that has gone on. So has, without its hearing of it, the founder of a panel that it learns from alone;
// but nobody goes back to an earlier era that way, which was given up for this one.
func (s *State) ComesLater(p Panel) bool {
	mine := s.Panel.ID()
	switch {
	case p.Origin == mine.Origin:
		return p.Number > mine.Number && p.Number-mine.Number <= MaxLeap
	case p.Origin.Era > mine.Origin.Era:
		return p.Origin.Era-mine.Origin.Era <= MaxLeap
	case !s.Panel.Ends() && (mine.Number > 1 || s.Panel.Has(s.Self) || p.Origin.Era < mine.Origin.Era):
		return false
	}
	return s.Panel.Ends() && (p.Origin == s.Panel.Successor || p.Origin == s.Leads(s.Panel.Successor)) || p.established() && !p.Ends()
}

// HearMoved takes in that an origin has ended in favour of another.
func (s *State) HearMoved(from, to wire.Origin) {
	if _, known := s.Moved[from]; known || from == to || len(s.Moved) >= maxMoves || len(from.Name) > MaxName || len(to.Name) > MaxName {
		return
	}
	if s.Moved == nil {
		s.Moved = make(map[wire.Origin]wire.Origin)
	}
	s.Moved[from] = to
}

// Leads returns the origin that a chain of ends leads to, as far as it is known.
func (s *State) Leads(o wire.Origin) wire.Origin {
	for range maxMoves {
		next, ended := s.Moved[o]
		if !ended {
			break
		}
		o = next
	}
	return o
}

// Stuck is what a member sees that has had no quorum for some time.
type Stuck struct {
	For     time.Duration // that it has had no quorum
	InTouch []string      // the other members to which it has a link
	Names   []string      // of all members that count
	Era     uint64        // the highest that other members tell of

	// OutvoteAfter is after how long without a quorum more than half of all found a later era; 0 and below: never.
	OutvoteAfter time.Duration

	// SplitMemory is after how long any number of members does; 0 and below: never.
	SplitMemory time.Duration
}

// Refound returns the first panel of a later era, which this member may found when no agreement is to be expected any more: it has
// had no quorum for OutvoteAfter, and it and those in touch with it, newcomers among them, are more than half of the panel's witnesses
// and of all names together; or it has had none for SplitMemory. This is not safe while the others live apart.
//
// The panel counts its founder alone, so that to count the first member that joins is a change, which makes the founder a witness of
// others.
func (s *State) Refound(v Stuck, founded, now int64) (Panel, bool) {
	outvotes := v.OutvoteAfter > 0 && v.For >= v.OutvoteAfter && s.areMost(v.InTouch, v.Names, now)
	remains := v.SplitMemory > 0 && v.For >= v.SplitMemory
	if s.Parted || !outvotes && !remains {
		return Panel{}, false
	}
	era := max(s.Panel.Origin.Era, s.Panel.Successor.Era, v.Era) + 1
	return First(wire.Origin{Era: era, Founded: founded, Name: s.Self}, 1), true
}

// areMost reports whether this member and those in touch with it are more than half of the panel's witnesses and of names together.
func (s *State) areMost(inTouch, names []string, now int64) bool {
	all := map[string]bool{s.Self: true}
	for _, name := range s.Counting(now) {
		all[name] = true
	}
	for _, name := range names {
		all[name] = true
	}
	near := map[string]bool{s.Self: true}
	for _, name := range inTouch {
		if all[name] {
			near[name] = true
		}
	}
	return 2*len(near) > len(all)
}

// Restart begins with a panel that Refound returned.
func (s *State) Restart(first Panel) {
	s.adopt(first, 0)
	s.Since, s.Removed = Never, nil
}
