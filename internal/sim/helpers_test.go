package sim_test

import (
	"context"
	"io"
	"net"
	"os"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	_ "github.com/peerlimit/peerlimit/internal/onecore"
	"github.com/peerlimit/peerlimit/internal/sim"
)

const (
	alice = "10.0.0.1"
	bob   = "10.0.0.2"
	carol = "10.0.0.3"
)

// steady is a link on which times can be told exactly.
var steady = sim.Conditions{Latency: time.Millisecond}

// transportNetwork is what the rest of the module asks of a network.
type transportNetwork interface {
	Listen(addr string) (net.Listener, error)
	ListenPacket(addr string) (net.PacketConn, error)
	Dial(ctx context.Context, addr string) (net.Conn, error)
}

var _ transportNetwork = (*sim.Host)(nil)

// everywhere runs a test in real time and in a bubble.
func everywhere(t *testing.T, test func(t *testing.T, n *sim.Network)) {
	t.Run("real time", func(t *testing.T) {
		n := sim.New(1)
		defer n.Close()
		test(t, n)
	})
	t.Run("bubble", func(t *testing.T) { inBubble(t, test) })
}

// inBubble runs a test in virtual time. The bubble fails when a goroutine is
// left after Close.
func inBubble(t *testing.T, test func(t *testing.T, n *sim.Network)) {
	synctest.Test(t, func(t *testing.T) {
		n := sim.New(1)
		defer n.Close()
		test(t, n)
	})
}

func listen(t *testing.T, h *sim.Host, addr string) net.Listener {
	t.Helper()
	l, err := h.Listen(addr)
	require.NoError(t, err)
	return l
}

func listenPacket(t *testing.T, h *sim.Host, addr string) net.PacketConn {
	t.Helper()
	c, err := h.ListenPacket(addr)
	require.NoError(t, err)
	return c
}

// connect returns the two ends of a connection from one host to another.
func connect(t *testing.T, from, to *sim.Host) (client, server net.Conn) {
	t.Helper()
	l := listen(t, to, ":0")
	defer l.Close()
	client, err := from.Dial(context.Background(), l.Addr().String())
	require.NoError(t, err)
	server, err = l.Accept()
	require.NoError(t, err)
	return client, server
}

// write writes all of text.
func write(t *testing.T, c net.Conn, text string) {
	t.Helper()
	n, err := c.Write([]byte(text))
	require.NoError(t, err)
	require.Equal(t, len(text), n)
}

// read reads as many bytes as text has and compares.
func read(t *testing.T, c net.Conn, text string) {
	t.Helper()
	got := make([]byte, len(text))
	_, err := io.ReadFull(c, got)
	require.NoError(t, err)
	require.Equal(t, text, string(got))
}

// readError reads a byte and returns the error that comes instead.
func readError(c net.Conn) error {
	n, err := c.Read(make([]byte, 1))
	if err == nil && n > 0 {
		return nil
	}
	return err
}

// silent asserts that nothing arrives at c for a minute. Bubbles only.
func silent(t *testing.T, c net.Conn) {
	t.Helper()
	require.NoError(t, c.SetReadDeadline(time.Now().Add(time.Minute)))
	assert.ErrorIs(t, readError(c), os.ErrDeadlineExceeded)
	require.NoError(t, c.SetReadDeadline(time.Time{}))
}

// send sends one packet.
func send(t *testing.T, from, to net.PacketConn, text string) {
	t.Helper()
	_, err := from.WriteTo([]byte(text), to.LocalAddr())
	require.NoError(t, err)
}

// packets reads whatever arrives at c within a second. Bubbles only.
func packets(t *testing.T, c net.PacketConn) []string {
	t.Helper()
	require.NoError(t, c.SetReadDeadline(time.Now().Add(time.Second)))
	var got []string
	buf := make([]byte, 1<<16)
	for {
		n, _, err := c.ReadFrom(buf)
		if err != nil {
			require.ErrorIs(t, err, os.ErrDeadlineExceeded)
			return got
		}
		got = append(got, string(buf[:n]))
	}
}

// inBackground runs f in a goroutine and returns a function that waits for it.
func inBackground(f func()) (wait func()) {
	var group sync.WaitGroup
	group.Go(f)
	return group.Wait
}
