package peerlimit_test

import (
	"context"
	"errors"
	"fmt"
	"math"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/peerlimit/peerlimit"
	"github.com/peerlimit/peerlimit/fallback"
	"github.com/peerlimit/peerlimit/internal/onecore"
	"github.com/peerlimit/peerlimit/internal/oracle"
	"github.com/peerlimit/peerlimit/peerlimittest"
)

// Whole clusters, gossip included, over a network in memory and in controlled time.

func TestClusterConvergesOnOneOwnerPerKey(t *testing.T) {
	for _, size := range sizes(1, 3, 5, 20) {
		t.Run(fmt.Sprint(size), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				cluster := peerlimittest.NewCluster(t, size)
				limiters := cluster.Limiters("api", peerlimit.PerSecond(1))
				owned := make(map[string]int)
				for i := range 2000 {
					key := fmt.Sprintf("user-%d", i)
					owner := limiters[0].Owner(key)
					owned[owner.Name]++
					for _, l := range limiters {
						require.Equal(t, owner.Name, l.Owner(key).Name)
					}
				}
				require.Len(t, owned, size, "every node owns keys")
				for name, n := range owned {
					assert.Less(t, n, 2*2000/size+20, "%s owns more than its share", name)
				}
				partitions := 0
				for _, node := range cluster.Nodes() {
					require.Len(t, node.Members(), size)
					partitions += node.Stats().PartitionsOwned
				}
				require.Equal(t, 4093, partitions, "every partition is owned once")
			})
		})
	}
}

func TestOneLimitIsHeldExactlyFromAllNodesAtOnce(t *testing.T) {
	playedBySchedules(t)
	for _, size := range sizes(1, 3, 9) {
		for _, limit := range []peerlimit.Limit{
			peerlimit.PerSecond(50), peerlimit.PerSecond(1000).WithBurst(10), peerlimit.PerMinute(5), peerlimit.PerSecond(40).Leaky(),
		} {
			t.Run(fmt.Sprintf("%d nodes, %v", size, limit), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					cluster := peerlimittest.NewCluster(t, size)
					limiters := cluster.Limiters("api", limit)
					o, began := judge(limit), time.Now()
					pause := time.Duration(float64(limit.Period) / limit.Tokens / 2)
					duration := max(3*time.Second, 20*pause)
					saturate(t, o, began, limiters, "everyone", 2, pause, duration)
					report := requireHeld(t, o, 0)
					capacity := limit.Burst
					if capacity == 0 {
						capacity = math.Max(1, limit.Tokens)
					}
					allowed := capacity + limit.Tokens*float64(duration)/float64(limit.Period)
					assert.GreaterOrEqual(t, report.Run.Admitted, 0.98*math.Floor(allowed-1), "starved")
				})
			})
		}
	}
}

// Costs that differ, refunds in between, and many keys: each bucket for itself.
func TestTakesOfAnyCostFromAnyNode(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cluster := peerlimittest.NewCluster(t, 3)
		limiters := cluster.Limiters("api", peerlimit.PerMinute(100))
		ctx := context.Background()
		for i := range 50 {
			key := fmt.Sprintf("\x00\xff-%d", i) // keys are bytes
			left := 100.0
			for j, cost := range []float64{1, 5, 20, 0.5, 60, 13, 0.25} {
				d, err := limiters[(i+j)%3].Take(ctx, key, cost)
				require.NoError(t, err)
				require.Equal(t, cost <= left, d.Allowed, "cost %v of %v", cost, left)
				if d.Allowed {
					left -= cost
				}
				require.InDelta(t, left, d.Remaining, 1)
				left = d.Remaining
			}
		}
	})
}

