package peerlimit_test

import (
	"context"
	"fmt"
	"log"
	"math"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/peerlimit/peerlimit"
	"github.com/peerlimit/peerlimit/internal/oracle"
	"github.com/peerlimit/peerlimit/peerlimittest"
)

// levels are the limiters of one node for a user, a tenant and everyone.
type levels struct{ user, tenant, everyone *peerlimit.Limiter }

// onNode makes the three limiters, whose names are not in the order of their sizes.
func onNode(t require.TestingT, node *peerlimit.Node, user, tenant, everyone peerlimit.Limit) levels {
	return named(t, node, "", user, tenant, everyone)
}

// named is onNode with something at the end of the names.
func named(t require.TestingT, node *peerlimit.Node, suffix string, user, tenant, everyone peerlimit.Limit) levels {
	var l levels
	for _, made := range []struct {
		limiter **peerlimit.Limiter
		name    string
		limit   peerlimit.Limit
	}{{&l.user, "user", user}, {&l.tenant, "tenant", tenant}, {&l.everyone, "everyone", everyone}} {
		limiter, err := node.Limiter(made.name+suffix, made.limit)
		require.NoError(t, err)
		*made.limiter = limiter
	}
	return l
}

// requests are those of one call by a user of a tenant.
func (l levels) requests(user, tenant string, cost float64) []peerlimit.Request {
	return []peerlimit.Request{
		{Limiter: l.user, Key: user, Cost: cost},
		{Limiter: l.tenant, Key: tenant, Cost: cost},
		{Limiter: l.everyone, Key: "all", Cost: cost},
	}
}

// left returns what a bucket has.
func left(t require.TestingT, limiter *peerlimit.Limiter, key string) float64 {
	d, err := limiter.Peek(context.Background(), key)
	require.NoError(t, err)
	return d.Remaining
}

// slow is a limit of burst tokens that come back so slowly that a test sees none of it.
func slow(burst float64) peerlimit.Limit {
	return peerlimit.Per(1, 1000*time.Hour).WithBurst(burst)
}

const almostNothing = 1e-3 // tokens; more than any test earns

func TestTakeAllTakesFromAllOrFromNone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := onNode(t, peerlimittest.NewNode(t), slow(10), slow(5), slow(100))

		d, err := peerlimit.TakeAll(t.Context(), l.requests("bob", "acme", 4)...)
		require.NoError(t, err)
		assert.True(t, d.Allowed)
		assert.InDelta(t, 1, d.Remaining, almostNothing, "the tenant has the least left")
		assert.Equal(t, slow(5), d.Limit)

		d, err = peerlimit.TakeAll(t.Context(), l.requests("bob", "acme", 2)...)
		require.NoError(t, err)
		assert.False(t, d.Allowed)
		assert.Equal(t, slow(5), d.Limit)
		assert.InDelta(t, float64(1000*time.Hour), float64(d.RetryAfter), float64(time.Hour))

		assert.InDelta(t, 6, left(t, l.user, "bob"), almostNothing)
		assert.InDelta(t, 1, left(t, l.tenant, "acme"), almostNothing)
		assert.InDelta(t, 96, left(t, l.everyone, "all"), almostNothing)
	})
}

