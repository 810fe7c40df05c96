package peerlimit_test

import (
	"context"
	"fmt"
	"log/slog"
	"runtime"
	"runtime/metrics"
	"sync"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/peerlimit/peerlimit"
)

// worldStops returns how often the process was stopped so far for anything but collecting garbage. A profile of goroutines does
// so twice, and then has every goroutine wait while it looks at it.
func worldStops() (n uint64) {
	sample := []metrics.Sample{{Name: "/sched/pauses/total/other:seconds"}}
	metrics.Read(sample)
	for _, count := range sample[0].Value.Float64Histogram().Counts {
		n += count
	}
	return n
}

// A process with a hundred thousand goroutines does not notice that a node in it ends: nothing looks at its goroutines.
func TestEndsLookAtNoGoroutines(t *testing.T) {
	stay := make(chan struct{})
	var others sync.WaitGroup
	for range 100_000 {
		others.Go(func() { <-stay })
	}
	defer others.Wait()
	defer close(stay)
	for name, end := range map[string]func(*peerlimit.Node) error{"Leave": func(n *peerlimit.Node) error { return n.Leave(context.Background()) }, "Close": (*peerlimit.Node).Close} {
		t.Run(name, func(t *testing.T) {
			first, err := peerlimit.Start(peerlimit.Config{Logger: slog.New(slog.DiscardHandler)})
			require.NoError(t, err)
			defer first.Close()
			second, err := peerlimit.Start(peerlimit.Config{Logger: slog.New(slog.DiscardHandler), Join: []string{first.Self().Addr}})
			require.NoError(t, err)
			defer second.Close()
			require.NoError(t, second.WaitReady(t.Context(), 2))
			stops := worldStops()
			require.NoError(t, end(second))
			require.NoError(t, end(first))
			assert.Equal(t, stops, worldStops(), "stops of the whole process")
		})
	}
}

// BenchmarkCloseAmongGoroutines closes a node in a process that has many goroutines, all of which wait.
func BenchmarkCloseAmongGoroutines(b *testing.B) {
	for _, n := range []int{0, 500_000} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			stay := make(chan struct{})
			var others sync.WaitGroup
			for range n {
				others.Go(func() { <-stay })
			}
			runtime.GC()
			stops := worldStops()
			for b.Loop() {
				b.StopTimer()
				node, err := peerlimit.Start(peerlimit.Config{Logger: slog.New(slog.DiscardHandler)})
				require.NoError(b, err)
				b.StartTimer()
				require.NoError(b, node.Close())
			}
			b.ReportMetric(float64(worldStops()-stops)/float64(b.N), "stops/op")
			close(stay)
			others.Wait()
		})
	}
}
