package model

// healing lists what ends faults.
func (x *explorer) healing() {
	for n := range node(x.Nodes) {
		if x.s.members[n].life == paused {
			x.do(resume, n, n, func(t *State) { t.members[n].life = up })
		}
		for o := n + 1; o < node(x.Nodes); o++ {
			if !x.s.linked(n, o) {
				x.do(healLink, n, o, func(t *State) { t.heal(n, o) })
			}
		}
	}
}

// membership lists what gossip may tell a node, in any order: which nodes are in its ring, which are known, which have left.
func (x *explorer) membership() {
	for n := range node(x.Nodes) {
		if x.s.members[n].life != up {
			continue
		}
		for o := range node(x.Nodes) {
			x.ringChange(n, o)
			if n != o {
				x.knownChange(n, o)
			}
		}
	}
}

func (x *explorer) ringChange(n, o node) {
	q, p := &x.s.members[n], &x.s.members[o]
	linked := n == o || x.s.linked(n, o)
	departing := p.life == crashed || p.life == left || p.life == closed || p.leaving
	mayHear := !p.leaving || p.life != up || linked // that it leaves
	present := p.life == up || p.life == paused && !x.calm
	switch {
	case q.ring.has(o) && departing && mayHear:
		x.do(ringDrops, n, o, func(t *State) { t.members[n].ring.remove(o) })
	case !q.ring.has(o) && present && !p.leaving && linked && !x.Silence:
		x.do(ringAdds, n, o, func(t *State) {
			t.members[n].ring.add(o)
			t.members[n].hear(only(o))
		})
	case q.ring.has(o) && n != o && !x.calm && (p.life == paused || !linked):
		x.do(ringWronglyDrops, n, o, func(t *State) { t.members[n].ring.remove(o) })
	}
}

func (x *explorer) knownChange(n, o node) {
	q, p := &x.s.members[n], &x.s.members[o]
	if (p.life == left || p.life == closed) && !q.tombstones.has(o) && x.mayBury(x.s, o) {
		x.do(seesTombstone, n, o, func(t *State) { x.bury(t, n, o) })
	}
	if p.life == up && !q.known.has(o) && x.s.linked(n, o) && !x.Silence {
		x.do(gossipKnows, n, o, func(t *State) { t.members[n].hear(only(o)) })
	}
}

// pings lists how quorum comes and goes.
func (x *explorer) pings() {
	x.pairs(func(witness, n node) {
		w, q := &x.s.members[witness], &x.s.members[n]
		apart := w.life != up || q.life != up || !x.s.linked(witness, n)
		fresh := q.alive() && q.fresh.has(witness)
		if q.p.on() && !x.mayAnswerPing(x.s, witness, n) {
			apart = true // refused
		}
		switch {
		case fresh && apart:
			x.do(evidenceLapses, witness, n, func(t *State) {
				t.members[n].fresh.remove(witness)
				t.members[n].p.early.remove(witness)
			})
		case fresh && !x.calm && x.s.events.Lapses > 0 && x.s.events.Total > 0:
			x.do(eventLapse, witness, n, func(t *State) {
				t.members[n].fresh.remove(witness)
				t.members[n].p.early.remove(witness)
				t.events.Lapses--
				t.events.Total--
			})
		case (!fresh || q.p.early.has(witness)) && x.mayAnswerPing(x.s, witness, n):
			x.do(answersPing, witness, n, func(t *State) { x.answerPing(t, witness, n) })
		}
	})
}

// accusations lists how witnesses come to say "no ping" and how that ends.
func (x *explorer) accusations() {
	x.pairs(func(witness, n node) {
		w, q := &x.s.members[witness], &x.s.members[n]
		inTouch := q.life == up && x.s.linked(witness, n)
		if w.life == up && w.silent.has(n) && (!x.calm || inTouch) {
			x.do(stopsAccusing, witness, n, func(t *State) { t.members[witness].silent.remove(n) })
		}
		if x.mayAccuse(x.s, witness, n) && (!x.calm || !inTouch) {
			x.do(accuses, witness, n, func(t *State) { t.members[witness].silent.add(n) })
		}
	})
}

