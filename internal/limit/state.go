package limit

import (
	"math"
	"slices"
	"time"
)

// MaxLevels bounds the levels that one bucket remembers: those of the limits now asked for, and those that other
// versions of the code, still running elsewhere in the cluster, ask for under the same name.
const MaxLevels = 2 * MaxCombined

// Set is what a request asks to be enforced, prepared once and shared by all buckets of a limiter: buckets whose
// set is the same pointer need no comparing. It is immutable.
type Set struct {
	Limits []Limit
	Meters []meter
	Name   *Name // of the limiter; the same for all sets that a bucket ever has

	// Active is how many of the limits a request asks for: the first ones. The others are levels that a bucket remembers for
	// requests with other limits; they drain and are not charged.
	Active int

	IDs []LevelID

	// Base is the set without the others; the set itself when there are none.
	Base *Set
}

// NewSet prepares valid limits that belong to no limiter.
func NewSet(limits []Limit) *Set {
	set := new(Set)
	set.Prepare(nil, limits)
	return set
}

// Prepare makes a zero set one of valid limits of a limiter.
func (set *Set) Prepare(name *Name, limits []Limit) {
	set.Name, set.Active, set.Base = name, len(limits), set
	for i, l := range limits {
		set.add(l, newMeter(l), Identify(limits, i))
	}
}

// remembering returns the set extended by some of old's levels, which it does not charge. They keep their identity: their
// ordinals say what they were counted among, not what they stand next to now.
func (set *Set) remembering(old *Set, others []int) *Set {
	if len(others) == 0 {
		return set
	}
	extended := &Set{Name: set.Name, Active: set.Active, Base: set}
	for i := range set.Limits {
		extended.add(set.Limits[i], set.Meters[i], set.IDs[i])
	}
	for _, i := range others {
		extended.add(old.Limits[i], old.Meters[i], old.IDs[i])
	}
	return extended
}

// WithOthers is remembering for levels that another node remembered: of its set only limits and identities have come.
func (set *Set) WithOthers(limits []Limit, ids []LevelID) *Set {
	extended := &Set{
		Limits: slices.Clone(set.Limits), Meters: slices.Clone(set.Meters), IDs: slices.Clone(set.IDs),
		Name: set.Name, Active: set.Active, Base: set,
	}
	for i, l := range limits {
		extended.add(l, newMeter(l), ids[i])
	}
	return extended
}

func (set *Set) add(l Limit, m meter, id LevelID) {
	set.Limits = append(set.Limits, l)
	set.Meters = append(set.Meters, m)
	set.IDs = append(set.IDs, id)
}

// Levels returns how many levels a bucket with the set remembers.
func (set *Set) Levels() int { return len(set.Meters) }

// SmallestBurst is the greatest cost that a single take can have.
func (set *Set) SmallestBurst() float64 {
	smallest := math.Inf(1)
	for _, m := range set.Meters[:set.Active] {
		smallest = math.Min(smallest, m.burst)
	}
	return smallest
}

// Fits reports whether a single take of cost can ever pass.
func (set *Set) Fits(cost float64) bool {
	for i := range set.Meters[:set.Active] {
		if cost > set.Meters[i].ceiling {
			return false
		}
	}
	return true
}

// Earns returns how long it takes until a cost is earned under every limit.
func (set *Set) Earns(cost float64) (longest time.Duration) {
	for i := range set.Active {
		longest = max(longest, set.Meters[i].nanos(cost))
	}
	return longest
}

// Takes returns how long a full bucket takes to let a cost through, in instalments where it is more than the burst.
func (set *Set) Takes(cost float64) time.Duration {
	fresh := NewState(set, 0)
	a := Request{Set: set, Cost: cost, Total: cost, Reserve: true, MaxDelay: math.MaxInt64}
	if !set.Fits(cost) {
		a.Cost = set.SmallestBurst()
	}
	v := fresh.examine(&a, 0)
	return v.finish
}

// LeakTime returns how long it takes until cost has left every leaky bucket of the set; 0 when none is leaky.
func (set *Set) LeakTime(cost float64) (longest time.Duration) {
	for i := range set.Meters[:set.Active] {
		if m := &set.Meters[i]; m.leaky {
			longest = max(longest, m.nanos(cost))
		}
	}
	return longest
}

// LevelID is what makes a level the same level when a limiter's numbers change: its period, its algorithm, and which of
// those with equal ones it is. Rate and burst may change under it.
type LevelID struct {
	Period    time.Duration
	Algorithm Algorithm
	Ordinal   int
}

