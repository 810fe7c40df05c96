package transport

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/binary"
	"math/big"
	"net"
	"runtime"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// The tests in this file run over real sockets on loopback.

// mixed answers immediately or later, as the request asks.
func mixed(_ string, request, response []byte) ([]byte, func(context.Context) []byte) {
	if len(request) > 0 && request[0]%2 == 0 {
		return append(response, request...), nil
	}
	request = slices.Clone(request)
	return nil, func(context.Context) []byte { return request }
}

// pipeline has many callers share one link, each checking its responses.
func pipeline(t *testing.T, client connecting, peer Peer, callers, calls int) {
	t.Helper()
	var running sync.WaitGroup
	for caller := range callers {
		running.Go(func() {
			for i := range calls {
				request := make([]byte, 16+(caller*i)%3000)
				request[0] = byte(caller + i)
				binary.BigEndian.PutUint64(request[8:], uint64(caller)<<32|uint64(i))
				answer, err := client.Call(t.Context(), peer, request, 30*time.Second)
				if !assert.NoError(t, err) || !assert.True(t, slices.Equal(request, answer), "another's answer") {
					return
				}
			}
		})
	}
	running.Wait()
}

func TestPipelining(t *testing.T) {
	_, peer := startServer(t, TCP{}, func(c *ServerConfig) { c.Handler = mixed })
	client := startClient(t, TCP{}, nil)
	pipeline(t, client, peer, 64, 200)
	assert.Equal(t, LinkUp, client.State(peer.Name))
}

// Calls that end in every possible way at the same time must neither mix up
// answers nor leave anything behind. A call that is cancelled is still being
// worked on by the server, so all of them may be at once.
func TestPipeliningWithCancelledCalls(t *testing.T) {
	const callers, calls = 16, 200
	_, peer := startServer(t, TCP{}, func(c *ServerConfig) { c.Handler, c.MaxInFlight = mixed, callers*calls })
	client := startClient(t, TCP{}, nil)
	client.Connect(peer)
	var running sync.WaitGroup
	for caller := range callers {
		running.Go(func() {
			for i := range calls {
				ctx, cancel := context.WithCancel(t.Context())
				stop := time.AfterFunc(time.Duration(i%50)*time.Microsecond, cancel)
				request := []byte{byte(i), byte(caller), byte(i >> 8)}
				answer, err := client.Call(ctx, peer, request, 30*time.Second)
				if err != nil {
					assert.Equal(t, context.Canceled, err)
				} else {
					assert.Equal(t, request, answer)
				}
				stop.Stop()
				cancel()
			}
		})
	}
	running.Wait()
	pipeline(t, client, peer, 8, 50)
	s := client.statusOf(peer.Name).session
	s.mu.Lock()
	defer s.mu.Unlock()
	assert.Zero(t, s.calls.count)
}

// statusOf returns the status of a link that exists.
func (c *Client) statusOf(name string) *linkStatus {
	return (*c.links.Load())[name].status.Load()
}

func TestReconnectAfterServerRestart(t *testing.T) {
	server, peer := startServer(t, TCP{}, nil)
	up := make(chan struct{}, 10)
	client := startClient(t, TCP{}, func(c *ClientConfig) {
		c.OnLink = func(change LinkChange) {
			if change.State == LinkUp {
				up <- struct{}{}
			}
		}
	})
	mustCall(t, client, peer)
	<-up
	require.NoError(t, server.Close())
	startServer(t, TCP{}, func(c *ServerConfig) { c.Addr = peer.Addr })
	<-up
	mustCall(t, client, peer)
}

func TestAnotherNameAtSameAddressOverTCP(t *testing.T) {
	_, other := startServer(t, TCP{}, func(c *ServerConfig) { c.Self = "server-2" })
	client := startClient(t, TCP{}, nil)
	_, err := client.Call(t.Context(), Peer{Name: testServer, Addr: other.Addr}, nil, 10*time.Second)
	require.ErrorIs(t, err, ErrUnreachable)
	var refused *HandshakeError
	require.ErrorAs(t, err, &refused)
	assert.Equal(t, "server-2", refused.Name)
}

func TestTCPNetwork(t *testing.T) {
	packets, err := TCP{}.ListenPacket("127.0.0.1:0")
	require.NoError(t, err)
	assert.Equal(t, "udp", packets.LocalAddr().Network())
	require.NoError(t, packets.Close())
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, err = TCP{}.Dial(ctx, "127.0.0.1:1")
	require.Error(t, err)
}

// Connections can be wrapped, for example by TLS.
func TestWrappedConnections(t *testing.T) {
	certificate := selfSigned(t)
	roots := x509.NewCertPool()
	roots.AddCert(certificate.Leaf)
	_, peer := startServer(t, TCP{}, func(c *ServerConfig) {
		c.Handler = mixed
		c.WrapConn = func(conn net.Conn) net.Conn {
			return tls.Server(conn, &tls.Config{Certificates: []tls.Certificate{certificate}})
		}
	})
	secure := startClient(t, TCP{}, func(c *ClientConfig) {
		c.WrapConn = func(conn net.Conn) net.Conn {
			return tls.Client(conn, &tls.Config{RootCAs: roots, ServerName: "localhost"})
		}
	})
	pipeline(t, secure, peer, 16, 50)

	plain := startClient(t, TCP{}, nil)
	_, err := plain.Call(t.Context(), peer, nil, 10*time.Second)
	require.ErrorIs(t, err, ErrUnreachable)
}

func selfSigned(t *testing.T) tls.Certificate {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(t, err)
	template := &x509.Certificate{
		SerialNumber:          big.NewInt(1),
		DNSNames:              []string{"localhost"},
		NotAfter:              time.Now().Add(time.Hour),
		IsCA:                  true,
		BasicConstraintsValid: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	require.NoError(t, err)
	leaf, err := x509.ParseCertificate(der)
	require.NoError(t, err)
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key, Leaf: leaf}
}

// Close and Disconnect race calls of all kinds; nothing may be left running,
// and nobody may wait forever.
func TestCloseRacesCalls(t *testing.T) {
	before := runtime.NumGoroutine()
	for round := range 20 {
		server, err := Listen(ServerConfig{Addr: "127.0.0.1:0", Cluster: testCluster, Self: testServer, Handler: mixed})
		require.NoError(t, err)
		peer := Peer{Name: testServer, Addr: server.Addr().String()}
		client := connecting{NewClient(ClientConfig{Cluster: testCluster, Self: testClient})}
		ctx, cancel := context.WithCancel(t.Context())
		var running sync.WaitGroup
		for caller := range 16 {
			running.Go(func() {
				for i := 0; ctx.Err() == nil; i++ {
					client.Call(context.Background(), peer, []byte{byte(i)}, time.Minute)
					client.Post(peer, []byte{byte(i)})
					client.State(peer.Name)
					if caller == 0 && i%100 == 99 {
						client.Disconnect(peer.Name)
					}
				}
			})
		}
		for range 1 + round*50 {
			client.Call(context.Background(), peer, []byte{0}, time.Minute)
		}
		if round%2 == 0 {
			require.NoError(t, server.Close())
			require.NoError(t, client.Close())
		} else {
			require.NoError(t, client.Close())
			require.NoError(t, server.Close())
		}
		cancel()
		running.Wait()
	}
	expectGoroutines(t, before)
}