func TestPeekRefundResetReserveAcrossNodes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cluster := peerlimittest.NewCluster(t, 3)
		limit := peerlimit.PerMinute(60).WithBurst(10)
		limiters := cluster.Limiters("api", limit)
		ctx := context.Background()
		for i, l := range limiters {
			key := fmt.Sprintf("key-%d", i)
			other := limiters[(i+1)%3]
			d, err := l.Take(ctx, key, 10)
			require.NoError(t, err)
			require.True(t, d.Allowed)

			d, err = other.Peek(ctx, key)
			require.NoError(t, err)
			require.False(t, d.Allowed)
			require.InDelta(t, 0, d.Remaining, 0.1)

			require.NoError(t, other.Refund(ctx, key, 4))
			d, err = l.Peek(ctx, key)
			require.NoError(t, err)
			require.InDelta(t, 4, d.Remaining, 0.1)

			// Reserved from one node, behind it from another; cancelled in the order in which they came.
			first, err := l.Reserve(ctx, key, 6)
			require.NoError(t, err)
			require.InDelta(t, 2, first.Delay().Seconds(), 0.1)
			second, err := other.Reserve(ctx, key, 3)
			require.NoError(t, err)
			require.InDelta(t, 5, second.Delay().Seconds(), 0.1)
			first.Cancel()
			second.Cancel()
			second.Cancel()
			time.Sleep(10 * time.Millisecond)
			d, err = l.Peek(ctx, key)
			require.NoError(t, err)
			require.InDelta(t, 4, d.Remaining, 0.1, "both were given back")

			require.NoError(t, l.Reset(ctx, key))
			d, err = other.Peek(ctx, key)
			require.NoError(t, err)
			require.Equal(t, 10.0, d.Remaining)
		}
	})
}

func TestWaitAcrossNodesIsFirstComeFirstServed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cluster := peerlimittest.NewCluster(t, 3)
		limiters := cluster.Limiters("api", peerlimit.PerSecond(10).WithBurst(1))
		ctx := context.Background()
		require.True(t, limiters[0].Allow(ctx, "k"))
		began := time.Now()
		var mu sync.Mutex
		var order []int
		var wg sync.WaitGroup
		for i := range 12 {
			wg.Go(func() {
				assert.NoError(t, limiters[i%3].Wait(ctx, "k"))
				mu.Lock()
				defer mu.Unlock()
				order = append(order, i)
				assert.GreaterOrEqual(t, time.Since(began), time.Duration(i)*100*time.Millisecond, "never early")
			})
			time.Sleep(5 * time.Millisecond) // longer than the network takes
		}
		wg.Wait()
		require.IsIncreasing(t, order)
		require.InDelta(t, 1.2, time.Since(began).Seconds(), 0.05)
	})
}

func TestWaitEndsWithItsContextAndSpendsNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cluster := peerlimittest.NewCluster(t, 3, func(c *peerlimit.Config) { c.MaxWait = 10 * time.Second })
		limiters := cluster.Limiters("api", peerlimit.PerSecond(1))
		for i, l := range limiters {
			key := fmt.Sprint(i)
			require.True(t, l.Allow(t.Context(), key))
			ctx, cancel := context.WithTimeout(t.Context(), 500*time.Millisecond)
			began := time.Now()
			require.ErrorIs(t, l.Wait(ctx, key), peerlimit.ErrLimited)
			require.Less(t, time.Since(began), 100*time.Millisecond, "it fails at once")
			cancel()

			err := l.WaitN(t.Context(), key, 12)
			require.ErrorIs(t, err, peerlimit.ErrExceedsMaxWait)
			require.NotErrorIs(t, err, peerlimit.ErrLimited, "it is of no use to come back later")
			require.ErrorContains(t, err, "cost 12 takes 11s even from a full bucket; at most 10s is waited")

			ctx, cancel = context.WithCancel(t.Context())
			time.AfterFunc(300*time.Millisecond, cancel)
			require.ErrorIs(t, l.Wait(ctx, key), context.Canceled)
			time.Sleep(10 * time.Millisecond) // the cancellation is on its way
			d, err := l.Peek(t.Context(), key)
			require.NoError(t, err)
			require.Less(t, d.RetryAfter, time.Second, "what was waited for was given back")

			began = time.Now()
			require.NoError(t, l.WaitN(t.Context(), key, 5))
			require.InDelta(t, 4.6, time.Since(began).Seconds(), 0.3)
		}
	})
}

