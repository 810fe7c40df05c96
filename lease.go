package peerlimit

import (
	"cmp"
	"math"
	"slices"
	"sync"
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
	// leaseTime is how long a lease may be used, from the moment it was asked for.
	leaseTime = 10 * time.Millisecond

	// leaseReturnTime is how much longer, at least, the holder waits for what was not used: it counts from the moment of
	// granting, which is later.
	leaseReturnTime = 10 * time.Millisecond

	// leastLease is how many times the cost of the take that asks a lease must be worth: fewer are not worth the trouble,
	// and small limits stay as exact as they can be.
	leastLease = 8

	// maxLeases bounds the leases of one bucket that are out at the same time.
	maxLeases = 1024
)

// lease is what was set aside for one caller.
type lease struct {
	id     uint64    // 0 for one that moved here with its bucket: it cannot be returned any more
	set    *limitSet // the limits it is charged under
	tokens float64   // a whole number
	end    int64     // from then on it counts as used
}

// leases are those of one bucket, in the order of their ends. The zero value has none.
type leases struct {
	list  []lease
	total float64 // of tokens: whole numbers, so the sum is exact
}

// aside is what leases take out of a bucket for a question to it. The zero value is nothing.
type aside struct {
	tokens float64
	ends   time.Duration // from now, when the last of them drains, if it was used
}

// rare is what buckets have that tokens of are set aside or were reserved and given back.
type rare struct {
	undone undone
	leases leases
}

// rare returns what the bucket has of it, or nil.
func (b *bucket) rare() *rare {
	if b.more == nil {
		return nil
	}
	return b.more.rare
}

// makeRare returns the bucket's rare, which it has from now on.
func (b *bucket) makeRare() *rare {
	if b.more == nil {
		b.more = new(more)
	}
	if b.more.rare == nil {
		b.more.rare = new(rare)
	}
	return b.more.rare
}

// out returns the leases of the bucket that are out.
func (b *bucket) out() []lease {
	if r := b.rare(); r != nil {
		return r.leases.list
	}
	return nil
}

// tidyRare drops the bucket's rare when there is nothing in it.
func (b *bucket) tidyRare() {
	r := b.rare()
	if r == nil || len(r.leases.list) > 0 {
		return
	}
	if r.leases.total = 0; len(r.undone.list) == 0 {
		b.more.rare = nil
		b.tidy()
	}
}

// leased returns what is set aside at now, after whatever has ended was charged.
func (b *bucket) leased(now int64) aside {
	out := b.out()
	if len(out) == 0 {
		return aside{}
	}
	return aside{tokens: b.more.rare.leases.total, ends: time.Duration(max(0, out[len(out)-1].end-now))}
}

// expire charges leases that have ended, as of their end, and returns how many and their tokens.
func (b *bucket) expire(now int64) (ended int, tokens float64) {
	r := b.rare()
	if r == nil {
		return 0, 0
	}
	l := &r.leases
	for ended < len(l.list) && l.list[ended].end <= now {
		tokens += l.list[ended].tokens
		b.settle(&l.list[ended], l.list[ended].tokens, l.list[ended].end)
		ended++
	}
	if ended > 0 {
		l.list = slices.Delete(l.list, 0, ended)
		l.total -= tokens
		b.tidyRare()
	}
	return ended, tokens
}

// settle charges what was used of a lease to the limits it was granted under. One that the bucket does not remember any
// more was drained when it was forgotten, and has not been charged since.
func (b *bucket) settle(l *lease, used float64, now int64) {
	if used == 0 {
		return
	}
	b.adopt(l.set, now)
	b.advance(now)
	for i := range l.set.active {
		b.setLevel(i, addUp(b.level(i), used))
	}
}

// lend sets tokens aside: at most want, and at most an equal part, one of 2*members, of what is left under the scarcest
// limit, so that several callers have some and half of it stays here. It returns 0 when that is too few for the cost of
// one take. The bucket has just adopted set.
func (b *bucket) lend(id uint64, set *limitSet, cost, want float64, members int, now int64) (tokens float64) {
	out := b.leased(now)
	tokens = want
	for i := range set.active {
		m := &set.meters[i]
		if m.leaky {
			return 0
		}
		left := m.burst - addUp(m.drain(b.level(i), now-b.at), out.tokens)
		tokens = math.Min(tokens, left/float64(2*members))
	}
	tokens = math.Floor(tokens)
	if !(tokens >= leastLease*math.Max(cost, 1)) || len(b.out()) >= maxLeases {
		return 0
	}
	l := &b.makeRare().leases
	l.list = append(l.list, lease{id: id, set: set.base, tokens: tokens, end: now + int64(leaseTime+leaseReturnTime)})
	l.total += tokens
	return tokens
}

// giveBack takes back what was not used of a lease. It reports how much was, and whether the lease was still out.
func (b *bucket) giveBack(id uint64, unused float64, now int64) (used float64, ok bool) {
	r := b.rare()
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
	used = math.Min(out.tokens, math.Max(0, subUp(out.tokens, unused)))
	b.settle(&out, used, now)
	b.tidyRare()
	return used, true
}

// firstBack returns how long nothing can come back of what is set aside, from now: a denial stands until then. It is
// forever when nothing is.
func (b *bucket) firstBack(now int64) time.Duration {
	out := b.out()
	if len(out) == 0 {
		return math.MaxInt64
	}
	return time.Duration(max(0, out[0].end-int64(leaseReturnTime)-now))
}