// The longest wait is told wherever in the order it stands, and for the cost that was asked for.
func TestTakeAllTellsTheLongestWait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		node := peerlimittest.NewNode(t)
		limits := map[string]peerlimit.Limit{
			"a": peerlimit.PerSecond(1).WithBurst(10),
			"b": peerlimit.PerMinute(1).WithBurst(10),
			"c": peerlimit.PerHour(1).WithBurst(10),
			"d": peerlimit.PerHour(1).WithBurst(0.5).WithMinCost(0.1), // of which one token can never be had
		}
		for _, c := range []struct {
			spent    map[string]float64
			cost     float64
			wait     time.Duration
			limiting string
		}{
			{map[string]float64{"a": 10}, 2, 2 * time.Second, "a"},
			{map[string]float64{"a": 10, "b": 10}, 2, 2 * time.Minute, "b"},
			{map[string]float64{"a": 10, "c": 9}, 3, 2 * time.Hour, "c"},
			{map[string]float64{"a": 10, "b": 9.9}, 0.25, 9 * time.Second, "b"},
			{map[string]float64{"a": 10, "b": 9.5}, 0.25, 250 * time.Millisecond, "a"},
			{map[string]float64{"b": 9, "c": 10}, 2, 2 * time.Hour, "c"},
			{map[string]float64{"b": 10, "d": 0.5}, 0.25, 15 * time.Minute, "d"},
		} {
			key := fmt.Sprint(c.spent, c.cost)
			var requests []peerlimit.Request
			for _, name := range []string{"d", "b", "c", "a"} {
				limiter, err := node.Limiter(name, limits[name])
				require.NoError(t, err)
				if spent := c.spent[name]; spent > 0 {
					require.True(t, limiter.AllowN(t.Context(), key, spent))
				}
				if c.cost <= 0.5 || name != "d" {
					requests = append(requests, peerlimit.Request{Limiter: limiter, Key: key, Cost: c.cost})
				}
			}
			d, err := peerlimit.TakeAll(t.Context(), requests...)
			require.NoError(t, err)
			assert.False(t, d.Allowed, key)
			assert.Equal(t, limits[c.limiting].WithMinCost(0), d.Limit, key)
			assert.InDelta(t, c.wait.Seconds(), d.RetryAfter.Seconds(), 1e-6, key)
		}
	})
}

// A caller sleeps for the longest delay of all its leaky buckets, whichever decision is the strictest.
func TestTakeAllTellsTheLongestDelay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		node := peerlimittest.NewNode(t)
		leaky, err := node.Limiter("leaky", peerlimit.PerSecond(1).WithBurst(1000).Leaky())
		require.NoError(t, err)
		token, err := node.Limiter("token", peerlimit.PerSecond(1).WithBurst(10))
		require.NoError(t, err)
		require.True(t, leaky.AllowN(t.Context(), "bob", 3))
		d, err := peerlimit.TakeAll(t.Context(), peerlimit.Request{Limiter: leaky, Key: "bob", Cost: 1}, peerlimit.Request{Limiter: token, Key: "bob", Cost: 1})
		require.NoError(t, err)
		assert.True(t, d.Allowed)
		assert.Equal(t, 3*time.Second, d.Delay)
		assert.Equal(t, 9.0, d.Remaining)
	})
}

func TestTakeAllRefusesBadRequests(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := onNode(t, peerlimittest.NewNode(t), slow(10), slow(10), slow(10))
		good := l.requests("bob", "acme", 1)
		ended, end := context.WithCancel(t.Context())
		end()
		with := func(r peerlimit.Request) []peerlimit.Request { return append(slices.Clone(good), r) }
		for name, c := range map[string]struct {
			ctx      context.Context
			requests []peerlimit.Request
			is       error
			says     string
		}{
			"none":           {t.Context(), nil, peerlimit.ErrInvalidRequest, "there is none"},
			"no limiter":     {t.Context(), with(peerlimit.Request{Key: "bob", Cost: 1}), peerlimit.ErrInvalidRequest, "request 3: "},
			"no key":         {t.Context(), with(peerlimit.Request{Limiter: l.user, Cost: 1}), peerlimit.ErrInvalidKey, "request 3: "},
			"no cost":        {t.Context(), with(peerlimit.Request{Limiter: l.user, Key: "eve"}), peerlimit.ErrInvalidCost, "request 3: "},
			"NaN":            {t.Context(), with(peerlimit.Request{Limiter: l.user, Key: "eve", Cost: math.NaN()}), peerlimit.ErrInvalidCost, "request 3: "},
			"above burst":    {t.Context(), with(peerlimit.Request{Limiter: l.user, Key: "eve", Cost: 11}), peerlimit.ErrExceedsBurst, "request 3: "},
			"twice the same": {t.Context(), with(peerlimit.Request{Limiter: l.tenant, Key: "acme", Cost: 2}), peerlimit.ErrInvalidRequest, `request 3: peerlimit: invalid request: limiter "tenant" and key are those of request 1`},
			"the same with another fallback": {
				t.Context(), with(peerlimit.Request{Limiter: l.user.WithFallback(nil), Key: "bob", Cost: 2}), peerlimit.ErrInvalidRequest, "are those of request 0",
			},
			"context ended": {ended, good, context.Canceled, "request 0: "},
		} {
			d, err := peerlimit.TakeAll(c.ctx, c.requests...)
			assert.ErrorIs(t, err, c.is, name)
			assert.ErrorContains(t, err, c.says, name)
			assert.Zero(t, d, name)
		}
		for _, r := range good {
			assert.Equal(t, 10.0, left(t, r.Limiter, r.Key))
		}
	})
}

