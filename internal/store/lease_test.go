package store

import (
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/peerlimit/peerlimit/internal/limit"
	"github.com/peerlimit/peerlimit/internal/oracle"
	"github.com/peerlimit/peerlimit/internal/rule"
	"github.com/peerlimit/peerlimit/internal/wire"
)

// borrower is a caller with a lease: it spends at the last moment, or at once, and gives back what it likes.
type borrower struct {
	lease wire.Grant
	until int64
	used  float64
}

// Whatever callers do with their leases, and wherever the bucket moves meanwhile, no window has more than B + R*w.
func TestLeasesNeverAddTokens(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		given := withBurst(perSecond(float64(rapid.IntRange(100, 20000).Draw(t, "rate"))), float64(rapid.IntRange(50, 3000).Draw(t, "burst")))
		rules := rule.New(1000)
		here, err := rules.Find(wire.AppendRule(nil, "api", []limit.Limit{given}))
		require.NoError(t, err)
		other, err := rules.Find(wire.AppendRule(nil, "api", []limit.Limit{perMinute(1e9)}))
		require.NoError(t, err)
		tight, err := rules.Find(wire.AppendRule(nil, "api", []limit.Limit{given, perHour(1e9)}))
		require.NoError(t, err)
		table, members := New(Config{MaxKeys: 10}), rapid.Int64Range(1, 3).Draw(t, "members")
		table.members.Store(members)
		o := oracle.New(oracle.Limit{Tokens: given.Tokens, Period: given.Period, Burst: given.Burst})
		admit := func(at int64, cost float64) {
			o.Admit(oracle.Take{Start: time.Duration(at), End: time.Duration(at), Cost: cost})
		}
		id := here.Bucket("k")
		callers := make([]borrower, 3)
		now := int64(0)
		spend := func(c *borrower, at int64) {
			if left := c.lease.Tokens - c.used; left > 0 && at < c.until {
				part := left
				if rapid.Bool().Draw(t, "part") {
					part = float64(rapid.IntRange(0, int(left)).Draw(t, "tokens"))
				}
				c.used += part
				admit(at, part)
			}
		}
		for range rapid.IntRange(1, 60).Draw(t, "steps") {
			now += int64(rapid.IntRange(0, 12000).Draw(t, "microseconds")) * 1000
			c := &callers[rapid.IntRange(0, 2).Draw(t, "caller")]
			switch rapid.SampledFrom([]string{"borrow", "borrow", "use", "hold", "return", "take", "drain", "move", "peek", "deploy"}).Draw(t, "op") {
			case "borrow": // what is left of the lease before is given back
				asked := wire.Borrowing{Want: float64(rapid.IntRange(1, 5000).Draw(t, "want"))}
				if c.lease.Tokens > 0 {
					asked.Returned = []wire.LeaseReturn{{ID: c.lease.ID, Unused: c.lease.Tokens - c.used}}
				}
				*c = borrower{}
				r := rapid.SampledFrom([]*rule.Rule{here, tight}).Draw(t, "limits")
				d, g, ok := table.decideLending(0, id, &limit.Request{Set: r.Set, Cost: 1}, &asked, now)
				require.True(t, ok)
				if d.Allowed {
					admit(now, 1)
					*c = borrower{lease: g, until: now + int64(limit.LeaseTime)}
				}
			case "use":
				spend(c, now)
			case "hold": // until the end, and everything at once
				if c.lease.Tokens > c.used && now < c.until {
					now = c.until - 1
					admit(now, c.lease.Tokens-c.used)
					c.used = c.lease.Tokens
				}
			case "return":
				if c.lease.Tokens > 0 {
					table.ReturnLeases(0, id, []wire.LeaseReturn{{ID: c.lease.ID, Unused: c.lease.Tokens - c.used}}, now)
					*c = borrower{}
				}
			case "take":
				if d, _ := table.decide(0, id, &limit.Request{Set: here.Set, Cost: 3}, now); d.Allowed {
					admit(now, 3)
				}
			case "drain":
				for range 10000 {
					if d, _ := table.decide(0, id, &limit.Request{Set: here.Set, Cost: 1}, now); !d.Allowed {
						break
					}
					admit(now, 1)
				}
			case "peek":
				table.Peek(0, id, here.Set, now)
				table.Sweep(0, now)
			case "deploy": // somebody asks by other limits: of those above the bucket remembers only what it must
				table.change(0, id, now, func(b *bucket) { b.Adopt(other.Set, now) })
			case "move": // to another holder, whose clock is another one, and later
				content, _, _ := table.collect(0, 0, 1<<20, now)
				now += int64(rapid.IntRange(0, 3000).Draw(t, "way")) * 1000
				table = New(Config{MaxKeys: 10})
				table.members.Store(members)
				table.partitions[0].store(table, content.Buckets, rules, now)
			}
		}
		report := o.Report()
		require.True(t, report.Within(0), "%v", report)
	})
}

