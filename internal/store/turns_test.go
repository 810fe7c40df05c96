package store

import (
	"fmt"
	"math"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/peerlimit/peerlimit/internal/limit"
	"github.com/peerlimit/peerlimit/internal/rule"
	"github.com/peerlimit/peerlimit/internal/wire"
)

// waitedAt is a holder's table, and what its own callers and those of other nodes are told.
type waitedAt struct {
	t     *testing.T
	table *Table
	rule  *rule.Rule
	full  atomic.Int64
	began time.Time

	mu    sync.Mutex // guards the fields below
	here  []wire.Wake
	there []wire.Wake
	gone  map[uint64]bool // callers of this node that wait no more
	asked map[uint64]time.Duration
}

const holderName = "holder"

// newWaitedAt returns a holder of partitions 0 to 9, with a limit; to be closed by the function that is returned.
func newWaitedAt(t *testing.T, l limit.Limit, maxKeys int) *waitedAt {
	w := &waitedAt{t: t, began: time.Now(), gone: make(map[uint64]bool), asked: make(map[uint64]time.Duration)}
	r, err := rule.New(1000).Find(wire.AppendRule(nil, "api", []limit.Limit{l}))
	require.NoError(t, err)
	w.rule = r
	w.full.Store(math.MaxInt64)
	w.table = New(Config{MaxKeys: maxKeys, FullUntil: &w.full, Self: holderName, WakeHere: func(wake *wire.Wake) bool {
		w.mu.Lock()
		defer w.mu.Unlock()
		w.here = append(w.here, *wake)
		return !w.gone[wake.Turn.Number]
	}})
	for part := range uint16(10) {
		p := w.table.Lock(part)
		p.Holding.Hold(wire.Version{Ballot: wire.Ballot{Number: 1, By: holderName}, Holder: holderName})
		p.Unlock()
	}
	done := make(chan struct{})
	var serving sync.WaitGroup
	serving.Go(func() {
		w.table.ServeTurns(done, w.now, func(wake *wire.Wake) {
			w.mu.Lock()
			defer w.mu.Unlock()
			w.there = append(w.there, *wake)
		})
	})
	t.Cleanup(func() {
		close(done)
		serving.Wait()
	})
	return w
}

func (w *waitedAt) now() int64 { return int64(time.Since(w.began)) + 1 }

// await asks for a turn, as a node's caller that has waited for a nanosecond more each time.
func (w *waitedAt) await(part uint16, key, node string, number uint64) wire.Response {
	w.asked[number]++
	ans, ok := w.table.Answer(w.rule, part, &wire.Message{
		Kind: wire.KindAwait, Key: key, Cost: 1, Total: 1, MaxDelay: 24 * time.Hour,
		Turn: wire.Turn{Node: node, Number: number, Waited: w.asked[number]},
	}, w.now())
	require.True(w.t, ok)
	return ans
}

func (w *waitedAt) leave(part uint16, key, node string, number uint64, waited time.Duration) {
	_, ok := w.table.Answer(w.rule, part, &wire.Message{
		Kind: wire.KindLeaveTurn, Key: key, Turn: wire.Turn{Node: node, Number: number, Waited: waited},
	}, w.now())
	require.True(w.t, ok)
}

// told returns which callers here and elsewhere were told that their turn has come.
func (w *waitedAt) told() (here, there []uint64) {
	synctest.Wait()
	w.mu.Lock()
	defer w.mu.Unlock()
	numbers := func(wakes []wire.Wake) (granted []uint64) {
		for _, wake := range wakes {
			if wake.Granted {
				granted = append(granted, wake.Turn.Number)
			}
		}
		return granted
	}
	return numbers(w.here), numbers(w.there)
}

func (w *waitedAt) level(part uint16, key string) float64 {
	d, ok := w.table.Peek(part, w.rule.Bucket(key), w.rule.Set, w.now())
	require.True(w.t, ok)
	return d.Remaining
}

// requireNothingIsKept fails unless nothing is left of queues.
func (w *waitedAt) requireNothingIsKept() {
	k := &w.table.turns
	k.mu.Lock()
	defer k.mu.Unlock()
	assert.Empty(w.t, k.queues)
	assert.Empty(w.t, k.next)
	assert.Zero(w.t, k.waiting)
}

