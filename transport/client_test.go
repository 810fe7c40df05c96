package transport

import (
	"bytes"
	"context"
	"errors"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// The tests in this file run in synctest bubbles over memNetwork: time is
// virtual, so that durations can be compared exactly.

func TestCallIsAnswered(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		network := newMemNetwork()
		_, peer := startServer(t, network, func(c *ServerConfig) {
			c.Handler = func(from string, request, response []byte) ([]byte, func(context.Context) []byte) {
				return append(append(response, from+" says "...), request...), nil
			}
		})
		client := startClient(t, network, nil)
		assert.Equal(t, LinkUnknown, client.State(peer.Name))
		assert.Zero(t, client.Version(peer.Name))
		for range 3 {
			answer, err := client.Call(t.Context(), peer, []byte("hello"), time.Second)
			require.NoError(t, err)
			assert.Equal(t, "client-1 says hello", string(answer))
		}
		assert.Equal(t, LinkUp, client.State(peer.Name))
		assert.EqualValues(t, Version, client.Version(peer.Name))
		assert.Len(t, network.dialTimes(), 1, "one connection for all calls")
	})
}

// Responses are kept in memory that calls use again: each caller must have a copy of its own, behind what it had already.
func TestCallAppendGivesEachCallerItsOwnAnswer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		network := newMemNetwork()
		_, peer := startServer(t, network, func(c *ServerConfig) {
			c.Handler = func(_ string, request, response []byte) ([]byte, func(context.Context) []byte) {
				return append(response, request...), nil
			}
		})
		client := startClient(t, network, nil)
		client.Connect(peer)
		var callers sync.WaitGroup
		for caller := range byte(8) {
			callers.Go(func() {
				var room [64]byte
				var answers [][]byte
				for i := range 50 {
					request := bytes.Repeat([]byte{caller, byte(i)}, 1+i*20) // from some bytes to more than is kept
					answer, err := client.CallAppend(t.Context(), peer, append(room[:0], "said: "...), request, time.Second)
					if !assert.NoError(t, err) || !assert.Equal(t, append([]byte("said: "), request...), answer) {
						return
					}
					plain, err := client.Call(t.Context(), peer, request, time.Second)
					if !assert.NoError(t, err) {
						return
					}
					answers = append(answers, plain)
				}
				for i, answer := range answers {
					assert.Equal(t, bytes.Repeat([]byte{caller, byte(i)}, 1+i*20), answer, "later calls leave it alone")
				}
			})
		}
		callers.Wait()

		answer, err := client.CallAppend(t.Context(), Peer{Name: "nobody"}, []byte("had before"), nil, time.Second)
		require.ErrorIs(t, err, ErrUnreachable)
		assert.Nil(t, answer)
	})
}

func TestEmptyRequestAndAnswer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		network := newMemNetwork()
		_, peer := startServer(t, network, nil)
		answer, err := startClient(t, network, nil).Call(t.Context(), peer, nil, time.Second)
		require.NoError(t, err)
		assert.Empty(t, answer)
	})
}

func TestFirstConnectionIsWaitedFor(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		network := newMemNetwork()
		network.dialDelay = 300 * time.Millisecond
		var handled atomic.Int64
		_, peer := startServer(t, network, func(c *ServerConfig) {
			c.Handler = func(_ string, request, response []byte) ([]byte, func(context.Context) []byte) {
				handled.Add(1)
				return append(response, request...), nil
			}
		})
		client := startClient(t, network, nil)
		began := time.Now()

		_, err := client.Call(t.Context(), peer, []byte("impatient"), 100*time.Millisecond)
		require.ErrorIs(t, err, ErrUnreachable, "nothing was sent, so it is no timeout")
		assert.Equal(t, 100*time.Millisecond, time.Since(began))
		assert.Equal(t, LinkConnecting, client.State(peer.Name))

		ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
		defer cancel()
		_, err = client.Call(ctx, peer, []byte("cancelled"), time.Second)
		require.ErrorIs(t, err, context.DeadlineExceeded)
		assert.Equal(t, 200*time.Millisecond, time.Since(began))

		mustCall(t, client, peer)
		assert.Equal(t, 300*time.Millisecond, time.Since(began))
		assert.EqualValues(t, 1, handled.Load(), "calls that were given up while connecting are not sent")
	})
}

