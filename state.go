package peerlimit

import (
	"math"
	"slices"
	"time"
)

// maxLevels bounds the levels that one bucket remembers: those of the limits now asked for, and those that other
// versions of the code, still running elsewhere in the cluster, ask for under the same name.
const maxLevels = 2 * maxCombined

// limitSet is what a request asks to be enforced, prepared once and shared by all buckets of a limiter: buckets whose
// set is the same pointer need no comparing. It is immutable.
type limitSet struct {
	limits []coreLimit
	meters []meter
	ids    []levelID

	// active is how many of them a request asks for: the first ones. The others are levels that a bucket remembers for
	// requests with other limits; they drain and are not charged.
	active int

	// base is the set without the others; the set itself when there are none.
	base *limitSet
}

// newLimitSet prepares valid limits.
func newLimitSet(limits []coreLimit) *limitSet {
	set := &limitSet{active: len(limits)}
	for i, l := range limits {
		set.add(l, newMeter(l), identify(limits, i))
	}
	set.base = set
	return set
}

// remembering returns the set extended by some of old's levels, which it does not charge. They keep their identity: their
// ordinals say what they were counted among, not what they stand next to now.
func (set *limitSet) remembering(old *limitSet, others []int) *limitSet {
	if len(others) == 0 {
		return set
	}
	extended := &limitSet{active: set.active, base: set}
	for i := range set.limits {
		extended.add(set.limits[i], set.meters[i], set.ids[i])
	}
	for _, i := range others {
		extended.add(old.limits[i], old.meters[i], old.ids[i])
	}
	return extended
}

// withOthers is remembering for levels that another node remembered: of its set only limits and identities have come.
func (set *limitSet) withOthers(limits []coreLimit, ids []levelID) *limitSet {
	extended := &limitSet{
		limits: slices.Clone(set.limits), meters: slices.Clone(set.meters), ids: slices.Clone(set.ids),
		active: set.active, base: set,
	}
	for i, l := range limits {
		extended.add(l, newMeter(l), ids[i])
	}
	return extended
}

func (set *limitSet) add(l coreLimit, m meter, id levelID) {
	set.limits = append(set.limits, l)
	set.meters = append(set.meters, m)
	set.ids = append(set.ids, id)
}

// levels returns how many levels a bucket with the set remembers.
func (set *limitSet) levels() int { return len(set.meters) }

// smallestBurst is the greatest cost that a single take can have.
func (set *limitSet) smallestBurst() float64 {
	smallest := math.Inf(1)
	for _, m := range set.meters[:set.active] {
		smallest = math.Min(smallest, m.burst)
	}
	return smallest
}

// fits reports whether a single take of cost can ever pass.
func (set *limitSet) fits(cost float64) bool {
	for i := range set.meters[:set.active] {
		if cost > set.meters[i].ceiling {
			return false
		}
	}
	return true
}

// earns returns how long it takes until a cost is earned under every limit.
func (set *limitSet) earns(cost float64) (longest time.Duration) {
	for i := range set.active {
		longest = max(longest, set.meters[i].nanos(cost))
	}
	return longest
}

// leakTime returns how long it takes until cost has left every leaky bucket of the set; 0 when none is leaky.
func (set *limitSet) leakTime(cost float64) (longest time.Duration) {
	for i := range set.meters[:set.active] {
		if m := &set.meters[i]; m.leaky {
			longest = max(longest, m.nanos(cost))
		}
	}
	return longest
}

// levelID is what makes a level the same level when a limiter's numbers change: its period, its algorithm, and which of
// those with equal ones it is. Rate and burst may change under it.
type levelID struct {
	period    time.Duration
	algorithm coreAlgorithm
	ordinal   int
}

// identify returns the identity of the i-th of limits.
func identify(limits []coreLimit, i int) levelID {
	id := levelID{period: limits[i].Period, algorithm: limits[i].Algorithm}
	for _, earlier := range limits[:i] {
		if earlier.Period == id.period && earlier.Algorithm == id.algorithm {
			id.ordinal++
		}
	}
	return id
}

// bucketState is what one bucket remembers: a level per limit of its set, as of the instant at. It knows nothing of
// keys, locks or clocks; whoever holds it serialises access and passes the time, in nanoseconds of one monotonic clock.
//
// Nothing is written while nothing changes: a denial or a peek leaves it bit for bit as it was, which is why two equal
// states mean that nothing was taken in between (see undo).
type bucketState struct {
	set   *limitSet
	at    int64
	first float64 // the level of the first limit: most buckets have only one
	more  *more   // nil for most
}

// more is what few buckets have.
type more struct {
	rest *otherLevels // the levels of all limits but the first; nil while there is only one
	rare *rare        // of buckets in a table, see lease.go; nil when there is nothing
}

