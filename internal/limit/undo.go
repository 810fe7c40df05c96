package limit

import (
	"math"
	"slices"
	"time"
)

// Cancelled reservations. A reservation charges the bucket when it is made, for a turn that comes later. One that is cancelled
// with nothing behind it is undone: the bucket is as it was before. One that is cancelled while others stand behind it leaves a
// hole, a turn that nobody has. The next that asks for a turn gets it. That is exact: the ideal bucket was charged there.

// Undo is what it takes to make a reservation as if it had never been: the bucket before it and after it. While the
// bucket is still as it was after, nothing was taken or reserved behind it. It is opaque to all but the bucket's holder.
type Undo struct {
	Before, After Snapshot
}

// Shift moves all moments by so many nanoseconds.
func (u *Undo) Shift(by int64) {
	u.Before.At += by // they wrap around, and back
	u.After.At += by
}

// Snapshot is a State without its limits. The zero snapshot is that of no bucket.
type Snapshot struct {
	At     int64
	Count  int
	Levels [MaxCombined]float64
}

// partOfHole is the At of an Undo's Before where the reservation has only a part of a hole: After is the hole's, and the first
// level of Before is the cost.
const partOfHole = math.MinInt64

// snapshot returns the state, or the zero snapshot when the bucket also remembers levels for other versions: their
// reservations cannot be undone, which is the safe side.
func (s *State) snapshot() Snapshot {
	if s.Set.Base != s.Set {
		return Snapshot{}
	}
	shot := Snapshot{At: s.At, Count: s.Set.Active}
	for i := range shot.Count {
		shot.Levels[i] = s.Level(i)
	}
	return shot
}

// restore puts the levels back to what they were.
func (s *State) restore(shot Snapshot) {
	s.At = shot.At
	for i := range shot.Count {
		s.SetLevel(i, shot.Levels[i])
	}
}

// Reserve decides a and, when the answer is yes and can be undone, returns how. The turn is the first hole that comes before
// the end of the queue, or else the end of the queue.
func (s *State) Reserve(a *Request, now int64) (Decision, *Undo) {
	s.Adopt(a.Set, now)
	if s.HasTurns() {
		if d, denied := s.deniedBehindTurns(a, now); denied {
			return d, nil
		}
		s.chargeTurns(now)
	} else if d, u := s.reserveHole(a, now); u != nil {
		return d, u
	}
	before := s.snapshot()
	d := s.Decide(a, now)
	after := s.snapshot()
	if !d.Allowed || before.Count == 0 || after.Count != before.Count {
		return d, nil
	}
	return d, &Undo{Before: before, After: after}
}

// reserveHole gives a the first hole, if it comes before the end of the queue and in time. The bucket has adopted a's set.
func (s *State) reserveHole(a *Request, now int64) (Decision, *Undo) {
	c := s.cancelled()
	if c == nil || a.Total > a.Cost {
		return Decision{}, nil
	}
	i := c.first(now, a.Cost)
	if i < 0 {
		return Decision{}, nil
	}
	v := s.examine(a, now)
	due := c.list[i].due - now
	if v.delay <= time.Duration(due) && v.allowed || time.Duration(due) > a.MaxDelay {
		return Decision{}, nil
	}
	v.delay = time.Duration(due)
	u := c.use(i, a.Cost)
	s.tidyShared()
	return s.admission(a, 0, &v), &u
}

const (
	// MaxHoles bounds the turns of one bucket that were cancelled while others stood behind them. More than that many are spent.
	MaxHoles = 1 << 14

	// maxPassedHoles bounds those of them whose time has passed. Nobody can use one any more, but what was reserved before it
	// can still be undone while everything behind it is.
	maxPassedHoles = 256
)

// hole is a turn that was cancelled.
type hole struct {
	undo       Undo
	due        int64
	full, left float64 // the cost, and what of it nobody has
}

// whole reports whether nobody has a part of the hole.
func (h *hole) whole() bool { return enough(h.left, h.full) }

// enough reports whether there are as many tokens as cost, but for the rounding of the levels that they were subtracted from.
func enough(there, cost float64) bool { return there+there*roundingAllowance >= cost }

// Cancelled has the holes of one bucket, in the order of their turns. The zero value is empty.
type Cancelled struct {
	list []hole
}

// cancelled returns the bucket's holes, or nil when it has none.
func (s *State) cancelled() *Cancelled {
	if r := s.shared(); r != nil && len(r.undone.list) > 0 {
		return &r.undone
	}
	return nil
}

// Holes returns how many turns of the bucket were cancelled with others behind them.
func (s *State) Holes() int {
	if c := s.cancelled(); c != nil {
		return len(c.list)
	}
	return 0
}

