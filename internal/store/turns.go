package store

import (
	"container/heap"
	"sync"
	"sync/atomic"
	"time"

	"github.com/peerlimit/peerlimit/internal/limit"
	"github.com/peerlimit/peerlimit/internal/rule"
	"github.com/peerlimit/peerlimit/internal/signal"
	"github.com/peerlimit/peerlimit/internal/wire"
)

// Waiting, at the holder. Those that wait stand in the queues of their buckets (see internal/limit/turns.go). One goroutine
// looks at each queue when its next turn comes, and tells those whose turn has come. When this node ceases to decide about a
// partition, it tells those that wait in it to ask again, elsewhere: for them the buckets were not charged yet, so nothing has to
// be handed over.
//
// A turn that was given is remembered for a while. Its caller may have asked again before it was told: then it is told once
// more, and does not queue for a second turn. Or it may have left before it was told: then its tokens go back.

// MaxTurns bounds those that wait at the buckets of one node. More than that many are refused.
const MaxTurns = 1 << 18

const (
	// givenTime is how long a turn is remembered that was given, and maxGiven how many are. A caller asks again after a second
	// and a quarter at most.
	givenTime = 3 * time.Second
	maxGiven  = 1 << 16
)

// turnKeeper knows which buckets somebody waits at, and when the next turn of each comes.
type turnKeeper struct {
	self     string                        // see Config
	wakeHere func(*wire.Wake) (heard bool) // see Config
	most     int                           // MaxTurns; less in tests

	// mu guards the fields below, for a look-up or an update of them. It is taken with a partition's mu held; nothing is taken
	// under it.
	mu      sync.Mutex
	queues  map[uint16]map[*bucket]*queue // by partition
	next    queueHeap                     // the same
	waiting int                           // in all queues
	told    []wire.Wake                   // to other nodes, that have not been sent
	given   map[limit.TurnID]*given
	oldest  []*given // the same, in the order of their times
	counts  turnCounts
	asleep  int64 // until when the goroutine sleeps that looks at the queues
	changed signal.Signal

	// any says whether there is anything in queues or given, to be seen without the lock.
	any atomic.Bool
}

// queue is a bucket that somebody waits at.
type queue struct {
	part    uint16
	bucket  *bucket
	at      int64 // when its next turn comes
	waiting int
	place   int // in the heap
}

type queueHeap []*queue

func (h queueHeap) Len() int           { return len(h) }
func (h queueHeap) Less(i, j int) bool { return h[i].at < h[j].at }
func (h queueHeap) Swap(i, j int) {
	h[i], h[j] = h[j], h[i]
	h[i].place, h[j].place = i, j
}
func (h *queueHeap) Push(x any) {
	q := x.(*queue)
	q.place = len(*h)
	*h = append(*h, q)
}
func (h *queueHeap) Pop() any {
	last := len(*h) - 1
	q := (*h)[last]
	(*h)[last] = nil
	*h = (*h)[:last]
	return q
}

// given is a turn that has come and was given to one that waited.
type given struct {
	turn *limit.Turn
	at   int64
}

// turnCounts are what is counted of those that wait; see Stats.
type turnCounts struct{ served, left, refused uint64 }

// await is decide for one that waits where others would be denied.
func (t *Table) await(part uint16, id rule.BucketKey, a *limit.Request, m *wire.Message, now int64) (ans wire.Response, ok bool) {
	hash := id.Hash(t.seed)
	p := t.enter(part, now)
	if p == nil {
		return ans, false
	}
	defer p.mu.Unlock()
	b := p.buckets.find(hash, id)
	if b == nil {
		b = t.insert(p, hash, id, a.Set, now)
	}
	t.serve(p, b, now)
	ans.Status = wire.StatusDecided
	turn := &limit.Turn{
		ID: limit.TurnID{Node: m.Turn.Node, Number: m.Turn.Number}, Since: now - int64(m.Turn.Waited+m.Turn.Late), Waited: m.Turn.Waited,
	}
	before, noRoom := t.turns.look(turn.ID, now)
	if before != nil {
		before.Waited = max(before.Waited, turn.Waited)
		ans.Decision = before.Decision
		return ans, true
	}
	a.Leased, turn.NoRoom = t.leased(b, now), noRoom
	ans.Decision = b.Await(a, turn, now)
	switch {
	case turn.Full:
		ans.QueueFull = true
		t.turns.count(turnCounts{refused: 1})
	case turn.Granted:
		t.touch(part, p, b)
		if turn.ID.Node != t.turns.self {
			t.turns.remember([]*limit.Turn{turn}, nil, now)
		}
	case ans.Decision.Allowed:
		ans.Status = wire.StatusQueued
	}
	t.scheduleTurns(p, b, now)
	return ans, true
}

