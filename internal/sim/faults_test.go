package sim_test

import (
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/peerlimit/peerlimit/internal/sim"
)

func TestCutOneWayForPackets(t *testing.T) {
	inBubble(t, func(t *testing.T, n *sim.Network) {
		a, b := listenPacket(t, n.Host(alice), ":1"), listenPacket(t, n.Host(bob), ":1")
		n.Cut(alice, bob)
		send(t, a, b, "vanishes")
		send(t, b, a, "arrives")
		assert.Empty(t, packets(t, b))
		assert.Equal(t, []string{"arrives"}, packets(t, a))
		send(t, a, b, "vanishes though the cut ends before it would arrive")
		n.Mend(alice, bob)
		send(t, a, b, "now")
		assert.Equal(t, []string{"now"}, packets(t, b))
	})
}

func TestCutSwallowsWhatIsUnderWay(t *testing.T) {
	inBubble(t, func(t *testing.T, n *sim.Network) {
		n.SetDefaults(steady)
		a, b := listenPacket(t, n.Host(alice), ":1"), listenPacket(t, n.Host(bob), ":1")
		client, server := connect(t, n.Host(alice), n.Host(bob))
		send(t, a, b, "under way")
		write(t, client, "under way")
		n.CutBoth(alice, bob)
		write(t, client, ", and more")
		assert.Empty(t, packets(t, b))
		silent(t, server)
		n.Heal()
		assert.Empty(t, packets(t, b), "packets are lost forever")
		read(t, server, "under way, and more")
	})
}

func TestResetLinksFollowTheDefaultsAgain(t *testing.T) {
	inBubble(t, func(t *testing.T, n *sim.Network) {
		n.SetDefaults(steady)
		n.SetLink(alice, bob, sim.Conditions{Loss: 1})
		a, b := listenPacket(t, n.Host(alice), ":1"), listenPacket(t, n.Host(bob), ":1")
		send(t, a, b, "vanishes")
		assert.Empty(t, packets(t, b))
		n.ResetLinks()
		send(t, a, b, "arrives")
		assert.Equal(t, []string{"arrives"}, packets(t, b))
	})
}

// After a cut a stream goes on at the next retransmission: 0.2, 0.6, 1.4 … s
// after the loss.
func TestHealedStreamsGoOnAtTheNextRetransmission(t *testing.T) {
	for healed, want := range map[time.Duration]time.Duration{
		0:                         200 * time.Millisecond,
		199 * time.Millisecond:    200 * time.Millisecond,
		201 * time.Millisecond:    600 * time.Millisecond,
		15 * time.Second:          25400 * time.Millisecond,
		100 * time.Second:         102200 * time.Millisecond,
		210 * time.Second:         324600 * time.Millisecond, // the wait is 120 s by now
		804500 * time.Millisecond: 804600 * time.Millisecond, // the last one
	} {
		t.Run(healed.String(), func(t *testing.T) {
			inBubble(t, func(t *testing.T, n *sim.Network) {
				n.SetDefaults(steady)
				client, server := connect(t, n.Host(alice), n.Host(bob))
				n.CutBoth(alice, bob)
				start := time.Now()
				write(t, client, "one") // before the cut can heal, which may be at the same instant
				time.AfterFunc(healed, n.Heal)
				time.Sleep(time.Millisecond)
				write(t, client, "two")
				require.NoError(t, client.Close())
				read(t, server, "onetwo")
				assert.Equal(t, want+time.Millisecond, time.Since(start))
				assert.Equal(t, io.EOF, readError(server))
			})
		})
	}
}

func TestLostStretchesOfStreamAreSentAgain(t *testing.T) {
	inBubble(t, func(t *testing.T, n *sim.Network) {
		n.SetDefaults(steady)
		client, server := connect(t, n.Host(alice), n.Host(bob))
		n.SetLink(alice, bob, sim.Conditions{Latency: time.Millisecond, Loss: 1})
		start := time.Now()
		write(t, client, "lost")
		time.AfterFunc(300*time.Millisecond, func() { n.SetLink(alice, bob, steady) })
		read(t, server, "lost")
		assert.Equal(t, 601*time.Millisecond, time.Since(start))
	})
}