// An owner that is cut off is replaced within a second. Until then its standby decides by a share, which is charged when it
// begins to hold: not a token is given out twice, also when a share is less than one.
func TestOwnerCutOffIsReplaced(t *testing.T) {
	playedBySchedules(t)
	for _, size := range sizes(3, 5, 9) {
		for _, limit := range []peerlimit.Limit{
			peerlimit.PerSecond(1000), peerlimit.PerSecond(100).WithBurst(3), peerlimit.PerMinute(2), peerlimit.PerSecond(0.5),
		} {
			t.Run(fmt.Sprintf("%d nodes, %v", size, limit), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					cluster := peerlimittest.NewCluster(t, size)
					limiters := cluster.Limiters("api", limit)
					owner := cluster.Index(limiters[0].Owner("k").Name)
					cluster.Isolate(owner)
					others := append(append([]*peerlimit.Limiter(nil), limiters[:owner]...), limiters[owner+1:]...)
					o, began := judge(limit), time.Now()
					saturate(t, o, began, others, "k", 4, 5*time.Millisecond, 3*time.Second)
					report := requireHeld(t, o, 0)
					perSecond := limit.Tokens / limit.Period.Seconds()
					due := math.Floor(burstOf(limit)) + math.Floor(2*perSecond*0.98)
					require.GreaterOrEqual(t, report.Run.Admitted, due-1, "in full again within a second")
					for _, l := range others {
						d, err := l.Peek(context.Background(), "k")
						require.NoError(t, err)
						require.Contains(t, []peerlimit.Origin{peerlimit.OriginLocal, peerlimit.OriginRemote}, d.Origin)
						require.Equal(t, limit, d.Limit, "the caller's own numbers")
					}
				})
			})
		}
	}
}

// A key that the owner has just denied starts empty in the fallback, or every outage of the owner would hand its abusers
// a share of a fresh burst.
func TestFallbackRemembersDenials(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cluster := peerlimittest.NewCluster(t, 3)
		limiters := cluster.Limiters("api", peerlimit.PerHour(30))
		ctx := context.Background()
		owner := cluster.Index(limiters[0].Owner("k").Name)
		caller := limiters[(owner+1)%3]
		fresh := keyOwnedBy(t, caller, limiters[0].Owner("k").Name, "fresh")
		for range 31 {
			caller.Allow(ctx, "k")
		}
		time.Sleep(3 * peerlimit.DefaultReplicaInterval) // or the owner is gone with what it has not told its standby
		cluster.Isolate(owner)
		for range 20 {
			d, err := caller.Take(ctx, "k", 1)
			require.NoError(t, err)
			require.False(t, d.Allowed)
		}
		require.True(t, caller.Allow(ctx, fresh), "others have their share")
	})
}

func TestFallbackPolicies(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cluster := peerlimittest.NewCluster(t, 3)
		limiters := cluster.Limiters("api", peerlimit.PerHour(30))
		ctx := context.Background()
		name := limiters[0].Owner("k").Name
		owner := cluster.Index(name)
		caller := limiters[(owner+1)%3]
		cluster.Isolate((owner + 1) % 3) // the caller: it can ask nobody

		for policy, want := range map[string]struct {
			policy  fallback.Policy
			allowed int
		}{
			"divided": {fallback.Divided, 10},
			"default": {nil, 10},
			"open":    {fallback.Open, 100},
			"closed":  {fallback.Closed, 0},
			"half":    {func(fallback.Reach) float64 { return 0.5 }, 15},
			"broken":  {func(fallback.Reach) float64 { return math.NaN() }, 0},
		} {
			key := keyOwnedBy(t, caller, name, policy)
			l, allowed := caller.WithFallback(want.policy), 0
			for range 100 {
				d, err := l.Take(ctx, key, 1)
				require.NoError(t, err)
				require.Contains(t, byShare, d.Origin)
				if d.Allowed {
					allowed++
				} else {
					require.Positive(t, d.RetryAfter)
				}
			}
			require.Equal(t, want.allowed, allowed, policy)
		}

		// A cost above the share can never pass from here, and says when to come back.
		d, err := caller.Take(ctx, "k", 11)
		require.NoError(t, err)
		require.False(t, d.Allowed)
		require.Positive(t, d.RetryAfter)
		// Waiting and reserving work alone too.
		require.NoError(t, caller.Wait(ctx, "k"))
		r, err := caller.Reserve(ctx, "k", 1)
		require.NoError(t, err)
		r.Cancel()
		require.NoError(t, caller.Refund(ctx, "k", 1))
		require.ErrorIs(t, caller.Reset(ctx, "k"), peerlimit.ErrUnreachable)
	})
}