type otherLevels [maxLevels - 1]float64

func newBucketState(set *limitSet, now int64) bucketState {
	s := bucketState{at: now}
	s.setTo(set)
	return s
}

// setTo stores the set and makes room for its levels.
func (s *bucketState) setTo(set *limitSet) {
	s.set = set
	switch several := len(set.meters) > 1; {
	case several && s.more == nil:
		with := new(struct { // in one piece: a take of several limits needs both
			more
			levels otherLevels
		})
		with.rest = &with.levels
		s.more = &with.more
	case several && s.more.rest == nil:
		s.more.rest = new(otherLevels)
	case !several && s.more != nil:
		s.more.rest = nil
		s.tidy()
	}
}

// tidy drops more when there is nothing in it.
func (s *bucketState) tidy() {
	if s.more != nil && s.more.rest == nil && s.more.rare == nil {
		s.more = nil
	}
}

func (s *bucketState) level(i int) float64 {
	if i == 0 {
		return s.first
	}
	return s.more.rest[i-1]
}

func (s *bucketState) setLevel(i int, level float64) {
	if i == 0 {
		s.first = level
		return
	}
	s.more.rest[i-1] = level
}

// largerBurst is how many times larger than today's a burst may have been under which a level was made: a deploy that lowers
// a burst keeps what was consumed.
const largerBurst = 1024

// boundLevels lowers levels that no decision can have made: above twice the largest burst, and what drains until the last turn
// that anybody may reserve. A wild level would deny a key forever.
func (s *bucketState) boundLevels(longestTurn time.Duration) {
	for i := range s.set.meters {
		m := &s.set.meters[i]
		most := 2 * largerBurst * m.burst
		if level := s.level(i); level > most && m.nanos(level-most) > longestTurn {
			s.setLevel(i, addUp(most, float64(longestTurn)*(m.tokens/m.period)))
		}
	}
}

// clone returns a copy of the levels that shares nothing that is written to.
func (s *bucketState) clone() bucketState {
	c := *s
	c.more = nil
	c.setTo(s.set)
	if c.more != nil {
		*c.more.rest = *s.more.rest
	}
	return c
}

// advance drains all levels up to now. A clock that stood still or went back drains nothing and is not followed back.
func (s *bucketState) advance(now int64) {
	elapsed := now - s.at
	if elapsed <= 0 {
		return
	}
	for i := range s.set.meters {
		s.setLevel(i, s.set.meters[i].drain(s.level(i), elapsed))
	}
	s.at = now
}

// drained reports whether all levels are zero at now and nothing is set aside: the bucket carries no information and can be
// dropped.
func (s *bucketState) drained(now int64) bool {
	if len(s.out()) > 0 {
		return false
	}
	for i := range s.set.meters {
		if s.set.meters[i].drain(s.level(i), now-s.at) > 0 {
			return false
		}
	}
	return true
}

// fullIn returns the time until the bucket is full of tokens, from now: how much it still matters. While some are set aside
// nobody knows it, and it is [math.MaxInt64].
func (s *bucketState) fullIn(now int64) time.Duration {
	if s.leased(now).tokens > 0 {
		return math.MaxInt64
	}
	return s.drainsIn(now)
}

// drainsIn returns the time until every level is zero, from now, whatever is set aside.
func (s *bucketState) drainsIn(now int64) time.Duration {
	var longest time.Duration
	for i := range s.set.meters {
		m := &s.set.meters[i]
		longest = max(longest, m.nanos(m.drain(s.level(i), now-s.at)))
	}
	return longest
}

// adopt makes set the one that is enforced. Levels follow their identity; what is new starts at zero; what set does not
// name is kept for other versions while it is not drained. The time until now drains at the rates stored so far, so a
// raised rate helps from now on and never drains the past faster.
func (s *bucketState) adopt(set *limitSet, now int64) {
	if s.set == set || s.set.base == set && s.stillNeeded(now) {
		return
	}
	s.advance(now)
	var (
		levels [maxLevels]float64
		found  [maxLevels]bool
		others []int
	)
	for i, id := range set.ids {
		if j := slices.Index(s.set.ids, id); j >= 0 {
			levels[i], found[j] = s.level(j), true
		}
	}
	for j := range s.set.ids {
		// Those remembered longest stand last: they are the ones to forget when there are too many.
		if n := set.active + len(others); !found[j] && s.level(j) > 0 && n < maxLevels {
			levels[n] = s.level(j)
			others = append(others, j)
		}
	}
	s.setTo(set.remembering(s.set, others))
	for i := range s.set.meters {
		s.setLevel(i, levels[i])
	}
}