func TestStreamsGiveUpAfterFifteenMinutes(t *testing.T) {
	inBubble(t, func(t *testing.T, n *sim.Network) {
		n.SetDefaults(steady)
		client, server := connect(t, n.Host(alice), n.Host(bob))
		n.Cut(alice, bob)
		start := time.Now()
		write(t, client, "lost")
		assert.ErrorIs(t, readError(client), syscall.ETIMEDOUT)
		assert.Equal(t, 924600*time.Millisecond, time.Since(start))
		_, err := client.Write([]byte("x"))
		assert.ErrorIs(t, err, syscall.ETIMEDOUT)
		n.Heal()
		silent(t, server)
		write(t, server, "are you there?")
		assert.ErrorIs(t, readError(server), syscall.ECONNRESET)
	})
}

// With only the way back cut the first bytes arrive, and then TCP holds back
// for want of acknowledgements.
func TestCutOneWayForStreams(t *testing.T) {
	inBubble(t, func(t *testing.T, n *sim.Network) {
		n.SetDefaults(steady)
		client, server := connect(t, n.Host(alice), n.Host(bob))
		n.Cut(bob, alice)
		write(t, client, "first")
		read(t, server, "first")
		time.Sleep(100 * time.Millisecond)
		write(t, client, "second")
		read(t, server, "second")
		time.Sleep(200 * time.Millisecond)
		write(t, client, "third")
		silent(t, server)
		write(t, server, "answer")
		silent(t, client)
		n.Heal()
		read(t, server, "third")
		read(t, client, "answer")
	})
}

// What was read while acknowledgements were lost makes room when they are not.
func TestWindowAfterALossOfAcknowledgements(t *testing.T) {
	inBubble(t, func(t *testing.T, n *sim.Network) {
		client, server := connect(t, n.Host(alice), n.Host(bob))
		for range 3 {
			n.Cut(bob, alice)
			require.NoError(t, client.SetWriteDeadline(time.Now().Add(time.Minute)))
			sent, err := client.Write(make([]byte, window+1))
			assert.Equal(t, window, sent)
			assert.ErrorIs(t, err, os.ErrDeadlineExceeded)
			_, err = io.ReadFull(server, make([]byte, window))
			require.NoError(t, err)
			_, err = client.Write([]byte("x"))
			assert.ErrorIs(t, err, os.ErrDeadlineExceeded)
			n.Heal()
			require.NoError(t, client.SetWriteDeadline(time.Time{}))
			write(t, client, "room again")
			read(t, server, "room again")
		}
	})
}

func TestSplit(t *testing.T) {
	inBubble(t, func(t *testing.T, n *sim.Network) {
		hosts := []string{alice, bob, carol, "10.0.0.4"}
		socket := make(map[string]net.PacketConn)
		for _, ip := range hosts {
			socket[ip] = listenPacket(t, n.Host(ip), ":1")
		}
		reach := func() (pairs []string) {
			for _, from := range hosts {
				for _, to := range hosts {
					if from == to {
						continue
					}
					send(t, socket[from], socket[to], "x")
					if len(packets(t, socket[to])) > 0 {
						pairs = append(pairs, from[7:]+to[7:])
					}
				}
			}
			return pairs
		}
		all := []string{"12", "13", "14", "21", "23", "24", "31", "32", "34", "41", "42", "43"}
		assert.Equal(t, all, reach())
		n.Split([]string{alice}, []string{bob, carol})
		assert.Equal(t, []string{"14", "23", "24", "32", "34", "41", "42", "43"}, reach(), "4 is in no group")
		n.Heal()
		n.Split([]string{alice, bob}, []string{bob, carol, "10.0.0.4"})
		assert.Equal(t, []string{"12", "21", "23", "24", "32", "34", "42", "43"}, reach(), "2 is in both groups")
		n.Heal()
		assert.Equal(t, all, reach())
	})
}

