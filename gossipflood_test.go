package peerlimit_test

import (
	"context"
	"encoding/binary"
	"flag"
	"io"
	"log/slog"
	"math"
	"net"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/peerlimit/peerlimit"
)

var (
	floodStreams = flag.Int("flood.streams", 200, "how many streams announce much")
	floodBytes   = flag.Int("flood.bytes", 1<<19, "how much is sent on each")
	floodPackets = flag.Int("flood.packets", 5000, "how many packets of garbage are sent while a node joins")
)

// The figures of operations.md:
//
//	go test . -run 'TestStreamsOfUnauthenticated|TestAJoinerGetsIn' -v -flood.streams 250 -flood.bytes 20000000 -flood.packets 82400

// flooded starts two nodes on loopback that have a secret.
func flooded(t *testing.T, logs io.Writer) (nodes []*peerlimit.Node, start func(want int) *peerlimit.Node) {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	t.Cleanup(cancel)
	start = func(want int) *peerlimit.Node {
		c := peerlimit.Config{Secret: oldSecret, Logger: slog.New(slog.NewTextHandler(logs, nil))}
		for _, n := range nodes {
			c.Join = append(c.Join, n.Self().Addr)
		}
		node, err := peerlimit.Start(c)
		require.NoError(t, err)
		t.Cleanup(func() { _ = node.Close() })
		nodes = append(nodes, node)
		for _, n := range nodes {
			require.NoError(t, n.WaitReady(ctx, want))
		}
		return node
	}
	start(1)
	start(2)
	return nodes, start
}

// inFull takes of some keys on each node, and expects to be decided about by their holders.
func inFull(t *testing.T, nodes []*peerlimit.Node) {
	t.Helper()
	began := time.Now()
	assert.Eventually(t, func() bool {
		for _, n := range nodes {
			l, err := n.Limiter("api", peerlimit.PerHour(1e9))
			require.NoError(t, err)
			for _, key := range strings.Split("abcdefgh", "") {
				if d, err := l.Take(t.Context(), key, 1); err != nil || !d.Allowed || d.Origin == peerlimit.OriginFallback {
					return false
				}
			}
		}
		return true
	}, 30*time.Second, time.Millisecond)
	t.Logf("all decide in full after %v", time.Since(began))
}

// announces is the beginning of a stream of encrypted gossip.
func announces(length uint32) []byte {
	label := append([]byte{244, byte(len(peerlimit.DefaultCluster))}, peerlimit.DefaultCluster...)
	return binary.BigEndian.AppendUint32(append(label, 10), length)
}

// Streams that announce as much as gossip may and send half a megabyte each are buffered up to a budget, however many they
// are.
func TestStreamsOfUnauthenticatedPeersHaveOneBudget(t *testing.T) {
	nodes, _ := flooded(t, io.Discard)
	goroutines, heap := runtime.NumGoroutine(), peerlimit.HeapInUse()
	noise := make([]byte, *floodBytes)
	heap += uint64(len(noise))
	conns := make(chan net.Conn, *floodStreams)
	var attackers sync.WaitGroup
	for worker := range 8 {
		attackers.Go(func() {
			for i := worker; i < *floodStreams; i += 8 {
				conn, err := net.Dial("tcp", nodes[0].Self().Addr)
				if !assert.NoError(t, err) {
					return
				}
				conns <- conn
				length := uint32(20 << 20)
				if i%2 == 0 {
					length = 4 << 20
				}
				// One that is dropped meanwhile cannot be written to: as good.
				if _, err = conn.Write(announces(length)); err == nil {
					_, _ = conn.Write(noise)
				}
			}
		})
	}
	attackers.Wait()
	during := uint64(math.MaxUint64)
	for range 5 { // what is copied while more comes in is garbage that one look may see
		during = min(during, peerlimit.HeapInUse())
	}
	var system runtime.MemStats
	runtime.ReadMemStats(&system)
	t.Logf("%d streams sent %d bytes each: the heap was %.1f MB before and is %.1f now; it was at most %.1f MB; refused: %d",
		*floodStreams, *floodBytes, float64(heap)/1e6, float64(during)/1e6, float64(system.HeapSys)/1e6, nodes[0].Stats().Unauthenticated)
	assert.Less(t, during, heap+64<<20, "%d bytes before", heap)
	inFull(t, nodes)
	close(conns)
	for conn := range conns {
		_ = conn.Close()
	}
	assert.Eventually(t, func() bool { return runtime.NumGoroutine() <= goroutines+10 }, 20*time.Second, 50*time.Millisecond)
	assert.Eventually(t, func() bool { return peerlimit.HeapInUse() <= heap+4<<20 }, 20*time.Second, 50*time.Millisecond)
}

// Peers that hold every place for a connection, and dial again as soon as they lose one, keep no member out.
func TestAJoinerGetsInDuringAFlood(t *testing.T) {
	logs := new(peerlimit.LockedBuffer)
	nodes, start := flooded(t, logs)
	goroutines := runtime.NumGoroutine()
	var attackers sync.WaitGroup
	var stop atomic.Bool
	defer attackers.Wait()
	defer stop.Store(true)
	self := nodes[0].Self()
	// Each says what may be the beginning of something, and no more, so that it has its place until another one takes it.
	for addr, begin := range map[string][]byte{self.Addr: announces(1000)[:8], self.RPCAddr: {22, 3, 1, 2, 0}} {
		for range 300 {
			attackers.Go(func() {
				for !stop.Load() {
					conn, err := net.Dial("tcp", addr)
					if err != nil {
						continue
					}
					_ = conn.SetReadDeadline(time.Now().Add(3 * time.Second))
					_, _ = conn.Write(begin)
					_, _ = conn.Read(make([]byte, 1))
					_ = conn.Close()
				}
			})
		}
	}
	attackers.Go(func() {
		conn, err := net.Dial("udp", self.Addr)
		if err != nil {
			return
		}
		defer conn.Close()
		for i := 0; i < *floodPackets && !stop.Load(); i++ {
			_, _ = conn.Write(announces(1000)[:1+i%16])
		}
	})
	assert.Eventually(t, func() bool { return nodes[0].Stats().Unauthenticated > 100 }, 30*time.Second, 10*time.Millisecond,
		"the flood is under way")
	began := time.Now()
	newcomer := start(3)
	t.Logf("it has joined after %v", time.Since(began))
	inFull(t, append(nodes, newcomer))
	stop.Store(true)
	attackers.Wait()
	t.Logf("of %d unauthenticated connections there are %d lines in the log", nodes[0].Stats().Unauthenticated, strings.Count(logs.String(), "\n"))
	assert.Less(t, strings.Count(logs.String(), "\n"), 100)
	// A third node has some goroutines more than two.
	assert.Eventually(t, func() bool { return runtime.NumGoroutine() <= goroutines*3/2+20 }, 20*time.Second, 50*time.Millisecond)
}
