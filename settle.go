package peerlimit

import (
	"context"
	"github.com/peerlimit/peerlimit/internal/ring"
	"github.com/peerlimit/peerlimit/internal/wire"
	"slices"
	"sync"
	"time"
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
func (n *Node) tidyCopies(ctx context.Context) {
	ticker := time.NewTicker(tidyInterval)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
		now, route := n.now(), n.route.Load()
		standbys := n.replicator.standbysOn(route)
		for part := range uint16(ring.Partitions) {
			n.table.dropArrived(part, now)
			if n.table.holds(part) && route.owner(part) != nil && !standbys.inGrace(part) {
				n.table.repeatReplica(part)
			}
		}
		n.settle(ctx, func(part uint16) bool {
			standby, known := route.standby(part) // nil for this node
			return !known || standby != nil
		})
	}
}

// repeatReplica has all of a partition sent to its standby again. A holder that its ring does not name does so from time to time:
// the standby is then the owner, who should have acquired. If it holds as well, because two clusters have met, that is how
// they find out [UnnamedHolderRepeats].
func (t *table) repeatReplica(part uint16) {
	p := &t.partitions[part]
	p.mu.Lock()
	defer p.mu.Unlock()
	if r := &p.holding.Replication; !r.InPieces { // or what takes longer than that would never be all sent
		r.ResendAll = true
		t.markChanged(part)
	}
}

// settleCopies asks about all copies that this node keeps without holding by them, be it what it gave away
// [LeaveWaitsForStandby] or a replica [LeaverKeepsReplicas], and returns how many it still has to keep: a leaver goes when
// there are none.
func (n *Node) settleCopies(ctx context.Context) (kept int) {
	return n.settle(ctx, func(uint16) bool { return true })
}

// settle asks the owners about the copies of the partitions that are wanted gone [SettleByAsking], by their versions
// [SettleNamesVersion], drops those that are safe elsewhere, and returns how many of them are left.
func (n *Node) settle(ctx context.Context, wanted func(part uint16) bool) (kept int) {
	route := n.route.Load()
	questions := make(map[*peer][]idleCopy)
	for part := range uint16(ring.Partitions) {
		idle, any := n.table.idleCopy(part)
		if !any || !wanted(part) {
			continue
		}
		kept++
		if owner := route.owner(part); owner != nil {
			questions[owner] = append(questions[owner], idle)
		}
	}
	var (
		asking sync.WaitGroup
		free   = make(chan struct{}, settleAtOnce)
		mu     sync.Mutex // guards kept
	)
	for owner, parts := range questions {
		for piece := range slices.Chunk(parts, settlePiece) {
			free <- struct{}{}
			asking.Go(func() {
				defer func() { <-free }()
				dropped := n.settleWith(ctx, owner.Name, piece)
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
func (n *Node) settleWith(ctx context.Context, owner string, copies []idleCopy) (dropped int) {
	parts := make([]wire.SettlePart, len(copies))
	for i := range copies {
		parts[i] = copies[i].SettlePart
	}
	request := wire.AppendSettleRequest(nil, &wire.SettleRequest{By: n.identity, Parts: parts})
	for try := range 2 {
		response, err := n.tell(ctx, owner, request, settleTimeout, try)
		if err != nil {
			continue
		}
		ans, err := wire.DecodeSettleResponse(response)
		if err != nil {
			return 0
		}
		for _, idle := range copies {
			if slices.Contains(ans.Settled, idle.Part) && n.table.dropCopy(idle) {
				dropped++
			}
		}
		return dropped
	}
	return 0
}

// idleCopy is a copy of a partition that this node does not hold.
type idleCopy struct {
	wire.SettlePart
	taken uint64 // see holding
}

// idleCopy returns the copy that is kept of a partition which is not held, if there is one.
func (t *table) idleCopy(part uint16) (idle idleCopy, any bool) {
	if t.holds(part) {
		return idleCopy{}, false
	}
	p := &t.partitions[part]
	p.mu.Lock()
	defer p.mu.Unlock()
	h := &p.holding
	if h.Holds || h.Copy == (wire.Version{}) {
		return idleCopy{}, false
	}
	return idleCopy{wire.SettlePart{Part: part, Version: h.Copy}, h.ReplicasAccepted}, true
}

// dropCopy drops a copy that is safe elsewhere, unless it may be needed to acquire the partition, or has been replaced
// since it was asked about. By one of the same version as well [ReplicaVoidsSettling]: the holder has sent it because this
// node is its standby by now, and what was the standby then may be gone.
func (t *table) dropCopy(idle idleCopy) bool {
	p := &t.partitions[idle.Part]
	p.mu.Lock()
	defer p.mu.Unlock()
	h := &p.holding
	if h.Holds || h.Attempt != nil || h.Copy != idle.Version || h.ReplicasAccepted != idle.taken {
		return false
	}
	t.exchange(p, buckets{})
	h.Drop()
	return true
}

// onSettle says which copies are not needed. One that is newer than what this node holds makes it acquire anew, above
// that one [NewerCopyOffered].
func (n *Node) onSettle(q *wire.SettleRequest) *wire.SettleResponse {
	n.reach.Check(n.now())
	standbys := n.replicator.standbysOn(n.route.Load())
	ans := &wire.SettleResponse{}
	newer := false
	for _, asked := range q.Parts {
		if !n.reach.Hear(asked.Version.Ballot.Number) {
			continue // there is no such copy
		}
		standby := standbys.of(asked.Part)
		p := &n.table.partitions[asked.Part]
		p.mu.Lock()
		h := &p.holding
		switch {
		case !h.Holds || !n.reach.IsFull(n.now()):
		case h.Copy.Below(asked.Version):
			h.ReacquireAbove(asked.Version.Ballot)
			n.table.noteHolding(asked.Part, p)
			newer = true
		case standby != q.By && standby == h.Replication.Standby && h.SafeToDrop(asked.Version):
			ans.Settled = append(ans.Settled, asked.Part)
		}
		p.mu.Unlock()
	}
	if newer {
		n.keeper.wake()
	}
	return ans
}
