package limit

import (
	"cmp"
	"container/heap"
	"math"
	"slices"
	"time"
)

// Waiting. Those that wait for a turn at a bucket stand in a queue, first come, first served, and the bucket is charged for
// each when its turn has come, not before. So nothing has to be undone when one leaves: all behind it move up, and a bucket
// that all have left is as it would be if none of them had come.
//
// Nobody need look at the bucket at the very moment of a turn. Serve finds out later at which moments turns have come
// since, and charges the bucket as of those moments: the caller that stood first then has had the turn. That is exact, as the ideal
// bucket had the tokens then, and no token is lost to a timer that is late.
//
// A reservation, whose turn is fixed when it is made, comes behind those that wait. It charges the bucket then, so they have to be
// charged before it: chargeTurns makes holes (see undo.go) of their turns, which they take in order.

// TurnID is the name of one that waits.
type TurnID struct {
	Node   string // the node whose caller waits; "" in a bucket that only this process uses
	Number uint64 // of its waits
}

// Turn is one that waits for cost tokens.
type Turn struct {
	ID    TurnID
	Set   *Set
	Cost  float64
	Since int64 // since when it has waited, here or elsewhere; it goes before all that have waited for less
	Asked int64 // when its node was heard of last

	// Waited is for how long it had waited when it asked last, by its own clock: it tells an earlier request from a later one.
	Waited time.Duration

	// Granted says that its turn has come; Decision is what was decided then.
	Granted  bool
	Decision Decision

	// NoRoom says that there is no room for one more. Full says that it was refused for want of room, here or at the bucket.
	NoRoom, Full bool

	joined int64 // when it came here
	number uint64
	place  int // in the queue's heap
}

// turns is the queue of a bucket. A bucket that nobody waits at has none.
type turns struct {
	heap  []*Turn // that are to be served, by Since
	byID  map[TurnID]*Turn
	total float64 // of their costs
	count uint64  // of all that ever came

	// headSince is since when the first has been the first: its turn cannot have come before. Nor before looked, when it was found
	// out that it had not come: what was given back since counts as of then at the earliest.
	headSince, looked int64

	// sweepAt is when it is looked next for those whose nodes have not been heard of.
	sweepAt int64
}

// MaxTurns bounds those that wait at one bucket. More than that many are refused.
const MaxTurns = 1 << 16

// TurnExpiry is how long one that waits is served after its node was heard of last: it may have ended.
const TurnExpiry = 5 * time.Second

func (q *turns) Len() int { return len(q.heap) }

func (q *turns) Less(i, j int) bool {
	x, y := q.heap[i], q.heap[j]
	return cmp.Or(cmp.Compare(x.Since, y.Since), cmp.Compare(x.number, y.number)) < 0
}

func (q *turns) Swap(i, j int) {
	q.heap[i], q.heap[j] = q.heap[j], q.heap[i]
	q.heap[i].place, q.heap[j].place = i, j
}

func (q *turns) Push(x any) {
	t := x.(*Turn)
	t.place = len(q.heap)
	q.heap = append(q.heap, t)
}

func (q *turns) Pop() any {
	last := len(q.heap) - 1
	t := q.heap[last]
	q.heap[last] = nil
	q.heap = q.heap[:last]
	return t
}

func (q *turns) remove(t *Turn, now int64) {
	if t.place == 0 {
		q.headSince = now
	}
	heap.Remove(q, t.place)
	delete(q.byID, t.ID)
	q.total -= t.Cost
}

// HasTurns reports whether somebody waits at the bucket.
func (s *State) HasTurns() bool {
	return s.extra != nil && s.extra.shared != nil && s.extra.shared.turns != nil
}

// Waiting returns how many wait at the bucket.
func (s *State) Waiting() int {
	if !s.HasTurns() {
		return 0
	}
	return len(s.extra.shared.turns.heap)
}

// FirstTurn returns the name of the one that waits for the next turn; the zero TurnID when nobody waits.
func (s *State) FirstTurn() TurnID {
	if !s.HasTurns() {
		return TurnID{}
	}
	return s.extra.shared.turns.heap[0].ID
}

// ahead returns how many tokens those that wait are going to take beyond what the bucket was charged for them already.
func (s *State) ahead(now int64) float64 {
	if !s.HasTurns() {
		return 0
	}
	r := s.extra.shared
	return math.Max(0, r.turns.total-r.undone.pending(now))
}