func TestTimeSpentConnectingCounts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		network := newMemNetwork()
		network.dialDelay = 60 * time.Millisecond
		_, peer := startServer(t, network, func(c *ServerConfig) { c.Handler = never10s })
		began := time.Now()
		_, err := startClient(t, network, nil).Call(t.Context(), peer, nil, 100*time.Millisecond)
		require.ErrorIs(t, err, ErrTimeout)
		assert.Equal(t, 100*time.Millisecond, time.Since(began))
	})
}

// never10s answers after ten seconds, off the connection's goroutine.
func never10s(_ string, _, _ []byte) ([]byte, func(context.Context) []byte) {
	return nil, func(ctx context.Context) []byte {
		sleep(ctx, 10*time.Second)
		return []byte("late")
	}
}

func TestCallsWaitingForConnectionAreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		network := newMemNetwork()
		network.dialDelay = time.Second
		_, peer := startServer(t, network, nil)
		client := startClient(t, network, func(c *ClientConfig) { c.MaxInFlight = 2 })
		results := make(chan error, 2)
		for range 2 {
			go func() {
				_, err := client.Call(t.Context(), peer, nil, 5*time.Second)
				results <- err
			}()
		}
		synctest.Wait()
		_, err := client.Call(t.Context(), peer, nil, 5*time.Second)
		require.ErrorIs(t, err, ErrBusy)
		assert.NoError(t, <-results)
		assert.NoError(t, <-results)
	})
}

func TestDownFailsAtOnceUntilRedialled(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		network := newMemNetwork()
		var changes linkChanges
		client := startClient(t, network, func(c *ClientConfig) { c.OnLink = changes.add })
		peer := Peer{Name: testServer, Addr: "mem:100"}

		_, err := client.Call(t.Context(), peer, nil, time.Second)
		require.ErrorIs(t, err, ErrUnreachable)
		assert.NotErrorIs(t, err, ErrBroken, "nothing was sent")
		assert.ErrorContains(t, err, "connection refused")
		var typed *Error
		require.ErrorAs(t, err, &typed)
		assert.Equal(t, testServer, typed.Peer)

		time.Sleep(10 * time.Second)
		assert.Equal(t, LinkDown, client.State(peer.Name))
		began := time.Now()
		_, err = client.Call(t.Context(), peer, nil, time.Second)
		require.ErrorIs(t, err, ErrUnreachable)
		require.ErrorIs(t, client.Post(peer, nil), ErrUnreachable)
		assert.Zero(t, time.Since(began))

		startServer(t, network, func(c *ServerConfig) { c.Addr = peer.Addr })
		time.Sleep(DefaultRedialMax)
		mustCall(t, client, peer)
		assert.Equal(t, []LinkState{LinkDown, LinkUp}, changes.states(), "retries are no changes")
	})
}

func TestRedialBacksOff(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		network := newMemNetwork()
		startClient(t, network, nil).Connect(Peer{Name: "x", Addr: "mem:100"})
		time.Sleep(10 * time.Second)
		checkBackoff(t, network.dialTimes())
	})
}

// A server that shakes hands and hangs up must not be redialled in a tight loop.
func TestRedialBacksOffFromServerThatHangsUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		network := newMemNetwork()
		peer := fakeServer(t, network, func(*rawPeer) {})
		startClient(t, network, nil).Connect(peer)
		time.Sleep(10 * time.Second)
		checkBackoff(t, network.dialTimes())
	})
}

// The delays start from the shortest when a connection has lasted.
func TestRedialIsQuickAfterLongConnection(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		network := newMemNetwork()
		peer := Peer{Name: testServer, Addr: "mem:100"}
		client := startClient(t, network, nil)
		client.Connect(peer)
		time.Sleep(10 * time.Second)
		startServer(t, network, func(c *ServerConfig) { c.Addr = peer.Addr })
		time.Sleep(10 * time.Second)
		require.Equal(t, LinkUp, client.State(peer.Name))
		network.breakAll()
		time.Sleep(DefaultRedialMin)
		synctest.Wait()
		assert.Equal(t, LinkUp, client.State(peer.Name))
	})
}

func checkBackoff(t *testing.T, dials []time.Time) {
	t.Helper()
	require.Greater(t, len(dials), 8)
	step := DefaultRedialMin
	for i := 1; i < len(dials); i++ {
		gap := dials[i].Sub(dials[i-1])
		assert.GreaterOrEqual(t, gap, step/2, "dial %d", i)
		assert.LessOrEqual(t, gap, step, "dial %d", i)
		step = min(2*step, DefaultRedialMax)
	}
}