// Identify returns the identity of the i-th of limits.
func Identify(limits []Limit, i int) LevelID {
	id := LevelID{Period: limits[i].Period, Algorithm: limits[i].Algorithm}
	for _, earlier := range limits[:i] {
		if earlier.Period == id.Period && earlier.Algorithm == id.Algorithm {
			id.Ordinal++
		}
	}
	return id
}

// State is what one bucket remembers: a level per limit of its set, as of the instant at. It knows nothing of
// keys, locks or clocks; its owner serialises access and passes the time, in nanoseconds of one monotonic clock.
//
// Nothing is written while nothing changes: a denial or a peek leaves it bit for bit as it was, which is why two equal
// states mean that nothing was taken in between (see undo).
type State struct {
	Set   *Set
	At    int64
	first float64 // the level of the first limit: most buckets have only one
	extra *extra  // nil for most
}

// extra is what few buckets have.
type extra struct {
	rest   *otherLevels // the levels of all limits but the first; nil while there is only one
	shared *shared      // of buckets in a table, see lease.go; nil when there is nothing
}

type otherLevels [MaxLevels - 1]float64

func NewState(set *Set, now int64) State {
	s := State{At: now}
	s.setTo(set)
	return s
}

// setTo stores the set and makes room for its levels.
func (s *State) setTo(set *Set) {
	s.Set = set
	switch several := len(set.Meters) > 1; {
	case several && s.extra == nil:
		with := new(struct { // in one piece: a take of several limits needs both
			extra
			levels otherLevels
		})
		with.rest = &with.levels
		s.extra = &with.extra
	case several && s.extra.rest == nil:
		s.extra.rest = new(otherLevels)
	case !several && s.extra != nil:
		s.extra.rest = nil
		s.tidy()
	}
}

// tidy drops more when there is nothing in it.
func (s *State) tidy() {
	if s.extra != nil && s.extra.rest == nil && s.extra.shared == nil {
		s.extra = nil
	}
}

func (s *State) Level(i int) float64 {
	if i == 0 {
		return s.first
	}
	return s.extra.rest[i-1]
}

func (s *State) SetLevel(i int, level float64) {
	if i == 0 {
		s.first = level
		return
	}
	s.extra.rest[i-1] = level
}

// largerBurst is how many times larger than today's a burst may have been under which a level was made: a deploy that lowers
// a burst keeps what was consumed.
const largerBurst = 1024

// BoundLevels lowers levels that no decision can have made: above twice the largest burst, and what drains until the last turn
// that anybody may reserve. A wild level would deny a key forever.
func (s *State) BoundLevels(longestTurn time.Duration) {
	for i := range s.Set.Meters {
		m := &s.Set.Meters[i]
		most := 2 * largerBurst * m.burst
		if level := s.Level(i); level > most && m.nanos(level-most) > longestTurn {
			s.SetLevel(i, AddUp(most, float64(longestTurn)*(m.tokens/m.period)))
		}
	}
}

// Clone returns a copy of the levels that shares nothing that is written to.
func (s *State) Clone() State {
	c := *s
	c.extra = nil
	c.setTo(s.Set)
	if c.extra != nil {
		*c.extra.rest = *s.extra.rest
	}
	return c
}

// Advance drains all levels up to now. A clock that stood still or went back drains nothing and is not followed back.
func (s *State) Advance(now int64) {
	elapsed := now - s.At
	if elapsed <= 0 {
		return
	}
	for i := range s.Set.Meters {
		s.SetLevel(i, s.Set.Meters[i].drain(s.Level(i), elapsed))
	}
	s.At = now
}

// Drained reports whether all levels are zero at now and nothing is set aside: the bucket carries no information and can be
// dropped.
func (s *State) Drained(now int64) bool {
	if len(s.out()) > 0 || s.HasTurns() {
		return false
	}
	for i := range s.Set.Meters {
		if s.Set.Meters[i].drain(s.Level(i), now-s.At) > 0 {
			return false
		}
	}
	return true
}

// FullIn returns the time until the bucket is full of tokens, from now: how much it still matters. While some are set aside
// nobody knows it, and it is [math.MaxInt64].
func (s *State) FullIn(now int64) time.Duration {
	if s.Leased(now).Tokens > 0 || s.HasTurns() {
		return math.MaxInt64
	}
	return s.DrainsIn(now)
}

