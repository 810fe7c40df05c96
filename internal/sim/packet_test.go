package sim_test

import (
	"fmt"
	"net"
	"os"
	"slices"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/peerlimit/peerlimit/internal/sim"
)

func TestPackets(t *testing.T) {
	everywhere(t, func(t *testing.T, n *sim.Network) {
		a, b := listenPacket(t, n.Host(alice), ":0"), listenPacket(t, n.Host(bob), ":7946")
		payload := []byte("hello")
		sent, err := a.WriteTo(payload, b.LocalAddr())
		require.NoError(t, err)
		assert.Equal(t, 5, sent)
		copy(payload, "XXXXX")

		buf := make([]byte, 100)
		got, from, err := b.ReadFrom(buf)
		require.NoError(t, err)
		assert.Equal(t, "hello", string(buf[:got]), "copied when sent")
		assert.IsType(t, &net.UDPAddr{}, from)
		assert.Equal(t, a.LocalAddr().String(), from.String())

		send(t, a, b, "a long one")
		got, _, err = b.ReadFrom(buf[:6])
		require.NoError(t, err)
		assert.Equal(t, "a long", string(buf[:got]), "the rest is lost")
		send(t, a, b, "")
		got, _, err = b.ReadFrom(buf)
		require.NoError(t, err)
		assert.Zero(t, got, "an empty packet is a packet")
	})
}

func TestPacketDestinations(t *testing.T) {
	everywhere(t, func(t *testing.T, n *sim.Network) {
		a, b := listenPacket(t, n.Host(alice), ":0"), listenPacket(t, n.Host(bob), ":1")
		buf := make([]byte, 10)
		for _, addr := range []net.Addr{
			&net.UDPAddr{IP: net.ParseIP(bob), Port: 1}, // 16 bytes long
			&net.UDPAddr{IP: net.ParseIP(bob).To4(), Port: 1},
			&net.TCPAddr{IP: net.ParseIP(bob), Port: 1},
		} {
			_, err := a.WriteTo([]byte("x"), addr)
			require.NoError(t, err)
			_, _, err = b.ReadFrom(buf)
			require.NoError(t, err)
		}
		for _, addr := range []net.Addr{nil, &net.UDPAddr{Port: 1}, &net.UnixAddr{Name: "x"}} {
			_, err := a.WriteTo([]byte("x"), addr)
			assert.Error(t, err)
		}
		_, err := a.WriteTo(make([]byte, 65508), b.LocalAddr())
		assert.ErrorIs(t, err, syscall.EMSGSIZE)
		_, err = a.WriteTo([]byte("x"), &net.UDPAddr{IP: net.ParseIP(bob), Port: 2})
		assert.NoError(t, err, "nobody there: nobody says so")
	})
}

func TestPacketConnDeadlineAndClose(t *testing.T) {
	everywhere(t, func(t *testing.T, n *sim.Network) {
		c := listenPacket(t, n.Host(alice), ":1")
		buf := make([]byte, 10)
		require.NoError(t, c.SetDeadline(time.Now().Add(5*time.Millisecond)))
		_, _, err := c.ReadFrom(buf)
		assert.ErrorIs(t, err, os.ErrDeadlineExceeded)
		require.NoError(t, c.SetReadDeadline(time.Time{}))
		_, err = c.WriteTo(buf, c.LocalAddr())
		assert.ErrorIs(t, err, os.ErrDeadlineExceeded)
		require.NoError(t, c.SetWriteDeadline(time.Time{}))

		reading := inBackground(func() {
			_, _, err := c.ReadFrom(make([]byte, 10))
			assert.ErrorIs(t, err, net.ErrClosed)
		})
		require.NoError(t, c.Close())
		reading()
		assert.ErrorIs(t, c.Close(), net.ErrClosed)
		assert.ErrorIs(t, c.SetDeadline(time.Now()), net.ErrClosed)
		_, err = c.WriteTo(buf, c.LocalAddr())
		assert.ErrorIs(t, err, net.ErrClosed)
		listenPacket(t, n.Host(alice), ":1")
	})
}

func TestPacketsWithoutJitterKeepTheirOrder(t *testing.T) {
	inBubble(t, func(t *testing.T, n *sim.Network) {
		n.SetDefaults(steady)
		a, b := listenPacket(t, n.Host(alice), ":1"), listenPacket(t, n.Host(bob), ":1")
		var sent []string
		for i := range 50 {
			sent = append(sent, fmt.Sprint(i))
			send(t, a, b, sent[i])
		}
		assert.Equal(t, sent, packets(t, b))
	})
}

func TestJitterReordersPackets(t *testing.T) {
	inBubble(t, func(t *testing.T, n *sim.Network) {
		a, b := listenPacket(t, n.Host(alice), ":1"), listenPacket(t, n.Host(bob), ":1")
		var sent []string
		for i := range 50 {
			sent = append(sent, fmt.Sprintf("%02d", i))
			send(t, a, b, sent[i])
		}
		got := packets(t, b)
		assert.NotEqual(t, sent, got)
		slices.Sort(got)
		assert.Equal(t, sent, got)
	})
}

func TestLossAndDuplication(t *testing.T) {
	inBubble(t, func(t *testing.T, n *sim.Network) {
		n.SetLink(alice, bob, sim.Conditions{Loss: 0.5})
		n.SetLink(bob, alice, sim.Conditions{Duplicate: 0.5})
		a, b := listenPacket(t, n.Host(alice), ":1"), listenPacket(t, n.Host(bob), ":1")
		const count = 200
		for range count {
			send(t, a, b, "x")
			send(t, b, a, "x")
		}
		// The seed is fixed, so these are facts; the bounds are five sigmas.
		assert.InDelta(t, count/2, len(packets(t, b)), 35)
		assert.InDelta(t, count*3/2, len(packets(t, a)), 35)
	})
}

func TestSocketBufferOverflow(t *testing.T) {
	inBubble(t, func(t *testing.T, n *sim.Network) {
		a, b := listenPacket(t, n.Host(alice), ":1"), listenPacket(t, n.Host(bob), ":1")
		for _, size := range []int{0, 1000, 65507} {
			for range 300 {
				send(t, a, b, strings.Repeat("x", size))
			}
			synctest.Wait()
			time.Sleep(time.Second)
			assert.Len(t, packets(t, b), 212_992/(size+768))
		}
	})
}

func TestSameSeedSameFate(t *testing.T) {
	run := func(t *testing.T, seed uint64, noise bool) (got []string) {
		synctest.Test(t, func(t *testing.T) {
			n := sim.New(seed)
			defer n.Close()
			n.SetDefaults(sim.Conditions{Latency: time.Millisecond, Jitter: time.Second / 2, Loss: 0.2, Duplicate: 0.2})
			a, b, c := listenPacket(t, n.Host(alice), ":1"), listenPacket(t, n.Host(bob), ":1"), listenPacket(t, n.Host(carol), ":1")
			for i := range 100 {
				send(t, a, b, fmt.Sprint(i))
				if noise {
					send(t, c, b, "noise")
					send(t, b, a, "noise")
				}
			}
			got = slices.DeleteFunc(packets(t, b), func(s string) bool { return s == "noise" })
		})
		return got
	}
	first := run(t, 1, false)
	assert.Equal(t, first, run(t, 1, false))
	assert.Equal(t, first, run(t, 1, true), "other links do not matter")
	assert.NotEqual(t, first, run(t, 2, false))
}
