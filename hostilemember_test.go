package peerlimit

import (
	"context"
	"fmt"
	"io"
	"log"
	"log/slog"
	"math/rand/v2"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/hashicorp/memberlist"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/peerlimit/peerlimit/internal/wire"
	"github.com/peerlimit/peerlimit/transport"
)

// Members trust each other, so one that has the secret can do harm on purpose. What a broken one does by accident must not end
// the service, though: a flood of metadata and messages, somebody else's name, garbage instead of requests.

// gossipOnly starts a member that is memberlist and nothing else, in the cluster of node, on loopback.
func gossipOnly(t *testing.T, node *Node, name string, metadata func() []byte) *memberlist.Memberlist {
	config := memberlist.DefaultLANConfig()
	config.Name, config.Label, config.Keyring = name, node.settings.Cluster, node.settings.encryption.Keyring
	config.BindAddr, config.BindPort = "127.0.0.1", 0
	config.Logger = log.New(io.Discard, "", 0)
	config.Delegate = &changingMetadata{metadata}
	list, err := memberlist.Create(config)
	require.NoError(t, err)
	t.Cleanup(func() { _ = list.Shutdown() })
	_, err = list.Join([]string{node.Self().Addr})
	require.NoError(t, err)
	return list
}

type changingMetadata struct{ next func() []byte }

func (c *changingMetadata) NodeMeta(int) []byte           { return c.next() }
func (*changingMetadata) NotifyMsg([]byte)                {}
func (*changingMetadata) GetBroadcasts(int, int) [][]byte { return nil }
func (*changingMetadata) LocalState(bool) []byte          { return nil }
func (*changingMetadata) MergeRemoteState([]byte, bool)   {}

func randomBytes(n int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(rand.Uint32())
	}
	return b
}

func TestAMemberThatFloodsDoesNotEndTheService(t *testing.T) {
	logs := new(LockedBuffer)
	secret := []byte("a secret of at least thirty-two bytes")
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	var nodes []*Node
	for range 3 {
		c := Config{Secret: secret, Logger: slog.New(slog.NewTextHandler(logs, nil))}
		for _, n := range nodes {
			c.Join = append(c.Join, n.Self().Addr)
		}
		node, err := Start(c)
		require.NoError(t, err)
		t.Cleanup(func() { _ = node.Close() })
		nodes = append(nodes, node)
	}
	var limiters []*Limiter
	for _, n := range nodes {
		require.NoError(t, n.WaitReady(ctx, 3))
		l, err := n.Limiter("api", PerHour(1e9))
		require.NoError(t, err)
		limiters = append(limiters, l)
	}
	goroutines, heap, logged := runtime.NumGoroutine(), HeapInUse(), len(logs.String())

	var attackers, callers sync.WaitGroup
	var stop atomic.Bool
	until := func(wg *sync.WaitGroup, do func(i int)) {
		wg.Go(func() {
			for i := 0; !stop.Load(); i++ {
				do(i)
			}
		})
	}

	// One changes its metadata all the time: garbage, and addresses where nobody takes requests.
	var changes atomic.Uint64
	restless := gossipOnly(t, nodes[0], "restless-00000000", func() []byte {
		if i := changes.Add(1); i%2 == 0 {
			return []byte{1, 1, 1, 0, 0, byte(i >> 8), byte(i)} // as metadata.go lays it out: a port of takes
		}
		return randomBytes(512)
	})
	until(&attackers, func(int) { _ = restless.UpdateNode(time.Millisecond) })
	until(&attackers, func(i int) {
		for _, member := range restless.Members() {
			if member.Name != "restless-00000000" {
				_ = restless.SendBestEffort(member, randomBytes(i%1300))
			}
		}
		if i%1000 == 0 {
			_ = restless.SendReliable(restless.Members()[0], randomBytes(1<<20))
		}
	})
	// One has somebody else's name, at an address of its own, and leaves under that name.
	impostor := gossipOnly(t, nodes[0], nodes[1].identity, func() []byte { return randomBytes(10) })
	until(&attackers, func(i int) {
		_ = impostor.UpdateNode(time.Millisecond)
		if i == 100 {
			_ = impostor.Leave(time.Millisecond)
		}
	})
	// And one asks what makes no sense, also under somebody else's name.
	client := transport.NewClient(transport.ClientConfig{
		Cluster: nodes[0].settings.Cluster, Self: nodes[1].identity, MinVersion: wire.ProtocolMin, MaxVersion: wire.ProtocolMax,
		WrapConn: nodes[0].settings.encryption.WrapClient(),
	})
	target := transport.Peer{Name: nodes[0].identity, Addr: nodes[0].Self().RPCAddr}
	until(&attackers, func(i int) {
		request := randomBytes(2 + i%200)
		request[0] = byte(i % 24) // each kind, and some that are none
		request[1] = wire.WireVersion
		_, _ = client.Call(ctx, target, request, time.Second)
	})

	var failed, alone atomic.Uint64
	for _, l := range limiters {
		until(&callers, func(i int) {
			d, err := l.Take(ctx, fmt.Sprint(i%100), 1)
			if err != nil || !d.Allowed {
				failed.Add(1)
			} else if d.Origin == OriginFallback {
				alone.Add(1)
			}
			time.Sleep(time.Millisecond)
		})
	}
	time.Sleep(3 * time.Second)
	stop.Store(true)
	attackers.Wait()
	callers.Wait()
	assert.Zero(t, failed.Load(), "failed or denied")
	t.Logf("%d changes; %d takes were decided by a share; %d bytes of log", changes.Load(), alone.Load(), len(logs.String())-logged)
	assert.Less(t, len(logs.String())-logged, 1<<20, "the log is not flooded")

	client.Close()
	_ = impostor.Shutdown()
	_ = restless.Leave(time.Second)
	_ = restless.Shutdown()
	require.Eventually(t, func() bool {
		for i, n := range nodes {
			d, err := limiters[i].Take(ctx, "k", 1)
			if s := n.Stats(); s.Members != 3 || s.Reachable != 3 || err != nil || d.Origin == OriginFallback {
				return false
			}
		}
		return true
	}, 30*time.Second, 20*time.Millisecond, "three members, and one of them decides")
	assert.Eventually(t, func() bool { return runtime.NumGoroutine() <= goroutines+10 }, 20*time.Second, 50*time.Millisecond)
	assert.Eventually(t, func() bool { return HeapInUse() <= heap+4<<20 }, 20*time.Second, 50*time.Millisecond, "%d bytes before", heap)
}