func TestFreezeAndThaw(t *testing.T) {
	inBubble(t, func(t *testing.T, n *sim.Network) {
		a, b := n.Host(alice), n.Host(bob)
		client, server := connect(t, a, b)
		pa, pb := listenPacket(t, a, ":1"), listenPacket(t, b, ":1")
		l := listen(t, b, ":1")
		write(t, server, "written before")
		n.Freeze(bob)
		read(t, client, "written before")

		thawed := false
		proceed := []func(){
			func() { write(t, server, "from the frozen") },
			func() { send(t, pb, pa, "from the frozen") },
			func() { read(t, server, "to the frozen") },
			func() {
				_, _, err := pb.ReadFrom(nil)
				assert.NoError(t, err)
			},
			func() {
				c, err := l.Accept()
				assert.NoError(t, err)
				assert.True(t, thawed)
				read(t, c, "dialled")
			},
			func() {
				c, err := b.Dial(context.Background(), bob+":1")
				assert.NoError(t, err)
				assert.NoError(t, c.Close())
			},
		}
		var wait []func()
		for _, call := range proceed {
			wait = append(wait, inBackground(func() { call(); assert.True(t, thawed) }))
		}
		write(t, client, "to the frozen")
		dialled, err := a.Dial(context.Background(), bob+":1")
		require.NoError(t, err, "the kernel accepts")
		write(t, dialled, "dialled")
		for range 300 {
			send(t, pa, pb, "")
		}
		silent(t, client)
		assert.Empty(t, packets(t, pa))

		thawed = true
		n.Thaw(bob)
		for _, w := range wait {
			w()
		}
		read(t, client, "from the frozen")
		assert.Equal(t, []string{"from the frozen"}, packets(t, pa))
		assert.Len(t, packets(t, pb), 212_992/768-1, "what the socket buffer held")
	})
}

func TestDeadlinesAndClosePassAFreeze(t *testing.T) {
	inBubble(t, func(t *testing.T, n *sim.Network) {
		a, b := n.Host(alice), n.Host(bob)
		client, server := connect(t, a, b)
		p := listenPacket(t, b, ":1")
		n.Freeze(bob)
		soon := time.Now().Add(time.Second)
		require.NoError(t, server.SetDeadline(soon))
		require.NoError(t, p.SetDeadline(soon))
		_, err := server.Write([]byte("x"))
		assert.ErrorIs(t, err, os.ErrDeadlineExceeded)
		assert.ErrorIs(t, readError(server), os.ErrDeadlineExceeded)
		_, err = p.WriteTo([]byte("x"), p.LocalAddr())
		assert.ErrorIs(t, err, os.ErrDeadlineExceeded)
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		_, err = b.Dial(ctx, alice+":1")
		assert.ErrorIs(t, err, context.DeadlineExceeded)

		unread, closed := connect(t, a, n.Host(carol))
		n.Freeze(carol)
		for _, c := range []net.Conn{server, closed} {
			require.NoError(t, c.Close())
			assert.ErrorIs(t, readError(c), net.ErrClosed)
		}
		write(t, unread, "kept by the kernel")
		silent(t, client)
		silent(t, unread)
		n.Thaw(bob)
		n.Thaw(carol)
		assert.Equal(t, io.EOF, readError(client), "a stopped process closes nothing")
		assert.ErrorIs(t, readError(unread), syscall.ECONNRESET, "nor does it read")
	})
}

// The kernel goes on with a handshake while its process is stopped.
func TestFreezeWhileDialling(t *testing.T) {
	inBubble(t, func(t *testing.T, n *sim.Network) {
		n.SetDefaults(steady)
		a, l := n.Host(alice), listen(t, n.Host(bob), ":1")
		start := time.Now()
		dialling := inBackground(func() {
			_, err := a.Dial(context.Background(), bob+":1")
			assert.NoError(t, err)
			assert.Equal(t, time.Hour, time.Since(start))
		})
		time.Sleep(time.Millisecond / 2)
		n.Freeze(alice)
		_, err := l.Accept()
		require.NoError(t, err)
		time.Sleep(time.Until(start.Add(time.Hour)))
		n.Thaw(alice)
		dialling()
	})
}