func TestTimeoutsSuspectRecovery(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		network := newMemNetwork()
		_, peer := startServer(t, network, nil)
		var changes linkChanges
		client := startClient(t, network, func(c *ClientConfig) { c.OnLink = changes.add })
		mustCall(t, client, peer)

		network.stall(true)
		for range DefaultSuspectAfter {
			assert.Equal(t, LinkUp, client.State(peer.Name))
			began := time.Now()
			_, err := client.Call(t.Context(), peer, []byte("lost?"), 100*time.Millisecond)
			require.ErrorIs(t, err, ErrTimeout)
			assert.Equal(t, 100*time.Millisecond, time.Since(began))
		}
		synctest.Wait()
		assert.Equal(t, LinkSuspect, client.State(peer.Name))
		began := time.Now()
		_, err := client.Call(t.Context(), peer, nil, time.Second)
		require.ErrorIs(t, err, ErrUnreachable)
		assert.Zero(t, time.Since(began), "a suspect link fails immediately")

		time.Sleep(2 * time.Second)
		assert.Equal(t, LinkSuspect, client.State(peer.Name))
		network.stall(false)
		synctest.Wait()
		assert.Equal(t, LinkUp, client.State(peer.Name), "an answer to any ping will do")
		mustCall(t, client, peer)
		assert.Equal(t, []LinkState{LinkUp, LinkSuspect, LinkUp}, changes.states())
		assert.Len(t, network.dialTimes(), 1)
	})
}

// A peer that answers pings is reachable, however slow its handlers are.
func TestSlowHandlerIsNotSuspect(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		network := newMemNetwork()
		_, peer := startServer(t, network, func(c *ServerConfig) { c.Handler = never10s })
		var changes linkChanges
		client := startClient(t, network, func(c *ClientConfig) { c.OnLink = changes.add })
		for range 2 * DefaultSuspectAfter {
			_, err := client.Call(t.Context(), peer, nil, 100*time.Millisecond)
			require.ErrorIs(t, err, ErrTimeout)
		}
		answer, err := client.Call(t.Context(), peer, nil, 11*time.Second)
		require.NoError(t, err)
		assert.Equal(t, "late", string(answer))
		assert.Equal(t, []LinkState{LinkUp}, changes.states())
	})
}

// Responses to calls that were given up must not reach later calls.
func TestLateAnswersAreDropped(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		network := newMemNetwork()
		_, peer := startServer(t, network, nil)
		client := startClient(t, network, nil)
		mustCall(t, client, peer)
		network.stall(true)
		for _, text := range []string{"one", "two"} {
			_, err := client.Call(t.Context(), peer, []byte(text), 100*time.Millisecond)
			require.ErrorIs(t, err, ErrTimeout)
		}
		go func() {
			time.Sleep(50 * time.Millisecond)
			network.stall(false)
		}()
		mustCall(t, client, peer)
	})
}

func TestSilentConnectionIsReplaced(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		network := newMemNetwork()
		_, peer := startServer(t, network, nil)
		var changes linkChanges
		client := startClient(t, network, func(c *ClientConfig) { c.OnLink = changes.add })
		mustCall(t, client, peer)
		network.stall(true)
		for range DefaultSuspectAfter {
			client.Call(t.Context(), peer, nil, 100*time.Millisecond)
		}
		time.Sleep(DefaultLostAfter)
		assert.Equal(t, LinkDown, client.State(peer.Name))
		network.stall(false)
		time.Sleep(DefaultConnectTimeout + DefaultRedialMax) // a dial into the cut is under way
		mustCall(t, client, peer)
		assert.Equal(t, []LinkState{LinkUp, LinkSuspect, LinkDown, LinkUp}, changes.states())
	})
}

// Calls that end with their context never time out, yet the link must not stay
// up forever when nothing comes back.
func TestSilentConnectionIsReplacedWithoutTimeouts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		network := newMemNetwork()
		_, peer := startServer(t, network, nil)
		client := startClient(t, network, nil)
		mustCall(t, client, peer)
		network.stall(true)
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
		defer cancel()
		_, err := client.Call(ctx, peer, nil, time.Minute)
		require.ErrorIs(t, err, context.DeadlineExceeded)
		time.Sleep(DefaultLostAfter + 2*DefaultPingInterval)
		assert.Equal(t, LinkDown, client.State(peer.Name))
	})
}