func leasing(t *testing.T, limits ...limit.Limit) (*Table, *rule.Rule, rule.BucketKey) {
	t.Helper()
	rules := rule.New(1000)
	r, err := rules.Find(wire.AppendRule(nil, "api", limits))
	require.NoError(t, err)
	tab := New(Config{MaxKeys: 10})
	tab.members.Store(3)
	return tab, r, r.Bucket("k")
}

func TestLeaseIsAnEqualPartOfWhatIsLeft(t *testing.T) {
	tab, r, id := leasing(t, perSecond(1000), perHour(1_000_000))
	_, g, _ := tab.decideLending(0, id, &limit.Request{Set: r.Set, Cost: 1}, &wire.Borrowing{Want: 1e9}, 0)
	assert.Equal(t, 166.0, g.Tokens, "(1000 - 1) / 6")
	_, second, _ := tab.decideLending(0, id, &limit.Request{Set: r.Set, Cost: 1}, &wire.Borrowing{Want: 1e9}, 0)
	assert.Equal(t, 138.0, second.Tokens, "(1000 - 166 - 2) / 6")
	d, third, _ := tab.decideLending(0, id, &limit.Request{Set: r.Set, Cost: 1}, &wire.Borrowing{Want: 20}, 0)
	assert.Equal(t, 20.0, third.Tokens, "no more than wanted")
	assert.Equal(t, 673.0, d.Remaining, "neither taken nor set aside")
	assert.NotEqual(t, g.ID, second.ID)
}

func TestNoLeaseWhere(t *testing.T) {
	for name, test := range map[string]struct {
		limit   limit.Limit
		cost    float64
		members int64
	}{
		"the limit is small":         {perMinute(5), 1, 3},
		"little is left for so many": {perSecond(100), 1, 10},
		"a take costs too much":      {perSecond(1000), 50, 3},
		"the bucket is leaky":        {leaky(perSecond(10_000)), 1, 3},
		"nothing is lent":            {perSecond(1000), 1, 0},
	} {
		t.Run(name, func(t *testing.T) {
			tab, r, id := leasing(t, test.limit)
			tab.members.Store(test.members)
			d, g, _ := tab.decideLending(0, id, &limit.Request{Set: r.Set, Cost: test.cost}, &wire.Borrowing{Want: 1000}, 0)
			assert.True(t, d.Allowed)
			assert.Zero(t, g.Tokens)
		})
	}
}

func TestLeaseThatIsNotReturnedCountsAsUsed(t *testing.T) {
	tab, r, id := leasing(t, perSecond(1000))
	_, g, _ := tab.decideLending(0, id, &limit.Request{Set: r.Set, Cost: 100}, &wire.Borrowing{Want: 1e9}, 0)
	require.Zero(t, g.Tokens)
	_, g, _ = tab.decideLending(0, id, &limit.Request{Set: r.Set, Cost: 1}, &wire.Borrowing{Want: 1e9}, 0)
	require.Equal(t, 149.0, g.Tokens, "(1000 - 101) / 6")
	end := int64(limit.LeaseTime + limit.LeaseReturnTime)
	d, _ := tab.Peek(0, id, r.Set, end-1)
	assert.InDelta(t, 1000-101-149+20, d.Remaining, 0.01, "101 drain, 149 do not")
	d, _ = tab.Peek(0, id, r.Set, end+int64(100*time.Millisecond))
	assert.InDelta(t, 1000-101-149+120, d.Remaining, 0.01)
	assert.Equal(t, 1.0, float64(tab.leases.expired))
	assert.True(t, tab.ReturnLeases(0, id, []wire.LeaseReturn{{ID: g.ID, Unused: 149}}, end+1))
	assert.Equal(t, 0.0, tab.leases.returned, "too late")
}

