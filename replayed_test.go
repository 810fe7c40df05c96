package peerlimit

import (
	"bytes"
	"context"
	"log/slog"
	"net"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/peerlimit/peerlimit/transport"
)

// recordingNetwork remembers what is written to gossip's streams: what somebody on the way hears of it, and, in a cluster with
// a secret, can say again without understanding it.
type recordingNetwork struct {
	transport.Network
	mu      sync.Mutex
	streams []*bytes.Buffer
}

func (n *recordingNetwork) Dial(ctx context.Context, addr string) (net.Conn, error) {
	conn, err := n.Network.Dial(ctx, addr)
	if err != nil || !strings.HasSuffix(addr, ":7946") {
		return conn, err
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	heard := new(bytes.Buffer)
	n.streams = append(n.streams, heard)
	return &recordedConn{conn, n, heard}, nil
}

// longest returns the longest stream.
func (n *recordingNetwork) longest() (longest []byte) {
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, s := range n.streams {
		if s.Len() > len(longest) {
			longest = bytes.Clone(s.Bytes())
		}
	}
	return longest
}

type recordedConn struct {
	net.Conn
	network *recordingNetwork
	heard   *bytes.Buffer
}

func (c *recordedConn) Write(b []byte) (int, error) {
	c.network.mu.Lock()
	c.heard.Write(b)
	c.network.mu.Unlock()
	return c.Conn.Write(b)
}

// recordedPushPull returns what a member of a cluster of five has said in a push/pull; the cluster is gone then.
func (c *wildCluster) recordedPushPull() []byte {
	var recorder *recordingNetwork
	var old []*Node
	for i := range 5 {
		ip := hostIP(100 + i)
		config := Config{BindAddr: ip, Insecure: true, Network: c.network.Host(ip), Logger: slog.New(slog.DiscardHandler)}
		for _, n := range old {
			config.Join = append(config.Join, n.Self().Addr)
		}
		if i == 4 {
			recorder = &recordingNetwork{Network: config.Network}
			config.Network = recorder
		}
		n, err := Start(config)
		require.NoError(c.t, err)
		old = append(old, n)
	}
	time.Sleep(30 * time.Second) // it has done some push/pulls by then
	for _, n := range old {
		_ = n.Close()
	}
	return recorder.longest()
}

// replay says it to a node, and reads what comes back.
func (c *wildCluster) replay(n *Node, stream []byte) {
	conn, err := c.network.Host("10.0.9.8").Dial(c.ctx, n.Self().Addr)
	require.NoError(c.t, err)
	defer conn.Close()
	_, err = conn.Write(stream)
	require.NoError(c.t, err)
	require.NoError(c.t, conn.SetReadDeadline(time.Now().Add(time.Second)))
	_, err = conn.Read(make([]byte, 1<<16))
	require.NoError(c.t, err, "it is answered, so it was understood")
}

// A peer that has recorded a push/pull of a cluster that has ended says it to another one, again and again: nothing it tells of counts.
func TestReplayedGossipTakesNoMajority(t *testing.T) {
	inWildCluster(t, func(c *wildCluster) {
		stream := c.recordedPushPull()
		heard := false
		for began := time.Now(); time.Since(began) < 45*time.Second; {
			for _, n := range c.nodes {
				c.replay(n, stream)
			}
			for range 10 {
				c.requireInFull()
				for _, n := range c.nodes {
					heard = heard || len(n.Members()) > 3
					require.Equal(c.t, 3, n.Stats().Known)
					require.Equal(c.t, 3, n.Stats().Members)
				}
				time.Sleep(100 * time.Millisecond)
			}
			c.requireExhausted()
		}
		require.True(c.t, heard, "gossip has told of them")
		c.requireAsBefore()
	})
}

// A node that joins meanwhile counts by them, because it cannot know better, until a member that has a majority tells it
// which names count.
func TestReplayedGossipKeepsNobodyOut(t *testing.T) {
	inWildCluster(t, func(c *wildCluster) {
		stream := c.recordedPushPull()
		for _, n := range c.nodes {
			c.replay(n, stream)
		}
		began := time.Now()
		c.nodes = startNodes(c.t, c.network, c.nodes, 1)
		require.Less(c.t, time.Since(began), 2*time.Second)
		c.limiters = append(c.limiters, c.limiter(c.nodes[3]))
		synctest.Wait()
		for _, n := range c.nodes {
			require.Equal(c.t, 4, n.Stats().Known)
		}
		c.requireInFull()
		c.requireExhausted()
	})
}