// A node that is closed, or a tier that changes, in the middle of it: what was taken before goes back.
func TestTakeAllGivesBackWhenATakeFails(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		node := peerlimittest.NewNode(t)
		first, err := node.Limiter("a", slow(10))
		require.NoError(t, err)
		calls := 0
		second, err := node.LimiterFunc("b", func(context.Context, string) []peerlimit.Limit {
			if calls++; calls > 1 {
				return nil
			}
			return []peerlimit.Limit{slow(10)}
		})
		require.NoError(t, err)
		_, err = peerlimit.TakeAll(t.Context(), peerlimit.Request{Limiter: first, Key: "k", Cost: 1}, peerlimit.Request{Limiter: second, Key: "k", Cost: 1})
		assert.ErrorIs(t, err, peerlimit.ErrInvalidLimit)
		assert.ErrorContains(t, err, "request 1: ")
		assert.Empty(t, node.Stats().Limiters["a"].Allowed, "what was given back was not allowed")
		assert.InDelta(t, 10, left(t, first, "k"), almostNothing)
	})
}

// The caller hangs up between the first take and the second: the first is given back all the same.
func TestTakeAllGivesBackAfterItsContextHasEnded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cluster := peerlimittest.NewCluster(t, 3)
		ctx, hangUp := context.WithCancel(t.Context())
		first := cluster.Limiters("a", slow(10))
		key := keyOwnedBy(t, first[0], cluster.Node(1).Self().Name, "key") // the refund, too, goes over the network
		calls := 0
		second, err := cluster.Node(0).LimiterFunc("b", func(context.Context, string) []peerlimit.Limit {
			if calls++; calls == 2 {
				hangUp() // the first take is done, the second not yet begun
			}
			return []peerlimit.Limit{slow(10)}
		})
		require.NoError(t, err)
		_, err = peerlimit.TakeAll(ctx, peerlimit.Request{Limiter: first[0], Key: key, Cost: 4}, peerlimit.Request{Limiter: second, Key: keyOwnedBy(t, second, cluster.Node(2).Self().Name, "key"), Cost: 1})
		assert.ErrorIs(t, err, context.Canceled)
		assert.Equal(t, 2, calls)
		assert.InDelta(t, 10, left(t, first[2], key), almostNothing)
	})
}

// A give-back to an owner that says nothing does not hold the caller up forever.
func TestTakeAllReturnsInTimeWhenAnOwnerIsCutOff(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cluster := peerlimittest.NewCluster(t, 3)
		l := cluster.Limiters("a", slow(10))[0]
		key := keyOwnedBy(t, l, cluster.Node(1).Self().Name, "key")
		calls := 0
		second, err := cluster.Node(0).LimiterFunc("b", func(context.Context, string) []peerlimit.Limit {
			if calls++; calls == 2 {
				cluster.Freeze(1)
				return nil
			}
			return []peerlimit.Limit{slow(10)}
		})
		require.NoError(t, err)
		start := time.Now()
		_, err = peerlimit.TakeAll(t.Context(), peerlimit.Request{Limiter: l, Key: key, Cost: 4}, peerlimit.Request{Limiter: second, Key: "k", Cost: 1})
		assert.ErrorIs(t, err, peerlimit.ErrInvalidLimit)
		assert.LessOrEqual(t, time.Since(start), 2*time.Second)
		cluster.Thaw(1)
	})
}

// Two calls want the last token of the same two buckets, and name them in the same order: one of them gets both.
func TestTakeAllDoesNotDenyBoth(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cluster := peerlimittest.NewCluster(t, 3)
		var nodes []levels
		for _, node := range cluster.Nodes() {
			nodes = append(nodes, onNode(t, node, slow(1), slow(1), slow(1)))
		}
		for round := range 200 {
			key := fmt.Sprint("key", round)
			var calls sync.WaitGroup
			allowed := make([]bool, 2)
			for i := range allowed {
				calls.Go(func() {
					requests := []peerlimit.Request{{Limiter: nodes[i].user, Key: key, Cost: 1}, {Limiter: nodes[i].tenant, Key: key, Cost: 1}}
					d, err := peerlimit.TakeAll(t.Context(), requests...)
					assert.NoError(t, err)
					allowed[i] = d.Allowed
				})
			}
			calls.Wait()
			require.NotEqual(t, allowed[0], allowed[1], key)
		}
	})
}