// That callers in a hurry do not wait does not make the silence of a peer any better.
func TestCallsThatNobodyAwaitsSuspect(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		network := newMemNetwork()
		_, peer := startServer(t, network, nil)
		client := startClient(t, network, nil)
		hurried := func() {
			ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
			defer cancel()
			_, err := client.Call(ctx, peer, nil, 100*time.Millisecond)
			require.ErrorIs(t, err, context.DeadlineExceeded)
		}
		mustCall(t, client, peer)
		network.stall(true)
		for range DefaultSuspectAfter {
			hurried()
		}
		time.Sleep(89 * time.Millisecond)
		assert.Equal(t, LinkUp, client.State(peer.Name), "the last one is not overdue yet")
		time.Sleep(2 * time.Millisecond)
		assert.Equal(t, LinkSuspect, client.State(peer.Name))
		network.stall(false)
		time.Sleep(DefaultPingInterval)
		assert.Equal(t, LinkUp, client.State(peer.Name))

		network.stall(true)
		for range DefaultSuspectAfter - 1 {
			hurried()
		}
		network.stall(false)
		mustCall(t, client, peer)
		network.stall(true)
		hurried()
		time.Sleep(100 * time.Millisecond)
		assert.Equal(t, LinkUp, client.State(peer.Name), "an answer in between ends the silence")
	})
}

// Callers in a hurry are not to make a peer suspect that is only slow to decide.
func TestSlowHandlerIsNotSuspectToHurriedCallers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		network := newMemNetwork()
		_, peer := startServer(t, network, func(c *ServerConfig) { c.Handler = never10s })
		client := startClient(t, network, nil)
		for range 20 {
			ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
			_, err := client.Call(ctx, peer, nil, 100*time.Millisecond)
			require.ErrorIs(t, err, context.DeadlineExceeded)
			cancel()
			assert.Equal(t, LinkUp, client.State(peer.Name))
		}
	})
}

// A response to one call must not make the link forget that it waits for another.
func TestSilenceIsNoticedWhileOneCallWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		network := newMemNetwork()
		_, peer := startServer(t, network, func(c *ServerConfig) {
			c.Handler = func(from string, request, response []byte) ([]byte, func(context.Context) []byte) {
				if len(request) > 0 {
					return echo(from, request, response)
				}
				return never10s(from, request, response)
			}
		})
		client := startClient(t, network, nil)
		result := make(chan error)
		go func() {
			_, err := client.Call(t.Context(), peer, nil, time.Minute)
			result <- err
		}()
		synctest.Wait()
		mustCall(t, client, peer)
		network.stall(true)
		began := time.Now()
		require.ErrorIs(t, <-result, ErrBroken)
		assert.LessOrEqual(t, time.Since(began), DefaultLostAfter+2*DefaultPingInterval)
	})
}

func TestIdleLinkSendsNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		network := newMemNetwork()
		_, peer := startServer(t, network, nil)
		client := startClient(t, network, nil)
		mustCall(t, client, peer)
		before := network.written()
		time.Sleep(time.Hour)
		assert.Equal(t, before, network.written())
		mustCall(t, client, peer)
	})
}

func TestBrokenConnection(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		network := newMemNetwork()
		_, peer := startServer(t, network, func(c *ServerConfig) { c.Handler = never10s })
		client := startClient(t, network, nil)
		result := make(chan error)
		go func() {
			_, err := client.Call(t.Context(), peer, nil, time.Minute)
			result <- err
		}()
		time.Sleep(time.Second)
		began := time.Now()
		network.breakAll()
		err := <-result
		require.ErrorIs(t, err, ErrUnreachable)
		require.ErrorIs(t, err, ErrBroken, "it may have been executed")
		synctest.Wait()
		assert.Equal(t, LinkDown, client.State(peer.Name))
		_, err = client.Call(t.Context(), peer, nil, time.Minute)
		require.ErrorIs(t, err, ErrUnreachable)
		assert.NotErrorIs(t, err, ErrBroken, "it was never sent")
		assert.Zero(t, time.Since(began))
		time.Sleep(DefaultRedialMin)
		assert.Equal(t, LinkUp, client.State(peer.Name))
	})
}

func TestDisconnect(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		network := newMemNetwork()
		_, peer := startServer(t, network, func(c *ServerConfig) { c.Handler = never10s })
		client := startClient(t, network, nil)
		result := make(chan error)
		go func() {
			_, err := client.Call(t.Context(), peer, nil, time.Minute)
			result <- err
		}()
		time.Sleep(time.Second)
		client.Disconnect(peer.Name)
		require.ErrorIs(t, <-result, ErrUnreachable)
		assert.Equal(t, LinkUnknown, client.State(peer.Name))
		client.Disconnect(peer.Name)
		time.Sleep(time.Minute)
		assert.Len(t, network.dialTimes(), 1, "not redialled")
	})
}

