package replicate

import (
	"context"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/peerlimit/peerlimit/internal/quorum"
	"github.com/peerlimit/peerlimit/internal/ring"
	"github.com/peerlimit/peerlimit/internal/rule"
	"github.com/peerlimit/peerlimit/internal/signal"
	"github.com/peerlimit/peerlimit/internal/store"
	"github.com/peerlimit/peerlimit/internal/wire"
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

// Replicator sends what this node holds to the standbys. Its goroutine, run, sees what there is to send; for each standby that
// something is sent to another one does so.
type Replicator struct {
	self     string
	log      *slog.Logger
	table    *store.Table
	reach    *quorum.State
	rules    *rule.Rules
	others   Cluster
	now      func() int64
	interval time.Duration // negative: changes are not noted, and not sent

	wakeUp  signal.Signal // capacity 1: there may be something to send
	working sync.WaitGroup

	survey atomic.Bool // standbys are to be looked at anew

	shipments sync.Pool // of *store.Shipment: memory for messages
	memories  sync.Pool // of *wire.ReplicaMemory: memory for messages of others

	ring  *ring.Ring   // when they were looked at last; of run alone
	since atomic.Int64 // since when that was the ring

	graceEnds *time.Timer // when standbys are to be looked at again; of run alone

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

// Config is what replicating works on.
type Config struct {
	Self     string // the node's name
	Log      *slog.Logger
	Table    *store.Table
	Reach    *quorum.State
	Rules    *rule.Rules
	Others   Cluster
	Now      func() int64  // the node's clock, in nanoseconds
	Interval time.Duration // between changes and their sending; negative for never
}

// Cluster is what replicating needs of the node around it, and of other members.
type Cluster interface {
	// Ring returns the ring as it is now.
	Ring() *ring.Ring

	// Tell sends a member a request, on every other try by way of another one, and returns the response.
	Tell(ctx context.Context, to string, request []byte, timeout time.Duration, try int) ([]byte, error)

	// Postpone lets a standby that is acquiring a partition itself go first. It is called with no lock held.
	Postpone(part uint16)

	// Challenged is called when a partition that this node holds is to be acquired again, or may be acquired now, and Yielded
	// when this node has ceased to hold one in favour of its owner.
	Challenged()
	Yielded()
}

func New(c Config) *Replicator {
	r := &Replicator{
		self: c.Self, log: c.Log.With(slog.String("component", "replicator")), table: c.Table, reach: c.Reach, rules: c.Rules,
		others: c.Others, now: c.Now, interval: c.Interval,
		wakeUp: signal.New(), standbys: make(map[string]*standbyState),
	}
	r.survey.Store(true)
	r.shipments.New = func() any { return store.NewShipment() }
	return r
}

// LookAgain has the standbys looked at anew, because members have changed. It does not wait.
func (r *Replicator) LookAgain() {
	r.survey.Store(true)
	r.Wake()
}

// Wake has what has changed sent at once: what this node has begun to hold is marked as changed. It does not wait.
func (r *Replicator) Wake() {
	r.wakeUp.Send()
}

// Run replicates until ctx ends.
func (r *Replicator) Run(ctx context.Context) {
	defer r.working.Wait()
	r.working.Go(func() { r.tidyCopies(ctx) })
	interval := r.interval
	if interval < 0 {
		interval = handoverGrace
	}
	r.graceEnds = time.NewTimer(handoverGrace)
	defer r.graceEnds.Stop()
	ticker := time.NewTicker(interval)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-r.wakeUp:
		case <-ticker.C:
		case <-r.graceEnds.C:
			r.survey.Store(true)
		}
		r.step(ctx)
	}
}

// standbys says which members the standbys are on a ring, at one moment.
type standbys struct {
	ring  *ring.Ring
	self  string
	table *store.Table
	off   bool // replication is

	// grace says that the ring is so new that an owner it names, another node, may not have had the time to acquire.
	grace bool
}

func (r *Replicator) standbysOn(current *ring.Ring) *standbys {
	return &standbys{
		ring: current, self: r.self, table: r.table, off: r.interval < 0,
		grace: r.now()-r.since.Load() < int64(handoverGrace),
	}
}

// of returns the member that is to have a replica of a partition that this node holds, or "" for none. With replication off that is the owner
// that the ring names, when it is another node: it takes the replica over, or says that it holds as well, and one of the
// two must yield.
func (h *standbys) of(part uint16) string {
	if h.off && !h.ownedByOther(part) {
		return ""
	}
	standby := h.ring.OwnerWithout(part, h.self)
	if !h.inGrace(part) {
		return standby
	}
	if last := h.table.StandbySoFar(part); last != "" && h.ring.Contains(last) {
		return last
	}
	return standby
}

// ownedByOther reports whether the ring names another node as the owner.
func (h *standbys) ownedByOther(part uint16) bool { return h.ring.Owner(part) != h.self }

// inGrace reports whether the owner that the ring names, another node, may not have had the time to acquire.
func (h *standbys) inGrace(part uint16) bool { return h.grace && h.ownedByOther(part) }

// step sends what there is to send to every standby that is not busy.
func (r *Replicator) step(ctx context.Context) {
	now, current := r.now(), r.others.Ring()
	if current != r.ring {
		r.ring = current
		r.since.Store(now)
		r.survey.Store(true)
		r.graceEnds.Reset(handoverGrace)
	}
	standbys := r.standbysOn(current)
	if r.survey.Swap(false) {
		r.lookAtStandbys(standbys)
	}
	work := make(map[string][]uint16)
	r.table.EachChanged(func(part uint16) {
		standby := standbys.of(part)
		switch {
		case standby == "":
			r.table.NobodyToSendTo(part)
		case standbys.inGrace(part) && r.table.StandbySoFar(part) != standby:
			r.table.MarkChanged(part)
		default:
			work[standby] = append(work[standby], part)
		}
	})
	for standby, parts := range work {
		if r.reach.IsFull(now) && r.tryStartSend(standby, now) {
			r.working.Go(func() { r.send(ctx, standby, parts) })
			continue
		}
		for _, part := range parts {
			r.table.BoundChanges(part)
			r.table.MarkChanged(part)
		}
	}
}

