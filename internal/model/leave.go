package model

// mayLeave tells whether a leaving node may go forever.
func (m *machine) mayLeave(s *State, self node) bool {
	n := &s.members[self]
	if n.life != up || !n.leaving || n.holding || n.round.running() || n.p.on() && !m.isNotMissed(s, self) {
		return false
	}
	return !m.Rules.LeaveWaitsForStandby || !n.owes || !n.copy.exists()
}

// leave makes n leave forever.
func (m *machine) leave(s *State, n node) {
	if m.Rules.GoodbyeAfterSilence && !s.members[n].p.on() {
		for o := range node(m.Nodes) {
			s.members[o].fresh.remove(n)
		}
	}
	s.members[n].life = left
	if !m.Rules.GoodbyeNamesRoster {
		s.members[n].known = 0
	}
}