func TestTurnsComeInOrder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWaitedAt(t, perSecond(1), 100)
		first := w.await(1, "k", holderName, 1)
		assert.True(t, first.Status == wire.StatusDecided && first.Decision.Allowed)
		for number := uint64(2); number <= 7; number++ {
			node := [...]string{holderName, "other"}[number%2]
			assert.Equal(t, wire.StatusQueued, w.await(1, "k", node, number).Status)
		}
		assert.Equal(t, 6, w.table.Counts().QueuedTurns)
		time.Sleep(3500 * time.Millisecond)
		here, there := w.told()
		assert.Equal(t, []uint64{2, 4}, here)
		assert.Equal(t, []uint64{3}, there)
		w.leave(1, "k", "other", 5, time.Hour)
		time.Sleep(500 * time.Millisecond)
		here, _ = w.told()
		assert.Equal(t, []uint64{2, 4, 6}, here, "all behind one that leaves move up")
		time.Sleep(5 * time.Second)
		c := w.table.Counts()
		assert.Equal(t, [4]int{0, 5, 1, 0}, [4]int{c.QueuedTurns, int(c.ServedTurns), int(c.LeftTurns), int(c.RefusedTurns)})
		w.requireNothingIsKept()
	})
}

// One that asks again while it is told gets the same turn, and no second one.
func TestATurnThatWasGivenIsNotGivenTwice(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for _, node := range []string{holderName, "other"} {
			w := newWaitedAt(t, perSecond(1), 100)
			w.await(1, "k", node, 1)
			require.Equal(t, wire.StatusQueued, w.await(1, "k", node, 2).Status)
			require.Equal(t, wire.StatusQueued, w.await(1, "k", node, 2).Status, "it keeps its place")
			require.Equal(t, 1, w.table.Counts().QueuedTurns)
			time.Sleep(time.Second)
			w.told()
			again := w.await(1, "k", node, 2)
			assert.True(t, again.Status == wire.StatusDecided && again.Decision.Allowed, node)
			assert.Zero(t, w.table.Counts().QueuedTurns)
			time.Sleep(time.Second)
			assert.InDelta(t, 1, w.level(1, "k"), 1e-6, "one token was spent")
		}
	})
}

// The tokens of a turn that was given to a caller which had left, or leaves before it hears of it, go back: once, and not when it
// waits elsewhere and may yet hear of it.
func TestATurnThatNobodyHearsOfGoesBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const slow = 4 * time.Second // nodes are heard of for longer

		w := newWaitedAt(t, per(1, slow), 100)
		fill := func(key string) { // a turn is due now for whoever asked last
			w.await(1, key, "other", 1000)
		}
		fill("left")
		w.await(1, "left", "other", 2)
		time.Sleep(slow)
		w.told()
		require.InDelta(t, 0, w.level(1, "left"), 1e-3)
		w.leave(1, "left", "other", 2, w.asked[2]) // as it asked last: it waits elsewhere
		assert.InDelta(t, 0, w.level(1, "left"), 1e-3)
		w.leave(1, "left", "other", 2, w.asked[2]+1)
		assert.InDelta(t, 1, w.level(1, "left"), 1e-3)
		w.await(1, "left", "other", 3)
		w.leave(1, "left", "other", 2, w.asked[2]+1)
		assert.InDelta(t, 0, w.level(1, "left"), 1e-3, "only once")

		w.await(2, "at once", "other", 4)
		w.leave(2, "at once", "other", 4, w.asked[4]+1)
		assert.InDelta(t, 1, w.level(2, "at once"), 1e-3, "also one that came at once")

		w.await(3, "here", holderName, 5)
		w.await(3, "here", holderName, 6)
		w.mu.Lock()
		w.gone[6] = true
		w.mu.Unlock()
		time.Sleep(slow)
		w.told()
		assert.InDelta(t, 1, w.level(3, "here"), 1e-3, "this node knows that its caller has gone")
	})
}