// byShare are the origins of decisions by a share.
var byShare = []peerlimit.Origin{peerlimit.OriginStandby, peerlimit.OriginFallback}

// No call takes longer than two RPC timeouts.
func TestCallsReturnInTimeWhenTheOwnerIsCutOff(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cluster := peerlimittest.NewCluster(t, 3)
		limiters := cluster.Limiters("api", peerlimit.PerHour(1e6))
		owner := cluster.Index(limiters[0].Owner("k").Name)
		caller := limiters[(owner+1)%3]
		ctx := context.Background()
		require.True(t, caller.Allow(ctx, "k"))
		cluster.Freeze(owner)
		for i := range 20 {
			began := time.Now()
			d, err := caller.Take(ctx, "k", 1)
			require.NoError(t, err)
			require.LessOrEqual(t, time.Since(began), 2*peerlimit.DefaultRPCTimeout)
			if i < 3 { // soon the owner is lost, and another decides in full
				require.Contains(t, byShare, d.Origin)
			}
		}
		cluster.Thaw(owner)
		time.Sleep(3 * time.Second) // its pings are refused for a second
		d, err := caller.Take(ctx, "k", 1)
		require.NoError(t, err)
		require.NotContains(t, byShare, d.Origin, "somebody decides in full again")
	})
}

// A caller that waits for longer than one RPC timeout gets an answer before its deadline; one that is in more of a hurry than that
// cannot know whether the owner has failed, and gets the error of its context.
func TestDeadlinesShortenTheTimeouts(t *testing.T) {
	for _, within := range []time.Duration{20 * time.Millisecond, peerlimit.DefaultRPCTimeout, 110 * time.Millisecond, 150 * time.Millisecond, time.Second} {
		t.Run(within.String(), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				cluster := peerlimittest.NewCluster(t, 3)
				limiters := cluster.Limiters("api", peerlimit.PerHour(1000))
				owner := cluster.Index(limiters[0].Owner("k").Name)
				caller := limiters[(owner+1)%3]
				cluster.Freeze(owner)
				began := time.Now()
				ctx, cancel := context.WithTimeout(t.Context(), within)
				defer cancel()
				d, err := caller.Take(ctx, "k", 1)
				if within <= peerlimit.DefaultRPCTimeout {
					require.ErrorIs(t, err, context.DeadlineExceeded)
					require.Equal(t, within, time.Since(began))
					return
				}
				require.NoError(t, err)
				require.Contains(t, byShare, d.Origin)
				require.NoError(t, ctx.Err(), "the deadline has not passed")
			})
		})
	}
}

// What callers in a hurry do not wait for tells of a silent owner all the same: soon a share decides for them as well, at once.
func TestHurriedCallersAreAnsweredOnceTheirOwnerHasFailed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cluster := peerlimittest.NewCluster(t, 3)
		limiters := cluster.Limiters("api", peerlimit.PerHour(1000))
		owner := cluster.Index(limiters[0].Owner("k").Name)
		caller := limiters[(owner+1)%3]
		cluster.Freeze(owner)
		began := time.Now()
		for {
			ctx, cancel := context.WithTimeout(t.Context(), 5*time.Millisecond)
			_, err := caller.Take(ctx, "k", 1)
			cancel()
			if err == nil {
				break
			}
			require.ErrorIs(t, err, context.DeadlineExceeded)
			require.Less(t, time.Since(began), 2*peerlimit.DefaultRPCTimeout)
		}
	})
}