func TestDisconnectWhileConnecting(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		network := newMemNetwork()
		network.stall(true)
		client := startClient(t, network, nil)
		peer := Peer{Name: testServer, Addr: "mem:100"}
		result := make(chan error)
		go func() {
			_, err := client.Call(t.Context(), peer, nil, time.Minute)
			result <- err
		}()
		synctest.Wait()
		client.Disconnect(peer.Name)
		require.ErrorIs(t, <-result, ErrUnreachable)
	})
}

func TestConnectIsIdempotentAndReplaces(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		network := newMemNetwork()
		first, peer := startServer(t, network, nil)
		client := startClient(t, network, nil)
		client.Connect(peer)
		client.Connect(peer)
		mustCall(t, client, peer)
		client.Connect(peer)
		assert.Len(t, network.dialTimes(), 1)

		require.NoError(t, first.Close())
		_, moved := startServer(t, network, nil)
		require.NotEqual(t, peer.Addr, moved.Addr)
		client.Connect(moved)
		mustCall(t, client, moved)
		mustCall(t, client, peer) // by name: a caller with an old address does not undo it
		assert.Equal(t, LinkUp, client.State(peer.Name))
	})
}

func TestHandshakeRefusals(t *testing.T) {
	for name, c := range map[string]struct {
		server func(*ServerConfig)
		status HandshakeStatus
	}{
		"another cluster":      {func(c *ServerConfig) { c.Cluster = "staging" }, HandshakeCluster},
		"another node":         {func(c *ServerConfig) { c.Self = "server-2" }, HandshakeName},
		"newer version needed": {func(c *ServerConfig) { c.MinVersion, c.MaxVersion = 5, 6 }, HandshakeVersion},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				network := newMemNetwork()
				server, _ := startServer(t, network, c.server)
				peer := Peer{Name: testServer, Addr: server.Addr().String()}
				var changes linkChanges
				client := startClient(t, network, func(c *ClientConfig) {
					c.OnLink = changes.add
				})
				began := time.Now()
				_, err := client.Call(t.Context(), peer, nil, time.Second)
				require.ErrorIs(t, err, ErrUnreachable)
				var refused *HandshakeError
				require.ErrorAs(t, err, &refused)
				assert.Equal(t, c.status, refused.Status)
				assert.Zero(t, time.Since(began), "refused immediately")

				time.Sleep(time.Minute)
				assert.Greater(t, len(network.dialTimes()), 50)
				require.Equal(t, []LinkState{LinkDown}, changes.states(), "told per change, not per retry")
				require.ErrorAs(t, changes.all()[0].Err, &refused)
			})
		})
	}
}

// Another node at a recycled address is unreachable immediately, and a change of the
// reason is a change.
func TestAnotherNodeAtTheSameAddress(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		network := newMemNetwork()
		server, peer := startServer(t, network, nil)
		var changes linkChanges
		client := startClient(t, network, func(c *ClientConfig) { c.OnLink = changes.add })
		mustCall(t, client, peer)
		require.NoError(t, server.Close())
		time.Sleep(5 * time.Second)
		startServer(t, network, func(c *ServerConfig) { c.Addr, c.Self = peer.Addr, "server-2" })
		time.Sleep(5 * time.Second)

		_, err := client.Call(t.Context(), peer, nil, time.Second)
		require.ErrorIs(t, err, ErrUnreachable)
		var refused *HandshakeError
		require.ErrorAs(t, err, &refused)
		assert.Equal(t, HandshakeName, refused.Status)
		assert.Equal(t, "server-2", refused.Name)
		assert.Equal(t, []LinkState{LinkUp, LinkDown, LinkDown}, changes.states())
	})
}

func TestVersionIsNegotiated(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		network := newMemNetwork()
		_, peer := startServer(t, network, func(c *ServerConfig) { c.MinVersion, c.MaxVersion = 2, 5 })
		var changes linkChanges
		client := startClient(t, network, func(c *ClientConfig) {
			c.MinVersion, c.MaxVersion = 1, 3
			c.OnLink = changes.add
		})
		mustCall(t, client, peer)
		assert.EqualValues(t, 3, client.Version(peer.Name))
		assert.EqualValues(t, 3, changes.all()[0].Version)
	})
}

func TestCallWithEndedContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		network := newMemNetwork()
		_, peer := startServer(t, network, func(c *ServerConfig) { c.Handler = never10s })
		client := startClient(t, network, nil)
		cancelled, cancel := context.WithCancel(t.Context())
		cancel()
		_, err := client.Call(cancelled, peer, nil, time.Second)
		require.Equal(t, context.Canceled, err)
		assert.Empty(t, network.dialTimes(), "nothing is begun")

		ctx, cancel := context.WithCancel(t.Context())
		time.AfterFunc(time.Second, cancel)
		began := time.Now()
		_, err = client.Call(ctx, peer, nil, time.Minute)
		require.Equal(t, context.Canceled, err)
		assert.Equal(t, time.Second, time.Since(began))
		time.Sleep(20 * time.Second) // the response comes to nobody
		assert.Equal(t, LinkUp, client.State(peer.Name))
	})
}

func TestCallWithoutTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		network := newMemNetwork()
		_, peer := startServer(t, network, nil)
		client := startClient(t, network, nil)
		mustCall(t, client, peer)
		before := network.written()
		for _, timeout := range []time.Duration{0, -time.Second} {
			_, err := client.Call(t.Context(), peer, nil, timeout)
			require.ErrorIs(t, err, ErrTimeout)
		}
		assert.Equal(t, before, network.written())
	})
}

func TestTimeoutsAreKept(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		network := newMemNetwork()
		_, peer := startServer(t, network, func(c *ServerConfig) { c.Handler = never10s })
		client := startClient(t, network, nil)
		client.Connect(peer)
		synctest.Wait()
		// In every order: earlier and later than what the link is waiting for.
		for i, ms := range []time.Duration{1000, 10, 3000, 2, 100, 500, 2500, 20, 1} {
			go func() {
				time.Sleep(time.Duration(i) * 7 * time.Millisecond)
				timeout := ms * time.Millisecond
				began := time.Now()
				_, err := client.Call(t.Context(), peer, nil, timeout)
				assert.ErrorIs(t, err, ErrTimeout)
				assert.GreaterOrEqual(t, time.Since(began), timeout)
				assert.LessOrEqual(t, time.Since(began), timeout+expiryStep)
			}()
		}
		time.Sleep(5 * time.Second)
	})
}

func TestCallsInFlightAreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		network := newMemNetwork()
		_, peer := startServer(t, network, func(c *ServerConfig) { c.Handler = never10s })
		client := startClient(t, network, func(c *ClientConfig) { c.MaxInFlight = 100 })
		results := make(chan error, 100)
		for range 100 {
			go func() {
				_, err := client.Call(t.Context(), peer, nil, time.Minute)
				results <- err
			}()
		}
		synctest.Wait()
		_, err := client.Call(t.Context(), peer, nil, time.Minute)
		require.ErrorIs(t, err, ErrBusy)
		for range 100 {
			assert.NoError(t, <-results)
		}
		_, err = client.Call(t.Context(), peer, nil, time.Minute)
		assert.NoError(t, err)
	})
}

// A peer that does not read holds up nobody: not its callers beyond their time,
// not the calls to others, and what is queued for it is bounded.
func TestStalledPeerHoldsUpNobody(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		network := newMemNetwork()
		network.window = 1000
		_, healthy := startServer(t, network, func(c *ServerConfig) { c.Self = "healthy" })
		peer := fakeServer(t, network, (*rawPeer).stay)
		client := startClient(t, network, func(c *ClientConfig) { c.MaxQueued = 10_000 })
		client.Connect(peer)
		synctest.Wait()

		request := make([]byte, 1000)
		sent := 0
		for ; client.Post(peer, request) == nil; sent++ {
			require.Less(t, sent, 20, "the queue is not bounded")
			synctest.Wait()
		}
		assert.GreaterOrEqual(t, sent, 10)
		require.ErrorIs(t, client.Post(peer, request), ErrBusy)
		_, err := client.Call(t.Context(), peer, request, time.Second)
		require.ErrorIs(t, err, ErrBusy)

		began := time.Now()
		_, err = client.Call(t.Context(), peer, []byte("small"), 100*time.Millisecond)
		require.ErrorIs(t, err, ErrTimeout)
		assert.Equal(t, 100*time.Millisecond, time.Since(began))
		mustCall(t, client, healthy)
		assert.Equal(t, 100*time.Millisecond, time.Since(began))
		time.Sleep(DefaultLostAfter + 2*DefaultPingInterval)
		assert.Greater(t, len(network.dialTimes()), 2, "the stalled connection has been replaced")
	})
}