// Await answers a for one that would rather wait than be denied. Its turn has come when t says so afterwards; otherwise it
// stands in the queue, and the decision's Delay is how long that takes if nobody leaves; or the decision is a denial: the
// turn would come later than a allows, a leaky bucket is full, or there is no room in the queue. Serve has been called at now.
func (s *State) Await(a *Request, t *Turn, now int64) Decision {
	s.Adopt(a.Set, now)
	if s.HasTurns() {
		if old := s.extra.shared.turns.byID[t.ID]; old != nil {
			old.Asked, old.Waited = now, max(old.Waited, t.Waited)
			return Decision{Allowed: true}
		}
	}
	v, hole := s.examineTurn(a, now)
	if !v.allowed {
		return s.denial(a, &v)
	}
	t.Set, t.Cost, t.joined, t.Asked = a.Set, a.Cost, now, now
	switch {
	case v.delay == 0 && !s.HasTurns():
		charged := a.Cost
		if hole >= 0 { // it was charged for
			charged = 0
			s.cancelled().use(hole, a.Cost)
			s.tidyShared()
		} else {
			s.charge(a.Cost, &v, now)
		}
		t.Granted, t.Decision = true, s.admission(a, charged, &v)
		return t.Decision
	case t.NoRoom || s.Waiting() >= MaxTurns:
		t.Full = true
		d := s.denial(a, &v)
		d.RetryAfter = max(d.RetryAfter, v.delay, 1) // when its turn would have come
		return d
	}
	s.enqueue(t, now)
	return s.admission(a, a.Cost, &v)
}

// examineTurn is examine for one that comes behind all that wait, and may get a hole when nobody does: the one at the place that
// is returned, or -1.
func (s *State) examineTurn(a *Request, now int64) (v examination, hole int) {
	a.Leased.Tokens += s.ahead(now)
	v, hole = s.examine(a, now), -1
	if c := s.cancelled(); c != nil && !s.HasTurns() && a.Total <= a.Cost {
		if i := c.first(now, a.Cost); i >= 0 && time.Duration(c.list[i].due-now) < v.delay {
			v.delay, hole = time.Duration(c.list[i].due-now), i
			v.allowed = v.delay <= a.MaxDelay
		}
	}
	return v, hole
}

func (s *State) enqueue(t *Turn, now int64) {
	r := s.makeShared()
	if r.turns == nil {
		r.turns = &turns{byID: make(map[TurnID]*Turn), sweepAt: math.MaxInt64}
	}
	q := r.turns
	if t.ID.Node != "" && q.sweepAt == math.MaxInt64 {
		q.sweepAt = now + int64(TurnExpiry)
	}
	q.count++
	t.number = q.count
	q.byID[t.ID] = t
	q.total += t.Cost
	heap.Push(q, t)
	if t.place == 0 {
		q.headSince = now
	}
}

// Serve gives turns to those whose turn has come by now, and returns them with the moment at which it is to be called next,
// [math.MaxInt64] when nobody waits: mostly that of the next turn. Those whose nodes have not been heard of for too long leave the
// queue.
func (s *State) Serve(now int64) (granted []*Turn, next int64) {
	for s.HasTurns() {
		q := s.extra.shared.turns
		t := q.heap[0]
		if t.expired(now) {
			s.leave(t, t.Asked+int64(TurnExpiry))
			continue
		}
		if next = s.serveFirst(q, t, now); next <= now {
			granted = append(granted, t)
			continue
		}
		q.looked = now
		if q.sweepAt <= now {
			q.sweep(now)
		}
		return granted, min(next, q.sweepAt)
	}
	return granted, math.MaxInt64
}

// expired reports whether the node of one that waits has not been heard of for too long.
func (t *Turn) expired(now int64) bool { return t.ID.Node != "" && now-t.Asked > int64(TurnExpiry) }

// sweep takes those out of the queue whose nodes have not been heard of for too long; the first has been looked at.
func (q *turns) sweep(now int64) {
	q.filter(func(t *Turn) bool { return !t.expired(now) })
	q.sweepAt = now + int64(TurnExpiry)
}

// filter keeps those in the queue that are to stay, and returns the others.
func (q *turns) filter(stays func(*Turn) bool) (gone []*Turn) {
	stay := q.heap[:0]
	q.total = 0
	for _, t := range q.heap {
		if stays(t) {
			t.place = len(stay)
			stay = append(stay, t)
			q.total += t.Cost
		} else {
			delete(q.byID, t.ID)
			gone = append(gone, t)
		}
	}
	clear(q.heap[len(stay):])
	q.heap = stay
	heap.Init(q)
	return gone
}