// moving returns what is set aside when the bucket is sent elsewhere, or to an heir: as much, for as long, and for the
// same limits. Who has it is not told; what comes back after a move comes too late, and counts as used.
func (b *bucket) moving(now int64) (moving []movingLease) {
	out := b.out()
	for i := range out {
		l := &out[i]
		j := slices.IndexFunc(moving, func(m movingLease) bool { return m.set == l.set })
		if j < 0 {
			j = len(moving)
			moving = append(moving, movingLease{set: l.set})
		}
		moving[j].tokens += l.tokens
		moving[j].left = time.Duration(l.end - now)
	}
	return moving
}

// movingSize bounds what each set's leases take when encoded, and leasesSize what all of a bucket's do.
const movingSize = 24

func (b *bucket) leasesSize() int { return movingSize * min(len(b.out()), maxLevels) }

// moved sets aside again what was set aside where the bucket came from.
func (b *bucket) moved(moving []movingLease, now int64) {
	for _, m := range moving {
		l := &b.makeRare().leases
		// Nobody's clock is trusted with more than a lease can have, nor anybody's count with more than a bucket can lend.
		tokens := math.Floor(min(m.tokens, m.set.smallestBurst()))
		l.list = append(l.list, lease{set: m.set, tokens: tokens, end: now + int64(min(m.left, leaseTime+leaseReturnTime))})
		l.total += tokens
	}
	if len(moving) > 1 {
		slices.SortFunc(b.out(), func(x, y lease) int { return cmp.Compare(x.end, y.end) })
	}
}

// fullIn returns the time until the bucket is full of tokens, which nobody knows while some are set aside.
func (b *bucket) fullIn(now int64) time.Duration {
	if b.leased(now).tokens > 0 {
		return math.MaxInt64
	}
	return b.bucketState.fullIn(now)
}

// drained reports whether the bucket carries no information at now and can be dropped.
func (b *bucket) drained(now int64) bool {
	return len(b.out()) == 0 && b.bucketState.drained(now)
}

// The table's part: under a partition's lock.

// leaseCounts are the counts of one node's leases, as the holder; see Stats. Leases are granted some hundred times a second
// for a hot key, so a lock does no harm.
type leaseCounts struct {
	mu                     sync.Mutex // taken with a partition's mu held; nothing is taken under it
	granted, expired       uint64
	leased, used, returned float64
}

func (c *leaseCounts) add(granted, expired uint64, leased, used, returned float64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.granted += granted
	c.expired += expired
	c.leased += leased
	c.used += used
	c.returned += returned
}

func (c *leaseCounts) fill(s *Stats) {
	c.mu.Lock()
	defer c.mu.Unlock()
	s.LeasesGranted, s.LeasesExpired = c.granted, c.expired
	s.TokensLeased, s.TokensUsed, s.TokensReturned = c.leased, c.used, c.returned
}

// leased charges what has ended of a bucket's leases and returns what is set aside. The caller holds the partition's mu.
func (t *table) leased(b *bucket, now int64) aside {
	if ended, tokens := b.expire(now); ended > 0 {
		t.leases.add(0, uint64(ended), 0, tokens, 0)
	}
	return b.leased(now)
}

// borrowing is what a take says and asks about leases.
type borrowing struct {
	want     float64       // tokens to be set aside for the caller; 0 for none
	returned []leaseReturn // leases that the caller is done with
}

// leaseReturn ends a lease.
type leaseReturn struct {
	id     uint64
	unused float64
}

// maxReturns is how many leases one message ends at most.
const maxReturns = 8

// grant is what the holder answers.
type grant struct {
	id     uint64
	tokens float64 // 0: no lease

	// stands is for how long a denial is known to stand if nobody gives tokens back by a refund or a reset.
	stands time.Duration
}

// decideLending is decide for a caller that can use leases.
func (t *table) decideLending(part uint16, id bucketKey, a *ask, asked *borrowing, now int64) (d Decision, g grant, ok bool) {
	hash := id.hash(t.seed)
	p := t.enter(part, now)
	if p == nil {
		return Decision{}, grant{}, false
	}
	defer p.mu.Unlock()
	b := p.buckets.find(hash, id)
	if b == nil {
		b = t.insert(p, hash, id, a.set, now)
	}
	a.aside = t.leased(b, now)
	if t.takeBack(b, asked.returned, now) {
		a.aside = b.leased(now)
		t.touch(part, p, b)
	}
	if d = b.decide(a, now); !d.Allowed {
		g.stands = min(d.RetryAfter, b.firstBack(now))
		return d, g, true
	}
	if members := int(t.members.Load()); asked.want > 0 && members > 0 {
		g.id = t.leaseID.Add(1)
		if g.tokens = b.lend(g.id, a.set, a.cost, asked.want, members, now); g.tokens > 0 {
			d.Remaining = math.Max(0, d.Remaining-g.tokens)
			t.leases.add(1, 0, g.tokens, 0, 0)
		}
	}
	t.touch(part, p, b)
	return d, g, true
}

// takeBack ends leases of a bucket and reports whether any was still out.
func (t *table) takeBack(b *bucket, returned []leaseReturn, now int64) (any bool) {
	for _, r := range returned {
		if used, ok := b.giveBack(r.id, r.unused, now); ok {
			t.leases.add(0, 0, 0, used, r.unused)
			any = true
		}
	}
	return any
}

// giveBack ends leases of a bucket whose caller takes nothing more.
func (t *table) giveBack(part uint16, id bucketKey, returned []leaseReturn, now int64) bool {
	return t.change(part, id, now, func(b *bucket) { t.takeBack(b, returned, now) })
}