func TestTooLargeBothWays(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		network := newMemNetwork()
		_, peer := startServer(t, network, func(c *ServerConfig) {
			c.Handler = func(_ string, request, response []byte) ([]byte, func(context.Context) []byte) {
				if string(request) == "late" {
					return nil, func(context.Context) []byte { return make([]byte, MaxPayload+1) }
				}
				if len(request) == 0 {
					return make([]byte, MaxPayload+1), nil
				}
				return append(response, request...), nil
			}
		})
		client := startClient(t, network, nil)
		_, err := client.Call(t.Context(), peer, make([]byte, MaxPayload+1), time.Second)
		require.ErrorIs(t, err, ErrTooLarge)
		require.ErrorIs(t, client.Post(peer, make([]byte, MaxPayload+1)), ErrTooLarge)
		_, err = client.Call(t.Context(), peer, nil, time.Second)
		require.ErrorIs(t, err, ErrTooLarge)
		_, err = client.Call(t.Context(), peer, []byte("late"), time.Second)
		require.ErrorIs(t, err, ErrTooLarge)

		largest := bytes.Repeat([]byte("x"), MaxPayload)
		answer, err := client.Call(t.Context(), peer, largest, time.Second)
		require.NoError(t, err)
		assert.True(t, bytes.Equal(largest, answer))
		assert.Len(t, network.dialTimes(), 1, "the connection survives all of it")
	})
}

func TestPost(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		network := newMemNetwork()
		network.dialDelay = 10 * time.Millisecond
		var got []string // only touched by the connection's goroutine
		var late atomic.Int64
		_, peer := startServer(t, network, func(c *ServerConfig) {
			c.Handler = func(_ string, request, response []byte) ([]byte, func(context.Context) []byte) {
				switch text := string(request); text {
				case "report":
					return append(response, strings.Join(got, " ")...), nil
				case "late":
					return nil, func(context.Context) []byte { late.Add(1); return []byte("dropped") }
				default:
					got = append(got, text)
					return append(response, "dropped"...), nil
				}
			}
		})
		client := startClient(t, network, nil)
		require.ErrorIs(t, client.Post(peer, []byte("too early")), ErrUnreachable)
		time.Sleep(network.dialDelay)
		synctest.Wait()
		require.Equal(t, LinkUp, client.State(peer.Name), "Post starts the link")

		for _, text := range []string{"a", "late", "b", "c"} {
			require.NoError(t, client.Post(peer, []byte(text)))
		}
		answer, err := client.Call(t.Context(), peer, []byte("report"), time.Second)
		require.NoError(t, err)
		assert.Equal(t, "a b c", string(answer))
		synctest.Wait()
		assert.EqualValues(t, 1, late.Load())
	})
}

// A message that wants no answer is sent while its peer is suspect: one that was only slow gets it as soon as it can.
func TestPostReachesAPeerThatWasOnlySlow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		network := newMemNetwork()
		var got atomic.Int64
		_, peer := startServer(t, network, func(c *ServerConfig) {
			c.Handler = func(_ string, request, response []byte) ([]byte, func(context.Context) []byte) {
				if string(request) == "turn" {
					got.Add(1)
				}
				return response, nil
			}
		})
		client := startClient(t, network, nil)
		_, err := client.Call(t.Context(), peer, nil, time.Second)
		require.NoError(t, err)
		network.stall(true)
		for client.State(peer.Name) != LinkSuspect {
			_, err := client.Call(t.Context(), peer, nil, 100*time.Millisecond)
			require.Error(t, err)
			synctest.Wait()
		}
		require.NoError(t, client.Post(peer, []byte("turn")))
		synctest.Wait()
		require.Zero(t, got.Load())
		network.stall(false)
		synctest.Wait()
		assert.EqualValues(t, 1, got.Load())
	})
}

func TestRequestMayBeReusedAndAnswerIsOwned(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		network := newMemNetwork()
		_, peer := startServer(t, network, nil)
		client := startClient(t, network, nil)
		request := []byte("first")
		first, err := client.Call(t.Context(), peer, request, time.Second)
		require.NoError(t, err)
		copy(request, "other")
		second, err := client.Call(t.Context(), peer, request, time.Second)
		require.NoError(t, err)
		assert.Equal(t, "first", string(first))
		assert.Equal(t, "other", string(second))
	})
}

