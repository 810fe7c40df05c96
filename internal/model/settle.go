package model

import "slices"

// settle brings a changed state into its one canonical form: what happens without delay has happened, and states that
// differ only in names of ballots or in the order of messages are equal. It reports S1.
func (m *machine) settle(s *State) error {
	for n := range node(m.Nodes) {
		q := &s.members[n]
		switch q.life {
		case outside:
			continue
		case crashed:
			*q = member{life: crashed, leaving: q.leaving}
			continue
		case left:
			*q = member{life: left, leaving: q.leaving, known: q.known, p: m.goodbye(&q.p)}
			continue
		case closed:
			*q = member{life: closed, leaving: q.leaving, known: q.known, p: m.goodbye(&q.p)}
			continue
		}
		m.lapse(s, n)
		if q.heard <= q.promise.ballot {
			q.heard = 0
		}
		if q.renewed && !s.asksAboutCopy(n) {
			q.renewed = false
		}
		if !q.holding {
			q.ackedBy, q.acked, q.refused = 0, 0, false
		}
	}
	s.renumber()
	slices.SortFunc(s.messages[:], func(a, b message) int {
		switch {
		case a.before(b):
			return -1
		case b.before(a):
			return 1
		}
		return 0
	})
	if m.Panels > 0 {
		s.settlePanels()
		s.renumberPanels()
	}
	s.unite()
	if m.Panels > 0 {
		if err := s.judgePanels(); err != nil {
			return err
		}
	}
	return s.judgeOneDecider()
}

// More ballots and transfers than a state has fields to hold them.
const (
	maxBallots   = 64
	maxTransfers = 16
)

// numbering maps the ballots and transfers that occur in a state to small ones in the same order, which keeps the number
// of states finite: only the order of ballots matters.
type numbering struct {
	ballots   [maxBallots]ballot
	transfers [maxBallots][maxTransfers]uint8
}

func (s *State) renumber() {
	var used numbering
	s.eachBallot(func(e *ballot) { used.ballots[*e] = 1 })
	s.eachVersion(func(v *version) {
		used.ballots[v.ballot] = 1
		used.transfers[v.ballot][v.transfers] = 1
	})
	to := used.compact()
	s.eachBallot(func(e *ballot) { *e = to.ballots[*e] })
	s.eachVersion(func(v *version) {
		v.ballot, v.transfers = to.ballots[v.ballot], to.transfers[v.ballot][v.transfers]
	})
}

// compact turns marks into a numbering without gaps. Ballot 0 is none and stays so.
func (used *numbering) compact() *numbering {
	var to numbering
	var next ballot
	for e := 1; e < maxBallots; e++ {
		if used.ballots[e] == 0 {
			continue
		}
		next++
		to.ballots[e] = next
		var transfers uint8
		for g, mark := range used.transfers[e] {
			if mark != 0 {
				to.transfers[e][g] = transfers
				transfers++
			}
		}
	}
	return &to
}

func (s *State) eachBallot(visit func(*ballot)) {
	for i := range s.members {
		q := &s.members[i]
		visit(&q.promise.ballot)
		visit(&q.heard)
		visit(&q.transfer.round)
		visit(&q.round.ballot)
	}
	for i := range s.messages {
		visit(&s.messages[i].round)
		visit(&s.messages[i].promise.ballot)
	}
}

func (s *State) eachVersion(visit func(*version)) {
	for i := range s.members {
		visit(&s.members[i].copy)
		visit(&s.members[i].round.best)
		for j := range s.members[i].round.staged {
			visit(&s.members[i].round.staged[j].copy)
		}
	}
	for i := range s.messages {
		visit(&s.messages[i].copy)
	}
}