// DrainsIn returns the time until every level is zero, from now, whatever is set aside.
func (s *State) DrainsIn(now int64) time.Duration {
	var longest time.Duration
	for i := range s.Set.Meters {
		m := &s.Set.Meters[i]
		longest = max(longest, m.nanos(m.drain(s.Level(i), now-s.At)))
	}
	return longest
}

// Adopt makes set the one that is enforced. Levels follow their identity; what is new starts at zero; what set does not
// name is kept for other versions while it is not drained. The time until now drains at the rates stored so far, so a
// raised rate helps from now on and never drains the past faster.
func (s *State) Adopt(set *Set, now int64) {
	if s.Set == set || s.Set.Base == set && s.stillNeeded(now) {
		return
	}
	s.Advance(now)
	var (
		levels [MaxLevels]float64
		found  [MaxLevels]bool
		others []int
	)
	for i, id := range set.IDs {
		if j := slices.Index(s.Set.IDs, id); j >= 0 {
			levels[i], found[j] = s.Level(j), true
		}
	}
	for j := range s.Set.IDs {
		// Those remembered longest stand last: they are the ones to forget when there are too many.
		if n := set.Active + len(others); !found[j] && s.Level(j) > 0 && n < MaxLevels {
			levels[n] = s.Level(j)
			others = append(others, j)
		}
	}
	s.setTo(set.remembering(s.Set, others))
	for i := range s.Set.Meters {
		s.SetLevel(i, levels[i])
	}
}

// stillNeeded reports whether a level kept for other versions has not drained yet.
func (s *State) stillNeeded(now int64) bool {
	for i := s.Set.Active; i < len(s.Set.Meters); i++ {
		if s.Set.Meters[i].drain(s.Level(i), now-s.At) > 0 {
			return true
		}
	}
	return false
}

// Request is one question to a bucket: may cost be taken?
type Request struct {
	Set  *Set
	Cost float64

	// Total is what the caller is going to ask for in all when that is more than cost: a wait in instalments is refused
	// at once when its last one would come too late.
	Total float64

	// Reserve says that the take may be put off, by at most MaxDelay, instead of being denied.
	Reserve  bool
	MaxDelay time.Duration

	// Leased is what is not there to be taken, although it was not taken either.
	Leased LeasedOut
}

// Decide answers a, and takes the cost when the answer is yes: from all limits or from none.
func (s *State) Decide(a *Request, now int64) (d Decision) {
	s.DecideInto(&d, a, now)
	return d
}

// DecideInto is Decide, and writes the answer to d.
func (s *State) DecideInto(d *Decision, a *Request, now int64) {
	if s.Set != a.Set {
		s.Adopt(a.Set, now)
	}
	if len(s.Set.Meters) == 1 && !a.Reserve && a.Leased.Tokens == 0 && !s.HasTurns() {
		if s.takeOne(d, a.Cost, now) {
			return
		}
	}
	if s.HasTurns() {
		denied := false
		if *d, denied = s.deniedBehindTurns(a, now); denied {
			return
		}
		s.chargeTurns(now)
	}
	v := s.examine(a, now)
	if !v.allowed {
		*d = s.denial(a, &v)
		return
	}
	s.charge(a.Cost, &v, now)
	*d = s.admission(a, a.Cost, &v)
}

// takeOne is decide for what most takes are: one limit, now, nothing set aside, and enough left; the bucket has a set of
// just that limit. It does what the functions below do, without the room that several limits take (TestTakeOne). When not
// ok, nothing was done.
func (s *State) takeOne(d *Decision, cost float64, now int64) (ok bool) {
	m := &s.Set.Meters[0]
	level := m.drain(s.first, now-s.At)
	after := AddUp(level, cost)
	if after > m.ceiling {
		return false
	}
	s.first, s.At = after, max(s.At, now)
	*d = Decision{Allowed: true, Limit: s.Set.Limits[0], Remaining: max(0, m.burst-after), ResetAfter: m.nanos(after)}
	if m.leaky {
		d.Delay = m.nanos(level)
	}
	return true
}

// Peek answers as decide would for a take of one token, or of the burst where that is less, and changes nothing.
func (s *State) Peek(set *Set, now int64) Decision {
	return s.PeekBeside(LeasedOut{}, set, now)
}

// PeekBeside is peek where some tokens are set aside.
func (s *State) PeekBeside(out LeasedOut, set *Set, now int64) Decision {
	out.Tokens += s.ahead(now)
	s = s.under(set, now)
	a := Request{Set: set, Cost: math.Min(1, set.SmallestBurst()), Leased: out}
	v := s.examine(&a, now)
	if !v.allowed {
		return s.denial(&a, &v)
	}
	return s.admission(&a, 0, &v)
}

