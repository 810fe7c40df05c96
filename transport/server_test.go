package transport

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestListenRefusesConfiguration(t *testing.T) {
	network := newMemNetwork()
	_, err := Listen(ServerConfig{Network: network})
	require.ErrorContains(t, err, "Handler")
	_, err = Listen(ServerConfig{Network: network, Handler: echo, Self: strings.Repeat("x", 256)})
	require.ErrorContains(t, err, "256 bytes")
	server, peer := startServer(t, network, nil)
	_, err = Listen(ServerConfig{Network: network, Handler: echo, Addr: peer.Addr})
	require.ErrorContains(t, err, "in use")
	require.NoError(t, server.Close())
}

// A server that is bound answers nobody before it serves, and then those that have come meanwhile.
func TestABoundServerAnswersOnceItServes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		network := newMemNetwork()
		serving := false // not guarded: Serve comes between
		server, err := Bind(ServerConfig{Network: network, Addr: "127.0.0.1:0", Cluster: testCluster, Self: testServer,
			Handler: func(string, []byte, []byte) ([]byte, func(context.Context) []byte) {
				assert.True(t, serving)
				return []byte("answer"), nil
			}})
		require.NoError(t, err)
		peer := Peer{Name: testServer, Addr: server.Addr().String()}
		client := startClient(t, network, func(c *ClientConfig) { c.ConnectTimeout = time.Minute })
		client.Connect(peer)
		synctest.Wait()
		assert.NotEqual(t, LinkUp, client.State(peer.Name))
		serving = true
		server.Serve()
		synctest.Wait()
		assert.Equal(t, LinkUp, client.State(peer.Name))
		answer, err := client.Call(t.Context(), peer, nil, time.Minute)
		require.NoError(t, err)
		assert.Equal(t, "answer", string(answer))
		require.NoError(t, server.Close())

		never, err := Bind(ServerConfig{Network: network, Addr: "127.0.0.1:0", Handler: echo})
		require.NoError(t, err)
		require.NoError(t, never.Close())
		never.Serve()
		require.NoError(t, never.Close())
	})
}

func TestServerOverload(t *testing.T) {
	for name, limit := range map[string]func(*ServerConfig){
		"per connection": func(c *ServerConfig) { c.MaxInFlight = 3 },
		"in total":       func(c *ServerConfig) { c.MaxInFlightTotal = 3 },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				network := newMemNetwork()
				_, peer := startServer(t, network, func(c *ServerConfig) {
					c.Handler = never10s
					limit(c)
				})
				client := startClient(t, network, nil)
				results := make(chan error, 3)
				for range 3 {
					go func() {
						_, err := client.Call(t.Context(), peer, nil, time.Minute)
						results <- err
					}()
				}
				synctest.Wait()
				began := time.Now()
				for range 10 {
					_, err := client.Call(t.Context(), peer, nil, time.Minute)
					require.ErrorIs(t, err, ErrBusy)
				}
				assert.Zero(t, time.Since(began))
				for range 3 {
					require.NoError(t, <-results)
				}
				_, err := client.Call(t.Context(), peer, nil, time.Minute)
				require.NoError(t, err, "the places are free again")
			})
		})
	}
}

// Connections that hold a place without a handshake lose it to those that make one.
func TestUnauthenticatedConnectionsAreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		network := newMemNetwork()
		server, peer := startServer(t, network, func(c *ServerConfig) {
			c.MaxUnauthenticated = 3
			c.HandshakeTimeout = time.Hour
		})
		var idle []*rawPeer
		for range 10 {
			idle = append(idle, dialRaw(t, network, peer.Addr))
			time.Sleep(time.Millisecond)
		}
		for _, p := range idle[:7] {
			p.expectClosed()
		}
		mustCall(t, startClient(t, network, nil), peer)
		server.mu.Lock()
		defer server.mu.Unlock()
		assert.Len(t, server.greeting, 2, "the call took the place of one of three")
		assert.Len(t, server.serving, 1)
	})
}

func TestConnectionsAreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		network := newMemNetwork()
		_, peer := startServer(t, network, func(c *ServerConfig) { c.MaxConns = 2 })
		first, second, third := startClient(t, network, nil), startClient(t, network, nil), startClient(t, network, nil)
		mustCall(t, first, peer)
		mustCall(t, second, peer)
		_, err := third.Call(t.Context(), peer, nil, time.Second)
		require.ErrorIs(t, err, ErrUnreachable)
		var refused *HandshakeError
		require.ErrorAs(t, err, &refused)
		assert.Equal(t, HandshakeBusy, refused.Status)

		require.NoError(t, first.Close())
		time.Sleep(DefaultRedialMax)
		mustCall(t, third, peer)
		mustCall(t, second, peer)
	})
}

