package replicate

import (
	"context"
	"slices"
	"sync"
	"time"

	"github.com/peerlimit/peerlimit/internal/ring"
	"github.com/peerlimit/peerlimit/internal/store"
	"github.com/peerlimit/peerlimit/internal/wire"
)

// Settling: a copy that a node does not hold by is dropped only when the holder has said that its present standby, which is
// another node, has everything that is in the copy.

const (
	// tidyInterval is how often a node asks about copies that it has no reason to keep.
	tidyInterval = time.Second

	settleTimeout = 500 * time.Millisecond
	settlePiece   = 1024 // partitions in a request, at most
	settleAtOnce  = 16   // requests under way, at most
)

// tidyCopies drops, from time to time until ctx ends, what this node need not keep: copies of partitions of which it is
// neither the owner nor the standby, and pieces of replicas of which no more have come.
func (r *Replicator) tidyCopies(ctx context.Context) {
	ticker := time.NewTicker(tidyInterval)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
		now, current := r.now(), r.others.Ring()
		standbys := r.standbysOn(current)
		for part := range uint16(ring.Partitions) {
			r.table.DropArrived(part, now)
			if r.table.Holds(part) && standbys.ownedByOther(part) && !standbys.inGrace(part) {
				r.table.RepeatReplica(part)
			}
		}
		r.settle(ctx, func(part uint16) bool {
			return current.Successor(part, 1) != r.self
		})
	}
}

// ReleaseCopies asks about all copies that this node keeps without holding by them, be it what it gave away
// [LeaveWaitsForStandby] or a replica [LeaverKeepsReplicas], and returns how many it still has to keep: a leaver goes when
// there are none.
func (r *Replicator) ReleaseCopies(ctx context.Context) (kept int) {
	return r.settle(ctx, func(uint16) bool { return true })
}

// settle asks the owners about the copies of the partitions that are wanted gone [SettleByAsking], by their versions
// [SettleNamesVersion], drops those that are safe elsewhere, and returns how many of them are left.
func (r *Replicator) settle(ctx context.Context, wanted func(part uint16) bool) (kept int) {
	current := r.others.Ring()
	requests := make(map[string][]store.IdleCopy)
	for part := range uint16(ring.Partitions) {
		idle, any := r.table.IdleCopy(part)
		if !any || !wanted(part) {
			continue
		}
		kept++
		if owner := current.Owner(part); owner != r.self {
			requests[owner] = append(requests[owner], idle)
		}
	}
	var (
		asking sync.WaitGroup
		free   = make(chan struct{}, settleAtOnce)
		mu     sync.Mutex // guards kept
	)
	for owner, parts := range requests {
		for piece := range slices.Chunk(parts, settlePiece) {
			free <- struct{}{}
			asking.Go(func() {
				defer func() { <-free }()
				dropped := r.settleWith(ctx, owner, piece)
				mu.Lock()
				defer mu.Unlock()
				kept -= dropped
			})
		}
	}
	asking.Wait()
	return kept
}

// settleWith asks one owner, a second time by another way if it does not answer, and returns how many copies were
// dropped.
func (r *Replicator) settleWith(ctx context.Context, owner string, copies []store.IdleCopy) (dropped int) {
	parts := make([]wire.SettlePart, len(copies))
	for i := range copies {
		parts[i] = copies[i].SettlePart
	}
	request := wire.AppendSettleRequest(nil, &wire.SettleRequest{By: r.self, Parts: parts})
	for try := range 2 {
		response, err := r.others.Tell(ctx, owner, request, settleTimeout, try)
		if err != nil {
			continue
		}
		ans, err := wire.DecodeSettleResponse(response)
		if err != nil {
			return 0
		}
		for _, idle := range copies {
			if slices.Contains(ans.Settled, idle.Part) && r.table.DropCopy(idle) {
				dropped++
			}
		}
		return dropped
	}
	return 0
}

// AnswerSettle says which copies are not needed. One that is newer than what this node holds makes it acquire anew, above
// that one [NewerCopyOffered].
func (r *Replicator) AnswerSettle(q *wire.SettleRequest) *wire.SettleResponse {
	r.reach.Check(r.now())
	standbys := r.standbysOn(r.others.Ring())
	ans := &wire.SettleResponse{}
	newer := false
	for _, asked := range q.Parts {
		if !r.reach.Hear(asked.Version.Ballot.Number) {
			continue // there is no such copy
		}
		standby := standbys.of(asked.Part)
		safe, challenged := r.table.MayDrop(asked, standby, r.now())
		if safe && standby != q.By {
			ans.Settled = append(ans.Settled, asked.Part)
		}
		newer = newer || challenged
	}
	if newer {
		r.others.Challenged()
	}
	return ans
}
