package model

// witnesses are all of known: the model has too few nodes for a choice among them.
func (s *State) witnesses(n node) nodes { return s.members[n].known &^ s.members[n].tombstones }

// evidence tells whether fresh answers, with the node itself, make more than half of its witnesses.
func (s *State) evidence(n node) bool {
	return (s.members[n].fresh | only(n)).majority(s.witnesses(n))
}

// decidesInFull tells whether a take at n would be decided in full at this instant. A paused node counts: a take may
// already be past the check.
func (s *State) decidesInFull(n node) bool {
	m := &s.members[n]
	return m.alive() && m.holding && !m.lapsed && s.evidence(n)
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

// told takes in names that a question or an answer tells n of. They are no proof: where n has quorum without them, they
// do not count among its witnesses, and under DoubtedAreAsked must answer its rounds.
func (m *machine) told(s *State, n node, names nodes) {
	q := &s.members[n]
	if !m.Rules.ForgottenLearnedAgain {
		names &^= q.forgotten
	}
	if !s.evidence(n) {
		q.hear(names)
		return
	}
	names &^= q.known | q.tombstones
	q.doubted |= names
	q.forgotten &^= names
}

// asked are whom n's rounds must hear.
func (m *machine) asked(s *State, n node) nodes {
	if !m.Rules.DoubtedAreAsked {
		return s.witnesses(n)
	}
	return s.witnesses(n) | s.members[n].doubted
}

// answerPing makes the witness's answer fresh quorum at pinger.
func (m *machine) answerPing(s *State, witness, pinger node) {
	s.members[pinger].fresh.add(witness)
	if m.Rules.PingAddsToRoster {
		m.learn(s, witness, only(pinger))
	}
}

// mayAnswerPing tells whether witness would answer pinger. A node pings only whom it knows.
func (m *machine) mayAnswerPing(s *State, witness, pinger node) bool {
	w, p := &s.members[witness], &s.members[pinger]
	if w.life != up || p.life != up || !s.linked(witness, pinger) || !p.known.has(witness) {
		return false
	}
	if w.forgotten.has(pinger) && m.Rules.PingAddsToRoster && !m.Rules.ForgottenLearnedAgain {
		return false
	}
	return !w.silent.has(pinger) || !m.Rules.SilentAfterNoPing
}

// mayAccuse tells whether witness may say "no ping" of n: half a second without a ping is longer than an answer stays
// fresh, so n's quorum from this witness has lapsed before.
func (m *machine) mayAccuse(s *State, witness, n node) bool {
	w, o := &s.members[witness], &s.members[n]
	switch {
	case w.life != up || o.life == outside || w.silent.has(n) || w.tombstones.has(n):
		return false
	case o.alive() && o.fresh.has(witness):
		return false
	}
	return (w.known | w.doubted).has(n) || m.Rules.WitnessSpeaksOfUnknown
}

// bury records the tombstone of a node that has left, and whom that node knew.
func (m *machine) bury(s *State, n, gone node) {
	if m.Rules.GoodbyeNamesRoster {
		m.learn(s, n, s.members[gone].known)
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
}

// lapse applies what missing quorum does, at the instant it is missing.
func (m *machine) lapse(s *State, n node) {
	q := &s.members[n]
	if s.evidence(n) {
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
