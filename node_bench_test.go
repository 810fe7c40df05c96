package peerlimit_test

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/peerlimit/peerlimit"
)

// benchmarkCluster starts nodes on loopback sockets, which ask the owner about every take, and returns a limiter on each,
// with a limit that nothing reaches.
func benchmarkCluster(b *testing.B, size int) []*peerlimit.Limiter {
	b.Helper()
	var seeds []string
	var nodes []*peerlimit.Node
	for range size {
		node, err := peerlimit.Start(peerlimit.Config{Join: seeds, NoLeases: true, NoDenialCache: true, Logger: slog.New(slog.DiscardHandler)})
		require.NoError(b, err)
		b.Cleanup(func() { _ = node.Close() })
		nodes = append(nodes, node)
		seeds = []string{node.Self().Addr}
	}
	var limiters []*peerlimit.Limiter
	for _, node := range nodes {
		require.NoError(b, node.WaitReady(b.Context(), size))
		l, err := node.Limiter("bench", peerlimit.PerSecond(1e9).WithBurst(1e9))
		require.NoError(b, err)
		limiters = append(limiters, l)
	}
	return limiters
}

// heldKeys returns keys whose owner is, or is not, the limiter's own node.
func heldKeys(l *peerlimit.Limiter, count int, here bool) []string {
	keys := make([]string, 0, count)
	for n := 0; len(keys) < count; n++ {
		if key := fmt.Sprintf("user-%d", n); l.Owner(key).Self == here {
			keys = append(keys, key)
		}
	}
	return keys
}

// BenchmarkTakeLocal is a take on a member of three that holds the key, one of 100,000.
func BenchmarkTakeLocal(b *testing.B) {
	l := benchmarkCluster(b, 3)[0]
	keys := heldKeys(l, 100_000, true)
	ctx := context.Background()
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		if d, err := l.Take(ctx, keys[i%len(keys)], 1); err != nil || !d.Allowed || d.Origin != peerlimit.OriginLocal {
			b.Fatal(d, err)
		}
	}
}

// BenchmarkTakeHot is a take on a key of another node by a lease, and BenchmarkTakeDenied one that is denied because this
// node remembers that the key is exhausted: nobody is asked, but now and then.
func BenchmarkTakeHot(b *testing.B) {
	l, key := remoteKey(b, peerlimit.PerSecond(1e12))
	for b.Loop() {
		if d, err := l.Take(b.Context(), key, 1); err != nil || !d.Allowed {
			b.Fatal(d, err)
		}
	}
}

func BenchmarkTakeDenied(b *testing.B) {
	l, key := remoteKey(b, peerlimit.PerHour(1))
	_, err := l.Take(b.Context(), key, 1)
	require.NoError(b, err)
	b.ResetTimer()
	for b.Loop() {
		if d, err := l.Take(b.Context(), key, 1); err != nil || d.Allowed {
			b.Fatal(d, err)
		}
	}
}

// remoteKey starts two nodes as users do, and returns a limiter of one and a key of the other.
func remoteKey(b *testing.B, limit peerlimit.Limit) (l *peerlimit.Limiter, key string) {
	b.Helper()
	var seeds []string
	for range 2 {
		node, err := peerlimit.Start(peerlimit.Config{Join: seeds, Logger: slog.New(slog.DiscardHandler)})
		require.NoError(b, err)
		b.Cleanup(func() { _ = node.Close() })
		require.NoError(b, node.WaitReady(b.Context(), len(seeds)+1))
		seeds = append(seeds, node.Self().Addr)
		l, err = node.Limiter("bench", limit)
		require.NoError(b, err)
	}
	b.ReportAllocs()
	return l, heldKeys(l, 1, false)[0]
}

// BenchmarkTakeRemote is a take on a member of two that does not hold the key, both in this process, over loopback TCP:
// from one caller and from 256, beside a bare ping-pong of 64 bytes over the same kind of socket.
func BenchmarkTakeRemote(b *testing.B) {
	l := benchmarkCluster(b, 2)[0]
	keys := heldKeys(l, 1000, false)
	ctx := context.Background()
	take := func(b *testing.B, i int) {
		if d, err := l.Take(ctx, keys[i%len(keys)], 1); err != nil || !d.Allowed || d.Origin != peerlimit.OriginRemote {
			b.Error(d, err)
		}
	}
	b.Run("ping-pong", func(b *testing.B) {
		ping := pingPong(b)
		medianOf(b, func(int) { ping() })
	})
	b.Run("callers=1", func(b *testing.B) {
		b.ReportAllocs()
		medianOf(b, func(i int) { take(b, i) })
	})
	b.Run("callers=256", func(b *testing.B) {
		b.ReportAllocs()
		next := make(chan int, 1024)
		var wg sync.WaitGroup
		for range 256 {
			wg.Go(func() {
				for first := range next {
					for i := range 64 {
						take(b, first+i)
					}
				}
			})
		}
		b.ResetTimer()
		for i := 0; i < b.N; i += 64 {
			next <- i
		}
		close(next)
		wg.Wait()
	})
}

// medianOf times each call and reports the median, which a mean of rare pauses would hide.
func medianOf(b *testing.B, call func(i int)) {
	times := make([]time.Duration, 0, 1<<16)
	for i := 0; b.Loop(); i++ {
		began := time.Now()
		call(i)
		if len(times) < cap(times) {
			times = append(times, time.Since(began))
		}
	}
	slices.Sort(times)
	b.ReportMetric(float64(times[len(times)/2].Nanoseconds()), "ns-median")
}

// pingPong returns a function that sends 64 bytes over a loopback connection and waits for them to come back.
func pingPong(b *testing.B) func() {
	b.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(b, err)
	b.Cleanup(func() { _ = listener.Close() })
	go func() {
		conn, err := listener.Accept()
		if err != nil {
			return
		}
		defer conn.Close()
		_, _ = io.CopyBuffer(struct{ io.Writer }{conn}, struct{ io.Reader }{conn}, make([]byte, 64))
	}()
	conn, err := net.Dial("tcp", listener.Addr().String())
	require.NoError(b, err)
	b.Cleanup(func() { _ = conn.Close() })
	var buf [64]byte
	return func() {
		_, err := conn.Write(buf[:])
		require.NoError(b, err)
		_, err = io.ReadFull(conn, buf[:])
		require.NoError(b, err)
	}
}
