package bench

import (
	"context"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/time/rate"

	"github.com/peerlimit/peerlimit"
)

const keyCount = 100_000

// BenchmarkLocalDecision compares a take on a member of a running cluster of three which holds the key, with the limiter
// of golang.org/x/time/rate kept per key in a sync.Map, as a service without a cluster does: 100,000 keys in random
// order, from all processors at once. To look a key up there and do nothing is the floor of the latter. The strings that are
// looked up are not those that are stored: a service's keys come with its requests.
func BenchmarkLocalDecision(b *testing.B) {
	keys, limiter := heldKeys(b)
	ctx := context.Background()
	b.Run("peerlimit", func(b *testing.B) {
		for _, key := range keys {
			require.True(b, limiter.Allow(ctx, key))
		}
		b.ReportAllocs()
		b.ResetTimer()
		b.RunParallel(func(pb *testing.PB) {
			random := rand.New(rand.NewPCG(rand.Uint64(), 1))
			for pb.Next() {
				d, err := limiter.Take(ctx, keys[random.IntN(keyCount)], 1)
				if err != nil || !d.Allowed || d.Origin != peerlimit.OriginLocal {
					b.Errorf("%+v, %v", d, err)
					return
				}
			}
		})
	})
	b.Run("x-time-rate-in-sync.Map", func(b *testing.B) {
		var limiters sync.Map
		for _, key := range keys {
			limiters.Store(strings.Clone(key), rate.NewLimiter(1e6, 1e9))
		}
		b.ReportAllocs()
		b.ResetTimer()
		b.RunParallel(func(pb *testing.PB) {
			random := rand.New(rand.NewPCG(rand.Uint64(), 1))
			for pb.Next() {
				l, _ := limiters.Load(keys[random.IntN(keyCount)])
				if !l.(*rate.Limiter).Allow() {
					b.Error("denied")
					return
				}
			}
		})
	})
	b.Run("lookup-alone-in-sync.Map", func(b *testing.B) {
		var values sync.Map
		for _, key := range keys {
			values.Store(strings.Clone(key), key)
		}
		b.ReportAllocs()
		b.ResetTimer()
		b.RunParallel(func(pb *testing.PB) {
			random := rand.New(rand.NewPCG(rand.Uint64(), 1))
			for pb.Next() {
				if _, ok := values.Load(keys[random.IntN(keyCount)]); !ok {
					b.Error("not there")
					return
				}
			}
		})
	})
}

// heldKeys starts a cluster of three on loopback and returns a limiter and keys that its node holds.
func heldKeys(b *testing.B) (keys []string, limiter *peerlimit.Limiter) {
	b.Helper()
	var seeds []string
	for i := range 3 {
		node, err := peerlimit.Start(peerlimit.Config{Join: seeds, Logger: slog.New(slog.DiscardHandler)})
		require.NoError(b, err)
		b.Cleanup(func() { _ = node.Close() })
		if i == 2 {
			require.NoError(b, node.WaitReady(b.Context(), 3))
			limiter, err = node.Limiter("bench", peerlimit.PerSecond(1e6).WithBurst(1e9))
			require.NoError(b, err)
			for n := 0; len(keys) < keyCount; n++ {
				if key := fmt.Sprintf("user-%d", n); limiter.Owner(key).Self {
					keys = append(keys, key)
				}
			}
		}
		seeds = []string{node.Self().Addr}
	}
	return keys, limiter
}
