package peerlimit

import (
	"context"
	"math/rand/v2"
	"time"
)

// Asking for partitions: one goroutine for each node that is asked in a round puts the question, takes in the answers, and
// begins to hold what they allow. What is to be acquired, the keeper decides.

const (
	// firstPatience is how long the node that probably holds is asked alone: some round trips.
	firstPatience = 50 * time.Millisecond

	// askTimeout bounds one question. Its answer can be large.
	askTimeout = 500 * time.Millisecond

	// askRetryMin and askRetryMax bound the pause before a peer that did not answer is asked again.
	askRetryMin = 5 * time.Millisecond
	askRetryMax = 100 * time.Millisecond
)

// askFirst asks the node that probably holds, if there is one, and after a moment all of peers.
func (k *keeper) askFirst(r *round, peer string, peers []string, parts []uint16) {
	if peer != "" {
		ctx, cancel := context.WithTimeout(r.ctx, firstPatience)
		k.askUntilAnswered(ctx, r, peer, parts)
		cancel()
	}
	if parts = k.open(r, parts); len(parts) == 0 {
		return
	}
	for _, peer := range peers {
		k.asking.Go(func() { k.askUntilAnswered(r.ctx, r, peer, parts) })
	}
}

// open returns those of parts that are still to be acquired in the round.
func (k *keeper) open(r *round, parts []uint16) []uint16 {
	var open []uint16
	for _, part := range parts {
		p := &k.node.table.partitions[part]
		p.mu.Lock()
		if p.holding.attempt.of(r) {
			open = append(open, part)
		}
		p.mu.Unlock()
	}
	return open
}

// askUntilAnswered asks one peer again and again until it has answered for all of parts that are still open.
func (k *keeper) askUntilAnswered(ctx context.Context, r *round, peer string, parts []uint16) {
	pause := askRetryMin
	for try := 0; ctx.Err() == nil; try++ {
		q := k.questionTo(r, peer, parts)
		if len(q.parts) == 0 {
			return
		}
		ans, err := k.node.askQuestion(ctx, peer, q, try)
		if err == nil {
			pause = askRetryMin
			k.hear(r, peer, ans)
			continue
		}
		timer := time.NewTimer(pause/2 + rand.N(pause/2)) // #nosec G404 -- only spreads rounds
		select {
		case <-ctx.Done():
		case <-timer.C:
		}
		timer.Stop()
		pause = min(2*pause, askRetryMax)
	}
}

// questionTo returns the question that is still to be put to a peer. It says whom this node knows [KnownInQuestions].
func (k *keeper) questionTo(r *round, peer string, parts []uint16) *question {
	q := &question{round: r.election, known: k.node.membership.everyone().names}
	index := r.index(peer)
	for _, part := range parts {
		p := &k.node.table.partitions[part]
		p.mu.Lock()
		h := &p.holding
		if a := h.attempt; a.of(r) && !a.hasAnswered(index) {
			asked := askedPart{part: part, have: h.copy}
			if a.staged.from == peer {
				asked.from = a.staged.next
			}
			q.parts = append(q.parts, asked)
		}
		p.mu.Unlock()
	}
	return q
}

// hear takes in a peer's answers to a round.
func (k *keeper) hear(r *round, peer string, ans *questionAnswer) {
	n := k.node
	n.reach.hear(ans.heard)
	n.learn(ans.known...)
	var gained gains
	for i := range ans.parts {
		a := &ans.parts[i]
		p := &n.table.partitions[a.part]
		p.mu.Lock()
		if p.holding.attempt.of(r) {
			k.hearPart(p, r, peer, a, &gained)
			n.table.noteHolding(a.part, p)
		}
		p.mu.Unlock()
	}
	k.report(&gained)
}

// hearPart takes in an answer for one partition. The caller holds p.mu, and p's attempt is one of the round.
func (k *keeper) hearPart(p *partition, r *round, peer string, a *partAnswer, gained *gains) {
	n, h, now := k.node, &p.holding, k.node.now()
	if a.givenTo != "" && a.givenTo != n.identity {
		r.index(a.givenTo) // it must be heard, too [AnswerNamesReceiver]
		h.attempt.askee = a.givenTo
	}
	switch a.kind {
	case answerBehind:
		n.reach.hear(a.promised.number)
		h.promise(a.promised)
		h.abandon()
		k.postpone(a.part)
		return
	case answerGiven:
		if h.holds {
			break // it acquires anew: who has just given up had no right to hold, and does not any more [GiftTellsNotHolding]
		}
		if !h.attempt.stage(peer, a) {
			return
		}
		n.table.replace(a.part, p, h.attempt.staged.content, n.rules, now)
		h.copy = a.version
		if !n.reach.isFull(now) {
			h.lapse() // the copy is the highest there is, and stays a replica
			return
		}
		reports := h.attempt.reports
		h.hold(a.version)
		k.previous[a.part].Store(nil) // it has it no more; takes are not to be passed on to it after this node has given, too
		n.chargeAll(a.part, p, reports, now)
		n.table.markChanged(a.part)
		gained.given++
		return
	}
	h.attempt.keep(a.reports)
	if !h.holds && h.copy.below(a.version) {
		if !h.attempt.stage(peer, a) {
			return
		}
		n.table.replace(a.part, p, h.attempt.staged.content, n.rules, now)
		h.copy = a.version
		h.attempt.staged = staged{}
	}
	h.attempt.setAnswered(r.index(peer))
	if h.attempt.askee == peer {
		h.attempt.askee = ""
	}
	held, had := h.holds, h.copy != version{}
	if k.tryStart(a.part, p, r) {
		gained.add(held, had)
	}
}

// tryStart begins to hold when everyone has said "not holding" who is not gone, and whoever was counted as gone when the
// round began still is [StillLostAtStart]. It starts on the highest copy that was in the answers, which hearPart has put
// in place, or else on an empty one. The caller holds p.mu, and p's attempt is one of the round.
func (k *keeper) tryStart(part uint16, p *partition, r *round) bool {
	n, h := k.node, &p.holding
	now := n.now() // under the lock: a sweep after a lapse must not have been past since
	if !n.reach.isFull(now) {
		h.lapse()
		return false
	}
	if !r.complete(h.attempt, n.membership.everyone(), func(name string) bool { return n.reach.lost(name, now) }) {
		return false
	}
	v := version{election: r.election, holder: n.identity, seq: h.copy.seq}
	reports := h.attempt.reports
	if h.holds {
		h.renew(v)
	} else {
		h.hold(v)
		k.previous[part].Store(nil)
	}
	n.chargeAll(part, p, reports, now)
	n.table.markChanged(part)
	return true
}
