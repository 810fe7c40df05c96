package peerlimit

import (
	"context"
	"github.com/peerlimit/peerlimit/internal/ring"
	"github.com/peerlimit/peerlimit/internal/wire"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"
)

// Replication: what a node holds is kept by a standby as well, which is the owner in the ring without the holder. Every
// ReplicaInterval the standbys get what has changed, and a new standby everything. A holder that the ring does not name has the
// owner as its standby, and so comes to yield to it when, after two clusters have met, both hold.

const (
	// replicaTimeout bounds how long a standby's answer is waited for.
	replicaTimeout = 300 * time.Millisecond

	// replicaPauseMin and replicaPauseMax bound the pause after a standby has not answered.
	replicaPauseMin = 10 * time.Millisecond
	replicaPauseMax = 160 * time.Millisecond

	// bucketPace is how much time is given to each bucket that is sent because it has changed. Where more than 50,000 a
	// second change, the standby gets them less often, and more of a partition at once, which costs half: otherwise replicas
	// would take a third of the time of a node that does nothing but decide about ever other keys. The rest that follows
	// from it is bounded by restMax, and so is what a crash forgets.
	bucketPace = 20 * time.Microsecond
	restMax    = 100 * time.Millisecond

	// handoverGrace is how long the node that a new ring names as the owner has to acquire a partition before its holder
	// takes it for the standby and sends it everything: it is about to ask for the partition anyway. Until then the standby that
	// there was gets what changes.
	handoverGrace = 200 * time.Millisecond
)

// replicator sends what this node holds to the standbys. Its goroutine, run, sees what there is to send; for each standby that
// something is sent to another one does so.
type replicator struct {
	node     *Node
	log      *slog.Logger
	interval time.Duration // negative: changes are not noted, and not sent

	wakeUp  chan struct{} // capacity 1: there may be something to send
	working sync.WaitGroup

	survey atomic.Bool // standbys are to be looked at anew

	shipments sync.Pool // of *shipment: memory for messages

	ring  *ring.Ring   // when they were looked at last; of run alone
	since atomic.Int64 // since when that was the ring

	// mu guards standbys. It is held for a look-up or an update only.
	mu       sync.Mutex
	standbys map[string]*standbyState // those that something is being sent to, that rest, and that have not answered
}

// standbyState is how sending to a standby goes: it is sent to, or rests, or has not answered, or several of these. It is guarded by the replicator's mu.
type standbyState struct {
	sending   bool
	failures  int   // in a row
	notBefore int64 // when to try again
	since     int64 // it has not acknowledged what it was sent then, or nothing since
}

func newReplicator(n *Node) *replicator {
	r := &replicator{
		node: n, log: n.log.With(slog.String("component", "replicator")), interval: n.settings.ReplicaInterval,
		wakeUp: make(chan struct{}, 1), standbys: make(map[string]*standbyState),
	}
	r.survey.Store(true)
	r.shipments.New = func() any { return newShipment() }
	return r
}

// lookAgain has the standbys looked at anew, because members have changed. It does not wait.
func (r *replicator) lookAgain() {
	r.survey.Store(true)
	r.wake()
}

// wake has what has changed sent at once: what this node has begun to hold is marked as changed. It does not wait.
func (r *replicator) wake() {
	select {
	case r.wakeUp <- struct{}{}:
	default:
	}
}

// run replicates until ctx ends.
func (r *replicator) run(ctx context.Context) {
	defer r.working.Wait()
	r.working.Go(func() { r.node.tidyCopies(ctx) })
	interval := r.interval
	if interval < 0 {
		interval = handoverGrace
	}
	ticker := time.NewTicker(interval)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-r.wakeUp:
		case <-ticker.C:
		}
		r.step(ctx)
	}
}

// standbys says who the standbys are on a ring, at one moment.
type standbys struct {
	route *route
	self  string
	table *table
	off   bool // replication is

	// grace says that the ring is so new that an owner it names, another node, may not have had the time to acquire.
	grace bool
}

func (r *replicator) standbysOn(route *route) *standbys {
	return &standbys{
		route: route, self: r.node.identity, table: r.node.table, off: r.interval < 0,
		grace: r.node.now()-r.since.Load() < int64(handoverGrace),
	}
}

