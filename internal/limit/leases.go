package limit

import (
	"cmp"
	"math"
	"slices"
	"time"
)

// Leases, at the holder. A node that takes many tokens of one key asks for more than it needs at the moment, and uses them
// without asking. Here they are set aside: they are not there for others, and they do not drain, because they may all be
// used at the last moment. What is not used comes back; what has not come back in time counts as used.
//
// Why nobody gets more than burst + rate*w: let the ideal bucket be charged when a leased token is used, E its level, L
// the level here, and U what is used of the leases that are out. E <= L + U holds at first, and always: time drains E and
// L alike, but U not at all; using a leased token adds to E and U; what a lease has used moves from U to L when it ends.
// As U is at most what was set aside, and that and L together never exceed the burst, neither does E.

const (
	// LeaseTime is how long a lease may be used, from the moment it was asked for.
	LeaseTime = 10 * time.Millisecond

	// LeaseReturnTime is how much longer, at least, the holder waits for what was not used: it counts from the moment of
	// granting, which is later.
	LeaseReturnTime = 10 * time.Millisecond

	// leastLease is how many times the cost of the take that asks a lease must be worth: fewer are not worth the trouble,
	// and small limits stay as exact as they can be.
	leastLease = 8

	// maxLeases bounds the leases of one bucket that are out at the same time.
	maxLeases = 1024
)

// lease is what was set aside for one caller.
type lease struct {
	id     uint64  // 0 for one that moved here with its bucket: it cannot be returned any more
	set    *Set    // the limits it is charged under
	tokens float64 // a whole number
	end    int64   // from then on it counts as used
}

// leases are those of one bucket, in the order of their ends. The zero value has none.
type leases struct {
	list  []lease
	total float64 // of tokens: whole numbers, so the sum is exact
}

// LeasedOut is what leases take out of a bucket for a question to it. The zero value is nothing.
type LeasedOut struct {
	Tokens float64
	ends   time.Duration // from now, when the last of them drains, if it was used
}

// shared is what buckets have that tokens are set aside of or owed, that turns were cancelled of, or that somebody waits at.
type shared struct {
	undone Cancelled
	leases leases
	owed   *State // what debts have lifted the levels by beyond the burst; it drains as they do
	turns  *turns // nil when nobody waits
}

// shared returns what the bucket has of it, or nil.
func (s *State) shared() *shared {
	if s.extra == nil {
		return nil
	}
	return s.extra.shared
}

// makeShared returns the bucket's rare, which it has from now on.
func (s *State) makeShared() *shared {
	if s.extra == nil {
		s.extra = new(extra)
	}
	if s.extra.shared == nil {
		s.extra.shared = new(shared)
	}
	return s.extra.shared
}

// HasMore reports whether the bucket has what few have; when not, nothing is set aside.
func (s *State) HasMore() bool { return s.extra != nil }

// out returns the leases of the bucket that are out.
func (s *State) out() []lease {
	if r := s.shared(); r != nil {
		return r.leases.list
	}
	return nil
}

// tidyShared drops the bucket's rare when there is nothing in it.
func (s *State) tidyShared() {
	r := s.shared()
	if r == nil || len(r.leases.list) > 0 || r.turns != nil || r.owed != nil {
		return
	}
	if r.leases.total = 0; len(r.undone.list) == 0 {
		s.extra.shared = nil
		s.tidy()
	}
}

// Leased returns what is set aside at now, after whatever has ended was charged.
func (s *State) Leased(now int64) LeasedOut {
	out := s.out()
	if len(out) == 0 {
		return LeasedOut{}
	}
	return LeasedOut{Tokens: s.extra.shared.leases.total, ends: time.Duration(max(0, out[len(out)-1].end-now))}
}

// Expire charges leases that have ended, as of their end, and returns how many and their tokens.
func (s *State) Expire(now int64) (ended int, tokens float64) {
	r := s.shared()
	if r == nil {
		return 0, 0
	}
	if r.owed != nil && r.owed.Drained(now) {
		r.owed = nil
		s.tidyShared()
	}
	l := &r.leases
	for ended < len(l.list) && l.list[ended].end <= now {
		tokens += l.list[ended].tokens
		s.settle(&l.list[ended], l.list[ended].tokens, l.list[ended].end)
		ended++
	}
	if ended > 0 {
		l.list = slices.Delete(l.list, 0, ended)
		l.total -= tokens
		s.tidyShared()
	}
	return ended, tokens
}

