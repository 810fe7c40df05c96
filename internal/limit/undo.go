package limit

// Undo is what it takes to make a reservation as if it had never been: the bucket before it and after it. While the
// bucket is still as it was after, nothing was taken or reserved behind it. It is opaque to all but the bucket's holder.
type Undo struct {
	Before, After Snapshot
}

// Snapshot is a State without its limits. The zero snapshot is that of no bucket.
type Snapshot struct {
	At     int64
	Count  int
	Levels [MaxCombined]float64
}

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

// Reserve decides a and, when the answer is yes and can be undone, returns how.
func (s *State) Reserve(a *Request, now int64) (Decision, *Undo) {
	s.Adopt(a.Set, now)
	before := s.snapshot()
	d := s.Decide(a, now)
	after := s.snapshot()
	if !d.Allowed || before.Count == 0 || after.Count != before.Count {
		return d, nil
	}
	return d, &Undo{Before: before, After: after}
}

// MaxUndone bounds the reservations that were cancelled while others stood behind them. More than that many are spent.
const MaxUndone = 256

// Cancelled remembers reservations that were cancelled while others stood behind them, for the moment when those are
// cancelled too. The zero value is empty.
type Cancelled struct {
	List []Undo
}

// Cancel gives the tokens of one reservation back to s, or remembers it until everything behind it was cancelled. exact
// reports that they went back at once.
func (c *Cancelled) Cancel(s *State, u Undo, now int64) (exact bool) {
	if u.After.Count != s.Set.Active {
		return false // the limits have changed since
	}
	if s.snapshot() != u.After {
		c.remember(u, s, now)
		return false
	}
	for found := true; found; {
		s.restore(u.Before)
		found = false
		for i := range c.List {
			if c.List[i].After == s.snapshot() {
				u, found = c.List[i], true
				c.List = append(c.List[:i], c.List[i+1:]...)
				break
			}
		}
	}
	return true
}

// remember keeps u until its turn would have come. By then those behind it are being served, one after the other, and it
// is ever less likely that all of them will be cancelled.
func (c *Cancelled) remember(u Undo, s *State, now int64) {
	kept := c.List[:0]
	for _, old := range c.List {
		if old.pending(s.Set, now) {
			kept = append(kept, old)
		}
	}
	c.List = kept
	if len(c.List) < MaxUndone && u.pending(s.Set, now) {
		c.List = append(c.List, u)
	}
}

// pending reports whether the turn of the reservation is still to come.
func (u *Undo) pending(set *Set, now int64) bool {
	for i := range min(u.After.Count, set.Active) {
		m := &set.Meters[i]
		if m.drain(u.After.Levels[i], now-u.After.At) > m.burst || m.leaky && m.drain(u.After.Levels[i], now-u.After.At) > 0 {
			return true
		}
	}
	return false
}