// of returns who is to have a replica of what this node holds, or "" for nobody. With replication off that is the owner
// that the ring names, when it is another node: it takes the replica over, or says that it holds as well, and one of the
// two must yield.
func (h *standbys) of(part uint16) string {
	if h.off && h.route.owner(part) == nil {
		return ""
	}
	standby := h.route.ring.OwnerWithout(part, h.self)
	if !h.inGrace(part) {
		return standby
	}
	if last := h.table.standbySoFar(part); last != "" && h.route.ring.Contains(last) {
		return last
	}
	return standby
}

// inGrace reports whether the owner that the ring names, another node, may not have had the time to acquire.
func (h *standbys) inGrace(part uint16) bool { return h.grace && h.route.owner(part) != nil }

// standbySoFar returns the standby that has had something of a partition in this term, or "".
func (t *table) standbySoFar(part uint16) string {
	p := &t.partitions[part]
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.holding.replication.standby
}

// step sends what there is to send to every standby that is not busy.
func (r *replicator) step(ctx context.Context) {
	n := r.node
	now, route := n.now(), n.route.Load()
	if route.ring != r.ring {
		r.ring = route.ring
		r.since.Store(now)
		r.survey.Store(true)
		time.AfterFunc(handoverGrace, r.lookAgain)
	}
	standbys := r.standbysOn(route)
	if r.survey.Swap(false) {
		r.lookAtStandbys(standbys)
	}
	work := make(map[string][]uint16)
	n.table.takeChanged(func(part uint16) {
		standby := standbys.of(part)
		switch {
		case standby == "":
			n.table.nobodyToSendTo(part)
		case standbys.inGrace(part) && n.table.standbySoFar(part) != standby:
			n.table.markChanged(part)
		default:
			work[standby] = append(work[standby], part)
		}
	})
	for standby, parts := range work {
		if n.reach.IsFull(now) && r.take(standby, now) {
			r.working.Go(func() { r.send(ctx, standby, parts) })
			continue
		}
		for _, part := range parts {
			n.table.boundChanges(part)
			n.table.markChanged(part)
		}
	}
}

// lookAtStandbys marks what is held and not all with its standby.
func (r *replicator) lookAtStandbys(standbys *standbys) {
	t := r.node.table
	for part := range uint16(ring.Partitions) {
		if !t.holds(part) {
			continue
		}
		switch standby := standbys.of(part); {
		case standby == "":
			t.nobodyToSendTo(part)
		case t.lacks(part, standby):
			t.markChanged(part)
		}
	}
}

// take makes the standby a busy one, unless it is or has just failed to answer.
func (r *replicator) take(standby string, now int64) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	state := r.standbys[standby]
	if state == nil {
		state = &standbyState{since: now}
		r.standbys[standby] = state
	}
	if state.sending || now < state.notBefore {
		return false
	}
	if state.failures == 0 { // it has rested
		state.since = now
	}
	state.sending = true
	return true
}

// release is what follows take, when sending has ended: so many changed buckets since began. A standby that is not there any
// more is not remembered, and one that needs no rest is not either.
func (r *replicator) release(standby string, began int64, changed int) {
	now, there := r.node.now(), r.node.route.Load().others[standby] != nil
	rest := min(began+int64(changed)*int64(bucketPace)-now, int64(restMax))
	r.mu.Lock()
	defer r.mu.Unlock()
	state := r.standbys[standby]
	state.sending = false
	switch {
	case !there:
		delete(r.standbys, standby)
	case state.failures > 0:
	case rest > 0:
		state.notBefore = now + rest
	default:
		delete(r.standbys, standby)
	}
}

// answered notes whether the standby has answered, and returns how often it has not.
func (r *replicator) answered(standby string, ok bool) {
	now := r.node.now()
	r.mu.Lock()
	defer r.mu.Unlock()
	state := r.standbys[standby]
	if ok {
		state.failures, state.since = 0, now
		return
	}
	pause := min(replicaPauseMin<<min(state.failures, 8), replicaPauseMax)
	state.failures++
	state.notBefore = now + int64(pause)
}