// CancelReserved gives the tokens of one reservation back, or makes a hole of its turn. exact reports that they went back
// immediately.
func (s *State) CancelReserved(u Undo, now int64) (exact bool) {
	if u.After.Count != s.Set.Active || u.After.At < 0 || u.After.At > now {
		return false // the limits have changed since, or it is not of this bucket
	}
	exact = s.makeShared().undone.cancel(s, u, now)
	s.tidyShared()
	return exact
}

func (c *Cancelled) cancel(s *State, u Undo, now int64) (exact bool) {
	if u.Before.At == partOfHole {
		i := c.of(&u, s.Set)
		if i < 0 {
			return false
		}
		h := &c.list[i]
		h.left = math.Min(h.full, h.left+u.Before.Levels[0])
		return h.whole() && c.unwind(s)
	}
	if s.snapshot() != u.After {
		c.insert(u, s.Set, now)
		return false
	}
	s.restore(u.Before)
	c.unwind(s)
	return true
}

// unwind undoes the holes that nothing stands behind any more, the last one first, and reports whether there was one.
func (c *Cancelled) unwind(s *State) (any bool) {
	for {
		shot := s.snapshot()
		i := len(c.list) - 1
		for i >= 0 && c.list[i].undo.After != shot {
			if c.list[i].due < c.list[len(c.list)-1].due {
				return any // the last turn is among those that come last
			}
			i--
		}
		if i < 0 || !c.list[i].whole() {
			return any
		}
		s.restore(c.list[i].undo.Before)
		c.list = slices.Delete(c.list, i, i+1)
		any = true
	}
}

// insert makes a hole of a reservation's turn.
func (c *Cancelled) insert(u Undo, set *Set, now int64) {
	c.prune(now)
	due, cost := u.turn(set)
	if len(c.list) >= MaxHoles || !(cost > 0) || c.of(&u, set) >= 0 {
		return
	}
	c.list = slices.Insert(c.list, c.search(due+1), hole{undo: u, due: due, full: cost, left: cost})
}

// prune forgets holes whose time has passed, but for the last of them.
func (c *Cancelled) prune(now int64) {
	if passed := c.search(now); passed > maxPassedHoles {
		c.list = slices.Delete(c.list, 0, passed-maxPassedHoles)
	}
}

// turn returns when the turn of the reservation comes, and its cost.
func (u *Undo) turn(set *Set) (due int64, cost float64) {
	cost = math.Inf(1)
	for i := range min(u.After.Count, set.Active) {
		m := &set.Meters[i]
		before := m.drain(u.Before.Levels[i], u.After.At-u.Before.At)
		cost = math.Min(cost, u.After.Levels[i]-before)
		wait := m.nanos(u.After.Levels[i] - m.burst)
		if m.leaky {
			wait = m.nanos(before)
		}
		due = max(due, after(u.After.At, wait))
	}
	return due, cost
}

// search returns the place of the first hole whose turn is not before at.
func (c *Cancelled) search(at int64) int {
	i, _ := slices.BinarySearchFunc(c.list, at, func(h hole, at int64) int {
		if h.due < at {
			return -1
		}
		return 1
	})
	return i
}

// of returns the place of the hole that a reservation has left, or has a part of; -1 when there is none.
func (c *Cancelled) of(u *Undo, set *Set) int {
	i, last := 0, len(c.list)
	if u.Before.At != partOfHole {
		due, _ := u.turn(set)
		i, last = c.search(due), c.search(due+1)
	}
	for ; i < last; i++ {
		if c.list[i].undo.After == u.After {
			return i
		}
	}
	return -1
}

// first returns the place of the first hole from a moment on that has room for cost; -1 when there is none.
func (c *Cancelled) first(from int64, cost float64) int {
	for i := c.search(from); i < len(c.list); i++ {
		if enough(c.list[i].left, cost) {
			return i
		}
	}
	return -1
}

// use takes cost out of a hole, and returns how that is undone.
func (c *Cancelled) use(i int, cost float64) Undo {
	h := &c.list[i]
	u := h.undo
	if h.whole() && enough(cost, h.full) {
		c.list = slices.Delete(c.list, i, i+1)
		return u
	}
	h.left = math.Max(0, h.left-cost)
	u.Before = Snapshot{At: partOfHole, Count: u.After.Count}
	u.Before.Levels[0] = cost
	return u
}

// pending returns how many tokens the holes have that come from a moment on.
func (c *Cancelled) pending(from int64) (tokens float64) {
	for i := c.search(from); i < len(c.list); i++ {
		tokens += c.list[i].left
	}
	return tokens
}

// after returns a moment that is so much later, at most the last there is.
func after(at int64, wait time.Duration) int64 {
	if int64(wait) > math.MaxInt64-max(at, 0) {
		return math.MaxInt64
	}
	return at + int64(wait)
}