func TestKillWhileDialling(t *testing.T) {
	inBubble(t, func(t *testing.T, n *sim.Network) {
		n.SetLink(bob, alice, sim.Conditions{Latency: time.Minute})
		a, l := n.Host(alice), listen(t, n.Host(bob), ":1")
		dialling := inBackground(func() {
			_, err := a.Dial(context.Background(), bob+":1")
			assert.ErrorIs(t, err, net.ErrClosed)
		})
		server, err := l.Accept()
		require.NoError(t, err)
		n.Kill(alice)
		dialling()
		assert.ErrorIs(t, readError(server), syscall.ECONNRESET)
	})
}

func TestBacklogOfAFrozenHost(t *testing.T) {
	inBubble(t, func(t *testing.T, n *sim.Network) {
		a, l := n.Host(alice), listen(t, n.Host(bob), ":1")
		n.Freeze(bob)
		const backlog = 128
		for range backlog {
			_, err := a.Dial(context.Background(), bob+":1")
			require.NoError(t, err)
		}
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		_, err := a.Dial(ctx, bob+":1")
		assert.ErrorIs(t, err, context.DeadlineExceeded)
		n.Thaw(bob)
		for range backlog {
			_, err := l.Accept()
			require.NoError(t, err)
		}
		_, err = a.Dial(context.Background(), bob+":1")
		assert.NoError(t, err)
	})
}

func TestKill(t *testing.T) {
	everywhere(t, func(t *testing.T, n *sim.Network) {
		a, b := n.Host(alice), n.Host(bob)
		client, server := connect(t, a, b)
		l, p := listen(t, b, ":1"), listenPacket(t, b, ":1")
		waiting, err := a.Dial(context.Background(), bob+":1")
		require.NoError(t, err)
		write(t, server, "last words")
		blocked := inBackground(func() { assert.ErrorIs(t, readError(server), net.ErrClosed) })

		n.Kill(bob)
		blocked()
		read(t, client, "last words")
		assert.ErrorIs(t, readError(client), syscall.ECONNRESET)
		_, err = client.Write([]byte("x"))
		assert.ErrorIs(t, err, syscall.ECONNRESET)
		assert.ErrorIs(t, readError(waiting), syscall.ECONNRESET)
		_, err = a.Dial(context.Background(), bob+":1")
		assert.ErrorIs(t, err, syscall.ECONNREFUSED)

		for name, call := range map[string]func() error{
			"write":        func() error { _, err := server.Write([]byte("x")); return err },
			"read":         func() error { return readError(server) },
			"close":        server.Close,
			"accept":       func() error { _, err := l.Accept(); return err },
			"read from":    func() error { _, _, err := p.ReadFrom(nil); return err },
			"write to":     func() error { _, err := p.WriteTo(nil, p.LocalAddr()); return err },
			"listen":       func() error { _, err := b.Listen(":0"); return err },
			"listen again": func() error { _, err := n.Host(bob).ListenPacket(":0"); return err },
			"dial":         func() error { _, err := b.Dial(context.Background(), alice+":1"); return err },
		} {
			assert.ErrorIs(t, call(), net.ErrClosed, name)
		}
		n.Kill(bob)
	})
}

