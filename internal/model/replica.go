package model

// currentStandby returns the node that keeps n's replica by n's ring: the owner in the ring without n. A holder the ring does not
// name replicates to the owner itself.
func (m *machine) currentStandby(s *State, n node) node {
	return m.owners.standby(s.members[n].ring, n)
}

// standbyHasEverything tells whether n's standby, if there is one, has acknowledged all n has decided.
func (m *machine) standbyHasEverything(s *State, n node) bool {
	q, standby := &s.members[n], m.currentStandby(s, n)
	return standby == nobody || q.ackedBy == only(standby) && q.acked == q.copy.takes
}

// hearReplica keeps a replica, or refuses it.
func (m *machine) hearReplica(s *State, r message) {
	n := &s.members[r.to]
	answer := message{kind: replicated, from: r.to, to: r.from, copy: r.copy}
	if m.refuses(n, r) {
		answer.kind = refuse
		if n.holding {
			answer.kind = held
		}
		answer.promise = promise{max(n.promise.ballot, n.copy.ballot), n.promise.to}
		s.send(answer)
		return
	}
	if m.Rules.ReplicaPromise {
		n.promise.raise(promise{r.copy.ballot, r.from})
		if r.copy.ballot >= n.round.ballot {
			n.round = round{}
		}
	}
	n.copy, n.transfer, n.renewed = r.copy, transfer{}, true
	if m.Rules.LeaverKeepsReplicas {
		n.owes = true
	}
	s.send(answer)
}

func (m *machine) refuses(n *member, r message) bool {
	promisedAway := r.copy.ballot < n.promise.ballot && n.promise.to != r.from
	return n.holding ||
		m.Rules.ReplicaPromise && promisedAway ||
		m.Rules.StaleReplicaRefused && r.copy.less(n.copy)
}

// hearAck counts an acknowledgement. What it covers is safe from then on, so it counts only while quorum is fresh;
// under LapsedIsNotHolding that is as long as the node holds.
func (m *machine) hearAck(s *State, a message) {
	n := &s.members[a.to]
	if !n.holding || !n.sameTerm(a.copy) {
		return
	}
	n.ackedBy, n.acked = only(a.from), a.copy.takes
	if s.decidesInFull(a.to) {
		s.acked |= a.copy.takes
	}
}

// hearRefusal makes a holder acquire anew, above what the other has promised, or yield to another holder.
func (m *machine) hearRefusal(s *State, r message) {
	n := &s.members[r.to]
	if !n.holding || !n.sameTerm(r.copy) {
		return
	}
	if r.kind == held && m.Rules.HolderYields && m.owners.owner(n.ring) == r.from {
		n.holding, n.round = false, round{}
		return
	}
	n.promise.raise(r.promise)
	n.refused = m.Rules.RefusedHolderReacquires
}

func (n *member) sameTerm(v version) bool {
	return n.copy.ballot == v.ballot && n.copy.transfers == v.transfers && n.copy.holder == v.holder
}