func TestAContextThatHasEndedIsTheAnswer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cluster := peerlimittest.NewCluster(t, 3)
		limiters := cluster.Limiters("api", peerlimit.PerHour(1000))
		owner := cluster.Index(limiters[0].Owner("k").Name)
		other := (owner + 1) % 3
		caller := limiters[other]
		gone, cancel := context.WithCancel(t.Context())
		cancel()
		_, err := caller.Take(gone, "k", 1)
		require.ErrorIs(t, err, context.Canceled)

		calls := map[string]func(context.Context) error{
			"take":    func(ctx context.Context) error { _, err := caller.Take(ctx, "k", 1); return err },
			"peek":    func(ctx context.Context) error { _, err := caller.Peek(ctx, "k"); return err },
			"reserve": func(ctx context.Context) error { _, err := caller.Reserve(ctx, "k", 1); return err },
			"wait":    func(ctx context.Context) error { return caller.Wait(ctx, "k") },
			"refund":  func(ctx context.Context) error { return caller.Refund(ctx, "k", 1) },
			"reset":   func(ctx context.Context) error { return caller.Reset(ctx, "k") },
			"take all": func(ctx context.Context) error {
				_, err := peerlimit.TakeAll(ctx, peerlimit.Request{Limiter: caller, Key: "k", Cost: 1})
				return err
			},
		}
		for name, call := range calls {
			ending, cancel := context.WithCancel(t.Context())
			time.AfterFunc(50*time.Microsecond, cancel) // the request is under way
			require.ErrorIs(t, call(ending), context.Canceled, name)
			tooShort, cancel := context.WithTimeout(t.Context(), 50*time.Microsecond)
			require.ErrorIs(t, call(tooShort), context.DeadlineExceeded, name)
			cancel()
			time.Sleep(100 * time.Millisecond)
		}
		stats := cluster.Node(other).Stats()
		require.Zero(t, stats.Degraded)
		require.EqualValues(t, 2, stats.LostRefunds, "for all that is known")
	})
}

// Callers in a hurry make a healthy cluster admit no more than others do, whichever way they ask. A context that ends too soon
// is answered with its error.
func TestHurriedCallersAdmitNoMore(t *testing.T) {
	playedBySchedules(t)
	const lasts = 10 * time.Second
	type taker func(ctx context.Context, l *peerlimit.Limiter) (time.Duration, error)
	takers := map[string]taker{
		"take": func(ctx context.Context, l *peerlimit.Limiter) (time.Duration, error) {
			d, err := l.Take(ctx, "k", 1)
			if err == nil {
				err = d.Err()
			}
			return 0, err
		},
		"take all": func(ctx context.Context, l *peerlimit.Limiter) (time.Duration, error) {
			d, err := peerlimit.TakeAll(ctx, peerlimit.Request{Limiter: l, Key: "k", Cost: 1})
			if err == nil {
				err = d.Err()
			}
			return 0, err
		},
		"wait": func(ctx context.Context, l *peerlimit.Limiter) (time.Duration, error) { return 0, l.Wait(ctx, "k") },
		"reserve": func(ctx context.Context, l *peerlimit.Limiter) (time.Duration, error) {
			r, err := l.Reserve(ctx, "k", 1)
			if err != nil {
				return 0, err
			}
			return r.Delay(), nil
		},
	}
	for how, take := range takers {
		for _, limit := range []peerlimit.Limit{peerlimit.PerSecond(100).WithBurst(1), peerlimit.PerSecond(100), peerlimit.PerMinute(6)} {
			for _, within := range []time.Duration{time.Millisecond, 2 * time.Millisecond, 5 * time.Millisecond} {
				t.Run(fmt.Sprint(how, " ", limit, " ", within), func(t *testing.T) {
					synctest.Test(t, func(t *testing.T) {
						cluster := peerlimittest.NewCluster(t, 3)
						o, began := judge(limit), time.Now()
						var load sync.WaitGroup
						for _, l := range cluster.Limiters("api", limit) {
							for range 2 {
								load.Go(func() {
									for time.Since(began) < lasts {
										start := time.Since(began)
										ctx, cancel := context.WithTimeout(t.Context(), within)
										delay, err := take(ctx, l)
										cancel()
										switch {
										case err == nil:
											o.Admit(oracle.Take{Start: start + delay, End: time.Since(began) + delay, Cost: 1})
										case !errors.Is(err, peerlimit.ErrLimited):
											assert.ErrorIs(t, err, context.DeadlineExceeded)
										}
										time.Sleep(delay + 5*time.Millisecond)
									}
								})
							}
						}
						load.Wait()
						requireHeld(t, o, 0)
						for _, node := range cluster.Nodes() {
							assert.Zero(t, node.Stats().Degraded, "decided by a share while every node reaches every other")
						}
					})
				})
			}
		}
	}
}

