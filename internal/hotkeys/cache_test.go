package hotkeys

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/peerlimit/peerlimit/internal/limit"
	"github.com/peerlimit/peerlimit/internal/rule"
	"github.com/peerlimit/peerlimit/internal/wire"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// hotCaller is a caller's side with nobody to ask: tests say what the holder answers.
type hotCaller struct {
	*Cache
	rule *rule.Rule
	id   rule.BucketKey
}

func newHotCaller(t *testing.T, limits ...limit.Limit) *hotCaller {
	t.Helper()
	r, err := rule.New(1000).Find(wire.AppendRule(nil, "api", limits))
	require.NoError(t, err)
	return &hotCaller{New(true, true), r, r.Bucket("k")}
}

// decide decides a take as the node does.
func (c *hotCaller) decide(set *limit.Set, cost float64, now int64) (d limit.Decision, ok bool) {
	ok = c.Take(c.id, set, cost, now, &d)
	return d, ok
}

// ask asks for a token, gets that answer, and returns the request.
func (c *hotCaller) ask(ans wire.Response, sent, now int64) *wire.Message {
	m := &wire.Message{Kind: wire.KindTake, Rule: c.rule.Encoded, Key: c.id.Key, Cost: 1}
	k := c.Asking(c.id, c.rule, 0, m, sent)
	ans.Decision.Origin = limit.OriginRemote
	c.Answered(k, m, c.rule, &ans, nil, sent, func() int64 { return now })
	return m
}

func granted() wire.Response {
	return wire.Response{Status: wire.StatusDecided, Decision: limit.Decision{Allowed: true}}
}

func leased(tokens float64) wire.Response {
	return wire.Response{Status: wire.StatusDecided, Decision: limit.Decision{Allowed: true}, Grant: wire.Grant{ID: 7, Tokens: tokens}}
}

const ms = int64(time.Millisecond)

func TestLeasesAreAskedForWhenAKeyIsHot(t *testing.T) {
	cold := newHotCaller(t, perSecond(1000))
	for i := range int64(100) {
		assert.Zero(t, cold.ask(granted(), 3*i*ms, 3*i*ms).Borrow.Want, "333 a second")
	}
	hot := newHotCaller(t, perSecond(1000))
	wanted := 0
	for i := range int64(10) {
		if hot.ask(granted(), 2*i*ms, 2*i*ms).Borrow.Want > 0 {
			wanted++
		}
	}
	assert.GreaterOrEqual(t, wanted, 5, "500 a second")
}

func TestALeaseIsUsedUntilItEnds(t *testing.T) {
	c := newHotCaller(t, perSecond(1000))
	c.ask(granted(), 0, 0) // once is nothing
	c.ask(leased(100), 5*ms, 6*ms)
	d, ok := c.decide(c.rule.Set, 30, 7*ms)
	require.True(t, ok)
	assert.Equal(t, limit.Decision{Allowed: true, Origin: limit.OriginLease, Remaining: 70}, d)
	_, ok = c.decide(c.rule.Set, 71, 7*ms)
	assert.False(t, ok, "too much for it")
	_, ok = c.decide(limit.NewSet([]limit.Limit{perSecond(1000)}), 1, 7*ms)
	assert.False(t, ok, "by other limits")
	_, ok = c.decide(c.rule.Set, 1, 5*ms+int64(limit.LeaseTime)*3/4)
	assert.False(t, ok, "the first one late in its life asks for the next")
	_, ok = c.decide(c.rule.Set, 1, 5*ms+int64(limit.LeaseTime)-1)
	assert.True(t, ok, "while others go on")
	_, ok = c.decide(c.rule.Set, 1, 5*ms+int64(limit.LeaseTime))
	assert.False(t, ok, "it counts from the asking")

	m := c.ask(granted(), 16*ms, 16*ms)
	assert.Equal(t, []wire.LeaseReturn{{ID: 7, Unused: 69}}, m.Borrow.Returned)
	assert.Empty(t, c.ask(granted(), 17*ms, 17*ms).Borrow.Returned, "once")
}