// Callers that ask all the time for an exhausted key of their own cost no other a token of what all share, whatever the limiters are
// called, and count for nothing but denials of that key.
func TestTakeAllOfAttackersDeniesNobodyElse(t *testing.T) {
	for _, noDenialCache := range []bool{false, true} {
		t.Run(fmt.Sprintf("no denial cache %v", noDenialCache), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				const innocent = 50
				const share = innocent + 1 // of equal waits either limiter would be named
				cluster := peerlimittest.NewCluster(t, 3, func(c *peerlimit.Config) { c.NoDenialCache = noDenialCache })
				perUser, global := cluster.Limiters("per-user", slow(1000)), cluster.Limiters("global", slow(share))
				both := func(node int, user string) peerlimit.Decision {
					d, err := peerlimit.TakeAll(t.Context(),
						peerlimit.Request{Limiter: perUser[node], Key: user, Cost: 1}, peerlimit.Request{Limiter: global[node], Key: "all", Cost: 1})
					assert.NoError(t, err)
					return d
				}
				require.True(t, perUser[0].AllowN(t.Context(), "attacker", 1000))
				stop := make(chan struct{})
				var attack sync.WaitGroup
				var denied atomic.Uint64
				for i := range 100 {
					attack.Go(func() {
						for {
							select {
							case <-stop:
								return
							case <-time.After(time.Duration(1+i%3) * time.Millisecond):
							}
							d := both(i%3, "attacker")
							assert.False(t, d.Allowed)
							assert.Equal(t, "per-user", d.Denied)
							denied.Add(1)
						}
					})
				}
				for i := range innocent {
					time.Sleep(5 * time.Millisecond)
					d := both(i%3, "innocent")
					require.True(t, d.Allowed, "request %d: denied by %q", i, d.Denied)
				}
				close(stop)
				attack.Wait()
				assert.True(t, both(0, "innocent").Allowed)
				last := both(0, "innocent")
				assert.False(t, last.Allowed)
				assert.Equal(t, "global", last.Denied)

				counted := func(name string) (allowed, denied uint64) {
					for _, node := range cluster.Nodes() {
						for _, n := range node.Stats().Limiters[name].Allowed {
							allowed += n
						}
						for _, n := range node.Stats().Limiters[name].Denied {
							denied += n
						}
					}
					return allowed, denied
				}
				allowedUsers, deniedUsers := counted("per-user")
				assert.EqualValues(t, share+1, allowedUsers)
				assert.Equal(t, denied.Load(), deniedUsers)
				allowedAll, deniedAll := counted("global")
				assert.EqualValues(t, share, allowedAll)
				assert.EqualValues(t, 1, deniedAll)
			})
		})
	}
}

// What a node knows to be denied takes nothing from the others, wherever it stands in the order.
func TestTakeAllTakesNothingWhenADenialIsKnown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cluster := peerlimittest.NewCluster(t, 3)
		users := cluster.Limiters("user", slow(1))
		looks := 0
		everyone, err := cluster.Node(0).LimiterFunc("everyone", func(context.Context, string) []peerlimit.Limit {
			looks++
			return []peerlimit.Limit{slow(10)}
		})
		require.NoError(t, err)
		for owner, origin := range map[int]peerlimit.Origin{0: peerlimit.OriginLocal, 1: peerlimit.OriginDenialCache} {
			key := keyOwnedBy(t, users[0], cluster.Node(owner).Self().Name, "exhausted")
			require.True(t, users[0].Allow(t.Context(), key))
			require.False(t, users[0].Allow(t.Context(), key))
			before := looks
			d, err := peerlimit.TakeAll(t.Context(), peerlimit.Request{Limiter: everyone, Key: "all", Cost: 1}, peerlimit.Request{Limiter: users[0], Key: key, Cost: 1})
			require.NoError(t, err)
			assert.False(t, d.Allowed)
			assert.Equal(t, origin, d.Origin)
			assert.Equal(t, "user", d.Denied)
			assert.Equal(t, 1, looks-before, "once to check, and not again to take")
		}
	})
}

