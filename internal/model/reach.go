package model

// names are whom n's rounds must hear, and whom it tells others of.
func (s *State) names(n node) nodes { return s.members[n].known &^ s.members[n].tombstones }

// witnesses are those of n's panel [PanelDecides]. Without panels they are all of known: the model has too few nodes for a choice
// among them.
func (s *State) witnesses(n node) nodes {
	if s.members[n].p.on() {
		return s.panelWitnesses(n)
	}
	return s.names(n)
}

// hasQuorum tells whether fresh responses, with the node itself, make more than half of its witnesses.
func (s *State) hasQuorum(n node) bool {
	q := &s.members[n]
	if q.p.kept != 0 && q.p.kept.majority(q.p.before) {
		return true
	}
	return !q.p.panel.ends && (q.fresh | only(n)).majority(s.witnesses(n))
}

// decidesInFull tells whether a take at n would be decided in full at this instant. A paused node counts: a take may
// already be past the check.
func (s *State) decidesInFull(n node) bool {
	m := &s.members[n]
	return m.alive() && m.holding && !m.lapsed && s.hasQuorum(n)
}

// lost tells whether more than half of the asker's witnesses say at this instant that they have no ping of n.
func (s *State) lost(asker, n node) bool {
	var accusers nodes
	for w := range node(maxNodes) {
		m := &s.members[w]
		if w != n && m.life == up && m.silent.has(n) && (w == asker || s.reaches(asker, w)) {
			accusers.add(w)
		}
	}
	return accusers.majority(s.witnesses(asker))
}

// hear takes names into n's known that have proved themselves to n, or that a goodbye tells of.
func (m *member) hear(names nodes) {
	m.known |= names &^ m.tombstones
	m.doubted &^= names
	m.forgotten &^= names
}

// learn takes names into n's known that have pinged or asked n, or that a goodbye tells of. A tombstone is final.
func (m *machine) learn(s *State, n node, names nodes) {
	q := &s.members[n]
	if !m.Rules.ForgottenLearnedAgain {
		names &^= q.forgotten
	}
	q.hear(names)
}

// told takes in names that a request or a response tells n of. They are no proof: where n has quorum without them, they
// do not count among its witnesses, and under DoubtedAreAsked must answer its rounds.
func (m *machine) told(s *State, n node, names nodes) {
	q := &s.members[n]
	if !m.Rules.ForgottenLearnedAgain {
		names &^= q.forgotten
	}
	if q.p.on() || !s.hasQuorum(n) { // with panels a name too many is only asked
		q.hear(names)
		return
	}
	names &^= q.known | q.tombstones
	q.doubted |= names
	q.forgotten &^= names
}

// asked are the nodes that n's rounds must hear.
func (m *machine) asked(s *State, n node) nodes {
	if !m.Rules.DoubtedAreAsked {
		return s.names(n)
	}
	return s.names(n) | s.members[n].doubted
}

// answerPing makes the witness's response fresh quorum at pinger.
func (m *machine) answerPing(s *State, witness, pinger node) {
	s.members[pinger].fresh.add(witness)
	s.members[pinger].p.early.remove(witness)
	if m.Rules.PingAddsToRoster {
		m.learn(s, witness, only(pinger))
	}
}

// mayAnswerPing tells whether witness would answer pinger. A node pings only nodes that it knows.
func (m *machine) mayAnswerPing(s *State, witness, pinger node) bool {
	w, p := &s.members[witness], &s.members[pinger]
	if w.life != up || p.life != up || !s.linked(witness, pinger) || !s.pings(pinger, witness) {
		return false
	}
	if p.p.on() && m.Rules.NewerPanelRefuses && w.p.refuses(&p.p) {
		return false
	}
	if w.forgotten.has(pinger) && m.Rules.PingAddsToRoster && !m.Rules.ForgottenLearnedAgain {
		return false
	}
	return !w.silent.has(pinger) || !m.Rules.SilentAfterNoPing
}

// mayAccuse tells whether witness may say "no ping" of n: half a second without a ping is longer than a response stays
// fresh, so n's quorum from this witness has lapsed before.
func (m *machine) mayAccuse(s *State, witness, n node) bool {
	w, o := &s.members[witness], &s.members[n]
	switch {
	case w.life != up || o.life == outside || w.silent.has(n) || w.tombstones.has(n):
		return false
	case o.alive() && (o.fresh | o.p.kept).has(witness):
		return false
	}
	return (w.known | w.doubted).has(n) || m.Rules.WitnessSpeaksOfUnknown
}

// bury records the tombstone of a node that has left, and the nodes that it knew.
func (m *machine) bury(s *State, n, gone node) {
	if m.Rules.GoodbyeNamesRoster && !s.members[n].p.on() {
		m.learn(s, n, s.members[gone].known)
	}
	if s.members[gone].life == closed {
		s.missed.add(gone) // it took with it what it had not replicated
	}
	s.members[n].bury(gone)
}

func (m *member) bury(gone node) {
	m.tombstones.add(gone)
	m.known.remove(gone)
	m.doubted.remove(gone)
	m.forgotten.remove(gone)
	m.fresh.remove(gone)
	m.silent.remove(gone)
	m.p.early.remove(gone)
}

// lapse applies what missing quorum does, at the instant it is missing.
func (m *machine) lapse(s *State, n node) {
	q := &s.members[n]
	if s.hasQuorum(n) {
		return
	}
	if m.Rules.LapsedIsNotHolding {
		q.holding = false
	} else if q.holding {
		q.lapsed = true
	}
	if m.Rules.TransferVoidOnLapse {
		q.transfer = transfer{}
	}
	if m.Rules.AcquireNeedsQuorum {
		q.round = round{}
	}
}
