package peerlimit

import (
	"context"
	"fmt"
	"github.com/peerlimit/peerlimit/internal/ring"
	"github.com/peerlimit/peerlimit/internal/wire"
	"log/slog"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// Acquiring: how a node comes to hold partitions, in every event: a join, a leave, a death, a lapse, a healed split. It
// asks the others in a round, first the node that probably holds, then everyone, and begins to hold when it is given
// the holder's copy, or when everyone who is not gone has said "not holding". A timeout never makes a holder.

// keeper acquires what this node should hold. Its goroutine, run, begins rounds and reviews them; for each node that is
// asked in a round another one asks. All of them end with run.
type keeper struct {
	node *Node
	log  *slog.Logger

	// previous names, for each partition whose owner has changed, who owned it before: until the new one has acquired it,
	// most probably that one holds. ringSince is when owners changed last. Both are written by reroute and read by all;
	// previous is cleared where this node begins to hold.
	previous  [ring.Partitions]atomic.Pointer[string]
	ringSince atomic.Int64

	// before is the ring before the last change: a new standby may not have a replica yet, which the one before has.
	before atomic.Pointer[ring.Ring]

	// leaving says that this node is going: it acquires nothing any more [LeavingAcquiresNothing], but anew what it holds.
	leaving atomic.Bool

	wakeUp chan struct{} // capacity 1: there may be something to do
	asking sync.WaitGroup

	// Counts of partitions gained; see Stats.
	given, fromReplica, empty atomic.Uint64

	// mu guards change. It is held for nothing else.
	mu     sync.Mutex
	change chan struct{} // closed and replaced when this node has begun or ceased to hold something

	notBefore [ring.Partitions]atomic.Int64 // when to try again where somebody else has a higher election
	nextTry   atomic.Int64                  // the last of these moments that was chosen

	rounds []*round // of run alone
}

const (
	// idleInterval is how often a node looks whether something is to be acquired even if nothing tells it to.
	idleInterval = 500 * time.Millisecond

	// evidencePoll is how often a node whose evidence is not fresh looks whether it is.
	evidencePoll = 10 * time.Millisecond

	// reviewInterval is how often running rounds are looked at when nothing else happens: verdicts appear and expire.
	reviewInterval = 20 * time.Millisecond

	// behindPause is the longest pause, after being told of a higher election; half of it is the shortest. Of two nodes
	// that outbid each other one must come through.
	behindPause = 30 * time.Millisecond
)

func newKeeper(n *Node) *keeper {
	return &keeper{
		node: n, log: n.log.With(slog.String("component", "keeper")),
		wakeUp: make(chan struct{}, 1), change: make(chan struct{}),
	}
}

// wake asks for a look at what there is to do. It does not wait.
func (k *keeper) wake() {
	select {
	case k.wakeUp <- struct{}{}:
	default:
	}
}

// changed returns a channel that is closed when this node has begun or ceased to hold something after the call.
func (k *keeper) changed() <-chan struct{} {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.change
}

// announce wakes all who wait for changed.
func (k *keeper) announce() {
	k.mu.Lock()
	defer k.mu.Unlock()
	close(k.change)
	k.change = make(chan struct{})
}

// run acquires until ctx ends.
func (k *keeper) run(ctx context.Context) {
	defer k.asking.Wait()
	timer := time.NewTimer(k.step(ctx))
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			for _, r := range k.rounds {
				r.end()
			}
			return
		case <-k.wakeUp:
		case <-timer.C:
		}
		timer.Reset(k.step(ctx))
	}
}

// step does all there is to do now and returns when to look again at the latest.
func (k *keeper) step(ctx context.Context) time.Duration {
	now := k.node.now()
	full := k.node.reach.Check(now)
	k.review(now)
	again := evidencePoll
	if full {
		k.node.quorumFull()
		var wanted []uint16
		if wanted, again = k.wanted(now); len(wanted) > 0 {
			k.begin(ctx, wanted, now)
		}
	}
	if len(k.rounds) > 0 {
		return min(again, reviewInterval)
	}
	return again
}