// A client that asks and does not read is dropped; others notice nothing.
func TestSlowReaderIsDropped(t *testing.T) {
	for name, later := range map[string]bool{"answered immediately": false, "answered later": true} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				network := newMemNetwork()
				server, peer := startServer(t, network, func(c *ServerConfig) {
					c.Handler = func(_ string, request, response []byte) ([]byte, func(context.Context) []byte) {
						answer := append(response, make([]byte, 100_000)...)
						if later && string(request) == "large" {
							return nil, func(context.Context) []byte { return make([]byte, 100_000) }
						}
						return answer, nil
					}
				})
				client := startClient(t, network, nil)
				client.Connect(peer)
				synctest.Wait()

				slow := dialGreeted(t, network, peer.Addr)
				began := time.Now()
				var requests []byte
				for id := range uint32(100) {
					requests = appendFrame(requests, kindRequest, id, []byte("large"))
				}
				slow.send(requests)
				time.Sleep(DefaultWriteTimeout / 2)
				_, err := client.Call(t.Context(), peer, nil, time.Second)
				require.NoError(t, err)
				assert.Equal(t, DefaultWriteTimeout/2, time.Since(began))

				time.Sleep(DefaultWriteTimeout/2 + time.Millisecond)
				synctest.Wait()
				server.mu.Lock()
				assert.Len(t, server.serving, 1, "the slow reader is gone")
				server.mu.Unlock()
				_, err = client.Call(t.Context(), peer, nil, time.Second)
				require.NoError(t, err)
			})
		})
	}
}

// A client that reads slowly but steadily is not dropped, only slowed down.
func TestSteadyReaderIsServed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		network := newMemNetwork()
		_, peer := startServer(t, network, func(c *ServerConfig) {
			c.Handler = func(_ string, _, _ []byte) ([]byte, func(context.Context) []byte) {
				return nil, func(context.Context) []byte { return make([]byte, 50_000) }
			}
		})
		slow := dialGreeted(t, network, peer.Addr)
		require.NoError(t, slow.SetDeadline(time.Now().Add(time.Hour)))
		const requests = 300
		go func() {
			for id := range uint32(requests) {
				slow.Write(appendFrame(nil, kindRequest, id, nil))
			}
		}()
		reader := newFrameReader(slow)
		seen := map[uint32]bool{}
		for range requests {
			f, err := slow.receive(reader)
			require.NoError(t, err)
			require.Equal(t, kindResponse, f.kind)
			require.Len(t, f.payload, 50_000)
			require.False(t, seen[f.id])
			seen[f.id] = true
			time.Sleep(10 * time.Millisecond)
		}
	})
}

func TestPanicLosesConnectionNotServer(t *testing.T) {
	for name, handler := range map[string]Handler{
		"at once": func(_ string, request, response []byte) ([]byte, func(context.Context) []byte) {
			if string(request) == "boom" {
				panic("kaboom")
			}
			return append(response, request...), nil
		},
		"later": func(_ string, request, response []byte) ([]byte, func(context.Context) []byte) {
			if string(request) == "boom" {
				return nil, func(context.Context) []byte { panic("kaboom") }
			}
			return append(response, request...), nil
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				network := newMemNetwork()
				var text logText
				_, peer := startServer(t, network, func(c *ServerConfig) {
					c.Handler = handler
					c.Logger = text.logger()
				})
				client, other := startClient(t, network, nil), startClient(t, network, nil)
				mustCall(t, other, peer)
				_, err := client.Call(t.Context(), peer, []byte("boom"), time.Minute)
				require.ErrorIs(t, err, ErrBroken)
				assert.Contains(t, text.String(), "kaboom")
				assert.Contains(t, text.String(), "server_test.go", "the stack says where")
				_, err = other.Call(t.Context(), peer, []byte("hello"), time.Second)
				require.NoError(t, err)
				time.Sleep(DefaultRedialMin)
				mustCall(t, client, peer)
			})
		})
	}
}

// A response that is not made in the buffer offered must stay the handler's own.
func TestAnswerMayBeHandlersOwn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		network := newMemNetwork()
		own := bytes.Repeat([]byte("own "), 1000)
		_, peer := startServer(t, network, func(c *ServerConfig) {
			c.Handler = func(_ string, request, response []byte) ([]byte, func(context.Context) []byte) {
				if string(request) == "own" {
					return own, nil
				}
				return append(response, request...), nil
			}
		})
		client := startClient(t, network, nil)
		want := bytes.Clone(own)
		for range 3 {
			answer, err := client.Call(t.Context(), peer, []byte("own"), time.Second)
			require.NoError(t, err)
			require.Equal(t, want, answer)
			mustCall(t, client, peer)
		}
		assert.Equal(t, want, own)
	})
}