// A denial says which limiter denied, also of those with several limits, however it is told.
func TestADenialNamesItsLimiter(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cluster := peerlimittest.NewCluster(t, 3)
		limiters := cluster.Limiters("several", slow(2), peerlimit.PerSecond(100))
		for i, node := range cluster.Nodes() {
			key := keyOwnedBy(t, limiters[0], node.Self().Name, "k")
			for j, l := range limiters {
				for range 3 {
					d, err := l.Take(t.Context(), key, 1)
					require.NoError(t, err)
					if d.Allowed {
						assert.Empty(t, d.Denied)
						continue
					}
					assert.Equal(t, "several", d.Denied, "on node%d of node%d's, by %v", j, i, d.Origin)
					assert.Equal(t, slow(2), d.Limit)
				}
				d, err := l.Peek(t.Context(), key)
				require.NoError(t, err)
				assert.Equal(t, "several", d.Denied)
				_, err = l.Reserve(t.Context(), key, 1)
				var limited *peerlimit.LimitedError
				require.ErrorAs(t, err, &limited)
				assert.Equal(t, "several", limited.Decision.Denied)
				require.ErrorAs(t, l.Wait(t.Context(), key), &limited)
				assert.Equal(t, "several", limited.Decision.Denied)
			}
		}
		cluster.Isolate(0)
		time.Sleep(time.Second)
		for range 3 {
			d, err := limiters[0].Take(t.Context(), "alone", 2)
			require.NoError(t, err)
			assert.False(t, d.Allowed)
			assert.Equal(t, "several", d.Denied, "by a share")
		}
		bucket, err := peerlimit.NewBucket(slow(1))
		require.NoError(t, err)
		require.True(t, bucket.Allow())
		d, err := bucket.Take(1)
		require.NoError(t, err)
		assert.False(t, d.Allowed)
		assert.Empty(t, d.Denied, "a bucket has no name")
	})
}

// Whatever is called, and wherever: no bucket admits more than it has, and when all is over it lacks what was admitted, and
// nothing else.
func TestTakeAllLosesNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cluster := peerlimittest.NewCluster(t, 3)
		for seed := range uint64(100) {
			random := rand.New(rand.NewPCG(seed, 0))
			bursts := []float64{1 + 19*random.Float64(), 1 + 19*random.Float64(), 1 + 19*random.Float64()}
			var nodes []levels
			for _, node := range cluster.Nodes() { // buckets of its own for each seed
				nodes = append(nodes, named(t, node, fmt.Sprint(seed), slow(bursts[0]), slow(bursts[1]), slow(bursts[2])))
			}
			keys := 1 + random.IntN(4)
			admitted := takeAtOnce(t, nodes, keys, 1+random.IntN(8), seed)
			time.Sleep(time.Second) // what nodes had set aside for themselves is back with its owner

			check := func(limiter *peerlimit.Limiter, key string, burst, sum float64) {
				require.LessOrEqual(t, sum, burst+almostNothing, "seed %d, key %s", seed, key)
				require.InDelta(t, burst-sum, left(t, limiter, key), almostNothing, "seed %d, key %s", seed, key)
			}
			all := 0.0
			for key := range keys {
				check(nodes[0].user, fmt.Sprint(key), bursts[0], admitted.users[key])
				check(nodes[0].tenant, fmt.Sprint(key), bursts[1], admitted.tenants[key])
				all += admitted.users[key]
			}
			check(nodes[0].everyone, "all", bursts[2], all)
			require.Positive(t, all)
		}
	})
}

// sums are what was admitted for each user and each tenant.
type sums struct{ users, tenants []float64 }

// takeAtOnce has some callers take at the same moment, on any nodes, and returns what was admitted.
func takeAtOnce(t require.TestingT, nodes []levels, keys, callers int, seed uint64) sums {
	var (
		mu       sync.Mutex // guards admitted
		admitted = sums{make([]float64, keys), make([]float64, keys)}
		running  sync.WaitGroup
	)
	for caller := range callers {
		running.Go(func() {
			random := rand.New(rand.NewPCG(seed, uint64(caller)))
			for range 20 {
				user, tenant, cost := random.IntN(keys), random.IntN(keys), 0.5*float64(1+random.IntN(2))
				requests := nodes[random.IntN(len(nodes))].requests(fmt.Sprint(user), fmt.Sprint(tenant), cost)
				random.Shuffle(len(requests), func(i, j int) { requests[i], requests[j] = requests[j], requests[i] })
				d, err := peerlimit.TakeAll(context.Background(), requests...)
				assert.NoError(t, err)
				if d.Allowed {
					mu.Lock()
					admitted.users[user] += cost
					admitted.tenants[tenant] += cost
					mu.Unlock()
				}
			}
		})
	}
	running.Wait()
	return admitted
}