func TestALeaseThatComesTooLateIsGivenBack(t *testing.T) {
	c := newHotCaller(t, perSecond(1000))
	c.ask(granted(), 0, 0)
	c.ask(leased(100), 5*ms, 5*ms+int64(limit.LeaseTime))
	_, ok := c.decide(c.rule.Set, 1, 5*ms+int64(limit.LeaseTime))
	assert.False(t, ok)
	var returned []wire.LeaseReturn
	more := c.giveBackEnded(16*ms, func(_ uint16, _ string, _ *rule.Rule, back []wire.LeaseReturn) { returned = append(returned, back...) })
	assert.Equal(t, []wire.LeaseReturn{{ID: 7, Unused: 100}}, returned)
	assert.False(t, more)
}

func TestTheLeaseBeforeIsGivenBackWithTheNextQuestion(t *testing.T) {
	c := newHotCaller(t, perSecond(1000))
	c.ask(granted(), 0, 0)
	c.ask(leased(100), ms, ms)
	next := leased(40)
	next.Grant.ID = 8
	c.ask(next, 2*ms, 2*ms)
	d, ok := c.decide(c.rule.Set, 1, 3*ms)
	assert.True(t, ok)
	assert.Equal(t, 39.0, d.Remaining)
	assert.Equal(t, []wire.LeaseReturn{{ID: 7, Unused: 100}}, c.ask(granted(), 4*ms, 4*ms).Borrow.Returned)
}

// No two callers spend the same token, and what is given back was spent by nobody.
func TestALeaseIsSharedByCallers(t *testing.T) {
	l := &borrowed{tokens: 1e5, until: 100}
	l.renewAt, l.low = 1000, -1
	l.left.Store(0x40f86a0000000000) // 100,000
	var spent atomic.Int64
	var callers sync.WaitGroup
	for range 4 {
		callers.Go(func() {
			for {
				var d limit.Decision
				if !l.take(1, 0, &d) {
					return
				}
				spent.Add(1)
			}
		})
	}
	var unused float64
	callers.Go(func() {
		for spent.Load() < 1000 {
			time.Sleep(time.Microsecond)
		}
		unused = l.close()
	})
	callers.Wait()
	assert.EqualValues(t, 1e5, float64(spent.Load())+unused)
}

func TestADenialIsRemembered(t *testing.T) {
	c := newHotCaller(t, withBurst(perSecond(10), 5))
	denied := wire.Response{Status: wire.StatusDecided, Decision: limit.Decision{RetryAfter: 100 * time.Millisecond, ResetAfter: time.Second}}
	denied.Grant.Stands = 60 * time.Millisecond
	c.ask(denied, 0, 0)
	d, ok := c.decide(c.rule.Set, 1, 20*ms)
	require.True(t, ok)
	assert.Equal(t, limit.Decision{RetryAfter: 80 * time.Millisecond, ResetAfter: 980 * time.Millisecond, Origin: limit.OriginDenialCache}, d)
	d, ok = c.decide(c.rule.Set, 3, 20*ms)
	require.True(t, ok)
	assert.Equal(t, 280*time.Millisecond, d.RetryAfter, "two more tokens take 200 ms more")
	_, ok = c.decide(c.rule.Set, 0.5, 20*ms)
	assert.False(t, ok, "less may pass")
	_, ok = c.decide(limit.NewSet([]limit.Limit{perSecond(10)}), 1, 20*ms)
	assert.False(t, ok, "so may other limits")

	_, ok = c.decide(c.rule.Set, 1, 60*ms)
	assert.False(t, ok, "one asks whether it still stands")
	_, ok = c.decide(c.rule.Set, 1, 61*ms)
	assert.True(t, ok, "the others wait for that")
	_, ok = c.decide(c.rule.Set, 1, 60*ms+int64(probeTime))
	assert.False(t, ok, "but not for long")
	c.ask(granted(), 120*ms, 120*ms)
	_, ok = c.decide(c.rule.Set, 1, 120*ms)
	assert.False(t, ok, "it is over")

	c.ask(denied, 130*ms, 130*ms)
	c.Forget(c.id)
	_, ok = c.decide(c.rule.Set, 1, 131*ms)
	assert.False(t, ok)
}

