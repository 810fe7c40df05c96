package peerlimit

import (
	"context"
	"github.com/peerlimit/peerlimit/internal/ring"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"
)

// Replication: what a node holds is kept by an heir as well, which is the owner in the ring without the holder. Every
// ReplicaInterval the heirs get what has changed, and a new heir everything. A holder that the ring does not name has the
// owner as its heir, and so comes to yield to it when, after two clusters have met, both hold.

const (
	// replicaTimeout bounds how long an heir's answer is waited for.
	replicaTimeout = 300 * time.Millisecond

	// replicaPauseMin and replicaPauseMax bound the pause after an heir has not answered.
	replicaPauseMin = 10 * time.Millisecond
	replicaPauseMax = 160 * time.Millisecond

	// bucketPace is how much time is given to each bucket that is sent because it has changed. Where more than 50,000 a
	// second change, the heir gets them less often, and more of a partition at once, which costs half: otherwise replicas
	// would take a third of the time of a node that does nothing but decide about ever other keys. The rest that follows
	// from it is bounded by restMax, and so is what a crash forgets.
	bucketPace = 20 * time.Microsecond
	restMax    = 100 * time.Millisecond

	// handoverGrace is how long the node that a new ring names as the owner has to acquire a partition before its holder
	// takes it for the heir and sends it everything: it is about to ask for the partition anyway. Until then the heir that
	// there was gets what changes.
	handoverGrace = 200 * time.Millisecond
)

// replicator sends what this node holds to the heirs. Its goroutine, run, sees what there is to send; for each heir that
// something is sent to another one does so.
type replicator struct {
	node     *Node
	log      *slog.Logger
	interval time.Duration // negative: changes are not noted, and not sent

	wakeUp  chan struct{} // capacity 1: there may be something to send
	working sync.WaitGroup

	survey atomic.Bool // heirs are to be looked at anew

	shipments sync.Pool // of *shipment: memory for messages

	ring  *ring.Ring   // when they were looked at last; of run alone
	since atomic.Int64 // since when that was the ring

	// mu guards heirs. It is held for a look-up or an update only.
	mu    sync.Mutex
	heirs map[string]*heirState // those that something is being sent to, that rest, and that have not answered
}

// heirState is how sending to an heir goes: it is sent to, or rests, or has not answered, or several of these. It is guarded by the replicator's mu.
type heirState struct {
	sending   bool
	failures  int   // in a row
	notBefore int64 // when to try again
	since     int64 // it has not acknowledged what it was sent then, or nothing since
}

func newReplicator(n *Node) *replicator {
	r := &replicator{
		node: n, log: n.log.With(slog.String("component", "replicator")), interval: n.settings.ReplicaInterval,
		wakeUp: make(chan struct{}, 1), heirs: make(map[string]*heirState),
	}
	r.survey.Store(true)
	r.shipments.New = func() any { return newShipment() }
	return r
}

// lookAgain has the heirs looked at anew, because members have changed. It does not wait.
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

// heirs says who the heirs are on a ring, at one moment.
type heirs struct {
	route *route
	self  string
	table *table
	off   bool // replication is

	// grace says that the ring is so new that an owner it names, another node, may not have had the time to acquire.
	grace bool
}

func (r *replicator) heirsOn(route *route) *heirs {
	return &heirs{
		route: route, self: r.node.identity, table: r.node.table, off: r.interval < 0,
		grace: r.node.now()-r.since.Load() < int64(handoverGrace),
	}
}

// of returns who is to have a replica of what this node holds, or "" for nobody. With replication off that is the owner
// that the ring names, when it is another node: it takes the replica over, or says that it holds as well, and one of the
// two must yield.
func (h *heirs) of(part uint16) string {
	if h.off && h.route.owner(part) == nil {
		return ""
	}
	heir := h.route.ring.OwnerWithout(part, h.self)
	if !h.inGrace(part) {
		return heir
	}
	if last := h.table.heirSoFar(part); last != "" && h.route.ring.Contains(last) {
		return last
	}
	return heir
}

// inGrace reports whether the owner that the ring names, another node, may not have had the time to acquire.
func (h *heirs) inGrace(part uint16) bool { return h.grace && h.route.owner(part) != nil }

// heirSoFar returns the heir that has had something of a partition in this term, or "".
func (t *table) heirSoFar(part uint16) string {
	p := &t.partitions[part]
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.holding.replication.heir
}

// step sends what there is to send to every heir that is not busy.
func (r *replicator) step(ctx context.Context) {
	n := r.node
	now, route := n.now(), n.route.Load()
	if route.ring != r.ring {
		r.ring = route.ring
		r.since.Store(now)
		r.survey.Store(true)
		time.AfterFunc(handoverGrace, r.lookAgain)
	}
	heirs := r.heirsOn(route)
	if r.survey.Swap(false) {
		r.lookAtHeirs(heirs)
	}
	work := make(map[string][]uint16)
	n.table.takeChanged(func(part uint16) {
		heir := heirs.of(part)
		switch {
		case heir == "":
			n.table.nobodyToSendTo(part)
		case heirs.inGrace(part) && n.table.heirSoFar(part) != heir:
			n.table.markChanged(part)
		default:
			work[heir] = append(work[heir], part)
		}
	})
	for heir, parts := range work {
		if n.reach.isFull(now) && r.take(heir, now) {
			r.working.Go(func() { r.send(ctx, heir, parts) })
			continue
		}
		for _, part := range parts {
			n.table.boundChanges(part)
			n.table.markChanged(part)
		}
	}
}

