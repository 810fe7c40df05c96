package transport

import (
	"bytes"
	"context"
	"log/slog"
	"net"
	"os"
	"runtime"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	_ "github.com/peerlimit/peerlimit/internal/onecore"
)

const (
	testCluster = "test"
	testServer  = "server-1"
	testClient  = "client-1"
)

// echo answers with the request.
func echo(_ string, request, response []byte) ([]byte, func(context.Context) []byte) {
	return append(response, request...), nil
}

// startServer starts a server that ends with the test.
func startServer(t *testing.T, network Network, change func(*ServerConfig)) (*Server, Peer) {
	t.Helper()
	cfg := ServerConfig{Network: network, Addr: "127.0.0.1:0", Cluster: testCluster, Self: testServer, Handler: echo}
	if change != nil {
		change(&cfg)
	}
	server, err := Listen(cfg)
	require.NoError(t, err)
	t.Cleanup(func() { server.Close() })
	return server, Peer{Name: cfg.Self, Addr: server.Addr().String()}
}

// startClient makes a client that ends with the test.
func startClient(t *testing.T, network Network, change func(*ClientConfig)) connecting {
	t.Helper()
	cfg := ClientConfig{Network: network, Cluster: testCluster, Self: testClient}
	if change != nil {
		change(&cfg)
	}
	client := NewClient(cfg)
	t.Cleanup(func() { client.Close() })
	return connecting{client}
}

// mustCall makes a call that has to be answered with the request.
func mustCall(t *testing.T, client connecting, peer Peer) {
	t.Helper()
	answer, err := client.Call(t.Context(), peer, []byte("hello"), 2*time.Second)
	require.NoError(t, err)
	require.Equal(t, "hello", string(answer))
}

// linkChanges collects what a client reports.
type linkChanges struct {
	mu   sync.Mutex
	seen []LinkChange
}

func (c *linkChanges) add(change LinkChange) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.seen = append(c.seen, change)
}

// all returns what has been reported once everything in the bubble has settled:
// a link is up a moment before that is reported.
func (c *linkChanges) all() []LinkChange {
	synctest.Wait()
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.Clone(c.seen)
}

func (c *linkChanges) states() []LinkState {
	var states []LinkState
	for _, change := range c.all() {
		states = append(states, change.State)
	}
	return states
}

// logText is a log that can be read while it is written.
type logText struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (l *logText) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.Write(b)
}

func (l *logText) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.String()
}

func (l *logText) logger() *slog.Logger { return slog.New(slog.NewTextHandler(l, nil)) }

// expectGoroutines fails when there are more goroutines than before, once those
// that have just been told to end have done so.
func expectGoroutines(t *testing.T, before int) {
	t.Helper()
	for range 1000 {
		if runtime.NumGoroutine() <= before {
			return
		}
		time.Sleep(5 * time.Millisecond)
	}
	buf := make([]byte, 1<<20)
	t.Fatalf("%d goroutines, there were %d:\n%s", runtime.NumGoroutine(), before, buf[:runtime.Stack(buf, true)])
}

// rawPeer is one end of a connection made by hand, to send what a Client or a
// Server would not.
type rawPeer struct {
	net.Conn
	t     *testing.T
	ended chan struct{} // of the listener it came from
}

// stay keeps the connection open, doing nothing, until the test ends.
func (p *rawPeer) stay() { <-p.ended }

// dialRaw connects without a handshake.
func dialRaw(t *testing.T, network Network, addr string) *rawPeer {
	t.Helper()
	conn, err := network.Dial(t.Context(), addr)
	require.NoError(t, err)
	t.Cleanup(func() { conn.Close() })
	require.NoError(t, conn.SetDeadline(time.Now().Add(30*time.Second)))
	return &rawPeer{Conn: conn, t: t, ended: make(chan struct{})}
}

// dialGreeted connects and completes the handshake.
func dialGreeted(t *testing.T, network Network, addr string) *rawPeer {
	t.Helper()
	p := dialRaw(t, network, addr)
	_, err := greet(p, hello{minVersion: Version, maxVersion: Version, cluster: testCluster, from: "raw", to: testServer})
	require.NoError(t, err)
	return p
}

func (p *rawPeer) send(b []byte) {
	p.t.Helper()
	_, err := p.Write(b)
	require.NoError(p.t, err)
}

// receive returns the next frame, with a payload of its own.
func (p *rawPeer) receive(reader *frameReader) (frame, error) {
	for {
		f, ok, err := reader.next()
		if err != nil {
			return frame{}, err
		}
		if ok {
			f.payload = slices.Clone(f.payload)
			return f, nil
		}
		if err := reader.fill(); err != nil {
			return frame{}, err
		}
	}
}

// expectClosed fails unless the other end hangs up without sending anything.
func (p *rawPeer) expectClosed() {
	p.t.Helper()
	buf := make([]byte, 1)
	n, err := p.Read(buf)
	require.Error(p.t, err)
	require.Zero(p.t, n)
	require.NotErrorIs(p.t, err, os.ErrDeadlineExceeded, "the connection stayed open")
}

// connecting is a client that connects to the peer it is asked to send to, as most tests want.
type connecting struct{ *Client }

func (c connecting) Call(ctx context.Context, peer Peer, request []byte, timeout time.Duration) ([]byte, error) {
	c.ensure(peer)
	return c.Client.Call(ctx, peer, request, timeout)
}

func (c connecting) Post(peer Peer, request []byte) error {
	c.ensure(peer)
	return c.Client.Post(peer, request)
}

func (c connecting) ensure(peer Peer) {
	if c.State(peer.Name) == LinkUnknown {
		c.Connect(peer)
	}
}