// leave takes one that waits out of a bucket's queue, or takes back the turn that it was given and was not told of in time.
func (t *Table) leave(part uint16, id rule.BucketKey, turn wire.Turn, now int64) bool {
	p := t.enter(part, now)
	if p == nil {
		return false
	}
	defer p.mu.Unlock()
	b := p.buckets.find(id.Hash(t.seed), id)
	if b == nil {
		return true
	}
	t.serve(p, b, now)
	gone := limit.TurnID{Node: turn.Node, Number: turn.Number}
	if b.LeaveTurn(gone, turn.Waited, now) {
		t.turns.count(turnCounts{left: 1})
	} else if unused := t.turns.takeBack(gone, turn.Waited); unused != nil {
		b.Refund(unused.Set, unused.Cost, now)
		t.touch(part, p, b)
	}
	t.scheduleTurns(p, b, now)
	return true
}

// serve gives the turns of a bucket that have come. The caller holds p.mu.
func (t *Table) serve(p *Partition, b *bucket, now int64) {
	if b.HasTurns() {
		t.leased(b, now)
		t.scheduleTurns(p, b, now)
	}
}

// scheduleTurns gives the turns of a bucket that have come, and has its queue looked at when the next one comes. It is called
// whenever a queue may have changed. The caller holds p.mu.
func (t *Table) scheduleTurns(p *Partition, b *bucket, now int64) {
	for b.HasTurns() {
		before := b.Waiting()
		granted, next := b.Serve(now)
		t.turns.count(turnCounts{served: uint64(len(granted)), left: uint64(before - b.Waiting() - len(granted))})
		if len(granted) == 0 {
			t.turns.note(p.number, b, next)
			return
		}
		t.touch(p.number, p, b)
		t.give(b, granted, now)
	}
	t.turns.note(p.number, b, 0)
}

// give has those told whose turn has come. The tokens of a caller of this node that has gone go back. The caller holds the
// partition's mu.
func (t *Table) give(b *bucket, granted []*limit.Turn, now int64) {
	unheard := t.turns.tell(granted)
	t.turns.remember(granted, unheard, now)
	for _, turn := range unheard {
		b.Refund(turn.Set, turn.Cost, now)
	}
}

// dismissAll tells all that wait in a partition to ask again: this node does not decide about it any more. The caller holds
// p.mu.
func (t *Table) dismissAll(p *Partition) {
	for _, b := range t.turns.of(p.number) {
		t.dismiss(p, b)
	}
}

// dismiss tells all that wait at a bucket to ask again. The caller holds p.mu.
func (t *Table) dismiss(p *Partition, b *bucket) {
	t.turns.tell(b.Dismiss("", 0))
	t.turns.note(p.number, b, 0)
}

// DismissNode takes all that a node's callers wait for out of the queues: it cannot be told.
func (t *Table) DismissNode(node string, now int64) {
	for _, part := range t.turns.parts() {
		p := t.Lock(part)
		for _, b := range t.turns.of(part) {
			if gone := b.Dismiss(node, now); len(gone) > 0 {
				t.turns.count(turnCounts{left: uint64(len(gone))})
				if p.Decides(now) {
					t.scheduleTurns(p, b, now)
				} else {
					t.dismiss(p, b)
				}
			}
		}
		p.Unlock()
	}
}

// tell has those told that their turn has come, or to ask again. It returns the turns that have come to callers of this node that
// have gone.
func (k *turnKeeper) tell(turns []*limit.Turn) (unheard []*limit.Turn) {
	var elsewhere []wire.Wake
	for _, turn := range turns {
		w := wire.Wake{
			Turn: wire.Turn{Node: turn.ID.Node, Number: turn.ID.Number}, Granted: turn.Granted, Decision: turn.Decision,
		}
		switch {
		case w.Turn.Node != k.self:
			elsewhere = append(elsewhere, w)
		case !k.wakeHere(&w) && turn.Granted:
			unheard = append(unheard, turn)
		}
	}
	if len(elsewhere) > 0 {
		k.mu.Lock()
		k.told = append(k.told, elsewhere...)
		k.mu.Unlock()
		k.changed.Send()
	}
	return unheard
}

// note notes how many wait at a bucket, and when its next turn comes.
func (k *turnKeeper) note(part uint16, b *bucket, next int64) {
	waiting := b.Waiting()
	if waiting == 0 && !k.any.Load() {
		return
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	q := k.queues[part][b]
	switch {
	case q == nil && waiting == 0:
		return
	case waiting == 0:
		k.drop(q)
		return
	case q == nil:
		q = &queue{part: part, bucket: b, at: next}
		k.add(q)
	case q.at == next:
	default:
		q.at = next
		heap.Fix(&k.next, q.place)
	}
	k.waiting += waiting - q.waiting
	q.waiting = waiting
	if q.at < k.asleep {
		k.changed.Send()
	}
}

// add enters a queue. The caller holds mu.
func (k *turnKeeper) add(q *queue) {
	if k.queues == nil {
		k.queues = make(map[uint16]map[*bucket]*queue)
	}
	if k.queues[q.part] == nil {
		k.queues[q.part] = make(map[*bucket]*queue)
	}
	k.queues[q.part][q.bucket] = q
	heap.Push(&k.next, q)
	k.any.Store(true)
}

// drop forgets a queue. The caller holds mu.
func (k *turnKeeper) drop(q *queue) {
	heap.Remove(&k.next, q.place)
	delete(k.queues[q.part], q.bucket)
	if len(k.queues[q.part]) == 0 {
		delete(k.queues, q.part)
	}
	k.waiting -= q.waiting
	k.any.Store(len(k.next) > 0 || len(k.oldest) > 0)
}

// forget drops the queue of a bucket that is in no partition any more.
func (k *turnKeeper) forget(part uint16, b *bucket) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if q := k.queues[part][b]; q != nil {
		k.drop(q)
	}
}