// lookAtStandbys marks what is held and not all with its standby.
func (r *Replicator) lookAtStandbys(standbys *standbys) {
	t := r.table
	for part := range uint16(ring.Partitions) {
		if !t.Holds(part) {
			continue
		}
		switch standby := standbys.of(part); {
		case standby == "":
			t.NobodyToSendTo(part)
		case t.Lacks(part, standby):
			t.MarkChanged(part)
		}
	}
}

// tryStartSend makes the standby a busy one, unless it is or has just failed to answer.
func (r *Replicator) tryStartSend(standby string, now int64) bool {
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

// finishSend is what follows take, when sending has ended: so many changed buckets since began. A standby that is not there any
// more is not remembered, and one that needs no rest is not either.
func (r *Replicator) finishSend(standby string, began int64, changed int) {
	now, there := r.now(), r.others.Ring().Contains(standby)
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
func (r *Replicator) answered(standby string, ok bool) {
	now := r.now()
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

// Lag returns for how long the standby that is furthest behind has acknowledged nothing of what it was sent.
func (r *Replicator) Lag(now int64) (longest time.Duration) {
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
func (r *Replicator) tries(standby string) int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.standbys[standby].failures
}

// send sends a standby what it lacks of some partitions, message by message, until that is done or it does not answer.
func (r *Replicator) send(ctx context.Context, standby string, parts []uint16) {
	began, changed := r.now(), 0
	defer func() { r.finishSend(standby, began, changed) }()
	s := r.shipments.Get().(*store.Shipment)
	defer r.shipments.Put(s)
	var rest *store.Whole
	for len(parts) > 0 || rest != nil {
		s.Reset()
		parts, rest = r.fill(s, standby, parts, rest)
		changed += s.Changed
		if !s.Empty() && !r.deliver(ctx, standby, s) {
			break
		}
	}
	for _, part := range parts { // another message will have them
		r.table.MarkChanged(part)
	}
	s.Reset()
}

// fill fills a shipment with a piece of what is under way, if something is, or else with what fits of some partitions. It
// returns what remains.
func (r *Replicator) fill(s *store.Shipment, standby string, parts []uint16, rest *store.Whole) ([]uint16, *store.Whole) {
	if rest != nil {
		if !r.table.PackNext(s, rest, standby, r.now()) {
			rest = nil
		}
		return parts, rest
	}
	standbys := r.standbysOn(r.others.Ring())
	for len(parts) > 0 {
		if standbys.of(parts[0]) != standby { // no longer
			r.table.MarkChanged(parts[0])
			parts = parts[1:]
			continue
		}
		result, first := r.table.Pack(s, parts[0], standby, r.now())
		if result == store.PackedLater {
			break
		}
		switch {
		case first != nil:
			return parts[1:], first
		case result == store.PackedSome: // the others come first
			return append(parts[1:], parts[0]), nil
		}
		parts = parts[1:]
	}
	return parts, nil
}

// deliver sends a shipment and works in the answer. It reports whether there was one.
func (r *Replicator) deliver(ctx context.Context, standby string, s *store.Shipment) bool {
	answer, err := r.ask(ctx, standby, s, r.tries(standby))
	r.answered(standby, err == nil)
	if err != nil {
		r.log.Debug("standby did not accept a replica", slog.String("member", standby), slog.Any("err", err))
	}
	now, current := r.now(), r.others.Ring()
	anyRefused, anyYielded := false, false
	for i := range s.Request.Parts {
		part := s.Request.Parts[i].Part
		ack := wire.ReplicaAck{Part: part}
		if err == nil {
			ack = answer.Parts[i]
			if !r.reach.Hear(ack.Promised.Number) {
				ack = wire.ReplicaAck{Part: part} // no answer
			}
		}
		if ack.Status == wire.ReplicaRefused && ack.Promised.By == standby {
			r.others.Postpone(part) // the standby is acquiring itself: its request is on the way, and this node will transfer
		}
		refused, yielded := r.table.Delivered(s, i, standby, ack, current.Owner(part) == standby, now)
		anyRefused, anyYielded = anyRefused || refused, anyYielded || yielded
	}
	if anyRefused {
		r.others.Challenged()
	}
	if anyYielded {
		r.others.Yielded()
	}
	return err == nil
}

// ask sends a shipment and returns an answer that has an ack for each of its parts.
func (r *Replicator) ask(ctx context.Context, standby string, s *store.Shipment, try int) (*wire.ReplicaResponse, error) {
	s.Message = wire.AppendReplicaRequest(s.Message[:0], &s.Request)
	response, err := r.others.Tell(ctx, standby, s.Message, replicaTimeout, try)
	if err != nil {
		return nil, err
	}
	ans, err := wire.DecodeReplicaResponse(response)
	if err != nil {
		return nil, err
	}
	if len(ans.Parts) != len(s.Request.Parts) {
		return nil, wire.ErrMalformed
	}
	for i := range ans.Parts {
		if ans.Parts[i].Part != s.Request.Parts[i].Part {
			return nil, wire.ErrMalformed
		}
	}
	return &ans, nil
}