// Denies answers as Decide would if the answer is no, and changes nothing.
func (s *State) Denies(a *Request, now int64) (d Decision, denies bool) {
	a.Leased.Tokens += s.ahead(now)
	s = s.under(a.Set, now)
	v := s.examine(a, now)
	if v.allowed {
		return Decision{}, false
	}
	return s.denial(a, &v), true
}

// under returns the state as it would be with set, or the state itself when it has that.
func (s *State) under(set *Set, now int64) *State {
	if s.Set == set {
		return s
	}
	adopted := s.Clone()
	adopted.Adopt(set, now)
	return &adopted
}

// examination is what every active limit says to one question.
type examination struct {
	allowed bool
	delay   time.Duration              // until the last limit lets the request go
	finish  time.Duration              // until all instalments are through; at least delay
	levels  [MaxCombined]float64       // drained up to now
	waits   [MaxCombined]time.Duration // until the cost fits
}

// examine asks every active limit and writes nothing.
func (s *State) examine(a *Request, now int64) examination {
	v := examination{allowed: true}
	elapsed := now - s.At
	for i := range s.Set.Meters[:s.Set.Active] {
		m := &s.Set.Meters[i]
		level := m.drain(s.Level(i), elapsed)
		v.levels[i] = level
		after := AddUp(level, a.Cost)
		if a.Leased.Tokens > 0 {
			after = AddUp(after, a.Leased.Tokens)
		}
		if after > m.ceiling {
			if a.Leased.Tokens > 0 {
				v.waits[i] = m.roomBeside(a.Leased, level, a.Cost)
			} else {
				v.waits[i] = m.room(s.Level(i), elapsed, a.Cost)
			}
			v.delay = max(v.delay, v.waits[i])
			v.allowed = v.allowed && a.Reserve && !m.leaky
		} else if m.leaky {
			v.delay = max(v.delay, m.nanos(AddUp(level, a.Leased.Tokens))) // the requests ahead leave first
		}
	}
	v.finish = v.delay
	if a.Total > a.Cost {
		v.finish = s.finish(a, &v)
	}
	if a.Reserve && v.finish > a.MaxDelay {
		v.allowed = false
	}
	return v
}

// finish returns when the last of a's instalments goes through, if nobody else comes in between. Each waits for its turn
// under every limit, and until the one before has left every leaky bucket. As all but the last are alike, one of three is
// what the last one really waits for: its own turn, the turn of the one before, or the turn of the first.
func (s *State) finish(a *Request, v *examination) time.Duration {
	before := a.Cost * (math.Ceil(a.Total/a.Cost) - 1) // all but the last
	var turn, turnBefore, leakOne, leakAll time.Duration
	for i := range s.Set.Meters[:s.Set.Active] {
		m := &s.Set.Meters[i]
		level := AddUp(v.levels[i], a.Leased.Tokens)
		turn = max(turn, m.nanos(AddUp(level, a.Total)-m.burst))
		turnBefore = max(turnBefore, m.nanos(AddUp(level, before)-m.burst))
		if m.leaky {
			leakOne = max(leakOne, m.nanos(a.Cost))
			leakAll = max(leakAll, m.nanos(before))
		}
	}
	return max(turn, AddNanos(turnBefore, leakOne), AddNanos(v.delay, leakAll))
}

// charge adds cost to the active levels and drains those remembered for other versions, so that all are as of now.
func (s *State) charge(cost float64, v *examination, now int64) {
	elapsed := now - s.At
	for i := range s.Set.Meters {
		if i < s.Set.Active {
			s.SetLevel(i, AddUp(v.levels[i], cost))
		} else {
			s.SetLevel(i, s.Set.Meters[i].drain(s.Level(i), elapsed))
		}
	}
	s.At = max(s.At, now)
}

// denial describes a question that was answered with no. Its RetryAfter is never 0.
func (s *State) denial(a *Request, v *examination) Decision {
	d := Decision{RetryAfter: -1}
	for i := range s.Set.Meters[:s.Set.Active] {
		m := &s.Set.Meters[i]
		level := AddUp(v.levels[i], a.Leased.Tokens)
		d.ResetAfter = max(d.ResetAfter, m.nanos(level))
		retry := v.waits[i]
		if a.Reserve {
			// The turn would come, but too late: it comes in time when the queue has become that much shorter.
			retry = max(retry, v.finish-a.MaxDelay, 1)
		}
		if retry > d.RetryAfter {
			d.RetryAfter, d.Limit, d.Remaining = retry, s.Set.Limits[i], math.Max(0, m.burst-level)
		}
	}
	return d
}