// What was given is remembered for some seconds, and not of more than so many.
func TestWhatWasGivenIsForgotten(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWaitedAt(t, perSecond(1e9), 100)
		for number := range uint64(maxGiven + 100) {
			w.await(1, "k", "other", number)
		}
		k := &w.table.turns
		assert.Equal(t, maxGiven, len(k.given))
		time.Sleep(2 * givenTime)
		w.await(1, "k", "other", 1<<40)
		assert.Equal(t, [2]int{1, 1}, [2]int{len(k.given), len(k.oldest)})
	})
}

// A node that ceases to hold, or loses its quorum, tells all that wait to ask again.
func TestAllAreToldToAskAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWaitedAt(t, per(1, 4*time.Second), 100)
		fill := func(part uint16) {
			w.await(part, "k", "other", 1000+uint64(part))
			for i := range uint64(3) {
				w.await(part, "k", holderName, 10*uint64(part)+i)
				w.await(part, "k", "other", 500+10*uint64(part)+i)
			}
		}
		fill(1)
		fill(2)
		p := w.table.Lock(1)
		p.Holding.Lapse()
		p.Unlock()
		synctest.Wait()
		assert.Len(t, w.here, 3)
		assert.Len(t, w.there, 3)
		for _, wake := range append(w.here, w.there...) {
			assert.False(t, wake.Granted)
			assert.Equal(t, uint64(1), wake.Turn.Number/10%10, "of partition 1")
		}
		assert.Equal(t, 6, w.table.Counts().QueuedTurns, "those of partition 2")

		w.full.Store(0) // found out when the next turn would have come
		time.Sleep(4 * time.Second)
		synctest.Wait()
		assert.Len(t, w.here, 6)
		assert.Len(t, w.there, 6)
		w.requireNothingIsKept()
	})
}

func TestTheCallersOfANodeThatHasEndedAreDismissed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWaitedAt(t, perSecond(1), 1000)
		w.await(1, "k", "one", 1)
		for i := range uint64(100) {
			w.await(1, "k", "one", 100+i)
		}
		w.await(1, "k", "two", 2)
		for i := range uint64(100) {
			w.await(uint16(2+i%5), fmt.Sprint(i), "one", 300+2*i)
			w.await(uint16(2+i%5), fmt.Sprint(i), "one", 301+2*i)
		}
		w.table.DismissNode("one", w.now())
		assert.Equal(t, 1, w.table.Counts().QueuedTurns)
		time.Sleep(time.Second)
		_, there := w.told()
		assert.Equal(t, []uint64{2}, there, "it has moved up")
		w.requireNothingIsKept()
	})
}

// Those that come and leave before their turn leave nothing, however far it is.
func TestThoseThatComeAndLeaveTakeUpNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWaitedAt(t, perHour(1), 100)
		w.await(1, "k", "other", 1)
		for i := range uint64(10_000) {
			w.await(1, "k", "other", 10+i)
			w.leave(1, "k", "other", 10+i, time.Hour)
		}
		w.requireNothingIsKept()
	})
}

// A bucket that has to go for want of room takes nobody's turn along unheard.
func TestThoseThatWaitAtAnEvictedBucketAskAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWaitedAt(t, perHour(1), 3)
		for i := range uint64(20) {
			key := fmt.Sprint(i)
			w.await(1, key, "other", 100+i)
			w.await(1, key, "other", 200+i)
		}
		synctest.Wait()
		w.mu.Lock()
		told := len(w.there)
		w.mu.Unlock()
		assert.GreaterOrEqual(t, told, 15)
		assert.Equal(t, 20, told+w.table.Counts().QueuedTurns)
	})
}

