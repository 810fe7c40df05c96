package peerlimit_test

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/peerlimit/peerlimit"
	"github.com/peerlimit/peerlimit/internal/onecore"
	"github.com/peerlimit/peerlimit/internal/oracle"
	"github.com/peerlimit/peerlimit/peerlimittest"
)

// demanding takes from one key on some nodes, each with its own pause between takes, and judges all of it.
type demanding struct {
	t       *testing.T
	oracle  *oracle.Oracle
	began   time.Time
	key     string
	running sync.WaitGroup

	mu     sync.Mutex
	origin map[peerlimit.Origin]int
	given  map[*peerlimit.Limiter]int
}

func newDemanding(t *testing.T, l peerlimit.Limit, key string) *demanding {
	return &demanding{
		t: t, oracle: judge(l), began: time.Now(), key: key,
		origin: make(map[peerlimit.Origin]int), given: make(map[*peerlimit.Limiter]int),
	}
}

// from has callers on a limiter take for some time.
func (d *demanding) from(l *peerlimit.Limiter, callers int, pause, lasts time.Duration) {
	end := time.Now().Add(lasts)
	for range callers {
		d.running.Go(func() {
			for time.Now().Before(end) {
				d.take(l)
				time.Sleep(pause)
			}
		})
	}
}

func (d *demanding) take(l *peerlimit.Limiter) {
	start := time.Since(d.began)
	decision, err := l.Take(context.Background(), d.key, 1)
	if !assert.NoError(d.t, err) {
		return
	}
	if decision.Allowed {
		d.oracle.Admit(oracle.Take{Start: start, End: time.Since(d.began), Cost: 1})
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.origin[decision.Origin]++
	if decision.Allowed {
		d.given[l]++
	}
}

func leaseStats(cluster *peerlimittest.Cluster) (sum peerlimit.Stats) {
	for _, n := range cluster.Nodes() {
		s := n.Stats()
		sum.LeasesGranted += s.LeasesGranted
		sum.LeasesExpired += s.LeasesExpired
		sum.TokensLeased += s.TokensLeased
		sum.TokensUsed += s.TokensUsed
		sum.TokensReturned += s.TokensReturned
	}
	return sum
}

// A hot key is exact and saturated from all nodes at once: small bursts with high rates, and large ones.
func TestHotKeyIsExact(t *testing.T) {
	for _, limit := range []peerlimit.Limit{
		peerlimit.PerSecond(10_000).WithBurst(1000),
		peerlimit.PerSecond(10_000),
		peerlimit.PerSecond(2000).WithBurst(200),
	} {
		t.Run(fmt.Sprint(limit), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				cluster := peerlimittest.NewCluster(t, 3)
				d := newDemanding(t, limit, "everyone")
				lasts := 2 * time.Second
				for _, l := range cluster.Limiters("api", limit) {
					d.from(l, 4, 100*time.Microsecond, lasts)
				}
				d.running.Wait()
				report := requireHeld(t, d.oracle, 0)
				burst := limit.Burst
				if burst == 0 {
					burst = limit.Tokens
				}
				due := burst + limit.Tokens*lasts.Seconds()
				assert.GreaterOrEqual(t, report.Run.Admitted, 0.98*due, "starved")
				s := leaseStats(cluster)
				assert.Positive(t, s.LeasesGranted)
				assert.Positive(t, d.origin[peerlimit.OriginLease])
				t.Logf("%v: %v; %+v leases, %.0f leased, %.0f used, %.0f returned, %d expired", d.origin, report,
					s.LeasesGranted, s.TokensLeased, s.TokensUsed, s.TokensReturned, s.LeasesExpired)
			})
		})
	}
}