// Under demand from everywhere each limit holds, over any time: but for what a bucket earns while a call that comes to
// nothing is under way. And giving back starves nobody: the limit that is the bottleneck is used up.
func TestTakeAllHoldsEachLimit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const users, tenants, callers, lasts = 8, 2, 24, 5 * time.Second
		user, tenant, everyone := peerlimit.PerSecond(40).WithBurst(10), peerlimit.PerSecond(90).WithBurst(20), peerlimit.PerSecond(150).WithBurst(30)
		var nodes []levels
		for _, node := range peerlimittest.NewCluster(t, 3).Nodes() {
			nodes = append(nodes, onNode(t, node, user, tenant, everyone))
		}
		judges := make(map[string]*oracle.Oracle)
		for i := range users {
			judges[fmt.Sprint("user", i)] = judge(user)
		}
		for i := range tenants {
			judges[fmt.Sprint("tenant", i)] = judge(tenant)
		}
		judges["all"] = judge(everyone)

		var (
			mu      sync.Mutex // guards longest and the judges
			longest time.Duration
			running sync.WaitGroup
			began   = time.Now()
		)
		for caller := range callers {
			running.Go(func() {
				random := rand.New(rand.NewPCG(1, uint64(caller)))
				for time.Since(began) < lasts {
					requests := nodes[caller%3].requests(fmt.Sprint("user", random.IntN(users)), fmt.Sprint("tenant", random.IntN(tenants)), 1)
					start := time.Since(began)
					d, err := peerlimit.TakeAll(t.Context(), requests...)
					assert.NoError(t, err)
					end := time.Since(began)
					mu.Lock()
					longest = max(longest, end-start)
					if d.Allowed {
						for _, r := range requests {
							judges[r.Key].Admit(oracle.Take{Start: start, End: end, Cost: 1})
						}
					}
					mu.Unlock()
					time.Sleep(time.Duration(random.IntN(40)) * time.Millisecond)
				}
			})
		}
		running.Wait()
		for key, judge := range judges {
			rate := map[string]float64{"u": user.Tokens, "t": tenant.Tokens, "a": everyone.Tokens}[key[:1]]
			report := requireHeld(t, judge, rate*longest.Seconds())
			if key == "all" {
				due := everyone.Burst + everyone.Tokens*lasts.Seconds()
				t.Logf("%v; %.1f %% of what is due; the longest call took %v", report, 100*report.Run.Admitted/due, longest)
				assert.Greater(t, report.Run.Admitted, 0.9*due)
			}
		}
	})
}

// A request of a user counts against the user, the tenant and everyone, or against nobody.
func ExampleTakeAll() {
	node := startExample()
	defer node.Close()
	perUser, err := node.Limiter("per-user", peerlimit.PerHour(2))
	if err != nil {
		log.Fatal(err)
	}
	perTenant, err := node.Limiter("per-tenant", peerlimit.PerHour(1000))
	if err != nil {
		log.Fatal(err)
	}
	ctx := context.Background()
	for range 3 {
		d, err := peerlimit.TakeAll(ctx,
			peerlimit.Request{Limiter: perUser, Key: "bob", Cost: 1},
			peerlimit.Request{Limiter: perTenant, Key: "acme", Cost: 1})
		if err != nil {
			log.Fatal(err)
		}
		fmt.Println(d.Allowed, d.Limit)
	}
	tenant, err := perTenant.Peek(ctx, "acme")
	if err != nil {
		log.Fatal(err)
	}
	fmt.Printf("%.0f left for the tenant\n", tenant.Remaining)
	// Output:
	// true 2 per 1h0m0s, burst 2
	// true 2 per 1h0m0s, burst 2
	// false 2 per 1h0m0s, burst 2
	// 998 left for the tenant
}