// lag returns for how long the standby that is furthest behind has acknowledged nothing of what it was sent.
func (r *replicator) lag(now int64) (longest time.Duration) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, state := range r.standbys {
		if !state.sending && state.failures == 0 {
			continue // it has acknowledged everything
		}
		longest = max(longest, time.Duration(now-state.since))
	}
	return longest
}

// tries returns how often in a row the standby has not answered.
func (r *replicator) tries(standby string) int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.standbys[standby].failures
}

// send sends a standby what it lacks of some partitions, message by message, until that is done or it does not answer.
func (r *replicator) send(ctx context.Context, standby string, parts []uint16) {
	began, changed := r.node.now(), 0
	defer func() { r.release(standby, began, changed) }()
	s := r.shipments.Get().(*shipment)
	defer r.shipments.Put(s)
	var rest *transfer
	for len(parts) > 0 || rest != nil {
		s.reset()
		parts, rest = r.fill(s, standby, parts, rest)
		changed += s.changed
		if !s.empty() && !r.deliver(ctx, standby, s) {
			break
		}
	}
	for _, part := range parts { // another message will have them
		r.node.table.markChanged(part)
	}
	s.reset()
}

// fill fills a shipment with a piece of what is under way, if something is, or else with what fits of some partitions. It
// returns what remains.
func (r *replicator) fill(s *shipment, standby string, parts []uint16, rest *transfer) ([]uint16, *transfer) {
	n := r.node
	if rest != nil {
		if !n.table.packNext(s, rest, standby, n.rules, n.now()) {
			rest = nil
		}
		return parts, rest
	}
	standbys := r.standbysOn(n.route.Load())
	for len(parts) > 0 {
		if standbys.of(parts[0]) != standby { // no longer
			n.table.markChanged(parts[0])
			parts = parts[1:]
			continue
		}
		result, first := n.table.pack(s, parts[0], standby, n.rules, n.now())
		if result == packedLater {
			break
		}
		switch {
		case first != nil:
			return parts[1:], first
		case result == packedSome: // the others come first
			return append(parts[1:], parts[0]), nil
		}
		parts = parts[1:]
	}
	return parts, nil
}

// deliver sends a shipment and works in the answer. It reports whether there was one.
func (r *replicator) deliver(ctx context.Context, standby string, s *shipment) bool {
	n := r.node
	answer, err := n.askReplica(ctx, standby, s, r.tries(standby))
	r.answered(standby, err == nil)
	if err != nil {
		r.log.Debug("standby did not accept a replica", slog.String("member", standby), slog.Any("err", err))
	}
	now, route := n.now(), n.route.Load()
	anyRefused, anyYielded := false, false
	for i := range s.request.Parts {
		part := s.request.Parts[i].Part
		ack := wire.ReplicaAck{Part: part}
		if err == nil {
			ack = answer.Parts[i]
			if !n.reach.Hear(ack.Promised.Number) {
				ack = wire.ReplicaAck{Part: part} // no answer
			}
		}
		if ack.Status == wire.ReplicaRefused && ack.Promised.By == standby {
			n.keeper.postpone(part) // the standby is acquiring itself: its question is on the way, and this node will give
		}
		owner := route.owner(part)
		refused, yielded := n.table.delivered(s, i, standby, ack, owner != nil && owner.Name == standby, now)
		anyRefused, anyYielded = anyRefused || refused, anyYielded || yielded
	}
	if anyRefused {
		n.keeper.wake()
	}
	if anyYielded {
		n.keeper.announce()
		n.holdingChanged()
	}
	return err == nil
}

// askReplica sends a shipment and returns an answer that has an ack for each of its parts.
func (n *Node) askReplica(ctx context.Context, standby string, s *shipment, try int) (*wire.ReplicaResponse, error) {
	s.message = wire.AppendReplicaRequest(s.message[:0], &s.request)
	response, err := n.tell(ctx, standby, s.message, replicaTimeout, try)
	if err != nil {
		return nil, err
	}
	ans, err := wire.DecodeReplicaResponse(response)
	if err != nil {
		return nil, err
	}
	if len(ans.Parts) != len(s.request.Parts) {
		return nil, wire.ErrMalformed
	}
	for i := range ans.Parts {
		if ans.Parts[i].Part != s.request.Parts[i].Part {
			return nil, wire.ErrMalformed
		}
	}
	return &ans, nil
}