// Beyond so many of a node none may wait, and that is counted. Whoever waits may ask again, and whose turn has come has it.
func TestMoreThanMaxTurnsOfANodeAreRefused(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWaitedAt(t, perHour(1), 1000)
		w.table.turns.most = 50
		for i := range uint64(60) {
			w.await(uint16(i%10), fmt.Sprint(i), "other", 100+i)
		}
		for i := range uint64(50) {
			require.Equal(t, wire.StatusQueued, w.await(uint16(i%10), fmt.Sprint(i), "other", 200+i).Status)
		}
		refused := w.await(5, "55", "other", 300)
		assert.True(t, refused.QueueFull && refused.Status == wire.StatusDecided && !refused.Decision.Allowed)
		assert.Equal(t, time.Hour, refused.Decision.RetryAfter.Round(time.Second))
		assert.Equal(t, wire.StatusQueued, w.await(3, "3", "other", 203).Status, "it waits already")
		assert.True(t, w.await(3, "new", "other", 301).Decision.Allowed, "it need not wait")
		assert.EqualValues(t, 1, w.table.Counts().RefusedTurns)
		w.leave(3, "3", "other", 203, time.Hour)
		assert.Equal(t, wire.StatusQueued, w.await(5, "55", "other", 300).Status, "there is room again")
	})
}

// What one that waits takes up, so that the bound of a node means something.
func TestATurnTakesUpLittle(t *testing.T) {
	if testing.Short() {
		t.Skip("it takes a quarter of a million turns")
	}
	w := newWaitedAt(t, perSecond(1), 1000)
	for i := range 8 {
		w.await(1, fmt.Sprint(i), "other-0123456789abcdef", uint64(1000+i))
	}
	message := wire.Message{Kind: wire.KindAwait, Rule: w.rule.Encoded, Cost: 1, Total: 1, MaxDelay: math.MaxInt64}
	before := heapInUse()
	for i := range uint64(MaxTurns) {
		message.Key = fmt.Sprint(i % 8)
		message.Turn = wire.Turn{Node: "other-0123456789abcdef", Number: 10_000 + i, Waited: 1}
		m, err := wire.DecodeMessage(wire.AppendMessage(nil, &message)) // names of their own, as they come
		require.NoError(t, err)
		ans, ok := w.table.Answer(w.rule, 1, &m, w.now())
		require.True(t, ok && ans.Status == wire.StatusQueued, "%d: %+v", i, ans)
	}
	each := float64(heapInUse()-before) / MaxTurns
	t.Logf("%.0f bytes each, %.0f MB in all", each, each*MaxTurns/1e6)
	assert.Less(t, each, 500.0)
	runtime.KeepAlive(w)
}

// Callers of many nodes come, leave and are told on many goroutines, while partitions are lost and gained: in the end nothing is
// left, and no turn was given twice.
func TestTurnsOnManyGoroutines(t *testing.T) {
	w := newWaitedAt(t, perSecond(1000), 100)
	var all sync.WaitGroup
	for g := range uint64(8) {
		all.Go(func() {
			for i := range uint64(300) {
				part, number := uint16(i%3), 1000*g+i
				m := wire.Message{
					Kind: wire.KindAwait, Key: "k", Cost: 1, Total: 1, MaxDelay: 24 * time.Hour,
					Turn: wire.Turn{Node: [...]string{holderName, "other"}[g%2], Number: number, Waited: 1},
				}
				_, held := w.table.Answer(w.rule, part, &m, w.now())
				switch {
				case !held || i%3 == 0:
				case i%3 == 1:
					m.Kind, m.Turn.Waited = wire.KindLeaveTurn, 2
					w.table.Answer(w.rule, part, &m, w.now())
				case i%50 == 2:
					w.table.DismissNode("other", w.now())
				}
			}
		})
	}
	all.Go(func() {
		for i := range 50 {
			p := w.table.Lock(uint16(i % 3))
			p.Holding.Lapse()
			p.Unlock()
			p = w.table.Lock(uint16(i % 3))
			p.Holding.Hold(wire.Version{Ballot: wire.Ballot{Number: uint64(2 + i), By: holderName}, Holder: holderName})
			p.Unlock()
			runtime.Gosched()
		}
	})
	all.Wait()
	w.table.DismissNode("other", w.now())
	w.table.DismissNode(holderName, w.now())
	w.requireNothingIsKept()
	w.mu.Lock()
	defer w.mu.Unlock()
	granted := make(map[uint64]bool)
	for _, wake := range append(w.here, w.there...) {
		if wake.Granted {
			assert.False(t, granted[wake.Turn.Number], "%d was given two turns", wake.Turn.Number)
			granted[wake.Turn.Number] = true
		}
	}
}