// wanted returns the partitions to acquire now, and after what time there may be others.
func (k *keeper) wanted(now int64) (parts []uint16, again time.Duration) {
	again = idleInterval
	route, leaving := k.node.route.Load(), k.leaving.Load()
	for part := range uint16(ring.Partitions) {
		owner := route.owner(part) == nil && !leaving
		if t := k.node.table; !t.isRefused(part) && (!owner || t.holds(part)) {
			continue // as most are, most of the time: no need to lock them
		}
		p := &k.node.table.partitions[part]
		p.mu.Lock()
		want := k.wants(&p.holding, owner)
		p.mu.Unlock()
		switch wait := k.notBefore[part].Load() - now; {
		case !want:
		case wait > 0:
			again = min(again, time.Duration(wait))
		default:
			parts = append(parts, part)
		}
	}
	return parts, again
}

// wants reports whether a round should be begun: the ring names this node and it does not hold, or its standby has refused
// a replica. The latter also when this node is leaving, which otherwise acquires nothing: it could not hand over. The model
// has such a leaver go on replicating instead, its RefusedLeaverReplicates; either way it meets whoever else holds.
func (k *keeper) wants(h *holding, owner bool) bool {
	return h.attempt == nil && (h.refused || owner && !h.holds)
}

// newRound returns a round of all that this node knows, with an election above all that it has heard of.
func (k *keeper) newRound(ctx context.Context, known *knownNames, now int64) *round {
	n := k.node
	r := &round{
		election: wire.Ballot{Number: n.reach.Heard.Load() + 1, By: n.identity},
		gone:     n.membership.departed(), knows: known.generation,
	}
	r.ctx, r.end = context.WithCancel(ctx)
	for _, name := range known.asked() {
		if name != n.identity {
			r.peers = append(r.peers, name)
			if n.reach.Lost(name, now) {
				r.gone[name] = true
			}
		}
	}
	n.reach.Hear(r.election.Number)
	return r
}

// begin starts a round for the partitions that are still wanted.
func (k *keeper) begin(ctx context.Context, parts []uint16, now int64) {
	n := k.node
	known, route := n.membership.everyone(), n.route.Load()
	r := k.newRound(ctx, known, now)
	first := make(map[string][]uint16) // by whom to ask first
	var gained gains                   // of what nobody has to be asked about
	for _, part := range parts {
		began := false
		n.table.inSteps(part, func(p *partition) (more bool) {
			h := &p.holding
			if !began {
				if !k.wants(h, route.owner(part) == nil && !k.leaving.Load()) || !h.promised.Below(r.election) {
					return false
				}
				began = true
				h.begin(r)
				r.parts = append(r.parts, part)
			}
			if more = h.attempt.of(r) && k.takeOver(part, p, r, &gained); !more && h.attempt.of(r) {
				askee := k.previousOwner(part)
				if h.holds || r.gone[askee] || !known.isAsked(askee) {
					askee = "" // or it was on a ring by mistake
				}
				h.attempt.askee = askee
				first[askee] = append(first[askee], part)
			}
			n.table.noteHolding(part, p)
			return more
		})
	}
	k.rounds = append(k.rounds, r)
	r.mu.Lock()
	peers := slices.Clone(r.peers) // whoever becomes part of the round later, review has asked
	r.asked = len(peers)
	r.mu.Unlock()
	for peer, group := range first {
		k.asking.Go(func() { k.askFirst(r, peer, peers, group) })
	}
	k.report(&gained)
}

// previousOwner returns the other node that owned a partition before, or "". While one ring follows another, what is noted
// may already be of the next: there it is this node that owned before, which must not ask itself and wait for the answer.
func (k *keeper) previousOwner(part uint16) string {
	if name := k.previous[part].Load(); name != nil && *name != k.node.identity {
		return *name
	}
	return ""
}

// review looks after the running rounds: it drops what has ended, asks members that have become known or were named by an
// answer, and begins again what depends on somebody who has gone or come back since the round began.
func (k *keeper) review(now int64) {
	n := k.node
	known, route := n.membership.everyone(), n.route.Load()
	k.rounds = slices.DeleteFunc(k.rounds, func(r *round) bool {
		news, changed := r.refresh(known, n.identity, func(name string) bool { return n.reach.Lost(name, now) })
		r.parts = k.reviewParts(r, changed, route)
		for _, peer := range news {
			parts := r.parts
			k.asking.Go(func() { k.askUntilAnswered(r.ctx, r, peer, parts) })
		}
		if len(r.parts) > 0 {
			return false
		}
		r.end()
		return true
	})
}

