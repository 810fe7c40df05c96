package model

// With [Config].Pieces a copy of two takes or more travels in two pieces: the first take, and all others. Each has to be asked
// for, and a response is matched with the place that was asked for, as a response to a call is.

// stage is a peer's copy of which the first piece has come. Without PieceContinues there is one for all peers.
type stage struct {
	from node // whose it is, without PieceContinues
	kind kind
	copy version
	got  takes
	next uint8 // the place of the piece that is missing; 0 for no stage
}

// goesOn tells whether a message has the first of two pieces of a copy.
func (m *machine) goesOn(a message) bool {
	return m.Pieces && a.place == 0 && a.copy.takes&(a.copy.takes-1) != 0
}

// piece returns the takes that are in a response.
func (m *machine) piece(a message) takes {
	first := a.copy.takes & -a.copy.takes
	switch {
	case m.goesOn(a):
		return first
	case a.place == 1:
		return a.copy.takes &^ first
	}
	return a.copy.takes
}

// place returns where a request to a peer goes on.
func (m *machine) place(r *round, peer node) uint8 {
	if m.Rules.PieceContinues {
		return r.staged[peer].next
	}
	if s := &r.staged[0]; s.from == peer {
		return s.next
	}
	return 0
}

// assemble takes in a piece of a copy and returns the copy when that was the last.
func (m *machine) assemble(r *round, a message) (v version, whole bool) {
	if !m.Pieces {
		return a.copy, true
	}
	s := &r.staged[0]
	if m.Rules.PieceContinues {
		s = &r.staged[a.from]
		same := s.next == 1 && s.kind == a.kind && s.copy == a.copy
		switch {
		case a.place == 0 && same, a.place == 1 && s.next == 0:
			return version{}, false
		case a.place == 0:
			*s = stage{kind: a.kind, copy: a.copy}
		case !same:
			*s = stage{}
			return version{}, false
		}
	} else if s.from != a.from || s.copy != a.copy {
		*s = stage{from: a.from, copy: a.copy}
	}
	s.got |= m.piece(a)
	if s.next = 1; m.goesOn(a) {
		return version{}, false
	}
	v = a.copy
	v.takes = s.got
	*s = stage{}
	return v, true
}
