package peerlimit_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/peerlimit/peerlimit"
	"github.com/peerlimit/peerlimit/internal/crowd"
	"github.com/peerlimit/peerlimit/internal/onecore"
	"github.com/peerlimit/peerlimit/peerlimittest"
)

// Waiting, of whole clusters: while somebody waits no token is wasted, first come, first served among those that still wait.

// onTheWay is how long a turn takes at most to the caller that has it, in a network of the tests.
const onTheWay = 5 * time.Millisecond

// judged is wait, and has a judge told of each turn that has come.
func judged(judge *peerlimittest.Judge, wait func(ctx context.Context, i int) error) func(ctx context.Context, i int) error {
	return func(ctx context.Context, i int) error {
		err := wait(ctx, i)
		if now := time.Now(); err == nil {
			judge.AdmitBetween(now.Add(-onTheWay), now, 1)
		}
		return err
	}
}

// Twice as many come as can be served, and hang up after a second on average. Whoever stays is served at the rate of the limit.
func TestACrowdThatLosesPatienceIsServedAtTheFullRate(t *testing.T) {
	limit := peerlimit.PerSecond(100).WithBurst(1)
	for _, test := range []struct {
		patience time.Duration
		hangUp   bool
		nodes    int // 0 for a Bucket
	}{
		{time.Second, true, 0}, {time.Second, false, 0}, {10 * time.Second, true, 0},
		{time.Second, true, 1}, {time.Second, false, 1},
		{time.Second, true, 3}, {time.Second, false, 3}, {10 * time.Second, true, 3},
	} {
		length := time.Minute
		if onecore.RaceDetector {
			length = 10 * time.Second
		}
		t.Run(fmt.Sprintf("%d nodes, %v, hang up %v", test.nodes, test.patience, test.hangUp), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				judge := peerlimittest.NewJudge(t, limit)
				wait := waitersOf(t, limit, test.nodes)
				c := crowd.Crowd{Rate: 200, Patience: test.patience, Length: length, HangUp: test.hangUp, Seed: 1}
				result := c.Run(t.Context(), judged(judge, wait))
				t.Logf("%+v", result)
				judge.Held(t, 0)
				assert.GreaterOrEqual(t, result.PerSecond(), 98.0)
			})
		})
	}
}

// Nodes are far apart, and callers are gone before they hear of their turn: it is the next one's.
func TestACrowdThatIsGoneBeforeItHearsIsServedAtTheFullRate(t *testing.T) {
	limit := peerlimit.PerSecond(100).WithBurst(1)
	synctest.Test(t, func(t *testing.T) {
		cluster := peerlimittest.NewCluster(t, 3)
		cluster.Degrade(peerlimittest.Conditions{Latency: 20 * time.Millisecond})
		limiters := cluster.Limiters("api", limit)
		owner := cluster.Index(limiters[0].Owner("k").Name)
		judge := peerlimittest.NewJudge(t, limit)
		c := crowd.Crowd{Rate: 400, Patience: 200 * time.Millisecond, Length: 30 * time.Second, HangUp: true, Seed: 1}
		result := c.Run(t.Context(), func(ctx context.Context, i int) error {
			err := limiters[(owner+1+i%2)%3].Wait(ctx, "k")
			if now := time.Now(); err == nil {
				judge.AdmitBetween(now.Add(-100*time.Millisecond), now, 1)
			}
			return err
		})
		t.Logf("%+v", result)
		judge.Held(t, 0)
		assert.GreaterOrEqual(t, result.PerSecond(), 90.0)
	})
}

// waitersOf returns what waits for a token of one key, at a Bucket or at each of so many nodes in turn.
func waitersOf(t *testing.T, limit peerlimit.Limit, nodes int) func(ctx context.Context, i int) error {
	if nodes == 0 {
		bucket, err := peerlimit.NewBucket(limit)
		require.NoError(t, err)
		return func(ctx context.Context, _ int) error { return bucket.Wait(ctx) }
	}
	limiters := peerlimittest.NewCluster(t, nodes).Limiters("api", limit)
	return func(ctx context.Context, i int) error { return limiters[i%nodes].Wait(ctx, "k") }
}