// delivery lists what may become of each message. Losing a message is only worth trying when it makes room or when it
// can never arrive: a message that stays in flight forever is lost as well.
func (x *explorer) delivery() {
	full := x.s.inFlight() >= x.Messages
	for i, m := range x.s.messages {
		if m.kind == noMessage {
			break
		}
		life := x.s.members[m.to].life
		if life == up && x.s.reaches(m.from, m.to) {
			x.judge(Step{deliverMessage, m.from, m.to, m.kind}, func(t *State) error {
				t.messages[i] = message{}
				return x.receive(t, m)
			})
		}
		if life == crashed || life == left || life == closed || !x.calm && full {
			x.judge(Step{loseMessage, m.from, m.to, m.kind}, func(t *State) error {
				t.messages[i] = message{}
				return nil
			})
		}
	}
}

// receive is a node's handling of a message.
func (m *machine) receive(s *State, msg message) error {
	switch msg.kind {
	case ask:
		m.hearRequest(s, msg)
	case notHolding, theCopy, behind:
		return m.hearAnswer(s, msg)
	case replicate:
		m.hearReplica(s, msg)
	case replicated:
		m.hearAck(s, msg)
	case refuse, held:
		m.hearRefusal(s, msg)
	case settle:
		m.hearSettle(s, msg)
	case settled:
		m.hearSettled(s, msg)
	}
	return nil
}

// events lists the faults and the changes of membership that may still happen.
func (x *explorer) events() {
	for n := range node(x.Nodes) {
		q, left := &x.s.members[n], &x.s.events
		if q.life == outside && left.Joins > 0 {
			x.joins(n)
		}
		if q.life != up {
			continue
		}
		if left.Crashes > 0 {
			x.event(eventCrash, n, n, func(t *State) { t.members[n].life = crashed; t.events.Crashes-- })
		}
		if left.Closes > 0 {
			x.event(eventClose, n, n, func(t *State) { t.members[n].life = closed; t.events.Closes-- })
		}
		if left.Pauses > 0 {
			x.event(eventPause, n, n, func(t *State) { t.members[n].life = paused; t.events.Pauses-- })
		}
		if left.Leaves > 0 && !q.leaving {
			x.event(eventLeave, n, n, func(t *State) { t.members[n].leaving = true; t.events.Leaves-- })
		}
		if left.Cuts > 0 {
			x.cuts(n)
		}
		if left.Forgets > 0 {
			x.forgetting(n)
		}
	}
}

func (x *explorer) event(a action, first, second node, change func(*State)) {
	x.do(a, first, second, func(t *State) {
		change(t)
		t.events.Total--
	})
}

// joins lists the nodes through which n may join. A joiner learns what its seed knows, and the highest ballot it has heard.
func (x *explorer) joins(n node) {
	for seed := range node(x.Nodes) {
		if p := &x.s.members[seed]; p.life != up || p.leaving {
			continue
		}
		x.event(eventJoin, n, seed, func(t *State) {
			q, p := &t.members[n], &t.members[seed]
			p.hear(only(n))
			p.ring.add(n)
			q.life, q.known, q.ring, q.tombstones, q.promise = up, p.known|p.doubted, p.ring, p.tombstones, p.promise
			if x.Bare {
				q.promise, q.heard = promise{}, max(p.promise.ballot, p.heard)
			}
			q.p.join(&p.p)
			t.events.Joins--
		})
	}
}

// forgetting lists the nodes that n may forget.
func (x *explorer) forgetting(n node) {
	for o := range node(x.Nodes) {
		if x.mayForget(x.s, n, o) {
			x.event(eventForget, n, o, func(t *State) { t.forget(n, o); t.events.Forgets-- })
		}
	}
}

// cuts lists the cuts of single links of n, and of all of them.
func (x *explorer) cuts(n node) {
	for o := n + 1; o < node(x.Nodes); o++ {
		if x.s.linked(n, o) && x.s.members[o].life == up {
			x.event(eventCut, n, o, func(t *State) { t.cut(n, o); t.events.Cuts-- })
		}
	}
	x.event(eventIsolate, n, n, func(t *State) {
		for o := range node(x.Nodes) {
			if o != n {
				t.cut(n, o)
			}
		}
		t.events.Cuts--
	})
}
