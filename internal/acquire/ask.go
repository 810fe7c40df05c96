package acquire

import (
	"context"
	"math/rand/v2"
	"time"

	"github.com/peerlimit/peerlimit/internal/holding"
	"github.com/peerlimit/peerlimit/internal/store"
	"github.com/peerlimit/peerlimit/internal/wire"
)

// Asking for partitions: one goroutine for each node that is asked in a round sends the request, takes in the responses, and
// begins to hold what they allow. What is to be acquired, the keeper decides.

const (
	// firstPatience is how long the node that probably holds is asked alone: some round trips.
	firstPatience = 50 * time.Millisecond

	// askTimeout bounds one request. Its response can be large.
	askTimeout = 500 * time.Millisecond

	// askRetryMin and askRetryMax bound the pause before a peer that did not answer is asked again.
	askRetryMin = 5 * time.Millisecond
	askRetryMax = 100 * time.Millisecond
)

// askFirst asks the node that probably holds, if there is one, and after a moment all of peers.
func (k *Keeper) askFirst(r *holding.Round, peer string, peers []string, parts []uint16) {
	if peer != "" {
		ctx, cancel := context.WithTimeout(r.Ctx, firstPatience)
		k.askUntilAnswered(ctx, r, peer, parts)
		cancel()
	}
	if parts = k.open(r, parts); len(parts) == 0 {
		return
	}
	for _, peer := range peers {
		k.asking.Go(func() { k.askUntilAnswered(r.Ctx, r, peer, parts) })
	}
}

// open returns those of parts that are still to be acquired in the round.
func (k *Keeper) open(r *holding.Round, parts []uint16) []uint16 {
	var open []uint16
	for _, part := range parts {
		p := k.table.Lock(part)
		if p.Holding.Attempt.Of(r) {
			open = append(open, part)
		}
		p.Unlock()
	}
	return open
}