// Ten seconds of three times too many leave nothing behind: whoever comes afterwards is served as if they had never been.
func TestAnOverloadThatIsOverLeavesNothingBehind(t *testing.T) {
	for _, nodes := range []int{0, 3} {
		for _, after := range []float64{80, 95} {
			t.Run(fmt.Sprintf("%d nodes, %v a second", nodes, after), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					wait := waitersOf(t, peerlimit.PerSecond(100).WithBurst(10), nodes)
					over := crowd.Crowd{Rate: 300, Patience: time.Second, Length: 10 * time.Second, HangUp: true, Seed: 1}.Run(t.Context(), wait)
					require.GreaterOrEqual(t, over.PerSecond(), 98.0)
					then := crowd.Crowd{Rate: after, Patience: time.Second, Length: 30 * time.Second, HangUp: true, Seed: 2}.Run(t.Context(), wait)
					alone := crowd.Crowd{Rate: after, Patience: time.Second, Length: 30 * time.Second, HangUp: true, Seed: 2}.Run(t.Context(),
						waitersOf(t, peerlimit.PerSecond(100).WithBurst(10), nodes))
					t.Logf("after an overload %+v, else %+v", then, alone)
					assert.InDelta(t, alone.Served+alone.Late, then.Served+then.Late, 5)
				})
			})
		}
	}
}

// Those that wait are served in the order in which they came, also when the holder changes because a member joins or the holder
// leaves: they say elsewhere for how long they have waited. When the holder is killed shares decide until there is another one, in
// no order.
func TestTheOrderStaysWhenTheHolderChanges(t *testing.T) {
	for _, change := range []string{"nothing", "members join", "the holder leaves", "the holder is killed"} {
		t.Run(change, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				cluster := peerlimittest.NewCluster(t, 3)
				limit := peerlimit.PerSecond(10).WithBurst(1)
				limiters := cluster.Limiters("api", limit)
				var lines []*line
				for i := 0; len(lines) < 12; i++ {
					if key := fmt.Sprint("key", i); cluster.Index(limiters[0].Owner(key).Name) == 0 {
						lines = append(lines, &line{key: key, judge: peerlimittest.NewJudge(t, limit)})
					}
				}
				const waiters = 40
				var all sync.WaitGroup
				began := time.Now()
				for i := range waiters {
					for k, l := range lines {
						all.Go(func() { l.wait(t, limiters[1+(i+k)%2], i) })
					}
					time.Sleep(2 * time.Millisecond)
				}
				lost, moved := time.Duration(0), 0
				switch change {
				case "members join":
					for range 3 { // each gets a key with a probability of 0.9
						cluster.Add()
						cluster.WaitReady()
					}
					for _, l := range lines {
						if limiters[0].Owner(l.key).Name != cluster.Node(0).Self().Name {
							moved++
						}
					}
					assert.NotZero(t, moved, "no key has moved")
				case "the holder leaves":
					require.NoError(t, cluster.Leave(t.Context(), 0))
				case "the holder is killed":
					cluster.Kill(0)
					lost = time.Second
				}
				settled := time.Now().Add(askNewHolder)
				all.Wait()
				assert.Less(t, time.Since(began), waiters*100*time.Millisecond+lost+100*time.Millisecond, "no turn is wasted")
				for _, l := range lines {
					furthest := l.furthest(settled)
					t.Logf("%s: furthest from its place: %d", l.key, furthest)
					if assert.Len(t, l.order, waiters); change != "the holder is killed" {
						assert.LessOrEqual(t, furthest, 1, l.key)
						l.judge.Held(t, 0)
					}
				}
			})
		})
	}
}

// line is those that wait for one key, in the order in which they were served.
type line struct {
	key   string
	judge *peerlimittest.Judge

	mu     sync.Mutex // guards what follows
	order  []int
	served []time.Time // the same
}