// It stood for so long when the holder said so, which was before the answer came: it counts from the asking, as a lease does. What
// callers are told about when to come back counts from the answer, or they would come too early.
func TestADenialCountsFromTheAsking(t *testing.T) {
	c := newHotCaller(t, withBurst(perSecond(10), 5))
	denied := wire.Response{Status: wire.StatusDecided, Decision: limit.Decision{RetryAfter: 100 * time.Millisecond, ResetAfter: time.Second}}
	denied.Grant.Stands = 100 * time.Millisecond
	c.ask(denied, 0, 40*ms)
	d, ok := c.decide(c.rule.Set, 1, 99*ms)
	require.True(t, ok)
	assert.Equal(t, 41*time.Millisecond, d.RetryAfter)
	_, ok = c.decide(c.rule.Set, 1, 100*ms)
	assert.False(t, ok, "a caller asks again")
	_, ok = c.decide(c.rule.Set, 1, 100*ms)
	assert.True(t, ok, "one")

	m := &wire.Message{Kind: wire.KindTake, Rule: c.rule.Encoded, Key: c.id.Key, Cost: 1}
	k := c.Asking(c.id, c.rule, 0, m, 100*ms)
	c.Answered(k, m, c.rule, &wire.Response{}, context.DeadlineExceeded, 100*ms, func() int64 { return 101 * ms })
	_, ok = c.decide(c.rule.Set, 1, 101*ms)
	assert.False(t, ok, "it got no answer: another one asks")
	_, ok = c.decide(c.rule.Set, 1, 101*ms)
	assert.True(t, ok)
}

func TestDenialsByOthersThanTheHolderAreNotRemembered(t *testing.T) {
	c := newHotCaller(t, perSecond(10))
	m := &wire.Message{Kind: wire.KindTake, Rule: c.rule.Encoded, Key: "k", Cost: 1}
	share := wire.Response{Status: wire.StatusDecided, Decision: limit.Decision{RetryAfter: time.Second, Origin: limit.OriginStandby}, Grant: wire.Grant{Stands: time.Second}}
	c.Answered(nil, m, c.rule, &share, nil, 0, func() int64 { return 0 })
	assert.Nil(t, c.find(c.id.Hash(c.seed), c.id))
}

func TestHotKeysAreBounded(t *testing.T) {
	c := newHotCaller(t, perSecond(10))
	count := func() (keys int) {
		for i := range c.sets {
			for j := range c.sets[i] {
				if c.sets[i][j].Load() != nil {
					keys++
				}
			}
		}
		return keys
	}
	for i := range 100_000 {
		c.id.Key = fmt.Sprint(i)
		c.ask(granted(), 0, 0)
	}
	assert.Zero(t, count(), "each was asked about once")
	denied := wire.Response{Status: wire.StatusDecided, Grant: wire.Grant{Stands: time.Second}, Decision: limit.Decision{RetryAfter: time.Second}}
	for i := range 100_000 {
		c.id.Key = fmt.Sprint(i)
		c.ask(denied, int64(i), int64(i))
	}
	assert.LessOrEqual(t, count(), hotSets*hotWays)
	assert.Greater(t, count(), hotSets*hotWays*9/10)
	last := c.find(c.id.Hash(c.seed), c.id)
	require.NotNil(t, last, "the last one has its place")
	c.forgetIdle(int64(forgetTime))
	assert.NotZero(t, count())
	c.forgetIdle(int64(forgetTime) + 100_001)
	assert.Zero(t, count())
}

func TestTakesByLeaseAndDenialAllocateNothing(t *testing.T) {
	c := newHotCaller(t, perSecond(1000))
	c.ask(granted(), 0, 0)
	c.ask(leased(1e6), 0, 0)
	assert.Zero(t, testing.AllocsPerRun(100, func() { c.decide(c.rule.Set, 1, 1) }))
	d := &denial{set: c.rule.Set, cost: 1, until: 1 << 60, decision: limit.Decision{RetryAfter: time.Hour}}
	c.find(c.id.Hash(c.seed), c.id).denial.Store(d)
	assert.Zero(t, testing.AllocsPerRun(100, func() { c.decide(c.rule.Set, 1, 1) }))
}
