package store

import (
	"math"
	"sync"

	"github.com/peerlimit/peerlimit/internal/limit"
	"github.com/peerlimit/peerlimit/internal/rule"
	"github.com/peerlimit/peerlimit/internal/wire"
)

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

// sums returns how many leases were granted and expired, and how many tokens were leased, used and returned.
func (c *leaseCounts) sums() (granted, expired uint64, leased, used, returned float64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.granted, c.expired, c.leased, c.used, c.returned
}

// leased charges what has ended of a bucket's leases and returns what is set aside. It counts what the holder has lent: a standby's copy
// has the same leases. The caller holds the partition's mu.
func (t *Table) leased(b *bucket, now int64) limit.LeasedOut {
	if ended, tokens := b.Expire(now); ended > 0 && (t.fullUntil == nil || b.home != nowhere && t.Holds(b.home)) {
		t.leases.add(0, uint64(ended), 0, tokens, 0)
	}
	return b.Leased(now)
}

// decideLending is decide for a caller that can use leases.
func (t *Table) decideLending(part uint16, id rule.BucketKey, a *limit.Request, asked *wire.Borrowing, now int64) (d limit.Decision, g wire.Grant, ok bool) {
	hash := id.Hash(t.seed)
	p := t.enter(part, now)
	if p == nil {
		return limit.Decision{}, wire.Grant{}, false
	}
	defer p.mu.Unlock()
	b := p.buckets.find(hash, id)
	if b == nil {
		b = t.insert(p, hash, id, a.Set, now)
	}
	a.Leased = t.leased(b, now)
	if len(asked.Returned) > 0 {
		t.serve(p, b, now) // turns that have come before
		if t.takeBack(b, asked.Returned, now) {
			t.touch(part, p, b)
			t.serve(p, b, now)
		}
		a.Leased = b.Leased(now)
	}
	if d = b.Decide(a, now); !d.Allowed {
		g.Stands = min(d.RetryAfter, b.FirstBack(now))
		return d, g, true
	}
	if members := int(t.members.Load()); asked.Want > 0 && members > 0 {
		g.ID = t.leaseID.Add(1)
		if g.Tokens = b.Lend(g.ID, a.Set, a.Cost, asked.Want, members, now); g.Tokens > 0 {
			d.Remaining = math.Max(0, d.Remaining-g.Tokens)
			t.leases.add(1, 0, g.Tokens, 0, 0)
		}
	}
	t.touch(part, p, b)
	return d, g, true
}

// Unrecord ends leases of a bucket and reports whether any was still out.
func (t *Table) takeBack(b *bucket, returned []wire.LeaseReturn, now int64) (any bool) {
	for _, r := range returned {
		if used, ok := b.GiveBack(r.ID, r.Unused, now); ok {
			t.leases.add(0, 0, 0, used, r.Unused)
			any = true
		}
	}
	return any
}

// GiveBack ends leases of a bucket whose caller takes nothing more.
func (t *Table) ReturnLeases(part uint16, id rule.BucketKey, returned []wire.LeaseReturn, now int64) bool {
	return t.change(part, id, now, func(b *bucket) { t.takeBack(b, returned, now) })
}