// settle charges what was used of a lease to the limits it was granted under. One that the bucket does not remember any
// more was drained when it was forgotten, and has not been charged since.
func (s *State) settle(l *lease, used float64, now int64) {
	if used == 0 {
		return
	}
	s.Adopt(l.set, now)
	s.Advance(now)
	for i := range l.set.Active {
		s.SetLevel(i, AddUp(s.Level(i), used))
	}
}

// Lend sets tokens aside: at most want, and at most an equal part, one of 2*members, of what is left under the scarcest
// limit, so that several callers have some and half of it stays here. It returns 0 when that is too few for the cost of
// one take. The bucket has just adopted set.
func (s *State) Lend(id uint64, set *Set, cost, want float64, members int, now int64) (tokens float64) {
	if s.HasTurns() {
		return 0
	}
	out := s.Leased(now)
	tokens = want
	for i := range set.Active {
		m := &set.Meters[i]
		if m.leaky {
			return 0
		}
		left := m.burst - AddUp(m.drain(s.Level(i), now-s.At), out.Tokens)
		tokens = math.Min(tokens, left/float64(2*members))
	}
	tokens = math.Floor(tokens)
	if !(tokens >= leastLease*math.Max(cost, 1)) || len(s.out()) >= maxLeases {
		return 0
	}
	l := &s.makeShared().leases
	l.list = append(l.list, lease{id: id, set: set.Base, tokens: tokens, end: now + int64(LeaseTime+LeaseReturnTime)})
	l.total += tokens
	return tokens
}

// GiveBack takes back what was not used of a lease. It reports how much was, and whether the lease was still out.
func (s *State) GiveBack(id uint64, unused float64, now int64) (used float64, ok bool) {
	r := s.shared()
	if r == nil || id == 0 {
		return 0, false
	}
	l := &r.leases
	i := slices.IndexFunc(l.list, func(out lease) bool { return out.id == id })
	if i < 0 {
		return 0, false
	}
	out := l.list[i]
	l.list = slices.Delete(l.list, i, i+1)
	l.total -= out.tokens
	used = math.Min(out.tokens, math.Max(0, SubUp(out.tokens, unused)))
	s.settle(&out, used, now)
	s.tidyShared()
	return used, true
}

// FirstBack returns how long nothing can come back of what is set aside, from now: a denial stands until then. It is
// forever when nothing is.
func (s *State) FirstBack(now int64) time.Duration {
	out := s.out()
	if len(out) == 0 {
		return math.MaxInt64
	}
	return time.Duration(max(0, out[0].end-int64(LeaseReturnTime)-now))
}

// Moving returns what is set aside when the bucket is sent elsewhere, or to a standby: as much, for as long, and for the
// same limits. The caller that has it is not told; what comes back after a move comes too late, and counts as used.
func (s *State) Moving(now int64) (moving []MovingLease) {
	out := s.out()
	for i := range out {
		l := &out[i]
		j := slices.IndexFunc(moving, func(m MovingLease) bool { return m.Set == l.set })
		if j < 0 {
			j = len(moving)
			moving = append(moving, MovingLease{Set: l.set})
		}
		moving[j].Tokens += l.tokens
		moving[j].Left = time.Duration(l.end - now)
	}
	return moving
}

// movingSize bounds what each set's leases take when encoded, and LeasesSize what all of a bucket's do.
const movingSize = 24

func (s *State) LeasesSize() int { return movingSize * min(len(s.out()), MaxLevels) }

// Moved sets aside again what was set aside where the bucket came from.
func (s *State) Moved(moving []MovingLease, now int64) {
	for _, m := range moving {
		l := &s.makeShared().leases
		// No clock of another node is trusted with more than a lease can have, and no count with more than a bucket can lend.
		tokens := math.Floor(min(m.Tokens, m.Set.SmallestBurst()))
		l.list = append(l.list, lease{set: m.Set, tokens: tokens, end: now + int64(min(m.Left, LeaseTime+LeaseReturnTime))})
		l.total += tokens
	}
	if len(moving) > 1 {
		slices.SortFunc(s.out(), func(x, y lease) int { return cmp.Compare(x.end, y.end) })
	}
}

// MovingLease is what is set aside for callers under one set of limits, when its bucket moves.
type MovingLease struct {
	Set    *Set
	Tokens float64
	Left   time.Duration // until it counts as used
}
