package peerlimit

import (
	"context"
	"flag"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"runtime"
	"strconv"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/peerlimit/peerlimit/internal/onecore"
	"github.com/peerlimit/peerlimit/internal/sim"
)

// tableSizes is how much a node remembers of names, limits and keys.
type tableSizes struct{ limiters, stats, rules, names, keys, degraded int }

func sizesOf(n *Node) tableSizes {
	rules, names := n.rules.Len()
	s := n.Stats()
	return tableSizes{n.limiters.Len(), len(s.Limiters), rules, names, s.Keys, s.DegradedKeys}
}

var newNames = flag.Int("names.count", 100_000, "how many new names and limits a node meets in TestEverNewNamesAndLimitsAreForgotten")

// A node that meets ever new limiters and limits remembers in the end what it did in the beginning, and nothing fails meanwhile.
func TestEverNewNamesAndLimitsAreForgotten(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		network := sim.New(1)
		defer network.Close()
		node := startNodes(t, network, nil, 1)[0]
		ctx := t.Context()
		held, err := node.Limiter("held", Per(3, 1000*time.Hour))
		require.NoError(t, err)
		limits := make([]Limit, 1)
		perKey, err := node.LimiterFunc("per-key", func(context.Context, string) []Limit { return limits })
		require.NoError(t, err)
		takeHeld := func(want bool) {
			t.Helper()
			d, err := held.Take(ctx, "k", 1)
			require.NoError(t, err)
			require.Equal(t, want, d.Allowed)
		}
		takeHeld(true)
		atStart := sizesOf(node)
		count := *newNames
		if onecore.RaceDetector {
			count /= 10
		}
		for i := range count {
			l, err := node.Limiter("tenant-"+strconv.Itoa(i), PerSecond(10+float64(i)/10))
			require.NoError(t, err)
			d, err := l.Take(ctx, "k", 1)
			require.NoError(t, err)
			require.True(t, d.Allowed)
			limits[0] = PerSecond(20 + float64(i)/10)
			d, err = perKey.Take(ctx, "k-"+strconv.Itoa(i), 1)
			require.NoError(t, err)
			require.True(t, d.Allowed)
			if i%1000 == 0 {
				time.Sleep(time.Second)
			}
		}
		takeHeld(true)
		require.EqualValues(t, 2, node.Stats().Limiters["held"].Allowed[OriginLocal])
		time.Sleep(20 * time.Minute) // what was used last is not any more
		runtime.GC()
		time.Sleep(2 * time.Minute)
		require.Equal(t, atStart, sizesOf(node))
		takeHeld(true)
		takeHeld(false)
		_, ok := node.LimiterNamed("tenant-7")
		require.False(t, ok)
		_, err = node.Limiter("tenant-7", PerHour(1))
		require.NoError(t, err, "its name is free again")
		_, err = node.Limiter("held", Per(4, 1000*time.Hour))
		require.ErrorIs(t, err, ErrNameTaken)
		runtime.KeepAlive(perKey)
	})
}

// A limiter is there, with its counts and its hold on the name, as long as anybody holds it or one with another policy.
func TestALimiterIsThereAsLongAsItIsHeld(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		network := sim.New(1)
		defer network.Close()
		node := startNodes(t, network, nil, 1)[0]
		later := func(d time.Duration) {
			time.Sleep(d)
			HeapInUse() // collects twice: what is in a sync.Pool survives the first
			time.Sleep(2 * time.Minute)
		}
		limiter := func(tokens float64) (*Limiter, error) { return node.Limiter("api", Per(tokens, 1000*time.Hour)) }
		allowed := func() uint64 { return node.Stats().Limiters["api"].Allowed[OriginLocal] }
		// What is held is on the stack of a function of its own, so that nothing of it is left when that has returned.
		holdOneOfAnotherPolicy := func() {
			l, err := limiter(3)
			require.NoError(t, err)
			require.True(t, l.Allow(t.Context(), "k"))
			l = l.WithFallback(nil)
			later(30 * time.Minute)
			require.True(t, l.Allow(t.Context(), "k"))
			require.EqualValues(t, 2, allowed())
			_, err = limiter(4)
			require.ErrorIs(t, err, ErrNameTaken)
		}
		askForItByName := func() {
			l, ok := node.LimiterNamed("api")
			require.True(t, ok)
			require.True(t, l.Allow(t.Context(), "k"))
			require.EqualValues(t, 3, allowed())
		}
		holdOneOfAnotherPolicy()
		later(5 * time.Minute) // it was asked for just now
		require.Len(t, node.Status().Limiters, 1)
		askForItByName()
		later(20 * time.Minute)
		require.Empty(t, node.Status().Limiters)
		require.Empty(t, node.Stats().Limiters)
		l, err := limiter(3)
		require.NoError(t, err)
		require.False(t, l.Allow(t.Context(), "k"), "the bucket is still there")
		require.Zero(t, allowed(), "it counts from zero")
	})
}