func TestCloseEndsEverything(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		network := newMemNetwork()
		_, peer := startServer(t, network, func(c *ServerConfig) { c.Handler = never10s })
		client := startClient(t, network, nil)
		client.Connect(Peer{Name: "down", Addr: "mem:100"})
		results := make(chan error, 10)
		for range 10 {
			go func() {
				_, err := client.Call(t.Context(), peer, nil, time.Minute)
				results <- err
			}()
		}
		time.Sleep(time.Second)
		require.NoError(t, client.Close())
		for range 10 {
			require.ErrorIs(t, <-results, ErrClosed)
		}
		require.NoError(t, client.Close())
		_, err := client.Call(t.Context(), peer, nil, time.Second)
		require.ErrorIs(t, err, ErrClosed)
		require.ErrorIs(t, client.Post(peer, nil), ErrClosed)
		client.Connect(peer)
		client.Disconnect(peer.Name)
		assert.Equal(t, LinkUnknown, client.State(peer.Name))
	})
}

func TestCloseWhileConnecting(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		network := newMemNetwork()
		network.stall(true)
		client := startClient(t, network, nil)
		result := make(chan error)
		go func() {
			_, err := client.Call(t.Context(), Peer{Name: "x", Addr: "mem:100"}, nil, time.Minute)
			result <- err
		}()
		synctest.Wait()
		require.NoError(t, client.Close())
		require.ErrorIs(t, <-result, ErrClosed)
	})
}

func TestCloseDuringHandshake(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		network := newMemNetwork()
		silent := fakeListener(t, network, (*rawPeer).stay)
		client := startClient(t, network, nil)
		client.Connect(silent)
		synctest.Wait()
		began := time.Now()
		require.NoError(t, client.Close())
		assert.Zero(t, time.Since(began))
	})
}

func TestOnLinkMayUseClient(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		network := newMemNetwork()
		_, peer := startServer(t, network, nil)
		var client connecting
		var states []LinkState
		client = startClient(t, network, func(c *ClientConfig) {
			c.OnLink = func(change LinkChange) {
				states = append(states, client.State(change.Peer.Name))
				client.Disconnect(change.Peer.Name)
			}
		})
		client.Connect(peer)
		synctest.Wait()
		assert.Equal(t, []LinkState{LinkUp}, states)
		assert.Equal(t, LinkUnknown, client.State(peer.Name))
	})
}

func TestErrorsAreTold(t *testing.T) {
	assert.ErrorIs(t, ErrBroken, ErrUnreachable)
	err := error(&Error{Peer: "node-3", Err: ErrUnreachable, Cause: &HandshakeError{Status: HandshakeName, Name: "node-4"}})
	assert.Equal(t, `peerlimit/transport: peer node-3: peer unreachable: handshake: another node ("node-4")`, err.Error())
	plain := error(&Error{Peer: "node-3", Err: ErrTimeout})
	assert.Equal(t, "peerlimit/transport: peer node-3: no answer in time", plain.Error())
	assert.ErrorIs(t, plain, ErrTimeout)
	assert.NotErrorIs(t, plain, ErrUnreachable)
	cause := errors.New("cause")
	assert.ErrorIs(t, &HandshakeError{Status: HandshakeProtocol, Err: cause}, cause)
	assert.Equal(t, `peerlimit/transport: handshake: not a peer: cause`, (&HandshakeError{Status: HandshakeProtocol, Err: cause}).Error())
	assert.Equal(t, `peerlimit/transport: handshake: no common protocol version (highest there: 9)`, (&HandshakeError{Status: HandshakeVersion, Version: 9}).Error())
	assert.Equal(t, `peerlimit/transport: handshake: another cluster ("c")`, (&HandshakeError{Status: HandshakeCluster, Cluster: "c"}).Error())
	assert.Equal(t, `peerlimit/transport: handshake: status 77`, (&HandshakeError{Status: 77}).Error())
	var names []string
	for state := LinkUnknown; state <= LinkDown; state++ {
		names = append(names, state.String())
	}
	assert.True(t, slices.Equal(names, []string{"unknown", "connecting", "up", "suspect", "down"}))
}

// A call that comes a moment after Disconnect must not bring back a link that nobody will end.
func TestCallNeverStartsALink(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		network := newMemNetwork()
		_, peer := startServer(t, network, nil)
		client := startClient(t, network, nil).Client
		for range 2 {
			_, err := client.Call(t.Context(), peer, nil, time.Second)
			require.ErrorIs(t, err, ErrUnreachable)
			require.ErrorIs(t, client.Post(peer, nil), ErrUnreachable)
			require.Equal(t, LinkUnknown, client.State(peer.Name))

			client.Connect(peer)
			_, err = client.Call(t.Context(), peer, nil, time.Second)
			require.NoError(t, err)
			client.Disconnect(peer.Name)
		}
		require.NoError(t, client.Close())
		_, err := client.Call(t.Context(), peer, nil, time.Second)
		require.ErrorIs(t, err, ErrClosed)
	})
}
