package sim_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"io"
	"net"
	"os"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/peerlimit/peerlimit/internal/sim"
)

// window is the number of bytes that can be written ahead of the reader.
const window = 256 << 10

func TestEcho(t *testing.T) {
	everywhere(t, func(t *testing.T, n *sim.Network) {
		client, server := connect(t, n.Host(alice), n.Host(bob))
		echoed := inBackground(func() {
			_, err := io.Copy(server, server)
			assert.NoError(t, err)
			assert.NoError(t, server.Close())
		})
		sent := bytes.Repeat([]byte("0123456789abcdef"), 3*window/16)
		written := inBackground(func() {
			_, err := client.Write(sent)
			assert.NoError(t, err)
		})
		got := make([]byte, len(sent))
		_, err := io.ReadFull(client, got)
		require.NoError(t, err)
		assert.Equal(t, sha256.Sum256(sent), sha256.Sum256(got))
		written()
		require.NoError(t, client.Close())
		echoed()
	})
}

func TestAddresses(t *testing.T) {
	everywhere(t, func(t *testing.T, n *sim.Network) {
		client, server := connect(t, n.Host(alice), n.Host(bob))
		for _, addr := range []net.Addr{client.LocalAddr(), client.RemoteAddr(), server.LocalAddr(), server.RemoteAddr()} {
			assert.IsType(t, &net.TCPAddr{}, addr)
		}
		assert.Equal(t, client.LocalAddr(), server.RemoteAddr())
		assert.Equal(t, client.RemoteAddr(), server.LocalAddr())
		assert.Equal(t, alice, client.LocalAddr().(*net.TCPAddr).IP.String())
		assert.Equal(t, bob, client.RemoteAddr().(*net.TCPAddr).IP.String())
	})
}

func TestAHostReachesItself(t *testing.T) {
	everywhere(t, func(t *testing.T, n *sim.Network) {
		client, server := connect(t, n.Host(alice), n.Host(alice))
		write(t, client, "self")
		read(t, server, "self")
	})
}

func TestJitterAndLossDoNotReorderStreams(t *testing.T) {
	inBubble(t, func(t *testing.T, n *sim.Network) {
		n.SetDefaults(sim.Conditions{Latency: time.Millisecond, Jitter: 50 * time.Millisecond, Loss: 0.05, Duplicate: 0.5})
		client, server := connect(t, n.Host(alice), n.Host(bob))
		const numbers = 1000
		written := inBackground(func() {
			for i := range uint32(numbers) {
				assert.NoError(t, binary.Write(client, binary.BigEndian, i))
				time.Sleep(time.Millisecond)
			}
			assert.NoError(t, client.Close())
		})
		for i := range uint32(numbers) {
			var got uint32
			require.NoError(t, binary.Read(server, binary.BigEndian, &got))
			require.Equal(t, i, got)
		}
		assert.Equal(t, io.EOF, readError(server))
		written()
	})
}

func TestLatencyIsWhatItSays(t *testing.T) {
	inBubble(t, func(t *testing.T, n *sim.Network) {
		n.SetDefaults(steady)
		n.SetLink(bob, alice, sim.Conditions{Latency: 7 * time.Millisecond})
		start := time.Now()
		client, server := connect(t, n.Host(alice), n.Host(bob))
		assert.Equal(t, 8*time.Millisecond, time.Since(start), "dialling takes one round trip")

		start = time.Now()
		write(t, client, "ping")
		read(t, server, "ping")
		assert.Equal(t, time.Millisecond, time.Since(start))
		write(t, server, "pong")
		read(t, client, "pong")
		assert.Equal(t, 8*time.Millisecond, time.Since(start))
	})
}

func TestReadDeadline(t *testing.T) {
	everywhere(t, func(t *testing.T, n *sim.Network) {
		client, server := connect(t, n.Host(alice), n.Host(bob))

		require.NoError(t, client.SetReadDeadline(time.Now().Add(10*time.Millisecond)))
		err := readError(client)
		assert.ErrorIs(t, err, os.ErrDeadlineExceeded)
		var netErr net.Error
		require.ErrorAs(t, err, &netErr)
		assert.True(t, netErr.Timeout())
		assert.ErrorIs(t, readError(client), os.ErrDeadlineExceeded, "it stays expired")

		require.NoError(t, client.SetReadDeadline(time.Time{}))
		write(t, server, "late")
		read(t, client, "late")

		write(t, server, "x")
		require.NoError(t, client.SetDeadline(time.Unix(1, 0)))
		assert.ErrorIs(t, readError(client), os.ErrDeadlineExceeded, "the past expires at once, bytes or not")
		_, err = client.Write([]byte("x"))
		assert.ErrorIs(t, err, os.ErrDeadlineExceeded)
	})
}