// In a cluster limiters come, are forgotten at every node, and come back: their buckets, replicas and debts are theirs all the while, when
// a node fails as well. When the buckets have drained no node remembers anything of them.
func TestForgottenLimitersGoOnWhereTheyLeftOff(t *testing.T) {
	if onecore.RaceDetector {
		t.Skip("an hour of three nodes takes minutes; TestALimiterIsThereAsLongAsItIsHeld runs the same code")
	}
	synctest.Test(t, func(t *testing.T) {
		network := sim.New(7)
		defer network.Close()
		nodes := startNodes(t, network, nil, 3)
		require.NoError(t, nodes[0].WaitReady(t.Context(), 3))
		const burst, period = 4, 1000 * time.Hour
		const names = 60
		admitted := make(map[int]int)
		round := func() {
			for i := range names * 4 {
				l, err := nodes[rand.IntN(len(nodes))].Limiter("tenant-"+strconv.Itoa(i%names), Per(burst, period))
				require.NoError(t, err)
				d, err := l.Take(t.Context(), "k", 1)
				require.NoError(t, err)
				if d.Allowed {
					admitted[i%names]++
				}
				for j := range 5 { // others that come once
					l, err := nodes[i%len(nodes)].Limiter(fmt.Sprint("once-", time.Now().UnixNano(), i, j), PerSecond(10))
					require.NoError(t, err)
					require.True(t, l.Allow(t.Context(), "k"))
				}
				time.Sleep(time.Millisecond)
			}
		}
		forget := func() {
			time.Sleep(11 * time.Minute)
			runtime.GC()
			time.Sleep(time.Minute)
		}
		round()
		forget()
		round()
		forget()
		require.NoError(t, nodes[2].Close())
		nodes = nodes[:2]
		time.Sleep(5 * time.Second)
		round()
		forget()
		round()
		for i := range names {
			require.Equal(t, burst, admitted[i], "of tenant-%d", i)
			l, err := nodes[0].Limiter("tenant-"+strconv.Itoa(i), Per(burst, period))
			require.NoError(t, err)
			require.NoError(t, l.Reset(t.Context(), "k"))
		}
		forget()
		runtime.GC() // what only rules referred to
		time.Sleep(time.Minute)
		for _, n := range nodes {
			s := sizesOf(n) // denials have left exhausted buckets for deciding alone, which take 1000 hours to drain
			require.LessOrEqual(t, s.degraded, names)
			require.Equal(t, tableSizes{names: s.degraded, degraded: s.degraded}, s)
		}
	})
}

// A take whose limits have been seen allocates nothing, however many other limits are in use.
func TestTakesOfManyLimitsDoNotAllocate(t *testing.T) {
	const count = 100_000
	node, err := Start(Config{Logger: slog.New(slog.DiscardHandler)})
	require.NoError(t, err)
	defer node.Close()
	limits := make(map[string][]Limit, count)
	keys := make([]string, count)
	for i := range keys {
		keys[i] = fmt.Sprint("customer-", i)
		limits[keys[i]] = []Limit{PerHour(1e9 + float64(i))}
	}
	l, err := node.LimiterFunc("per-customer", func(_ context.Context, key string) []Limit { return limits[key] })
	require.NoError(t, err)
	ctx := t.Context()
	take := func(key string) {
		if d, err := l.Take(ctx, key, 1); err != nil || !d.Allowed {
			t.Fatal(d, err)
		}
	}
	for _, key := range keys {
		take(key)
	}
	for range 2 {
		next := 0
		require.Zero(t, testing.AllocsPerRun(count, func() {
			take(keys[next%count])
			next++
		}))
		runtime.GC()
		rand.Shuffle(count, func(i, j int) { keys[i], keys[j] = keys[j], keys[i] })
	}
}