func TestRestart(t *testing.T) {
	everywhere(t, func(t *testing.T, n *sim.Network) {
		a, b := n.Host(alice), n.Host(bob)
		l := listen(t, b, ":1")
		listenPacket(t, b, ":1")
		n.Kill(bob)
		again := n.Restart(bob)
		assert.Same(t, again, n.Host(bob))
		_, err := b.Listen(":2")
		assert.ErrorIs(t, err, net.ErrClosed, "the old process is dead for ever")
		fresh, packet := listen(t, again, ":1"), listenPacket(t, again, ":1")
		assert.ErrorIs(t, l.Close(), net.ErrClosed, "and does not free the new one's port")

		client, err := a.Dial(context.Background(), bob+":1")
		require.NoError(t, err)
		server, err := fresh.Accept()
		require.NoError(t, err)
		write(t, client, "hello")
		read(t, server, "hello")
		send(t, listenPacket(t, a, ":1"), packet, "hello")
		_, _, err = packet.ReadFrom(make([]byte, 5))
		require.NoError(t, err)

		n.Restart(bob)
		assert.ErrorIs(t, readError(client), syscall.ECONNRESET, "restarting a live process kills it")
	})
}

func TestAResetInACutIsLost(t *testing.T) {
	inBubble(t, func(t *testing.T, n *sim.Network) {
		client, _ := connect(t, n.Host(alice), n.Host(bob))
		n.CutBoth(alice, bob)
		n.Kill(bob)
		n.Restart(bob)
		n.Heal()
		silent(t, client)
		write(t, client, "still there?")
		assert.ErrorIs(t, readError(client), syscall.ECONNRESET)
	})
}

// The writer's retransmissions find out, though it writes nothing any more.
func TestAResetInACutIsLearntByRetransmission(t *testing.T) {
	for name, writeFirst := range map[string]bool{"bytes that arrived": true, "bytes that were refused": false} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, func(t *testing.T, n *sim.Network) {
				client, _ := connect(t, n.Host(alice), n.Host(bob))
				n.Cut(bob, alice)
				if writeFirst {
					write(t, client, "still there?")
					time.Sleep(100 * time.Millisecond)
				}
				n.Kill(bob)
				if !writeFirst {
					write(t, client, "still there?")
				}
				silent(t, client)
				n.SetLink(bob, alice, sim.Conditions{Loss: 1})
				n.Heal()
				silent(t, client)
				silent(t, client)
				n.SetLink(bob, alice, steady)
				assert.ErrorIs(t, readError(client), syscall.ECONNRESET)
			})
		})
	}
}

// A writer that waits for room gets no acknowledgement to wake it, so it probes.
func TestAWriterThatWaitsForRoomFindsOut(t *testing.T) {
	for name, test := range map[string]struct {
		fault func(n *sim.Network)
		want  error
	}{
		"the reset is lost": {func(n *sim.Network) {
			n.Cut(bob, alice)
			n.Kill(bob)
			time.AfterFunc(10*time.Second, n.Heal)
		}, syscall.ECONNRESET},
		"the reset is lost by chance": {func(n *sim.Network) {
			n.SetLink(bob, alice, sim.Conditions{Loss: 1})
			n.Kill(bob)
			n.SetLink(bob, alice, steady)
		}, syscall.ECONNRESET},
		"the reset is lost under way": {func(n *sim.Network) {
			n.Kill(bob)
			n.Cut(bob, alice)
			time.AfterFunc(10*time.Second, n.Heal)
		}, syscall.ECONNRESET},
		"nobody says anything": {func(n *sim.Network) { n.PowerOff(bob) }, syscall.ETIMEDOUT},
		"the machine comes back": {func(n *sim.Network) {
			n.PowerOff(bob)
			time.AfterFunc(10*time.Second, func() { n.Restart(bob) })
		}, syscall.ECONNRESET},
	} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, func(t *testing.T, n *sim.Network) {
				client, _ := connect(t, n.Host(alice), n.Host(bob))
				writing := inBackground(func() {
					_, err := client.Write(make([]byte, window+1))
					assert.ErrorIs(t, err, test.want)
				})
				time.Sleep(time.Second)
				test.fault(n)
				writing()
			})
		})
	}
}

