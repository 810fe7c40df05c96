package peerlimit

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/peerlimit/peerlimit/internal/sim"
	"github.com/peerlimit/peerlimit/internal/wire"
	"github.com/peerlimit/peerlimit/transport"
)

// slowNetwork takes a second to bind gossip's port, which a node does when its port for takes is bound already.
type slowNetwork struct {
	transport.Network
	meanwhile func()
}

func (n *slowNetwork) ListenPacket(addr string) (net.PacketConn, error) {
	n.meanwhile()
	time.Sleep(time.Second)
	return n.Network.ListenPacket(addr)
}

// A peer may know the address of a node that is just starting: it is a seed, or somebody else was there before. Whatever that
// peer asks is answered once the node has all that answers need, its membership and its client among them.
func TestWhoAsksBeforeANodeHasStartedIsAnsweredThen(t *testing.T) {
	const ip, addr, early = "10.0.0.1", "10.0.0.1:7947", "early-00000000"
	for name, request := range map[string][]byte{
		"a ping":         wire.AppendPing(nil, &wire.Ping{Heard: 1, Digest: 1}),
		"a verdict":      wire.AppendVerdictRequest(nil, &wire.VerdictRequest{Heard: 1, Names: []string{early}}),
		"an acquisition": wire.AppendAcquireRequest(nil, &wire.AcquireRequest{Ballot: wire.Ballot{Number: 1, By: early}, Parts: []wire.AskedPartition{{Part: 1}}}),
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				network := sim.New(1)
				defer network.Close()
				logs := new(LockedBuffer)

				// The peer learns what the node is called from the first refusal, and asks as soon as it has a link to it.
				var client *transport.Client
				var asking sync.WaitGroup
				var once sync.Once
				answered := make(chan error, 1)
				onLink := func(change transport.LinkChange) {
					var refused *transport.HandshakeError
					switch {
					case change.State == transport.LinkUp:
						once.Do(func() {
							asking.Go(func() {
								_, err := client.Call(context.Background(), change.Peer, request, time.Minute)
								answered <- err
							})
						})
					case errors.As(change.Err, &refused) && refused.Name != "":
						asking.Go(func() { client.Connect(transport.Peer{Name: refused.Name, Addr: addr}) })
					}
				}
				client = transport.NewClient(transport.ClientConfig{
					Network: network.Host("10.0.0.9"), Cluster: DefaultCluster, Self: early,
					MinVersion: wire.ProtocolMin, MaxVersion: wire.ProtocolMax, OnLink: onLink,
				})
				slow := &slowNetwork{network.Host(ip), func() { client.Connect(transport.Peer{Name: "unknown", Addr: addr}) }}
				node, err := Start(Config{
					BindAddr: ip, RPCAddr: addr, Insecure: true, Network: slow, Logger: slog.New(slog.NewTextHandler(logs, nil)),
				})
				require.NoError(t, err)
				assert.NoError(t, <-answered)
				assert.NotContains(t, logs.String(), "panic")
				require.NoError(t, client.Close())
				asking.Wait()
				require.NoError(t, node.Close())
			})
		})
	}
}