// Demand is as unequal as it can be, and moves: tokens do not lie unused with a node that does not need them any more.
func TestDemandThatMovesIsServed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		limit := peerlimit.PerSecond(5000)
		cluster := peerlimittest.NewCluster(t, 3)
		limiters := cluster.Limiters("api", limit)
		d := newDemanding(t, limit, "everyone")
		d.from(limiters[0], 2, 200*time.Microsecond, 500*time.Millisecond)
		d.running.Wait()
		for second := range 6 {
			before := d.given[limiters[second%3]]
			for i, l := range limiters {
				pause := 5 * time.Millisecond
				if i == second%3 {
					pause = 100 * time.Microsecond // nine of ten takes
				}
				d.from(l, 2, pause, time.Second)
			}
			d.running.Wait()
			got := d.given[limiters[second%3]] - before
			assert.GreaterOrEqual(t, got, 4200, "in second %d: the others take 800 at most", second)
		}
		requireHeld(t, d.oracle, 0)
	})
}

// An exhausted key under attack from all nodes costs its owner few requests.
func TestExhaustedKeyCostsItsOwnerLittle(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		limit := peerlimit.PerMinute(6)
		cluster := peerlimittest.NewCluster(t, 4)
		limiters := cluster.Limiters("login", limit)
		key := keyOwnedBy(t, limiters[0], cluster.Node(0).Self().Name, "attacked")
		d := newDemanding(t, limit, key)
		before := cluster.Node(0).Stats().Served
		const lasts = 35 * time.Second
		for _, l := range limiters[1:] {
			d.from(l, 8, time.Millisecond, lasts)
		}
		d.running.Wait()
		served := cluster.Node(0).Stats().Served - before
		assert.Less(t, float64(served), 3*20*lasts.Seconds(), "requests")
		assert.Less(t, float64(served), 3*6*lasts.Seconds(), "four a second, each node, and a few to begin with")
		report := requireHeld(t, d.oracle, 0)
		assert.Equal(t, 9.0, report.Run.Admitted, "6, and one more every 10 seconds")
		assert.Zero(t, leaseStats(cluster).LeasesGranted, "small limits are never leased")
		assert.Greater(t, d.origin[peerlimit.OriginDenialCache], 100*d.origin[peerlimit.OriginRemote])
	})
}

// A key with a small burst that is asked for all the time gives out what it earns: what is remembered of a denial does not
// outlast what it stands for. Beside one take there must be room for what is earned in two round trips; with less, the bucket can be
// full while a take is on its way.
func TestSaturatedKeyWithASmallBurst(t *testing.T) {
	playedBySchedules(t)
	healthy, far := peerlimittest.Healthy, peerlimittest.Conditions{Latency: 20 * time.Millisecond}
	for _, c := range []struct {
		limit      peerlimit.Limit
		conditions peerlimittest.Conditions
		least      float64
	}{
		{peerlimit.PerSecond(10).WithBurst(1), healthy, 0.98},
		{peerlimit.PerSecond(100).WithBurst(1), healthy, 0.93},
		{peerlimit.PerSecond(100).WithBurst(2), healthy, 0.98},
		{peerlimit.PerSecond(1000).WithBurst(5), healthy, 0.98}, // up to 2 ms there and back
		{peerlimit.PerSecond(10).WithBurst(1), far, 0.99},
		{peerlimit.PerSecond(12).WithBurst(2), far, 0.98},
		{peerlimit.PerSecond(100).WithBurst(9), far, 0.98},
	} {
		for _, everywhere := range []bool{false, true} {
			if onecore.RaceDetector && (everywhere || c.limit.Burst > 2) {
				continue // ten times as long
			}
			t.Run(fmt.Sprintf("%v, %v, everywhere %v", c.limit, c.conditions.Latency, everywhere), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					cluster := peerlimittest.NewCluster(t, 3)
					cluster.Degrade(c.conditions)
					limiters := cluster.Limiters("api", c.limit)
					owner := cluster.Index(limiters[0].Owner("bob").Name)
					time.Sleep(time.Second)
					d := newDemanding(t, c.limit, "bob")
					const lasts = 20 * time.Second
					d.from(limiters[(owner+1)%3], 20, time.Millisecond, lasts)
					if everywhere {
						d.from(limiters[(owner+2)%3], 20, time.Millisecond, lasts)
					}
					d.running.Wait()
					report := requireHeld(t, d.oracle, 0)
					part := report.Run.Admitted / (c.limit.Burst + c.limit.Tokens*lasts.Seconds())
					assert.GreaterOrEqual(t, part, c.least, "%v", d.origin)
				})
			})
		}
	}
}

