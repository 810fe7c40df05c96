package model

// rounds lists what nodes may do about acquiring, about leaving, and about copies.
func (x *explorer) rounds() {
	for n := range node(x.Nodes) {
		q := &x.s.members[n]
		if q.life != up {
			continue
		}
		if q.round.running() {
			x.round(n)
		}
		if x.mayBegin(x.s, n) {
			x.do(beginsRound, n, n, func(t *State) { x.begin(t, n) })
		}
		if x.mayLeave(x.s, n) {
			x.do(leavesForGood, n, n, func(t *State) { x.leave(t, n) })
		}
		x.settling(n)
	}
}

func (x *explorer) round(n node) {
	q := &x.s.members[n]
	if x.mustRestart(x.s, n) {
		x.do(restartsRound, n, n, func(t *State) {
			t.members[n].round = round{}
			t.members[n].refused = t.members[n].holding
		})
	}
	if x.mayStart(x.s, n) {
		x.judge(Step{action: startsHolding, a: n, b: n}, func(t *State) error { return x.start(t, n) })
	}
	if x.owners.owner(q.ring) != n || q.leaving {
		x.do(stopsAcquiring, n, n, func(t *State) { t.members[n].round = round{} })
	}
	if x.s.inFlight() >= x.Messages {
		return
	}
	for o := range node(x.Nodes) {
		wanted := x.unanswered(x.s, n).has(o) && !q.tombstones.has(o) && x.s.members[o].life != outside
		if wanted && !x.s.underway(ask, n, o) {
			x.do(asksMember, n, o, func(t *State) { t.send(x.request(t, n, o)) })
		}
	}
}

// holders lists what holders may do.
func (x *explorer) holders() {
	for n := range node(x.Nodes) {
		q := &x.s.members[n]
		if q.life != up || !q.holding {
			continue
		}
		if !q.lapsed && x.s.inFlight() < x.Messages {
			x.replication(n)
		}
		if !x.calm && int(x.s.taken) < x.Takes && x.s.decidesInFull(n) {
			x.do(decidesTake, n, n, func(t *State) {
				t.members[n].copy.takes |= 1 << t.taken
				t.taken++
			})
		}
	}
}

func (x *explorer) replication(n node) {
	q, standby := &x.s.members[n], x.currentStandby(x.s, n)
	putOff := q.refused && !(q.leaving && x.Rules.RefusedLeaverReplicates)
	again := x.Rules.UnnamedHolderRepeats && standby != nobody && x.owners.owner(q.ring) != n
	if (again || !x.standbyHasEverything(x.s, n)) && !putOff && !x.s.underway(replicate, n, standby) {
		x.do(sendsReplica, n, standby, func(t *State) { t.send(message{kind: replicate, from: n, to: standby, copy: q.copy}) })
	}
}

// settling lists what n may do about a copy that it does not hold by.
func (x *explorer) settling(n node) {
	q := &x.s.members[n]
	if !x.Rules.SettleByAsking && x.needless(q, n) {
		x.do(dropsCopy, n, n, func(t *State) { t.members[n].drop() })
	}
	if to, ok := x.asksToSettle(x.s, n); ok && x.s.inFlight() < x.Messages {
		x.do(asksToSettle, n, to, func(t *State) { t.send(message{kind: settle, from: n, to: to, copy: q.copy}) })
	}
}
