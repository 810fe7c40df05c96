package main

import (
	"bufio"
	"context"
	"io"
	"net"
	"net/http"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// A request that comes after its process was told to leave, on a connection that was accepted before, is answered. A client that
// connects and says nothing keeps nobody waiting forever.
func TestAnAcceptedClientGetsItsResponse(t *testing.T) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	server := &http.Server{
		Handler:           http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "here") }),
		ReadHeaderTimeout: time.Minute,
	}
	var d drainer
	d.watch(server)
	served := make(chan error, 1)
	go func() { served <- server.Serve(listener) }()

	late := dialAndWait(t, &d, listener, 1)
	_ = dialAndWait(t, &d, listener, 2) // says nothing

	ended := make(chan error, 1)
	go func() { ended <- endServer(server, &d, listener, served, 2*time.Second) }()
	require.Eventually(t, func() bool {
		connection, err := net.Dial("tcp", listener.Addr().String())
		if err == nil {
			_ = connection.Close()
		}
		return err != nil
	}, 10*time.Second, time.Millisecond, "nobody is accepted any more")

	_, err = io.WriteString(late, "GET / HTTP/1.1\r\nHost: x\r\n\r\n")
	require.NoError(t, err)
	response, err := http.ReadResponse(bufio.NewReader(late), nil)
	require.NoError(t, err)
	body, err := io.ReadAll(response.Body)
	require.NoError(t, err)
	require.NoError(t, response.Body.Close())
	assert.Equal(t, "here", string(body))
	assert.ErrorIs(t, <-ended, context.DeadlineExceeded, "because of the one that said nothing")
}

// dialAndWait connects, and waits until the server has accepted that many connections.
func dialAndWait(t *testing.T, d *drainer, listener net.Listener, accepted int) net.Conn {
	t.Helper()
	connection, err := net.Dial("tcp", listener.Addr().String())
	require.NoError(t, err)
	t.Cleanup(func() { _ = connection.Close() })
	require.Eventually(t, func() bool {
		d.mu.Lock()
		defer d.mu.Unlock()
		return len(d.expected) == accepted
	}, 10*time.Second, time.Millisecond)
	return connection
}