func TestDenialIsForgottenWhenTokensComeBackHere(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cluster := peerlimittest.NewCluster(t, 2)
		limiters := cluster.Limiters("login", peerlimit.PerHour(2))
		key := keyOwnedBy(t, limiters[0], cluster.Node(0).Self().Name, "k")
		l, ctx := limiters[1], context.Background()
		exhaust := func() {
			for range 3 {
				l.Allow(ctx, key)
			}
			d, err := l.Take(ctx, key, 1)
			require.NoError(t, err)
			require.False(t, d.Allowed)
			require.Equal(t, peerlimit.OriginDenialCache, d.Origin)
			require.Greater(t, d.RetryAfter, 29*time.Minute)
		}
		exhaust()
		d, err := l.Take(ctx, key, 2)
		require.NoError(t, err)
		assert.Equal(t, peerlimit.OriginDenialCache, d.Origin, "more is denied as well")
		assert.Greater(t, d.RetryAfter, 59*time.Minute, "and for longer")
		require.NoError(t, l.Refund(ctx, key, 1))
		assert.True(t, l.Allow(ctx, key))
		exhaust()
		require.NoError(t, l.Reset(ctx, key))
		assert.True(t, l.AllowN(ctx, key, 2))
		exhaust()
		require.NoError(t, limiters[0].Reset(ctx, key))
		time.Sleep(250 * time.Millisecond)
		assert.True(t, l.Allow(ctx, key), "on another node it takes a moment to be noticed")
	})
}

func TestLeasesAndRememberedDenialsCanBeTurnedOff(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cluster := peerlimittest.NewCluster(t, 3, func(c *peerlimit.Config) { c.NoLeases, c.NoDenialCache = true, true })
		limit := peerlimit.PerSecond(1000)
		d := newDemanding(t, limit, "everyone")
		for _, l := range cluster.Limiters("api", limit) {
			d.from(l, 2, time.Millisecond, time.Second)
		}
		d.running.Wait()
		requireHeld(t, d.oracle, 0)
		assert.Zero(t, leaseStats(cluster).LeasesGranted)
		assert.Zero(t, d.origin[peerlimit.OriginLease]+d.origin[peerlimit.OriginDenialCache])
	})
}

// What a killed caller had leased counts as used; what one that has stopped taking had comes back.
func TestLeasesOfAKilledCallerCountAsUsed(t *testing.T) {
	for _, killed := range []bool{true, false} {
		t.Run(fmt.Sprintf("killed %v", killed), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				cluster := peerlimittest.NewCluster(t, 3)
				limit := peerlimit.PerHour(1_000_000)
				limiters := cluster.Limiters("api", limit)
				key := keyOwnedBy(t, limiters[0], cluster.Node(0).Self().Name, "k")
				d := newDemanding(t, limit, key)
				for len(d.origin) < 2 || d.origin[peerlimit.OriginLease] == 0 {
					d.take(limiters[1])
				}
				if killed {
					cluster.Kill(1)
				}
				time.Sleep(time.Second)
				peeked, err := limiters[0].Peek(context.Background(), key)
				require.NoError(t, err)
				s, taken := leaseStats(cluster), 1_000_000-peeked.Remaining // the key may have moved to another node
				onItsOwn := float64(d.origin[peerlimit.OriginRemote])
				if killed {
					assert.EqualValues(t, s.LeasesGranted, s.LeasesExpired)
					assert.InDelta(t, onItsOwn+s.TokensLeased, taken, 1000, "earned meanwhile")
					return
				}
				assert.Zero(t, s.LeasesExpired)
				assert.Equal(t, s.TokensLeased, s.TokensUsed+s.TokensReturned)
				assert.EqualValues(t, d.origin[peerlimit.OriginLease], s.TokensUsed)
			})
		})
	}
}
