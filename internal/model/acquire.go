package model

// mayBegin tells whether n would begin a round: the ring names it and it does not hold, or its replica was refused.
func (m *machine) mayBegin(s *State, n node) bool {
	q := &s.members[n]
	switch {
	case q.round.running() || q.leaving && m.Rules.LeavingAcquiresNothing:
		return false
	case m.Rules.AcquireNeedsQuorum && !s.hasQuorum(n):
		return false
	case q.holding && !q.lapsed:
		return q.refused
	}
	return m.owners.owner(q.ring) == n
}

// begin starts a round above all ballots heard and fixes which nodes are gone.
func (m *machine) begin(s *State, n node) {
	q := &s.members[n]
	if q.lapsed {
		q.holding, q.lapsed = false, false
	}
	q.refused = false
	q.round = round{
		ballot: max(q.heard, q.promise.ballot, q.copy.ballot, q.transfer.round) + 1,
		must:   m.asked(s, n),
		gone:   s.gone(n),
	}
	q.promise.raise(promise{q.round.ballot, n})
	if q.transfer != (transfer{}) { // its own transfer is void once it bids above it
		q.round.must.add(q.transfer.to)
		q.transfer = transfer{}
	}
}

// gone returns the nodes that are lost to n, tombstoned or forgotten.
func (s *State) gone(n node) nodes {
	gone := s.members[n].departed()
	for h := range node(maxNodes) {
		if h != n && s.lost(n, h) {
			gone.add(h)
		}
	}
	return gone
}

// unanswered returns the nodes that must still answer n's round, whether gone or not.
func (m *machine) unanswered(s *State, n node) nodes {
	r := &s.members[n].round
	return (r.must | m.asked(s, n)) &^ r.answered &^ only(n)
}

// mustRestart tells whether the round's verdicts no longer hold: a node that has not answered is gone since it began, or one
// that was lost no longer is.
func (m *machine) mustRestart(s *State, n node) bool {
	if !m.Rules.GoneFixedForRound {
		return false
	}
	q := &s.members[n]
	for h := range node(maxNodes) {
		if h == n || q.round.answered.has(h) {
			continue
		}
		lost, buried := s.lost(n, h), q.departed().has(h)
		if q.round.gone.has(h) {
			if m.Rules.StillLostAtStart && !lost && !buried {
				return true
			}
			continue
		}
		if lost || m.Rules.TombstoneFixedForRound && buried && q.round.must.has(h) {
			return true
		}
	}
	return false
}

// mayStart tells whether n's round is complete: every node has said "not holding", or is gone.
func (m *machine) mayStart(s *State, n node) bool {
	q := &s.members[n]
	if !q.round.running() {
		return false
	}
	for h := range node(maxNodes) {
		if m.unanswered(s, n).has(h) && !m.countsAsGone(s, n, h) {
			return false
		}
	}
	return true
}

// countsAsGone tells whether n's round may end without a response from h.
func (m *machine) countsAsGone(s *State, n, h node) bool {
	q := &s.members[n]
	lost, buried := s.lost(n, h), q.departed().has(h)
	switch {
	case !m.Rules.GoneFixedForRound:
		return lost || buried
	case buried && !m.Rules.TombstoneFixedForRound:
		return true
	case !q.round.gone.has(h):
		return false
	}
	return lost || buried || !m.Rules.StillLostAtStart
}

// start ends n's complete round. A node that held all the while keeps what it has and only raises its term; any other
// starts on the highest copy seen.
func (m *machine) start(s *State, n node) error {
	q := &s.members[n]
	elected := q.round.ballot
	if q.holding {
		q.round, q.refused = round{}, false
		q.copy = version{ballot: elected, holder: n, takes: q.copy.takes}
		q.ackedBy, q.acked = 0, 0
		return nil
	}
	best := q.copy
	if best.less(q.round.best) {
		best = q.round.best
	}
	missing := m.unanswered(s, n) | s.missed&^q.round.answered&^only(n)
	return s.hold(n, version{ballot: elected, holder: n, takes: best.takes}, missing)
}

// hold makes n the holder of a copy. The nodes that did not answer decide which losses are excused.
func (s *State) hold(n node, v version, missing nodes) error {
	q := &s.members[n]
	q.round, q.transfer = round{}, transfer{}
	q.holding, q.lapsed, q.refused, q.owes = true, false, false, true
	q.copy = v
	q.promise.raise(promise{v.ballot, n})
	q.ackedBy, q.acked = 0, 0
	return s.judgeStart(v.takes, missing)
}

// request is what n asks in its round.
func (m *machine) request(s *State, n, of node) message {
	return message{kind: ask, from: n, to: of, round: s.members[n].round.ballot, known: m.spokenKnown(s, n), place: m.place(&s.members[n].round, of)}
}

// spokenKnown is the known set a request or a response of n carries.
func (m *machine) spokenKnown(s *State, n node) nodes {
	if !m.Rules.NamesInRequests {
		return 0
	}
	return s.names(n)
}