// stillNeeded reports whether a level kept for other versions has not drained yet.
func (s *bucketState) stillNeeded(now int64) bool {
	for i := s.set.active; i < len(s.set.meters); i++ {
		if s.set.meters[i].drain(s.level(i), now-s.at) > 0 {
			return true
		}
	}
	return false
}

// ask is one question to a bucket: may cost be taken?
type ask struct {
	set  *limitSet
	cost float64

	// total is what the caller is going to ask for in all when that is more than cost: a wait in instalments is refused
	// at once when its last one would come too late.
	total float64

	// reserve says that the take may be put off, by at most maxDelay, instead of being denied.
	reserve  bool
	maxDelay time.Duration

	// aside is what is not there to be taken, although it was not taken either.
	aside aside
}

// decide answers a, and takes the cost when the answer is yes: from all limits or from none.
func (s *bucketState) decide(a *ask, now int64) coreDecision {
	if s.set != a.set {
		s.adopt(a.set, now)
	}
	if len(s.set.meters) == 1 && !a.reserve && a.aside.tokens == 0 {
		if d, ok := s.takeOne(a.cost, now); ok {
			return d
		}
	}
	v := s.examine(a, now)
	if !v.allowed {
		return s.denial(a, &v)
	}
	s.charge(a.cost, &v, now)
	return s.admission(a, a.cost, &v)
}

// takeOne is decide for what most takes are: one limit, now, nothing set aside, and enough left; the bucket has a set of
// just that limit. It does what the functions below do, without the room that several limits take (TestTakeOne). When not
// ok, nothing was done.
func (s *bucketState) takeOne(cost float64, now int64) (d coreDecision, ok bool) {
	m := &s.set.meters[0]
	level := m.drain(s.first, now-s.at)
	after := addUp(level, cost)
	if after > m.ceiling {
		return d, false
	}
	s.first, s.at = after, max(s.at, now)
	d.Allowed, d.Limit, d.Remaining, d.ResetAfter = true, s.set.limits[0], max(0, m.burst-after), m.nanos(after)
	if m.leaky {
		d.Delay = m.nanos(level)
	}
	return d, true
}

// peek answers as decide would for a take of one token, or of the burst where that is less, and changes nothing.
func (s *bucketState) peek(set *limitSet, now int64) coreDecision {
	return s.peekBeside(aside{}, set, now)
}

// peekBeside is peek where some tokens are set aside.
func (s *bucketState) peekBeside(out aside, set *limitSet, now int64) coreDecision {
	if s.set != set {
		adopted := s.clone()
		adopted.adopt(set, now)
		s = &adopted
	}
	a := ask{set: set, cost: math.Min(1, set.smallestBurst()), aside: out}
	v := s.examine(&a, now)
	if !v.allowed {
		return s.denial(&a, &v)
	}
	return s.admission(&a, 0, &v)
}

// examination is what every active limit says to one question.
type examination struct {
	allowed bool
	delay   time.Duration              // until the last limit lets the request go
	finish  time.Duration              // until all instalments are through; at least delay
	levels  [maxCombined]float64       // drained up to now
	waits   [maxCombined]time.Duration // until the cost fits
}

// examine asks every active limit and writes nothing.
func (s *bucketState) examine(a *ask, now int64) examination {
	v := examination{allowed: true}
	elapsed := now - s.at
	for i := range s.set.meters[:s.set.active] {
		m := &s.set.meters[i]
		level := m.drain(s.level(i), elapsed)
		v.levels[i] = level
		after := addUp(level, a.cost)
		if a.aside.tokens > 0 {
			after = addUp(after, a.aside.tokens)
		}
		if after > m.ceiling {
			if a.aside.tokens > 0 {
				v.waits[i] = m.roomBeside(a.aside, level, a.cost)
			} else {
				v.waits[i] = m.room(s.level(i), elapsed, a.cost)
			}
			v.delay = max(v.delay, v.waits[i])
			v.allowed = v.allowed && a.reserve && !m.leaky
		} else if m.leaky {
			v.delay = max(v.delay, m.nanos(level)) // the requests ahead leave first
		}
	}
	v.finish = v.delay
	if a.total > a.cost {
		v.finish = s.finish(a, &v)
	}
	if a.reserve && v.finish > a.maxDelay {
		v.allowed = false
	}
	return v
}