// reviewParts abandons the attempts that cannot succeed any more and returns the partitions of the others. Those that
// are complete start: a verdict may have been all that was missing.
func (k *keeper) reviewParts(r *round, changed []int, route *route) (open []uint16) {
	var gained gains
	for _, part := range r.parts {
		k.node.table.inSteps(part, func(p *partition) (more bool) {
			h := &p.holding
			a := h.attempt
			if !a.of(r) {
				return false
			}
			owner := route.owner(part) == nil && !k.leaving.Load()
			depends := slices.ContainsFunc(changed, func(i int) bool { return !a.hasAnswered(i) })
			if depends || !owner && !h.holds {
				h.abandon()
			} else if more = k.takeOver(part, p, r, &gained); !more && h.attempt.of(r) {
				open = append(open, part)
			}
			k.node.table.noteHolding(part, p)
			return more
		})
	}
	k.report(&gained)
	return open
}

// gains counts what came of answers.
type gains struct {
	given, fromReplica, empty int
	renewed                   int // were held all along
}

// add counts a partition that nobody else held.
func (g *gains) add(held, hadCopy bool) {
	switch {
	case held:
		g.renewed++
	case hadCopy:
		g.fromReplica++
	default:
		g.empty++
	}
}

// startGrace is how long after its start a node acquires without state as a matter of course: nobody had any.
const startGrace = 10 * time.Second

// report counts what was gained and wakes who waits for it.
func (k *keeper) report(g *gains) {
	total := g.given + g.fromReplica + g.empty
	if total+g.renewed == 0 {
		return
	}
	k.given.Add(uint64(g.given))
	k.fromReplica.Add(uint64(g.fromReplica))
	k.empty.Add(uint64(g.empty))
	k.announce()
	k.node.holdingChanged()
	if total == 0 {
		return
	}
	line := eventLines[EventAcquired]
	if g.empty > 0 && time.Since(k.node.began) > startGrace {
		line = lineAcquiredEmpty
	}
	k.node.events.emitAs(line, EventAcquired, "", fmt.Sprintf("%d partitions: %d given, %d from replicas, %d empty",
		total, g.given, g.fromReplica, g.empty))
}

// notePrevious remembers who owned, on the ring before, what a new ring gives to others. A node that joins had none before:
// there it is who would own without it.
func (k *keeper) notePrevious(old, next *ring.Ring) {
	self := k.node.identity
	if joining := len(old.Members()) <= 1 && !k.node.table.holdsAny(); joining {
		old = next.Without(self)
	}
	names := old.Members()
	for part := range uint16(ring.Partitions) {
		if i := old.OwnerIndex(part); i >= 0 && names[i] != next.Owner(part) {
			k.previous[part].Store(&names[i]) // names never change
		}
	}
	k.before.Store(old)
	k.ringSince.Store(k.node.now())
}

// ringBefore returns the ring before the last change, if that was a moment ago, or nil.
func (k *keeper) ringBefore() *ring.Ring {
	if k.node.now()-k.ringSince.Load() < int64(previousMemory) {
		return k.before.Load()
	}
	return nil
}

// postpone lets somebody with a higher election go first. It is called before, or under the same lock as, what makes this
// node want to acquire: the keeper must not see that there is something to acquire before it sees that it is to wait.
//
// What is postponed at about the same time is tried again at the same moment, and so in one round: hundreds of partitions
// that are contended for would otherwise be as many rounds, each of which asks everyone.
func (k *keeper) postpone(part uint16) {
	now := k.node.now()
	at := k.nextTry.Load()
	if at < now+int64(behindPause/2) {
		at = now + int64(behindPause/2+rand.N(behindPause/2)) // #nosec G404 -- only spreads rounds
		k.nextTry.Store(at)                                   // should another moment be chosen meanwhile, both are tried
	}
	k.notBefore[part].Store(at)
	k.wake()
}