// A crashed owner is replaced, and a cluster that was split becomes one again, by itself.
func TestKilledOwnerIsReplaced(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		limit := peerlimit.PerSecond(100)
		cluster := peerlimittest.NewCluster(t, 5)
		limiters := cluster.Limiters("api", limit)
		owner := cluster.Index(limiters[0].Owner("k").Name)
		cluster.Kill(owner)
		began := time.Now()
		cluster.WaitReady()
		require.Less(t, time.Since(began), 30*time.Second)
		survivors := cluster.Limiters("api", limit)
		next := survivors[0].Owner("k")
		for _, l := range survivors {
			require.Equal(t, next.Name, l.Owner("k").Name)
			d, err := l.Take(t.Context(), "k", 1)
			require.NoError(t, err)
			require.NotEqual(t, peerlimit.OriginFallback, d.Origin)
		}
		_, err := limiters[owner].Take(t.Context(), "k", 1)
		require.ErrorIs(t, err, peerlimit.ErrClosed)
	})
}

func TestSplitsHealByThemselves(t *testing.T) {
	playedBySchedules(t)
	for _, duration := range []time.Duration{10 * time.Second, 45 * time.Second, 10 * time.Minute} {
		if onecore.RaceDetector && duration > time.Minute {
			continue // nothing runs then that does not run in 45 s
		}
		t.Run(duration.String(), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				limit := peerlimit.PerSecond(100)
				cluster := peerlimittest.NewCluster(t, 5)
				limiters := cluster.Limiters("api", limit)
				cluster.Split([]int{0, 1}, []int{2, 3, 4})
				time.Sleep(duration)
				for _, l := range limiters {
					d, err := l.Take(t.Context(), "k", 1)
					require.NoError(t, err)
					require.True(t, d.Allowed)
				}
				cluster.Heal()
				began := time.Now()
				cluster.WaitReady()
				t.Logf("healed after %v", time.Since(began))
				o, changes, alone := judge(limit), ringChanges(cluster), decidedAlone(cluster)
				saturate(t, o, time.Now(), limiters, "after", 2, 10*time.Millisecond, 3*time.Second)
				// What gossip still carried of the split can make members drop each other for a moment: each change of
				// owner may give a fresh bucket, and a node that is between two owners then decides by its share.
				requireHeld(t, o, limit.Tokens*float64(ringChanges(cluster)-changes)+decidedAlone(cluster)-alone)
				cluster.WaitReady()
				for _, l := range limiters {
					require.Equal(t, limiters[0].Owner("k").Name, l.Owner("k").Name)
				}
			})
		})
	}
}