func (l *line) wait(t *testing.T, limiter *peerlimit.Limiter, who int) {
	assert.NoError(t, limiter.Wait(t.Context(), l.key))
	l.mu.Lock()
	defer l.mu.Unlock()
	l.order = append(l.order, who)
	l.served = append(l.served, time.Now())
	now := time.Now()
	l.judge.AdmitBetween(now.Add(-onTheWay), now, 1)
}

// askNewHolder is within what time those that wait ask a new holder. The order of turns that come until then is not promised.
const askNewHolder = 250 * time.Millisecond

// furthest returns how far from its place somebody was served, of those served from an instant on.
func (l *line) furthest(from time.Time) (furthest int) {
	var order []int
	for i, who := range l.order {
		if !l.served[i].Before(from) {
			order = append(order, who)
		}
	}
	for place, who := range slices.Sorted(slices.Values(order)) {
		furthest = max(furthest, place-slices.Index(order, who), slices.Index(order, who)-place)
	}
	return furthest
}

// Ten wait for a turn each, one comes a second, and nine leave: the tenth is served at its new place.
func TestTheLastOfTenIsServedAtItsNewPlace(t *testing.T) {
	for _, nodes := range []int{0, 1, 3} {
		synctest.Test(t, func(t *testing.T) {
			wait := waitersOf(t, peerlimit.PerSecond(1).WithBurst(1), nodes)
			require.NoError(t, wait(t.Context(), 0))
			began := time.Now()
			impatient, leave := context.WithCancel(t.Context())
			var all sync.WaitGroup
			for i := range 9 {
				all.Go(func() { assert.ErrorIs(t, wait(impatient, i), context.Canceled) })
				time.Sleep(5 * time.Millisecond)
			}
			all.Go(func() {
				assert.NoError(t, wait(t.Context(), 10))
				assert.InDelta(t, time.Second, time.Since(began), float64(onTheWay), "%d nodes", nodes)
			})
			time.Sleep(50 * time.Millisecond)
			leave()
			all.Wait()
		})
	}
}

// 5,000 wait and leave in whatever order: a bucket that all have left is as if none had come.
func TestABucketThatAllHaveLeftIsAsBefore(t *testing.T) {
	for _, nodes := range []int{0, 3} {
		for seed := range uint64(3) {
			synctest.Test(t, func(t *testing.T) {
				wait := waitersOf(t, peerlimit.PerSecond(100).WithBurst(1), nodes)
				require.NoError(t, wait(t.Context(), 0))
				const waiters = 5000 // 50 s of turns
				leave := make([]context.CancelFunc, waiters)
				var all sync.WaitGroup
				for i := range leave {
					var ctx context.Context
					ctx, leave[i] = context.WithCancel(t.Context())
					all.Go(func() { _ = wait(ctx, i) })
				}
				time.Sleep(100 * time.Millisecond)
				random := rand.New(rand.NewPCG(seed, seed))
				random.Shuffle(waiters, func(i, j int) { leave[i], leave[j] = leave[j], leave[i] })
				for i := range leave {
					leave[i]()
					if i%100 == 0 {
						time.Sleep(time.Millisecond)
					}
				}
				all.Wait()
				time.Sleep(2*onTheWay + 10*time.Millisecond)
				began := time.Now()
				require.NoError(t, wait(t.Context(), 0))
				require.Less(t, time.Since(began), onTheWay, "%d nodes, order %d", nodes, seed)
			})
		}
	}
}

// A node that is cut off waits for a turn of its share: callers fail when their deadline has come, not before.
func TestANodeThatIsCutOffWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cluster := peerlimittest.NewCluster(t, 3)
		limiter, err := cluster.Node(0).Limiter("jobs", peerlimit.PerSecond(20).WithBurst(1))
		require.NoError(t, err)
		cluster.Isolate(0)
		time.Sleep(3 * time.Second)
		for k := range 6 {
			for began := time.Now(); time.Since(began) < 5*time.Second; {
				ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
				start := time.Now()
				if err := limiter.Wait(ctx, fmt.Sprint("key", k)); err != nil {
					require.ErrorIs(t, err, context.DeadlineExceeded)
					require.GreaterOrEqual(t, time.Since(start), 5*time.Second, "key %d", k)
				}
				cancel()
			}
		}
	})
}