func TestADeadlineReachesABlockedRead(t *testing.T) {
	inBubble(t, func(t *testing.T, n *sim.Network) {
		client, _ := connect(t, n.Host(alice), n.Host(bob))
		start := time.Now()
		require.NoError(t, client.SetReadDeadline(start.Add(time.Hour)))
		waited := inBackground(func() {
			assert.ErrorIs(t, readError(client), os.ErrDeadlineExceeded)
			assert.Equal(t, 3*time.Second, time.Since(start))
		})
		time.Sleep(time.Second)
		require.NoError(t, client.SetReadDeadline(start.Add(3*time.Second)))
		waited()
	})
}

func TestADeadlineInThePastReachesABlockedRead(t *testing.T) {
	inBubble(t, func(t *testing.T, n *sim.Network) {
		client, _ := connect(t, n.Host(alice), n.Host(bob))
		reading := inBackground(func() { assert.ErrorIs(t, readError(client), os.ErrDeadlineExceeded) })
		synctest.Wait()
		start := time.Now()
		require.NoError(t, client.SetReadDeadline(time.Time{}.Add(1)))
		reading()
		assert.Zero(t, time.Since(start))
	})
}

func TestWritesWaitForTheReader(t *testing.T) {
	inBubble(t, func(t *testing.T, n *sim.Network) {
		client, server := connect(t, n.Host(alice), n.Host(bob))
		require.NoError(t, client.SetWriteDeadline(time.Now().Add(time.Second)))
		written, err := client.Write(make([]byte, window+1000))
		assert.ErrorIs(t, err, os.ErrDeadlineExceeded)
		assert.Equal(t, window, written)
		require.NoError(t, client.SetWriteDeadline(time.Time{}))

		finished := false
		wait := inBackground(func() {
			_, err := client.Write(make([]byte, 1000))
			assert.NoError(t, err)
			finished = true
		})
		synctest.Wait()
		assert.False(t, finished)
		_, err = io.ReadFull(server, make([]byte, 999))
		require.NoError(t, err)
		synctest.Wait()
		assert.False(t, finished, "room for 999 bytes of 1000")
		_, err = io.ReadFull(server, make([]byte, 1))
		require.NoError(t, err)
		wait()
	})
}

func TestConcurrentWritesDoNotMix(t *testing.T) {
	everywhere(t, func(t *testing.T, n *sim.Network) {
		client, server := connect(t, n.Host(alice), n.Host(bob))
		const writers, size = 4, window/2 + 1
		var group sync.WaitGroup
		for i := range writers {
			group.Go(func() {
				_, err := client.Write(bytes.Repeat([]byte{byte(i)}, size))
				assert.NoError(t, err)
			})
		}
		seen := make(map[byte]bool)
		message := make([]byte, size)
		for range writers {
			_, err := io.ReadFull(server, message)
			require.NoError(t, err)
			require.Equal(t, bytes.Repeat(message[:1], size), message)
			seen[message[0]] = true
		}
		assert.Len(t, seen, writers)
		group.Wait()
	})
}

func TestCloseLetsThePeerReadWhatWasSent(t *testing.T) {
	everywhere(t, func(t *testing.T, n *sim.Network) {
		client, server := connect(t, n.Host(alice), n.Host(bob))
		write(t, client, "last words")
		require.NoError(t, client.Close())
		read(t, server, "last words")
		assert.Equal(t, io.EOF, readError(server))
		assert.Equal(t, io.EOF, readError(server), "again")
	})
}

func TestCallsOnAClosedConn(t *testing.T) {
	everywhere(t, func(t *testing.T, n *sim.Network) {
		client, _ := connect(t, n.Host(alice), n.Host(bob))
		require.NoError(t, client.Close())
		assert.ErrorIs(t, readError(client), net.ErrClosed)
		_, err := client.Write([]byte("x"))
		assert.ErrorIs(t, err, net.ErrClosed)
		assert.ErrorIs(t, client.SetDeadline(time.Now()), net.ErrClosed)
		assert.ErrorIs(t, client.Close(), net.ErrClosed)
	})
}

func TestCloseEndsBlockedCalls(t *testing.T) {
	inBubble(t, func(t *testing.T, n *sim.Network) {
		client, _ := connect(t, n.Host(alice), n.Host(bob))
		reading := inBackground(func() { assert.ErrorIs(t, readError(client), net.ErrClosed) })
		writing := inBackground(func() {
			sent, err := client.Write(make([]byte, window+1))
			assert.Equal(t, window, sent)
			assert.ErrorIs(t, err, net.ErrClosed)
		})
		synctest.Wait()
		require.NoError(t, client.Close())
		reading()
		writing()
	})
}

