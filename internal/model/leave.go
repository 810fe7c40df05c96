package model

// mayLeave tells whether a leaving node may go for good.
func (m *machine) mayLeave(n *member) bool {
	if n.life != up || !n.leaving || n.holding || n.round.running() {
		return false
	}
	return !m.Rules.LeaveWaitsForStandby || !n.owes || !n.copy.exists()
}

// leave makes n leave for good.
func (m *machine) leave(s *State, n node) {
	if m.Rules.GoodbyeAfterSilence {
		for o := range node(m.Nodes) {
			s.members[o].fresh.remove(n)
		}
	}
	s.members[n].life = left
	if !m.Rules.GoodbyeNamesRoster {
		s.members[n].known = 0
	}
}