func TestPowerOff(t *testing.T) {
	inBubble(t, func(t *testing.T, n *sim.Network) {
		a, b := n.Host(alice), n.Host(bob)
		idle, _ := connect(t, a, b)
		client, server := connect(t, a, b)
		closing, closed := connect(t, a, b)
		n.Cut(bob, alice)
		write(t, closed, "kept by the kernel for the next retransmission")
		require.NoError(t, closed.Close())
		n.PowerOff(bob)
		n.Heal()
		assert.ErrorIs(t, readError(server), net.ErrClosed)
		write(t, client, "anyone?")
		silent(t, client)
		n.Restart(bob)
		assert.ErrorIs(t, readError(client), syscall.ECONNRESET, "by the new kernel, at the next retransmission")
		silent(t, idle)
		silent(t, closing)
	})
}

func TestMisspeltHosts(t *testing.T) {
	n := sim.New(1)
	defer n.Close()
	n.Host(alice)
	for name, call := range map[string]func(){
		"not an address":  func() { n.Host("alice") },
		"cut":             func() { n.Cut(alice, "") },
		"split":           func() { n.Split([]string{alice}, []string{"10.0.0"}) },
		"never started":   func() { n.Kill(bob) },
		"freeze":          func() { n.Freeze(bob) },
		"negative":        func() { n.SetDefaults(sim.Conditions{Latency: -1}) },
		"not a chance":    func() { n.SetLink(alice, bob, sim.Conditions{Loss: 1.1}) },
		"negative chance": func() { n.SetLink(alice, bob, sim.Conditions{Duplicate: -0.1}) },
	} {
		assert.Panics(t, call, name)
	}
	assert.NotPanics(t, func() { n.Cut(alice, bob) }, "an address may be cut off before it starts")
}

// Whatever happens to the link, and whenever, all bytes arrive in order in the
// end, and none is left in the window.
func TestStreamsSurviveRandomFaults(t *testing.T) {
	for seed := range uint64(20) {
		t.Run(fmt.Sprintf("seed %d", seed), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				n := sim.New(seed)
				defer n.Close()
				n.SetDefaults(sim.Conditions{Latency: time.Millisecond, Jitter: 5 * time.Millisecond, Loss: 0.02})
				client, server := connect(t, n.Host(alice), n.Host(bob))
				random := rand.New(rand.NewPCG(seed, 0))
				faults := []func(){
					func() { n.Cut(alice, bob) }, func() { n.Cut(bob, alice) },
					func() { n.CutBoth(alice, bob) }, n.Heal, n.Heal,
					func() { n.Freeze(alice) }, func() { n.Freeze(bob) },
					func() { n.Thaw(alice) }, func() { n.Thaw(bob) },
				}
				over := inBackground(func() {
					for range 100 {
						time.Sleep(time.Duration(random.IntN(300)) * time.Millisecond)
						faults[random.IntN(len(faults))]()
					}
					n.Heal()
					n.Thaw(alice)
					n.Thaw(bob)
				})
				both := []func(){
					inBackground(func() { transfer(t, client, server, seed) }),
					inBackground(func() { transfer(t, server, client, seed+1000) }),
				}
				for _, wait := range append(both, over) {
					wait()
				}
			})
		})
	}
}

// transfer writes 1 MiB in pieces of random size and checks that they arrive.
func transfer(t *testing.T, from, to net.Conn, seed uint64) {
	const total = 4 * window
	written := inBackground(func() {
		random := rand.New(rand.NewPCG(seed, 1))
		for sent := 0; sent < total; {
			piece := make([]byte, min(1+random.IntN(100_000), total-sent))
			for i := range piece {
				piece[i] = byte((sent + i) % 251)
			}
			if _, err := from.Write(piece); !assert.NoError(t, err) {
				return
			}
			sent += len(piece)
			time.Sleep(time.Duration(random.IntN(500)) * time.Millisecond)
		}
	})
	got := make([]byte, total)
	_, err := io.ReadFull(to, got)
	assert.NoError(t, err)
	for i := range got {
		if got[i] != byte(i%251) {
			assert.Failf(t, "wrong byte", "at %d", i)
			break
		}
	}
	written()
}