func TestWritingToAClosedPeer(t *testing.T) {
	inBubble(t, func(t *testing.T, n *sim.Network) {
		client, server := connect(t, n.Host(alice), n.Host(bob))
		require.NoError(t, server.Close())
		time.Sleep(time.Second)
		write(t, client, "the kernel cannot know yet")
		time.Sleep(time.Second)
		_, err := client.Write([]byte("now it does"))
		assert.ErrorIs(t, err, syscall.EPIPE)
		assert.Equal(t, io.EOF, readError(client))
	})
}

func TestCloseWithUnreadInputResets(t *testing.T) {
	inBubble(t, func(t *testing.T, n *sim.Network) {
		client, server := connect(t, n.Host(alice), n.Host(bob))
		write(t, client, "question")
		time.Sleep(time.Second)
		write(t, server, "answer")
		require.NoError(t, server.Close())
		read(t, client, "answer")
		assert.ErrorIs(t, readError(client), syscall.ECONNRESET)
	})
}

func TestCloseEndsAPeerThatWaitsForRoom(t *testing.T) {
	inBubble(t, func(t *testing.T, n *sim.Network) {
		client, server := connect(t, n.Host(alice), n.Host(bob))
		writing := inBackground(func() {
			_, err := client.Write(make([]byte, window+1))
			assert.ErrorIs(t, err, syscall.ECONNRESET)
		})
		time.Sleep(time.Second)
		require.NoError(t, server.Close())
		writing()
	})
}

func TestConcurrentMethods(t *testing.T) {
	everywhere(t, func(t *testing.T, n *sim.Network) {
		client, server := connect(t, n.Host(alice), n.Host(bob))
		echoing := inBackground(func() { _, _ = io.Copy(server, server) })
		var group sync.WaitGroup
		for range 20 {
			group.Go(func() { _, _ = client.Read(make([]byte, 100)) })
			group.Go(func() { _, _ = client.Write(make([]byte, 1000)) })
			group.Go(func() {
				assert.NoError(t, client.SetDeadline(time.Now().Add(20*time.Millisecond)))
				assert.NoError(t, client.SetReadDeadline(time.Now().Add(10*time.Millisecond)))
				assert.NoError(t, client.SetWriteDeadline(time.Now().Add(10*time.Millisecond)))
				assert.NotNil(t, client.LocalAddr())
				assert.NotNil(t, client.RemoteAddr())
			})
		}
		group.Wait()
		require.NoError(t, client.Close())
		echoing()
	})
}

func TestEmptyReadsAndWrites(t *testing.T) {
	everywhere(t, func(t *testing.T, n *sim.Network) {
		client, server := connect(t, n.Host(alice), n.Host(bob))
		for _, call := range []func([]byte) (int, error){client.Read, client.Write} {
			count, err := call(nil)
			assert.Zero(t, count)
			assert.NoError(t, err)
		}
		write(t, client, "x")
		read(t, server, "x")
	})
}

func TestWriteCopies(t *testing.T) {
	everywhere(t, func(t *testing.T, n *sim.Network) {
		client, server := connect(t, n.Host(alice), n.Host(bob))
		buf := []byte("before")
		_, err := client.Write(buf)
		require.NoError(t, err)
		copy(buf, "after!")
		read(t, server, "before")
	})
}

func TestNetworkCloseEndsEverything(t *testing.T) {
	inBubble(t, func(t *testing.T, n *sim.Network) {
		a, b := n.Host(alice), n.Host(bob)
		client, server := connect(t, a, b)
		l, p := listen(t, b, ":1"), listenPacket(t, b, ":1")
		n.PowerOff(bob)
		c := n.Host(carol)
		l, p = listen(t, c, ":1"), listenPacket(t, c, ":1")
		calls := []func() error{
			func() error { return readError(client) },
			func() error { return readError(server) },
			func() error { _, err := client.Write(make([]byte, 2*window)); return err },
			func() error { _, err := l.Accept(); return err },
			func() error { _, _, err := p.ReadFrom(make([]byte, 1)); return err },
			func() error { _, err := a.Dial(context.Background(), bob+":9"); return err },
		}
		var group sync.WaitGroup
		for _, call := range calls {
			group.Go(func() { assert.ErrorIs(t, call(), net.ErrClosed) })
		}
		synctest.Wait()
		n.Close()
		group.Wait()
		n.Close()
		for _, call := range calls {
			assert.ErrorIs(t, call(), net.ErrClosed)
		}
		_, err := n.Host(carol).Listen(":2")
		assert.ErrorIs(t, err, net.ErrClosed)
		_, err = n.Host("10.0.0.4").Listen(":0")
		assert.ErrorIs(t, err, net.ErrClosed, "a new host of a closed network")
	})
}