// of returns the buckets of a partition that somebody waits at.
func (k *turnKeeper) of(part uint16) (buckets []*bucket) {
	k.mu.Lock()
	defer k.mu.Unlock()
	for b := range k.queues[part] {
		buckets = append(buckets, b)
	}
	return buckets
}

// parts returns the partitions that somebody waits in.
func (k *turnKeeper) parts() (parts []uint16) {
	k.mu.Lock()
	defer k.mu.Unlock()
	for part := range k.queues {
		parts = append(parts, part)
	}
	return parts
}

// look returns the turn that one which asks was given already, and whether there is no room for it to wait.
func (k *turnKeeper) look(id limit.TurnID, now int64) (before *limit.Turn, noRoom bool) {
	if !k.any.Load() {
		return nil, k.most == 0
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	k.forgetGiven(now)
	if g := k.given[id]; g != nil {
		return g.turn, false
	}
	return nil, k.waiting >= k.most
}

// remember notes turns that were given, but for those that nobody has heard of.
func (k *turnKeeper) remember(granted, unheard []*limit.Turn, now int64) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.given == nil {
		k.given = make(map[limit.TurnID]*given)
	}
	for _, turn := range granted {
		if len(unheard) > 0 && unheard[0] == turn { // in the same order
			unheard = unheard[1:]
			continue
		}
		g := &given{turn: turn, at: now}
		k.given[turn.ID] = g
		k.oldest = append(k.oldest, g)
	}
	k.forgetGiven(now)
}

// forgetGiven forgets turns that were given long ago, or that are too many. The caller holds mu.
func (k *turnKeeper) forgetGiven(now int64) {
	n := max(0, len(k.oldest)-maxGiven)
	for n < len(k.oldest) && now-k.oldest[n].at > int64(givenTime) {
		n++
	}
	for i, g := range k.oldest[:n] {
		if k.given[g.turn.ID] == g {
			delete(k.given, g.turn.ID)
		}
		k.oldest[i] = nil
	}
	k.oldest = k.oldest[n:]
	k.any.Store(len(k.next) > 0 || len(k.oldest) > 0)
}

// takeBack returns the turn that was given to another node's caller that leaves and has not heard of it, once. One that has not
// waited for longer than when it asked last has not left: it waits elsewhere, and may yet hear of the turn.
func (k *turnKeeper) takeBack(id limit.TurnID, waited time.Duration) *limit.Turn {
	k.mu.Lock()
	defer k.mu.Unlock()
	g := k.given[id]
	if g == nil || id.Node == k.self || waited <= g.turn.Waited {
		return nil
	}
	delete(k.given, id)
	return g.turn
}

// count adds to what is counted.
func (k *turnKeeper) count(more turnCounts) {
	if more == (turnCounts{}) {
		return
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	k.counts.served += more.served
	k.counts.left += more.left
	k.counts.refused += more.refused
}

// sums returns how many wait now, and what was counted.
func (k *turnKeeper) sums() (waiting int, counts turnCounts) {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.waiting, k.counts
}

// due takes what is to be sent, and returns the next queue that is to be looked at by now; otherwise it returns in how long there
// is one.
func (k *turnKeeper) due(now int64) (told []wire.Wake, part uint16, b *bucket, wait time.Duration) {
	k.mu.Lock()
	defer k.mu.Unlock()
	told, k.told = k.told, nil
	wait = idleLook
	if len(k.next) > 0 {
		q := k.next[0]
		if q.at <= now {
			return told, q.part, q.bucket, 0
		}
		wait = min(wait, time.Duration(q.at-now))
	}
	k.asleep = now + int64(wait)
	return told, 0, nil, wait
}

// idleLook is how long the keeper of turns sleeps at most.
const idleLook = time.Hour

// ServeTurns gives turns as they come until done is closed, and calls wake for each of another node's that is to be told
// something.
func (t *Table) ServeTurns(done <-chan struct{}, clock func() int64, wake func(*wire.Wake)) {
	timer := time.NewTimer(idleLook)
	defer timer.Stop()
	for {
		told, part, b, wait := t.turns.due(clock())
		for i := range told {
			wake(&told[i])
		}
		if b != nil {
			t.lookAt(part, b, clock())
			continue
		}
		timer.Reset(wait)
		select {
		case <-timer.C:
		case <-t.turns.changed:
		case <-done:
			return
		}
	}
}

// lookAt looks at the queue of a bucket.
func (t *Table) lookAt(part uint16, b *bucket, now int64) {
	p := t.Lock(part)
	defer p.Unlock()
	switch {
	case b.home != part:
		t.turns.forget(part, b)
	case !p.Decides(now):
		t.dismiss(p, b)
	default:
		t.leased(b, now)
		t.scheduleTurns(p, b, now)
	}
}