// Without a deadline a node that is cut off waits until MaxWait, and fails then.
func TestANodeThatIsCutOffWaitsUntilMaxWait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const maxWait = 3 * time.Second
		cluster := peerlimittest.NewCluster(t, 3, func(c *peerlimit.Config) { c.MaxWait = maxWait })
		limiter, err := cluster.Node(0).Limiter("jobs", peerlimit.PerMinute(1))
		require.NoError(t, err)
		cluster.Isolate(0)
		time.Sleep(2 * time.Second)
		for k := range 6 {
			key := fmt.Sprint("key", k)
			for limiter.Allow(t.Context(), key) { // its share
				continue
			}
			start := time.Now()
			require.ErrorIs(t, limiter.Wait(t.Context(), key), peerlimit.ErrLimited)
			require.InDelta(t, maxWait, time.Since(start), float64(300*time.Millisecond))
		}
	})
}

// Whoever waited for a share's turn is the holder's as soon as that can be reached: the turns of a share come late.
func TestWhoWaitsWhileCutOffIsServedByTheHolderAfterwards(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cluster := peerlimittest.NewCluster(t, 3)
		limiters := cluster.Limiters("jobs", peerlimit.PerSecond(20).WithBurst(20))
		owner := cluster.Index(limiters[0].Owner("k").Name)
		other := (owner + 1) % 3
		cluster.Isolate(other)
		time.Sleep(2 * time.Second)
		var all sync.WaitGroup
		for range 120 { // 6 s at the holder, 18 s at a share
			all.Go(func() { assert.NoError(t, limiters[other].Wait(t.Context(), "k")) })
		}
		time.Sleep(time.Second)
		cluster.Heal()
		began := time.Now()
		all.Wait()
		t.Logf("served %v after the split", time.Since(began))
		assert.Less(t, time.Since(began), 9*time.Second)
	})
}

// A worker that waits on one node sees no error while the owner is killed.
func TestAWorkerWaitsWhileTheOwnerIsKilled(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cluster := peerlimittest.NewCluster(t, 3)
		limiters := cluster.Limiters("jobs", peerlimit.PerSecond(20).WithBurst(1))
		owner := cluster.Index(limiters[0].Owner("k").Name)
		worker := limiters[(owner+1)%3]
		ctx, cancel := context.WithCancel(t.Context())
		got, done := 0, make(chan struct{})
		go func() {
			defer close(done)
			for {
				err := worker.Wait(ctx, "k")
				if ctx.Err() != nil {
					return
				}
				assert.NoError(t, err)
				got++
			}
		}()
		time.Sleep(time.Second)
		cluster.Kill(owner)
		time.Sleep(3 * time.Second)
		cancel()
		<-done
		require.GreaterOrEqual(t, got, 60)
	})
}

// Many wait on one key with a high limit, on the holder's node and on others, and hang up: 20,000 a second are served.
func TestManyWaitOnAFastKey(t *testing.T) {
	playedBySchedules(t)
	synctest.Test(t, func(t *testing.T) {
		limit := peerlimit.PerSecond(20_000).WithBurst(20)
		wait := waitersOf(t, limit, 3)
		judge := peerlimittest.NewJudge(t, limit)
		c := crowd.Crowd{Rate: 40_000, Patience: 100 * time.Millisecond, Length: 2 * time.Second, HangUp: true, Seed: 1}
		result := c.Run(t.Context(), judged(judge, wait))
		t.Logf("%+v", result)
		judge.Held(t, 0)
		assert.GreaterOrEqual(t, result.PerSecond(), 0.98*20_000)
	})
}
