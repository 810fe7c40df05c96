package peerlimit

// undo is what it takes to make a reservation as if it had never been: the bucket before it and after it. While the
// bucket is still as it was after, nothing was taken or reserved behind it. It is opaque to all but the bucket's holder.
type undo struct {
	before, after snapshot
}

// snapshot is a bucketState without its limits. The zero snapshot is that of no bucket.
type snapshot struct {
	at     int64
	count  int
	levels [maxCombined]float64
}

// snapshot returns the state, or the zero snapshot when the bucket also remembers levels for other versions: their
// reservations cannot be undone, which is the safe side.
func (s *bucketState) snapshot() snapshot {
	if s.set.base != s.set {
		return snapshot{}
	}
	shot := snapshot{at: s.at, count: s.set.active}
	for i := range shot.count {
		shot.levels[i] = s.level(i)
	}
	return shot
}

// restore puts the levels back to what they were.
func (s *bucketState) restore(shot snapshot) {
	s.at = shot.at
	for i := range shot.count {
		s.setLevel(i, shot.levels[i])
	}
}

// reserve decides a and, when the answer is yes and can be undone, returns how.
func (s *bucketState) reserve(a *ask, now int64) (coreDecision, *undo) {
	s.adopt(a.set, now)
	before := s.snapshot()
	d := s.decide(a, now)
	after := s.snapshot()
	if !d.Allowed || before.count == 0 || after.count != before.count {
		return d, nil
	}
	return d, &undo{before: before, after: after}
}

// maxUndone bounds the reservations that were cancelled while others stood behind them. More than that many are spent.
const maxUndone = 256

// undone remembers reservations that were cancelled while others stood behind them, for the moment when those are
// cancelled too. The zero value is empty.
type undone struct {
	list []undo
}

// cancel gives the tokens of one reservation back to s, or remembers it until everything behind it was cancelled. exact
// reports that they went back at once.
func (c *undone) cancel(s *bucketState, u undo, now int64) (exact bool) {
	if u.after.count != s.set.active {
		return false // the limits have changed since
	}
	if s.snapshot() != u.after {
		c.remember(u, s, now)
		return false
	}
	for found := true; found; {
		s.restore(u.before)
		found = false
		for i := range c.list {
			if c.list[i].after == s.snapshot() {
				u, found = c.list[i], true
				c.list = append(c.list[:i], c.list[i+1:]...)
				break
			}
		}
	}
	return true
}

// remember keeps u until its turn would have come. By then those behind it are being served, one after the other, and it
// is ever less likely that all of them will be cancelled.
func (c *undone) remember(u undo, s *bucketState, now int64) {
	kept := c.list[:0]
	for _, old := range c.list {
		if old.pending(s.set, now) {
			kept = append(kept, old)
		}
	}
	c.list = kept
	if len(c.list) < maxUndone && u.pending(s.set, now) {
		c.list = append(c.list, u)
	}
}

// pending reports whether the turn of the reservation is still to come.
func (u *undo) pending(set *limitSet, now int64) bool {
	for i := range min(u.after.count, set.active) {
		m := &set.meters[i]
		if m.drain(u.after.levels[i], now-u.after.at) > m.burst || m.leaky && m.drain(u.after.levels[i], now-u.after.at) > 0 {
			return true
		}
	}
	return false
}