func TestServerClose(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		network := newMemNetwork()
		server, peer := startServer(t, network, func(c *ServerConfig) { c.Handler = never10s })
		client := startClient(t, network, nil)
		result := make(chan error)
		go func() {
			_, err := client.Call(t.Context(), peer, nil, time.Minute)
			result <- err
		}()
		greeting := dialRaw(t, network, peer.Addr)
		time.Sleep(time.Second)
		began := time.Now()
		require.NoError(t, server.Close())
		require.NoError(t, server.Close())
		assert.Zero(t, time.Since(began), "later functions are told to end")
		require.ErrorIs(t, <-result, ErrBroken)
		greeting.expectClosed()
		_, err := network.Dial(t.Context(), peer.Addr)
		require.ErrorContains(t, err, "refused")
	})
}

// slowNetwork takes a second to close a listener.
type slowNetwork struct{ *memNetwork }

type slowListener struct{ net.Listener }

func (n slowNetwork) Listen(addr string) (net.Listener, error) {
	l, err := n.memNetwork.Listen(addr)
	return slowListener{l}, err
}

func (l slowListener) Close() error {
	time.Sleep(time.Second)
	return l.Listener.Close()
}

// What a later function returns because it was told to end must not pass for an
// answer.
func TestServerCloseSendsNoUnfinishedAnswers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		network := newMemNetwork()
		server, peer := startServer(t, slowNetwork{network}, func(c *ServerConfig) { c.Handler = never10s })
		client := startClient(t, network, nil)
		result := make(chan error)
		go func() {
			_, err := client.Call(t.Context(), peer, nil, time.Minute)
			result <- err
		}()
		synctest.Wait()
		require.NoError(t, server.Close())
		require.ErrorIs(t, <-result, ErrBroken)
	})
}

func TestOneWayIsNotAnswered(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		network := newMemNetwork()
		_, peer := startServer(t, network, func(c *ServerConfig) {
			c.MaxInFlight = 1
			c.Handler = func(from string, request, response []byte) ([]byte, func(context.Context) []byte) {
				if string(request) == "later" {
					return never10s(from, request, response)
				}
				return echo(from, request, response)
			}
		})
		p := dialGreeted(t, network, peer.Addr)
		for _, text := range []string{"now", "later", "later"} {
			p.send(appendFrame(nil, kindOneWay, 1, []byte(text)))
		}
		time.Sleep(20 * time.Second)
		p.send(appendFrame(nil, kindPing, 2, nil))
		f, err := p.receive(newFrameReader(p))
		require.NoError(t, err)
		assert.Equal(t, frame{kindPong, 2, []byte{}}, f, "the first thing to come back")
	})
}

func TestServerCloseGivesUpOnStuckHandler(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		network := newMemNetwork()
		release := make(chan struct{})
		server, peer := startServer(t, network, func(c *ServerConfig) {
			c.Handler = func(string, []byte, []byte) ([]byte, func(context.Context) []byte) {
				return nil, func(context.Context) []byte { <-release; return nil }
			}
		})
		client := startClient(t, network, nil)
		client.Connect(peer)
		synctest.Wait()
		require.NoError(t, client.Post(peer, nil))
		synctest.Wait()

		began := time.Now()
		second := make(chan error)
		go func() {
			time.Sleep(time.Second)
			second <- server.Close()
		}()
		require.ErrorIs(t, server.Close(), ErrHandlerStuck)
		assert.Equal(t, closeGrace, time.Since(began))
		require.ErrorIs(t, <-second, ErrHandlerStuck)
		close(release)
	})
}

// flakyListener fails a few times before it accepts.
type flakyListener struct {
	net.Listener
	failures int
}

func (l *flakyListener) Accept() (net.Conn, error) {
	if l.failures > 0 {
		l.failures--
		return nil, errors.New("too many open files")
	}
	return l.Listener.Accept()
}

type flakyNetwork struct{ *memNetwork }

func (n flakyNetwork) Listen(addr string) (net.Listener, error) {
	l, err := n.memNetwork.Listen(addr)
	return &flakyListener{l, 5}, err
}

func TestServerOutlivesAcceptErrors(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		network := newMemNetwork()
		_, peer := startServer(t, flakyNetwork{network}, nil)
		_, err := startClient(t, network, nil).Call(t.Context(), peer, nil, time.Minute)
		require.NoError(t, err)
	})
}

func TestServerLogsRefusedClients(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		network := newMemNetwork()
		var text logText
		_, peer := startServer(t, network, func(c *ServerConfig) {
			c.Logger = slog.New(slog.NewTextHandler(&text, &slog.HandlerOptions{Level: slog.LevelDebug}))
		})
		client := startClient(t, network, func(c *ClientConfig) { c.Cluster = "staging" })
		_, err := client.Call(t.Context(), peer, nil, time.Second)
		require.ErrorIs(t, err, ErrUnreachable)
		synctest.Wait()
		assert.Contains(t, text.String(), "staging")
		assert.Contains(t, text.String(), fmt.Sprint(HandshakeCluster))
	})
}