// serveFirst gives the first of the queue its turn, if that has come by now, and returns when it has come or will.
func (s *State) serveFirst(q *turns, t *Turn, now int64) (at int64) {
	from := min(now, max(s.At, q.headSince, t.joined))
	out := s.Leased(now)
	if out.Tokens > 0 {
		from = now // nothing is known of the moments before: what is set aside may have come back since
	}
	s.Adopt(t.Set, from)
	a := Request{Set: t.Set, Cost: t.Cost, Reserve: true, MaxDelay: math.MaxInt64, Leased: out}
	v := s.examine(&a, from)
	at = max(after(from, max(v.delay, s.leaks(&v))), q.looked)
	c := s.cancelled()
	hole := -1
	if c != nil {
		if hole = c.first(from, t.Cost); hole >= 0 && c.list[hole].due <= at {
			at = c.list[hole].due
		} else {
			hole = -1
		}
	}
	if at > now {
		return at
	}
	if hole >= 0 {
		c.use(hole, t.Cost)
	} else {
		for i := range s.Set.Active {
			v.levels[i] = s.LevelAt(i, at)
		}
		s.charge(t.Cost, &v, at)
	}
	for i := range s.Set.Active {
		v.levels[i] = s.LevelAt(i, now)
	}
	v.delay = 0
	t.Granted, t.Decision = true, s.admission(&a, 0, &v) // the levels have its cost
	s.leave(t, at)
	return at
}

// leaks returns how long it takes until nothing is left in the leaky buckets.
func (s *State) leaks(v *examination) (longest time.Duration) {
	for i := range s.Set.Meters[:s.Set.Active] {
		if m := &s.Set.Meters[i]; m.leaky {
			longest = max(longest, m.nanos(v.levels[i]))
		}
	}
	return longest
}

// leave takes t out of the queue.
func (s *State) leave(t *Turn, now int64) {
	r := s.extra.shared
	r.turns.remove(t, now)
	if len(r.turns.heap) == 0 {
		r.turns = nil
		s.tidyShared()
	}
}

// LeaveTurn takes one that waits out of the queue, and reports whether it was there. One that has asked again since it had
// waited for that long stays. Serve has been called at now.
func (s *State) LeaveTurn(id TurnID, waited time.Duration, now int64) bool {
	if !s.HasTurns() {
		return false
	}
	t := s.extra.shared.turns.byID[id]
	if t == nil || waited < t.Waited {
		return false
	}
	s.leave(t, now)
	if r := s.shared(); r != nil && len(r.undone.list) > 0 {
		r.undone.unwind(s) // its turn may be a hole with nothing behind it
		s.tidyShared()
	}
	return true
}

// Dismiss takes those that a node's callers wait for out of the queue, or all when node is "", and returns them.
func (s *State) Dismiss(node string, now int64) (gone []*Turn) {
	if !s.HasTurns() {
		return nil
	}
	r := s.extra.shared
	first := r.turns.heap[0]
	gone = r.turns.filter(func(t *Turn) bool { return node != "" && t.ID.Node != node })
	switch {
	case len(r.turns.heap) == 0:
		r.turns = nil
		s.tidyShared()
	case r.turns.heap[0] != first:
		r.turns.headSince = now
	}
	return gone
}

// deniedBehindTurns returns what is decided about a reservation that comes behind all that wait, when that is a denial.
func (s *State) deniedBehindTurns(a *Request, now int64) (d Decision, denied bool) {
	behind := *a
	behind.Leased.Tokens += s.ahead(now)
	v := s.examine(&behind, now)
	if v.allowed {
		return d, false
	}
	return s.denial(&behind, &v), true
}

// chargeTurns charges the bucket for all that wait, in their order, and makes holes of their turns: something is about to be
// charged that comes behind them. All are charged under the limits that are in force: turns under others would overlap.
func (s *State) chargeTurns(now int64) {
	r := s.makeShared()
	room := r.undone.pending(now)
	if enough(room, r.turns.total) {
		return
	}
	r.undone.prune(now)
	waiting := slices.Clone(r.turns.heap)
	slices.SortFunc(waiting, func(x, y *Turn) int {
		return cmp.Or(cmp.Compare(x.Since, y.Since), cmp.Compare(x.number, y.number))
	})
	for _, t := range waiting {
		if room >= t.Cost {
			room -= t.Cost // it has a hole
			continue
		}
		if !s.Set.Fits(t.Cost) {
			s.Adopt(t.Set, now)
		}
		a := Request{Set: s.Set, Cost: t.Cost, Reserve: true, MaxDelay: math.MaxInt64, Leased: s.Leased(now)}
		v := s.examine(&a, now)
		before := s.snapshot()
		s.charge(t.Cost, &v, now)
		h := hole{undo: Undo{Before: before, After: s.snapshot()}, due: after(now, v.delay), full: t.Cost, left: t.Cost}
		r.undone.list = slices.Insert(r.undone.list, r.undone.search(h.due+1), h)
	}
}
