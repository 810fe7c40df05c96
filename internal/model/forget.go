package model

// departed returns the nodes that n knew once and counts no more: they have left, or n has forgotten them.
func (m *member) departed() nodes { return m.tombstones | m.forgotten }

// mayForget tells whether o has been gone for so long, as far as n can tell, that n may forget it: gossip has given it up
// and no ping comes from it.
func (m *machine) mayForget(s *State, n, o node) bool {
	q, p := &s.members[n], &s.members[o]
	if q.p.on() {
		return m.mayGiveUp(s, n, o)
	}
	switch {
	case n == o || !(q.known | q.doubted).has(o) || q.ring.has(o) || q.fresh.has(o) || !q.silent.has(o):
		return false
	case p.alive() && s.linked(n, o):
		return false
	}
	return !m.Rules.ForgetOnlyWithMajority || s.hasQuorum(n) && (s.lost(n, o) || !m.Rules.ForgetOnlyLost)
}

// mayGiveUp is mayForget with panels: the witnesses' word decides, and gossip's is not asked for, nor whether there is a link. A node that
// n hears itself is not given up.
func (m *machine) mayGiveUp(s *State, n, o node) bool {
	q, p := &s.members[n], &s.members[o]
	heard := q.fresh.has(o) || p.alive() && s.linked(n, o) && s.witnesses(n).has(n) && !q.silent.has(o)
	if n == o || !q.known.has(o) || heard {
		return false
	}
	return !m.Rules.ForgetOnlyWithMajority || s.hasQuorum(n) && (s.lost(n, o) || !m.Rules.ForgetOnlyLost)
}

// forget makes n forget gone.
func (s *State) forget(n, gone node) {
	m := &s.members[n]
	m.forgotten.add(gone)
	m.known.remove(gone)
	m.doubted.remove(gone)
	m.fresh.remove(gone)
	s.missed.add(gone)
}
