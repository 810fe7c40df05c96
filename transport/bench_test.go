package transport

import (
	"context"
	"io"
	"net"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// The benchmarks measure over real loopback TCP with both ends in this process.
// BenchmarkCallLone is to be read beside BenchmarkPingPong (the same bytes with
// nothing in between), and BenchmarkCall256 beside BenchmarkCallLone:
//
//	go test -run '^$' -bench 'PingPong|CallLone|Call256' -count=5 ./transport

const benchPayload = 64

// benchPair starts a server with the handler and a client with a link to it.
func benchPair(b testing.TB, handler Handler) (connecting, Peer) {
	server, err := Listen(ServerConfig{Addr: "127.0.0.1:0", Cluster: "bench", Self: "server", Handler: handler})
	require.NoError(b, err)
	client := connecting{NewClient(ClientConfig{Cluster: "bench", Self: "client"})}
	b.Cleanup(func() {
		require.NoError(b, client.Close())
		require.NoError(b, server.Close())
	})
	peer := Peer{Name: "server", Addr: server.Addr().String()}
	_, err = client.Call(b.Context(), peer, []byte("warm up"), 5*time.Second)
	require.NoError(b, err)
	return client, peer
}

// reportMedian adds the median of single operations, which says more about a
// lone caller on a noisy machine than the mean.
func reportMedian(b *testing.B, samples []time.Duration) {
	slices.Sort(samples)
	b.ReportMetric(float64(samples[len(samples)/2]), "median-ns/op")
}

func BenchmarkPingPong(b *testing.B) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(b, err)
	defer listener.Close()
	go func() {
		conn, err := listener.Accept()
		if err != nil {
			return
		}
		defer conn.Close()
		buf := make([]byte, benchPayload)
		for {
			if _, err := io.ReadFull(conn, buf); err != nil {
				return
			}
			if _, err := conn.Write(buf); err != nil {
				return
			}
		}
	}()
	conn, err := net.Dial("tcp", listener.Addr().String())
	require.NoError(b, err)
	defer conn.Close()

	buf := make([]byte, benchPayload)
	samples := make([]time.Duration, 0, 1<<20)
	b.ReportAllocs()
	for b.Loop() {
		began := time.Now()
		if _, err := conn.Write(buf); err != nil {
			b.Fatal(err)
		}
		if _, err := io.ReadFull(conn, buf); err != nil {
			b.Fatal(err)
		}
		samples = append(samples, time.Since(began))
	}
	reportMedian(b, samples)
}

func BenchmarkCallLone(b *testing.B) {
	client, peer := benchPair(b, echo)
	request := make([]byte, benchPayload)
	samples := make([]time.Duration, 0, 1<<20)
	b.ReportAllocs()
	for b.Loop() {
		began := time.Now()
		if _, err := client.Call(context.Background(), peer, request, time.Second); err != nil {
			b.Fatal(err)
		}
		samples = append(samples, time.Since(began))
	}
	reportMedian(b, samples)
}

func BenchmarkCall256(b *testing.B) {
	client, peer := benchPair(b, echo)
	b.ReportAllocs()
	benchCallers(b, 256, func(request []byte) error {
		_, err := client.Call(context.Background(), peer, request, time.Second)
		return err
	})
}

// BenchmarkCall256Context is BenchmarkCall256 with a context that can end.
func BenchmarkCall256Context(b *testing.B) {
	client, peer := benchPair(b, echo)
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	b.ReportAllocs()
	benchCallers(b, 256, func(request []byte) error {
		_, err := client.Call(ctx, peer, request, time.Second)
		return err
	})
}

// BenchmarkCall256Late answers every request on a goroutine of its own.
func BenchmarkCall256Late(b *testing.B) {
	client, peer := benchPair(b, func(_ string, request, _ []byte) ([]byte, func(context.Context) []byte) {
		request = slices.Clone(request)
		return nil, func(context.Context) []byte { return request }
	})
	b.ReportAllocs()
	benchCallers(b, 256, func(request []byte) error {
		_, err := client.Call(context.Background(), peer, request, time.Second)
		return err
	})
}

// BenchmarkCallUnreachable is the price of finding out that there is no link.
func BenchmarkCallUnreachable(b *testing.B) {
	client := connecting{NewClient(ClientConfig{Cluster: "bench", Self: "client"})}
	defer client.Close()
	peer := Peer{Name: "server", Addr: "127.0.0.1:1"}
	_, err := client.Call(b.Context(), peer, nil, 5*time.Second)
	require.ErrorIs(b, err, ErrUnreachable)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := client.Call(context.Background(), peer, nil, time.Second); err == nil {
			b.Fatal("reached a closed port")
		}
	}
}

// BenchmarkExpiry is one search for calls that have timed out among 65,536.
func BenchmarkExpiry(b *testing.B) {
	table := newCallTable()
	for range DefaultMaxInFlight {
		table.add(&call{deadline: 10})
	}
	for b.Loop() {
		table.earliest = 0
		if table.takeExpired(1) != nil {
			b.Fatal("nothing has expired")
		}
	}
}

// benchCallers shares b.N operations between callers.
func benchCallers(b *testing.B, callers int, call func(request []byte) error) {
	var left atomic.Int64
	left.Store(int64(b.N))
	var running sync.WaitGroup
	b.ResetTimer()
	for range callers {
		running.Go(func() {
			request := make([]byte, benchPayload)
			for left.Add(-1) >= 0 {
				if err := call(request); err != nil {
					b.Error(err)
					return
				}
			}
		})
	}
	running.Wait()
	b.StopTimer()
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "calls/s")
}