// askUntilAnswered asks one peer again and again until it has answered for all of parts that are still open.
func (k *Keeper) askUntilAnswered(ctx context.Context, r *holding.Round, peer string, parts []uint16) {
	pause := askRetryMin
	for try := 0; ctx.Err() == nil; try++ {
		q := k.requestTo(r, peer, parts)
		if len(q.Parts) == 0 {
			return
		}
		ans, err := k.ask(ctx, peer, q, try)
		if err == nil && k.hear(r, peer, q, ans) {
			pause = askRetryMin
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

// requestTo returns the request that is still to be sent to a peer. It names the members that this node knows [NamesInRequests].
func (k *Keeper) requestTo(r *holding.Round, peer string, parts []uint16) *wire.AcquireRequest {
	q := &wire.AcquireRequest{Ballot: r.Ballot}
	q.Known, q.Lost = k.others.Told()
	index := r.Index(peer)
	for _, part := range parts {
		p := k.table.Lock(part)
		h := &p.Holding
		if a := h.Attempt; a.Of(r) && !a.HasAnswered(index) {
			q.Parts = append(q.Parts, wire.AskedPartition{Part: part, Have: h.Copy, From: a.Continue(index)})
		}
		p.Unlock()
	}
	return q
}

// hear takes in a peer's response to a request of a round, and reports whether there was one. They are about the first of the
// partitions asked for, in order.
func (k *Keeper) hear(r *holding.Round, peer string, q *wire.AcquireRequest, ans *wire.AcquireResponse) (answered bool) {
	k.reach.Hear(ans.Heard)
	k.others.Met(peer)
	k.others.MergeNames(peer, ans.Known, ans.Lost)
	var gained gains
	for i := range ans.Parts {
		a := &ans.Parts[i]
		if i >= len(q.Parts) || a.Part != q.Parts[i].Part {
			break // not what was asked for: from which place on it is, nobody can tell
		}
		if !k.reach.Hear(max(a.Promised.Number, a.Version.Ballot.Number)) {
			continue // one that nobody can have counted to is no answer: nothing is to be built on it, nor waited for
		}
		made := k.table.Build(a.Part, &a.Content, k.now())
		heard := false
		k.table.InSteps(a.Part, func(p *store.Partition) (more bool) {
			if !p.Holding.Attempt.Of(r) {
				return false
			}
			if !heard {
				heard, answered = true, true
				k.hearPart(p, r, peer, &q.Parts[i], a, made)
			}
			more = p.Holding.Attempt.Of(r) && k.takeOver(a.Part, p, r, &gained)
			return more
		})
	}
	k.report(&gained)
	return answered
}

// hearPart takes in an answer for one partition. The caller holds p.mu, and p's attempt is one of the round.
func (k *Keeper) hearPart(p *store.Partition, r *holding.Round, peer string, asked *wire.AskedPartition, a *wire.PartitionReply, made *store.Built) {
	h := &p.Holding
	if a.TransferredTo != "" && a.TransferredTo != k.self {
		r.Index(a.TransferredTo) // it must be heard, too [ResponseNamesReceiver]
		h.Attempt.LikelyHolder = a.TransferredTo
	}
	switch a.Kind {
	case wire.ReplyBehind:
		h.Promise(a.Promised)
		h.Abandon()
		k.Postpone(a.Part)
		return
	case wire.ReplyTransferred:
		if h.Holds {
			break // it acquires again: the node that has just given up had no right to hold, and does not any more [TransferTellsNotHolding]
		}
		if whole := p.StagePiece(r.Index(peer), asked.From, a, made); whole != nil {
			p.Adopt(whole, a.Version)
			h.Attempt.Transferred = a.Version
		}
		return
	}
	h.Attempt.KeepDebts(a.Debts)
	if !h.Holds {
		whole := p.StagePiece(r.Index(peer), asked.From, a, made)
		if whole == nil {
			return
		}
		if h.Copy.Below(a.Version) {
			p.Adopt(whole, a.Version)
			h.Attempt.DropOutdone(h.Copy)
		}
	}
	h.Attempt.SetAnswered(r.Index(peer))
	if h.Attempt.LikelyHolder == peer {
		h.Attempt.LikelyHolder = ""
	}
}

// takeOver begins to hold what was given, or what everyone has promised: the latter on the highest copy that was in the
// answers, which hearPart has put in place, or else on an empty one; and counts it. It reports whether there is still
// something to be charged before: then it is called again, with p.mu unlocked in between. The caller holds p.mu, and p's
// attempt is one of the round.
func (k *Keeper) takeOver(part uint16, p *store.Partition, r *holding.Round, gained *gains) (more bool) {
	h := &p.Holding
	now := k.now() // under the lock: a sweep after a lapse must not have been past since
	given := h.Attempt.Transferred != wire.Version{}
	switch {
	case !k.reach.IsFull(now):
		h.Lapse() // a copy that was given is the highest there is, and stays a replica
		return false
	case given && h.Copy != h.Attempt.Transferred:
		h.Attempt.Transferred = wire.Version{} // something newer has come
		return false
	case !given && !k.mayStart(p, r, now):
		return false
	case k.debts.ChargeSome(part, p, now):
		return true
	}
	if given {
		h.Hold(h.Copy)
		gained.given++
	} else {
		gained.add(h.Holds, h.Copy != wire.Version{})
		h.Start(wire.Version{Ballot: r.Ballot, Holder: k.self, Seq: h.Copy.NextSeq()})
	}
	k.others.Acquired(part)
	k.debts.ChargeAll(part, p, now)
	p.MarkChanged()
	return false
}

// mayStart reports whether every member has said "not holding" that is not gone, and every one that was counted as gone when the
// round began still is [StillLostAtStart]. The caller holds p.mu, and p's attempt is one of the round.
func (k *Keeper) mayStart(p *store.Partition, r *holding.Round, now int64) bool {
	return r.Complete(p.Holding.Attempt, k.others.Roster(), func(name string) bool { return k.reach.Lost(name, now) })
}

// ask puts a request to a member: directly, and every other time through another one, because the link may be
// cut without this node's having noticed yet.
func (k *Keeper) ask(ctx context.Context, to string, q *wire.AcquireRequest, try int) (*wire.AcquireResponse, error) {
	response, err := k.others.Tell(ctx, to, wire.AppendAcquireRequest(nil, q), askTimeout, try)
	if err != nil {
		return nil, err
	}
	ans, err := wire.DecodeAcquireResponse(response, k.rules.PlainSet)
	if err != nil {
		return nil, err
	}
	return &ans, nil
}
