package peerlimit_test

import (
	"context"
	"encoding/binary"
	"io"
	"log/slog"
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
	const each, streams = 1 << 19, 200
	noise := make([]byte, each)
	conns := make([]net.Conn, 0, streams)
	for i := range streams {
		conn, err := net.Dial("tcp", nodes[0].Self().Addr)
		require.NoError(t, err)
		defer conn.Close()
		length := uint32(20 << 20)
		if i%2 == 0 {
			length = 4 << 20
		}
		// One that is dropped meanwhile cannot be written to: as good.
		if _, err = conn.Write(announces(length)); err == nil {
			_, _ = conn.Write(noise)
		}
		conns = append(conns, conn)
	}
	assert.Less(t, peerlimit.HeapInUse(), heap+40<<20, "%d bytes before, and %d were sent", heap, each*streams)
	for _, conn := range conns {
		_ = conn.Close()
	}
	assert.Eventually(t, func() bool { return runtime.NumGoroutine() <= goroutines+10 }, 20*time.Second, 50*time.Millisecond)
	assert.Eventually(t, func() bool { return peerlimit.HeapInUse() <= heap+4<<20 }, 20*time.Second, 50*time.Millisecond)
}

// Peers that hold every place for a connection, and dial again as soon as they lose one, keep no member out.
func TestAJoinerGetsInDuringAFlood(t *testing.T) {
	logs := new(safeBuffer)
	nodes, start := flooded(t, logs)
	goroutines := runtime.NumGoroutine()
	var attackers sync.WaitGroup
	var stop atomic.Bool
	defer attackers.Wait()
	defer stop.Store(true)
	self := nodes[0].Self()
	for _, addr := range []string{self.Addr, self.RPCAddr} {
		for range 300 {
			attackers.Go(func() {
				for !stop.Load() {
					conn, err := net.Dial("tcp", addr)
					if err != nil {
						continue
					}
					_ = conn.SetReadDeadline(time.Now().Add(3 * time.Second))
					_, _ = conn.Write(announces(1000)[:8])
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
		for i := 0; i < 5000 && !stop.Load(); i++ {
			_, _ = conn.Write(announces(1000)[:1+i%16])
		}
	})
	assert.Eventually(t, func() bool { return nodes[0].Stats().Strangers > 1000 }, 30*time.Second, 10*time.Millisecond,
		"the flood is under way")
	newcomer := start(3)
	for _, n := range append(nodes, newcomer) {
		l, err := n.Limiter("api", peerlimit.PerHour(1e9))
		require.NoError(t, err)
		for _, key := range strings.Split("abcdefgh", "") {
			d, err := l.Take(t.Context(), key, 1)
			require.NoError(t, err)
			assert.True(t, d.Allowed)
		}
	}
	stop.Store(true)
	attackers.Wait()
	assert.Less(t, strings.Count(logs.String(), "\n"), 100, "of %d strangers", nodes[0].Stats().Strangers)
	// A third node has some goroutines more than two.
	assert.Eventually(t, func() bool { return runtime.NumGoroutine() <= goroutines*3/2+20 }, 20*time.Second, 50*time.Millisecond)
}