// finish returns when the last of a's instalments goes through, if nobody else comes in between. Each waits for its turn
// under every limit, and until the one before has left every leaky bucket. As all but the last are alike, one of three is
// what the last one really waits for: its own turn, the turn of the one before, or the turn of the first.
func (s *bucketState) finish(a *ask, v *examination) time.Duration {
	before := a.cost * (math.Ceil(a.total/a.cost) - 1) // all but the last
	var turn, turnBefore, leakOne, leakAll time.Duration
	for i := range s.set.meters[:s.set.active] {
		m := &s.set.meters[i]
		level := addUp(v.levels[i], a.aside.tokens)
		turn = max(turn, m.nanos(addUp(level, a.total)-m.burst))
		turnBefore = max(turnBefore, m.nanos(addUp(level, before)-m.burst))
		if m.leaky {
			leakOne = max(leakOne, m.nanos(a.cost))
			leakAll = max(leakAll, m.nanos(before))
		}
	}
	return max(turn, addNanos(turnBefore, leakOne), addNanos(v.delay, leakAll))
}

// charge adds cost to the active levels and drains those remembered for other versions, so that all are as of now.
func (s *bucketState) charge(cost float64, v *examination, now int64) {
	elapsed := now - s.at
	for i := range s.set.meters {
		if i < s.set.active {
			s.setLevel(i, addUp(v.levels[i], cost))
		} else {
			s.setLevel(i, s.set.meters[i].drain(s.level(i), elapsed))
		}
	}
	s.at = max(s.at, now)
}

// denial describes a question that was answered with no. Its RetryAfter is never 0.
func (s *bucketState) denial(a *ask, v *examination) coreDecision {
	d := coreDecision{RetryAfter: -1}
	for i := range s.set.meters[:s.set.active] {
		m := &s.set.meters[i]
		level := addUp(v.levels[i], a.aside.tokens)
		d.ResetAfter = max(d.ResetAfter, m.nanos(level))
		retry := v.waits[i]
		if a.reserve {
			// The turn would come, but too late: it comes in time when the queue has become that much shorter.
			retry = max(retry, v.finish-a.maxDelay, 1)
		}
		if retry > d.RetryAfter {
			d.RetryAfter, d.Limit, d.Remaining = retry, s.set.limits[i], math.Max(0, m.burst-level)
		}
	}
	return d
}

// admission describes a question that was answered with yes and the bucket after cost was taken.
func (s *bucketState) admission(a *ask, cost float64, v *examination) coreDecision {
	d := coreDecision{Allowed: true, Delay: v.delay}
	scarcest := math.Inf(1)
	for i := range s.set.meters[:s.set.active] {
		m := &s.set.meters[i]
		after := addUp(v.levels[i], cost)
		if a.aside.tokens > 0 {
			after = addUp(after, a.aside.tokens)
		}
		d.ResetAfter = max(d.ResetAfter, m.nanos(after))
		if left := (m.burst - after) / m.burst; left < scarcest {
			scarcest = left
			d.Limit, d.Remaining = s.set.limits[i], math.Max(0, m.burst-after)
		}
	}
	return d
}

// addToAll adds to every level, also those that are remembered for other versions, what may come to be spent.
func (s *bucketState) addToAll(tokens float64) {
	for i := range s.set.meters {
		s.setLevel(i, addUp(s.level(i), tokens))
	}
}

// levels returns how many levels the bucket remembers.
func (s *bucketState) levels() int { return s.set.levels() }

// levelAt returns what is left of a level at now.
func (s *bucketState) levelAt(i int, now int64) float64 {
	return s.set.meters[i].drain(s.level(i), now-s.at)
}

// reset makes the bucket full of tokens. What is set aside stays so: it can still be used.
func (s *bucketState) reset(now int64) {
	r := s.rare()
	*s = newBucketState(s.set.base, now)
	if r != nil && len(r.leases.list) > 0 {
		s.makeRare().leases = r.leases
	}
}

// refund gives cost back to every limit of set, at most down to zero.
func (s *bucketState) refund(set *limitSet, cost float64, now int64) {
	s.adopt(set, now)
	s.advance(now)
	for i := range s.set.meters[:s.set.active] {
		s.setLevel(i, math.Max(0, subUp(s.level(i), cost)))
	}
}

// spend adds a cost that was spent elsewhere to the active levels. It lifts none above twice its burst: a node that was
// away for long must not lock everyone out for as long.
func (s *bucketState) spend(set *limitSet, cost float64, now int64) {
	s.adopt(set, now)
	s.advance(now)
	for i := range s.set.meters[:s.set.active] {
		level := s.level(i)
		s.setLevel(i, math.Max(level, math.Min(addUp(level, cost), 2*s.set.meters[i].burst)))
	}
}

// exhaust takes everything that is left under the limits of set.
func (s *bucketState) exhaust(set *limitSet, now int64) {
	s.adopt(set, now)
	s.advance(now)
	for i := range s.set.meters[:s.set.active] {
		s.setLevel(i, math.Max(s.level(i), s.set.meters[i].burst))
	}
}