// A member that leaves in an orderly way is missed by nobody: not a single call fails or falls back.
func TestLeaveFailsNoCall(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		limit := peerlimit.PerSecond(100)
		cluster := peerlimittest.NewCluster(t, 5)
		limiters := cluster.Limiters("api", limit)
		leaver := cluster.Index(limiters[0].Owner("k").Name)
		var others []*peerlimit.Limiter
		for i, l := range limiters {
			if i != leaver {
				others = append(others, l)
			}
		}
		left := make(chan error, 1)
		time.AfterFunc(time.Second, func() { left <- cluster.Leave(context.Background(), leaver) })
		saturate(t, judge(limit), time.Now(), others, "k", 2, 5*time.Millisecond, 10*time.Second)
		require.NoError(t, <-left)
		for i, node := range cluster.Nodes() {
			stats := node.Stats()
			require.Zero(t, stats.Limiters["api"].Allowed[peerlimit.OriginFallback]+stats.Limiters["api"].Denied[peerlimit.OriginFallback], "node %d", i)
			require.Len(t, node.Members(), 4)
			require.Equal(t, 4, stats.Known, "a member that has left does not count")
		}
		_, err := limiters[leaver].Take(t.Context(), "k", 1)
		require.ErrorIs(t, err, peerlimit.ErrClosed)
	})
}

// A take that comes from a node which does not know the owner yet is passed on, once.
func TestNewcomersTakeOver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		limit := peerlimit.PerSecond(100)
		cluster := peerlimittest.NewCluster(t, 3)
		limiters := cluster.Limiters("api", limit)
		time.AfterFunc(time.Second, func() { cluster.Add() })
		time.AfterFunc(2*time.Second, func() { cluster.Add() })
		saturate(t, judge(limit), time.Now(), limiters, "k", 2, 5*time.Millisecond, 5*time.Second)
		cluster.WaitReady()
		for _, node := range cluster.Nodes() {
			stats := node.Stats()
			require.Zero(t, stats.Limiters["api"].Allowed[peerlimit.OriginFallback])
			require.Positive(t, stats.PartitionsOwned)
		}
	})
}

// Nodes with other limits under the same name work side by side, as they do during a rolling deploy.
func TestLimitsMayDifferBetweenNodes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cluster := peerlimittest.NewCluster(t, 3)
		before := peerlimit.PerMinute(10)
		after := peerlimit.PerMinute(20)
		old, err := cluster.Node(0).Limiter("api", before)
		require.NoError(t, err)
		renewed, err := cluster.Node(1).Limiter("api", after, peerlimit.PerHour(100))
		require.NoError(t, err)
		for range 10 {
			require.True(t, old.Allow(t.Context(), "k"))
		}
		require.False(t, old.Allow(t.Context(), "k"))
		for range 10 {
			require.True(t, renewed.Allow(t.Context(), "k"))
		}
		require.False(t, renewed.Allow(t.Context(), "k"))
		require.False(t, old.Allow(t.Context(), "k"))
	})
}

// A caller that hangs up before its node has the holder's answer leaves nothing in the queue: the next one's turn is the next.
func TestHangingUpBeforeTheAnswerLeavesTheQueue(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cluster := peerlimittest.NewCluster(t, 3)
		cluster.Degrade(peerlimittest.Conditions{Latency: 20 * time.Millisecond})
		time.Sleep(time.Second)
		limiters := cluster.Limiters("api", peerlimit.PerSecond(1))
		key := "k"
		for limiters[0].Owner(key) == cluster.Node(0).Self() {
			key += "k"
		}
		require.True(t, limiters[0].Allow(t.Context(), key))
		for range 50 {
			ctx, cancel := context.WithCancel(t.Context())
			time.AfterFunc(30*time.Millisecond, cancel)
			_, err := limiters[0].Await(ctx, key, 1)
			require.ErrorIs(t, err, context.Canceled)
		}
		for range 3 { // 1.5 s have passed
			began := time.Now()
			require.NoError(t, limiters[0].Wait(t.Context(), key))
			require.Less(t, time.Since(began), 1100*time.Millisecond)
		}
	})
}