// lookAtHeirs marks what is held and not all with its heir.
func (r *replicator) lookAtHeirs(heirs *heirs) {
	t := r.node.table
	for part := range uint16(ring.Partitions) {
		if !t.holds(part) {
			continue
		}
		switch heir := heirs.of(part); {
		case heir == "":
			t.nobodyToSendTo(part)
		case t.lacks(part, heir):
			t.markChanged(part)
		}
	}
}

// take makes the heir a busy one, unless it is or has just failed to answer.
func (r *replicator) take(heir string, now int64) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	state := r.heirs[heir]
	if state == nil {
		state = &heirState{since: now}
		r.heirs[heir] = state
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

// release is what follows take, when sending has ended: so many changed buckets since began. An heir that is not there any
// more is not remembered, and one that needs no rest is not either.
func (r *replicator) release(heir string, began int64, changed int) {
	now, there := r.node.now(), r.node.route.Load().others[heir] != nil
	rest := min(began+int64(changed)*int64(bucketPace)-now, int64(restMax))
	r.mu.Lock()
	defer r.mu.Unlock()
	state := r.heirs[heir]
	state.sending = false
	switch {
	case !there:
		delete(r.heirs, heir)
	case state.failures > 0:
	case rest > 0:
		state.notBefore = now + rest
	default:
		delete(r.heirs, heir)
	}
}

// answered notes whether the heir has answered, and returns how often it has not.
func (r *replicator) answered(heir string, ok bool) {
	now := r.node.now()
	r.mu.Lock()
	defer r.mu.Unlock()
	state := r.heirs[heir]
	if ok {
		state.failures, state.since = 0, now
		return
	}
	pause := min(replicaPauseMin<<min(state.failures, 8), replicaPauseMax)
	state.failures++
	state.notBefore = now + int64(pause)
}

// lag returns for how long the heir that is furthest behind has acknowledged nothing of what it was sent.
func (r *replicator) lag(now int64) (longest time.Duration) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, state := range r.heirs {
		if !state.sending && state.failures == 0 {
			continue // it has acknowledged everything
		}
		longest = max(longest, time.Duration(now-state.since))
	}
	return longest
}

// tries returns how often in a row the heir has not answered.
func (r *replicator) tries(heir string) int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.heirs[heir].failures
}

// send sends an heir what it lacks of some partitions, message by message, until that is done or it does not answer.
func (r *replicator) send(ctx context.Context, heir string, parts []uint16) {
	began, changed := r.node.now(), 0
	defer func() { r.release(heir, began, changed) }()
	s := r.shipments.Get().(*shipment)
	defer r.shipments.Put(s)
	var rest *transfer
	for len(parts) > 0 || rest != nil {
		s.reset()
		parts, rest = r.fill(s, heir, parts, rest)
		changed += s.changed
		if !s.empty() && !r.deliver(ctx, heir, s) {
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
func (r *replicator) fill(s *shipment, heir string, parts []uint16, rest *transfer) ([]uint16, *transfer) {
	n := r.node
	if rest != nil {
		if !n.table.packNext(s, rest, heir, n.rules, n.now()) {
			rest = nil
		}
		return parts, rest
	}
	heirs := r.heirsOn(n.route.Load())
	for len(parts) > 0 {
		if heirs.of(parts[0]) != heir { // no longer
			n.table.markChanged(parts[0])
			parts = parts[1:]
			continue
		}
		result, first := n.table.pack(s, parts[0], heir, n.rules, n.now())
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
func (r *replicator) deliver(ctx context.Context, heir string, s *shipment) bool {
	n := r.node
	answer, err := n.askReplica(ctx, heir, s, r.tries(heir))
	r.answered(heir, err == nil)
	if err != nil {
		r.log.Debug("a replica was not taken", slog.String("heir", heir), slog.Any("error", err))
	}
	now, route := n.now(), n.route.Load()
	anyRefused, anyYielded := false, false
	for i := range s.request.parts {
		part := s.request.parts[i].part
		ack := replicaAck{part: part}
		if err == nil {
			ack = answer.parts[i]
			if !n.reach.hear(ack.promised.number) {
				ack = replicaAck{part: part} // no answer
			}
		}
		if ack.status == replicaRefused && ack.promised.by == heir {
			n.keeper.postpone(part) // the heir is acquiring itself: its question is on the way, and this node will give
		}
		owner := route.owner(part)
		refused, yielded := n.table.delivered(s, i, heir, ack, owner != nil && owner.Name == heir, now)
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
func (n *Node) askReplica(ctx context.Context, heir string, s *shipment, try int) (*replicaAnswer, error) {
	s.message = appendReplicaRequest(s.message[:0], &s.request)
	response, err := n.tell(ctx, heir, s.message, replicaTimeout, try)
	if err != nil {
		return nil, err
	}
	ans, err := decodeReplicaAnswer(response)
	if err != nil {
		return nil, err
	}
	if len(ans.parts) != len(s.request.parts) {
		return nil, errMalformed
	}
	for i := range ans.parts {
		if ans.parts[i].part != s.request.parts[i].part {
			return nil, errMalformed
		}
	}
	return &ans, nil
}