func TestReturnedTokensAreThereAgain(t *testing.T) {
	tab, r, id := leasing(t, perHour(6006))
	_, g, _ := tab.decideLending(0, id, &limit.Request{Set: r.Set, Cost: 6}, &wire.Borrowing{Want: 1e9}, 0)
	require.Equal(t, 1000.0, g.Tokens)
	d, denied, _ := tab.decideLending(0, id, &limit.Request{Set: r.Set, Cost: 5001}, &wire.Borrowing{}, int64(time.Millisecond))
	require.False(t, d.Allowed)
	assert.InDelta(t, 5000, d.Remaining, 0.01)
	assert.Equal(t, limit.LeaseTime-time.Millisecond, denied.Stands, "then some may come back")
	d, _, _ = tab.decideLending(0, id, &limit.Request{Set: r.Set, Cost: 5900}, &wire.Borrowing{Returned: []wire.LeaseReturn{{ID: g.ID, Unused: 990}, {ID: g.ID, Unused: 990}}}, int64(time.Millisecond))
	assert.True(t, d.Allowed)
	assert.InDelta(t, 90, d.Remaining, 0.01)
	assert.Equal(t, 10.0, tab.leases.used)
	assert.False(t, tab.partitions[0].buckets.find(id.Hash(tab.seed), id).HasMore(), "nothing stays behind")
}

// A turn that was promised must be there even if every lease is used at its last moment.
func TestTurnsReckonWithLeases(t *testing.T) {
	tab, r, id := leasing(t, withBurst(perSecond(10_000), 1000))
	_, g, _ := tab.decideLending(0, id, &limit.Request{Set: r.Set, Cost: 100}, &wire.Borrowing{Want: 1e9}, 0)
	require.Zero(t, g.Tokens)
	_, g, _ = tab.decideLending(0, id, &limit.Request{Set: r.Set, Cost: 10}, &wire.Borrowing{Want: 1e9}, 0)
	require.Equal(t, 148.0, g.Tokens, "(1000 - 110) / 6")
	// Level 110 drains in 11 ms; 148 of 1000 are out for 20 ms.
	d, _, ok := tab.reserve(0, id, &limit.Request{Set: r.Set, Cost: 852, Total: 852, Reserve: true, MaxDelay: time.Second}, 0)
	require.True(t, ok && d.Allowed)
	assert.Equal(t, 11*time.Millisecond, d.Delay, "fits beside the lease when the level is zero")
	d, _ = tab.Peek(0, id, r.Set, int64(11*time.Millisecond))
	assert.Zero(t, d.Remaining)
}

// A standby's copy has the holder's leases, and charges what has ended like the holder: that is no lease of its own.
func TestLeasesOfACopyAreNotCounted(t *testing.T) {
	tab, r, id := leasing(t, perSecond(1000))
	_, g, _ := tab.decideLending(0, id, &limit.Request{Set: r.Set, Cost: 1}, &wire.Borrowing{Want: 1e9}, 0)
	require.NotZero(t, g.Tokens)
	var full atomic.Int64
	tab.fullUntil = &full // and it holds nothing
	p := &tab.partitions[0]
	p.mu.Lock()
	b := p.buckets.find(id.Hash(tab.seed), id)
	out := tab.leased(b, int64(limit.LeaseTime+limit.LeaseReturnTime)+1)
	p.mu.Unlock()
	assert.Zero(t, out.Tokens, "it has ended")
	assert.Zero(t, tab.leases.expired)
}
