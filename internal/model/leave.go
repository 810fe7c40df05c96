package model

// mayLeave tells whether a leaving node may go for good.
func (m *machine) mayLeave(n *member) bool {
	if n.life != up || !n.leaving || n.holding || n.round.running() {
		return false
	}
	return !m.Rules.LeaveWaitsForHeir || !n.owes || !n.copy.exists()
}

// leave makes n leave for good.
func (m *machine) leave(s *State, n node) {
	if m.Rules.GoodbyeAfterSilence {
		for o := range node(m.Nodes) {
			s.members[o].fresh.remove(n)
		}
	}
	s.members[n].life = left
}

// mayTellSafe tells whether holder can say to leaver that the heir has everything. The heir must be another node.
func (m *machine) mayTellSafe(s *State, holder, leaver node) bool {
	l := &s.members[leaver]
	return leaver != holder && l.life == up && l.leaving && l.owes &&
		leaver != m.currentHeir(s, holder) && m.heirHasEverything(s, holder) &&
		!s.underway(safe, holder, leaver)
}

// hearSafe frees a leaver of its copy, unless the copy is newer than what the holder speaks for: then it is offered, by
// refusing the holder's version, and the holder acquires anew and so gets it.
func (m *machine) hearSafe(s *State, h message) {
	n := &s.members[h.to]
	if !n.leaving || n.holding || !n.copy.exists() {
		return
	}
	if !h.copy.less(n.copy) {
		n.owes = false
		return
	}
	if m.Rules.NewerCopyOffered && n.owes {
		n.promise.raise(promise{n.copy.election, n.copy.holder})
		s.send(message{kind: refuse, from: h.to, to: h.from, copy: h.copy, promise: n.promise})
	}
}
