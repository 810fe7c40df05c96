package main

import (
	"context"
	"io"
	"net"
	"net/http"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/peerlimit/peerlimit"
)

// pipes is a listener in memory. A connection of it stays within the bubble that dials it.
type pipes struct {
	accepted chan net.Conn
	closed   chan struct{}
	close    sync.Once
}

func newPipes() *pipes { return &pipes{accepted: make(chan net.Conn), closed: make(chan struct{})} }

func (p *pipes) Accept() (net.Conn, error) {
	select {
	case conn := <-p.accepted:
		return conn, nil
	case <-p.closed:
		return nil, net.ErrClosed
	}
}

func (p *pipes) Close() error {
	p.close.Do(func() { close(p.closed) })
	return nil
}

func (p *pipes) Addr() net.Addr { return &net.TCPAddr{IP: net.IPv4(192, 0, 2, 1), Port: 80} }

func (p *pipes) dial(ctx context.Context, _, _ string) (net.Conn, error) {
	client, server := net.Pipe()
	select {
	case p.accepted <- fromPeer{server}:
		return client, nil
	case <-p.closed:
		return nil, net.ErrClosed
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// fromPeer is a server's end of a pipe, which has a client with an address.
type fromPeer struct{ net.Conn }

func (fromPeer) RemoteAddr() net.Addr { return &net.TCPAddr{IP: net.IPv4(192, 0, 2, 2), Port: 50000} }

// serve runs the server, as run does; served tells when it has stopped serving.
func serve(server *http.Server) (connections *pipes, served chan error) {
	connections, served = newPipes(), make(chan error, 1)
	go func() { served <- server.Serve(connections) }()
	return connections, served
}

// clientOf returns a client of a server.
func clientOf(t *testing.T, connections *pipes) *http.Client {
	transport := &http.Transport{DialContext: connections.dial}
	t.Cleanup(transport.CloseIdleConnections)
	return &http.Client{Transport: transport}
}

// status asks and reads the whole answer; 0 means that there was none.
func status(client *http.Client, url string) int {
	response, err := client.Get(url)
	if err != nil {
		return 0
	}
	defer response.Body.Close()
	if _, err := io.Copy(io.Discard, response.Body); err != nil {
		return 0
	}
	return response.StatusCode
}

func TestTheServerOutwaitsTheLongestTurn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		node := simMember(t)
		server := newServer(handlerOf(t, node, peerlimit.Per(1, maxWait).WithBurst(2)))
		connections, served := serve(server)
		client := clientOf(t, connections)

		const url = "http://192.0.2.1/leaky"
		assert.Equal(t, http.StatusOK, status(client, url))
		start := time.Now()
		assert.Equal(t, http.StatusOK, status(client, url))
		assert.InDelta(t, maxWait.Seconds(), time.Since(start).Seconds(), 0.01)

		require.NoError(t, shutDown(server, node))
		assert.ErrorIs(t, <-served, http.ErrServerClosed)
	})
}

func TestShutDownLetsRequestsWaitForTheirTurn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		node := simMember(t)
		server := newServer(handlerOf(t, node, peerlimit.Per(1, drainTimeout/2).WithBurst(2)))
		connections, served := serve(server)
		client := clientOf(t, connections)

		const url = "http://192.0.2.1/leaky"
		assert.Equal(t, http.StatusOK, status(client, url))
		second := make(chan int, 1)
		go func() { second <- status(client, url) }()
		time.Sleep(time.Second) // it is in the bucket

		require.NoError(t, shutDown(server, node))
		assert.ErrorIs(t, <-served, http.ErrServerClosed)
		assert.Equal(t, http.StatusOK, <-second)
	})
}

func TestShutDownDoesNotWaitForEver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		node := simMember(t)
		server := newServer(handlerOf(t, node, peerlimit.Per(1, 2*drainTimeout).WithBurst(2)))
		connections, served := serve(server)
		client := clientOf(t, connections)

		const url = "http://192.0.2.1/leaky"
		assert.Equal(t, http.StatusOK, status(client, url))
		second := make(chan int, 1)
		go func() { second <- status(client, url) }()
		time.Sleep(time.Second) // it is in the bucket

		start := time.Now()
		require.NoError(t, shutDown(server, node))
		assert.LessOrEqual(t, time.Since(start), drainTimeout+leaveTimeout)
		assert.ErrorIs(t, <-served, http.ErrServerClosed)
		assert.Zero(t, <-second, "the connection was closed")
		synctest.Wait()
	})
}

func TestASlowClientIsCutOff(t *testing.T) {
	const header = "GET /token HTTP/1.1\r\nHost: x\r\n"
	for _, slow := range []struct {
		name, request string
		after         time.Duration
	}{
		{"says nothing", "", headerTimeout},
		{"in its header", header, headerTimeout},
		{"in its body", header + "Content-Length: 9\r\n\r\n", readTimeout},
		{"after its answer", header + "\r\n", idleTimeout},
	} {
		t.Run(slow.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				node := simMember(t)
				server := newServer(handlerOf(t, node, peerlimit.PerSecond(1)))
				connections, served := serve(server)

				conn, err := connections.dial(t.Context(), "", "")
				require.NoError(t, err)
				defer conn.Close()
				require.NoError(t, conn.SetDeadline(time.Now().Add(time.Hour)))
				start := time.Now()
				_, err = io.WriteString(conn, slow.request)
				require.NoError(t, err)
				_, err = io.ReadAll(conn)
				assert.NoError(t, err)
				assert.InDelta(t, slow.after.Seconds(), time.Since(start).Seconds(), 1)

				require.NoError(t, shutDown(server, node))
				assert.ErrorIs(t, <-served, http.ErrServerClosed)
			})
		})
	}
}