// admission describes a question that was answered with yes and the bucket after cost was taken.
func (s *State) admission(a *Request, cost float64, v *examination) Decision {
	d := Decision{Allowed: true, Delay: v.delay}
	scarcest := math.Inf(1)
	for i := range s.Set.Meters[:s.Set.Active] {
		m := &s.Set.Meters[i]
		after := AddUp(v.levels[i], cost)
		if a.Leased.Tokens > 0 {
			after = AddUp(after, a.Leased.Tokens)
		}
		d.ResetAfter = max(d.ResetAfter, m.nanos(after))
		if left := (m.burst - after) / m.burst; left < scarcest {
			scarcest = left
			d.Limit, d.Remaining = s.Set.Limits[i], math.Max(0, m.burst-after)
		}
	}
	return d
}

// AddToAll adds to every level, also those that are remembered for other versions, what may come to be spent.
func (s *State) AddToAll(tokens float64) {
	for i := range s.Set.Meters {
		s.SetLevel(i, AddUp(s.Level(i), tokens))
	}
}

// Levels returns how many levels the bucket remembers.
func (s *State) Levels() int { return s.Set.Levels() }

// LevelAt returns what is left of a level at now.
func (s *State) LevelAt(i int, now int64) float64 {
	return s.Set.Meters[i].drain(s.Level(i), now-s.At)
}

// Reset makes the bucket full of tokens. What is set aside stays so: it can still be used.
func (s *State) Reset(now int64) {
	r := s.shared()
	*s = NewState(s.Set.Base, now)
	if r != nil && len(r.leases.list) > 0 {
		s.makeShared().leases = r.leases
	}
	if r != nil && r.turns != nil {
		s.makeShared().turns = r.turns
		r.turns.headSince = now
	}
}

// Refund gives cost back to every limit of set, at most down to zero.
func (s *State) Refund(set *Set, cost float64, now int64) {
	s.Adopt(set, now)
	s.Advance(now)
	for i := range s.Set.Meters[:s.Set.Active] {
		s.SetLevel(i, math.Max(0, SubUp(s.Level(i), cost)))
	}
}

// Spend adds a cost that was spent elsewhere to the active levels, but lifts none by more than one burst above the burst, or above
// the turns that are queued: a node that was away for long must not lock everyone out for as long. What is queued has nothing
// to do with that, so it leaves a debt as much room as there is in a bucket without turns.
func (s *State) Spend(set *Set, cost float64, now int64) {
	s.Adopt(set, now)
	s.Advance(now)
	owed := s.owed(set, now)
	for i := range s.Set.Meters[:s.Set.Active] {
		level, burst := s.Level(i), s.Set.Meters[i].burst
		outstanding := 0.0
		if owed != nil {
			outstanding = owed.Level(i)
		}
		free := math.Max(0, burst-level)
		added := math.Min(cost, free+math.Max(0, burst-outstanding))
		s.SetLevel(i, AddUp(level, added))
		if beyond := added - free; beyond > 0 {
			if owed == nil {
				owed = s.makeOwed(set, now)
			}
			owed.SetLevel(i, AddUp(owed.Level(i), beyond))
		}
	}
}

// owed returns what debts have lifted the levels by beyond the burst, as of now, or nil when nothing of that is left.
func (s *State) owed(set *Set, now int64) *State {
	r := s.shared()
	if r == nil || r.owed == nil {
		return nil
	}
	r.owed.Adopt(set, now)
	r.owed.Advance(now)
	if r.owed.Drained(now) {
		r.owed = nil
		s.tidyShared()
		return nil
	}
	return r.owed
}

// makeOwed returns the bucket's owed, which it has from now on. It is not sent with the bucket: another holder may charge one
// burst more.
func (s *State) makeOwed(set *Set, now int64) *State {
	owed := NewState(set, now)
	s.makeShared().owed = &owed
	return &owed
}

// Exhaust takes everything that is left under the limits of set.
func (s *State) Exhaust(set *Set, now int64) {
	s.Adopt(set, now)
	s.Advance(now)
	for i := range s.Set.Meters[:s.Set.Active] {
		s.SetLevel(i, math.Max(s.Level(i), s.Set.Meters[i].burst))
	}
}
