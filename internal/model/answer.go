package model

// hearRequest answers a request immediately, in one of three ways: the copy, "not holding" with a promise, or "behind".
func (m *machine) hearRequest(s *State, q message) {
	n := &s.members[q.to]
	if m.Rules.NamesInRequests {
		if s.linked(q.from, q.to) {
			m.learn(s, q.to, only(q.from))
		} // else it came through another member, and is that member's word
		m.told(s, q.to, only(q.from)|q.known)
	}
	answer := message{from: q.to, to: q.from, round: q.round, known: m.spokenKnown(s, q.to), place: q.place}
	later := q.round > n.promise.ballot || q.round == n.promise.ballot && n.promise.to == q.from
	switch {
	case n.holding:
		if m.Rules.GivingStopsHolding {
			n.holding, n.lapsed = false, false
		}
		n.round = round{}
		n.transfer = transfer{to: q.from, round: q.round}
		n.promise.raise(promise{q.round, q.from})
		m.give(n, &answer)
	case m.givenTo(n, q):
		m.give(n, &answer)
	case later || !m.Rules.Promise:
		n.promise.raise(promise{q.round, q.from})
		n.round = round{}
		answer.kind, answer.copy, answer.gaveTo = notHolding, n.copy, n.receiver()
		if m.Rules.TransferVoidOnResponse {
			n.transfer = transfer{}
		}
	default:
		answer.kind, answer.promise, answer.gaveTo = behind, n.promise, n.receiver()
	}
	if !m.Rules.ResponseNamesReceiver {
		answer.gaveTo = 0
	}
	s.send(answer)
}

// TransferredTo tells whether the request comes from the one the copy was given to, so that the copy is sent again.
func (m *machine) givenTo(n *member, q message) bool {
	if n.transfer == (transfer{}) || n.transfer.spent || n.transfer.to != q.from {
		return false
	}
	return n.transfer.round == q.round || !m.Rules.TransferForOneRound
}

// give writes n's copy into the response, one transfer higher.
func (m *machine) give(n *member, answer *message) {
	answer.kind, answer.copy = theCopy, n.copy
	answer.copy.holder = answer.to
	if m.Rules.TransferRaisesTerm {
		answer.copy.transfers++
	}
}

// receiver returns the node that the copy was given to, or none.
func (n *member) receiver() nodes {
	if n.transfer == (transfer{}) {
		return 0
	}
	return only(n.transfer.to)
}

// hearAnswer takes a response into the round it belongs to.
func (m *machine) hearAnswer(s *State, a message) error {
	n := &s.members[a.to]
	m.learn(s, a.to, only(a.from))
	m.told(s, a.to, a.known)
	if !n.round.running() || a.round != n.round.ballot && m.Rules.ResponsesOfThisRoundOnly {
		return nil
	}
	n.round.must |= a.gaveTo.without(a.to)
	switch a.kind {
	case notHolding:
		if !n.holding {
			v, whole := m.assemble(&n.round, a)
			if !whole {
				return nil
			}
			a.copy = v
		}
		n.round.answered.add(a.from)
		if n.round.best.less(a.copy) {
			n.round.best = a.copy
		}
	case theCopy:
		if !n.holding {
			if v, whole := m.assemble(&n.round, a); whole {
				return s.hold(a.to, v, 0)
			}
			return nil
		}
		// It acquires again, and the one that has just given up had no right to hold.
		if m.Rules.TransferTellsNotHolding {
			n.round.answered.add(a.from)
		}
	case behind:
		n.promise.raise(a.promise)
		n.round = round{}
	}
	return nil
}
