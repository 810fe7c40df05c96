package model

// needless tells whether n keeps a copy for no reason: its ring makes it neither the owner nor the standby.
func (m *machine) needless(q *member, n node) bool {
	owner := m.owners.owner(q.ring)
	return m.Tidy && q.copy.exists() && !q.holding && !q.round.running() && owner != n && m.owners.standby(q.ring, owner) != n
}

// asksToSettle tells whether n would ask about the copy it keeps, because it is leaving or has no use for it, and which one it asks: the
// owner that its ring names.
func (m *machine) asksToSettle(s *State, n node) (to node, ok bool) {
	q := &s.members[n]
	if q.holding || !q.copy.exists() || !(q.leaving && q.owes || m.needless(q, n)) {
		return nobody, false
	}
	to = m.owners.owner(q.ring)
	return to, to != nobody && to != n && !s.asksAboutCopy(n)
}

// asksAboutCopy tells whether a request of n about its copy, or the response, is on its way. There is one at a time.
func (s *State) asksAboutCopy(n node) bool {
	for i := range s.messages {
		if q := &s.messages[i]; q.kind == settle && q.from == n || q.kind == settled && q.to == n {
			return true
		}
	}
	return false
}

// hearSettle answers a node that asks about its copy, if the standby, which must be another node, has all that is in it. A copy
// newer than its own makes the holder acquire again, and so get that one.
func (m *machine) hearSettle(s *State, q message) {
	n := &s.members[q.to]
	if !n.holding || n.lapsed {
		return
	}
	if m.Rules.SettleNamesVersion && n.copy.less(q.copy) {
		if m.Rules.NewerCopyOffered {
			n.promise.raise(promise{q.copy.ballot, q.copy.holder})
			n.refused = true
		}
		return
	}
	if standby := m.currentStandby(s, q.to); standby != q.from && m.standbyHasAllOf(n, standby, q.copy) {
		s.send(message{kind: settled, from: q.to, to: q.from, copy: q.copy})
	}
}

// standbyHasAllOf tells whether the standby, if there is one, has acknowledged what is in a copy. All that is in one of a lower
// term was in the holder's from the beginning, so any acknowledgement will do for that.
func (m *machine) standbyHasAllOf(holder *member, standby node, v version) bool {
	switch {
	case standby == nobody:
		return true
	case holder.ackedBy != only(standby):
		return false
	case m.Rules.SettleNamesVersion && !holder.sameTerm(v):
		return true
	case !m.Rules.SettleNamesVersion:
		return holder.acked == holder.copy.takes
	}
	return v.takes&^holder.acked == 0
}

// hearSettled drops the copy that was asked about, if it is still the one kept, and no node has sent it again since.
func (m *machine) hearSettled(s *State, a message) {
	n := &s.members[a.to]
	if n.renewed && m.Rules.ReplicaVoidsSettling {
		return
	}
	if n.holding || n.round.running() || m.Rules.SettleNamesVersion && n.copy != a.copy {
		return
	}
	n.drop()
}

// drop forgets the copy. The node that it was given to is remembered, to be named in answers.
func (m *member) drop() {
	m.copy, m.owes = version{}, false
	if m.transfer != (transfer{}) {
		m.transfer = transfer{to: m.transfer.to, spent: true}
	}
}
