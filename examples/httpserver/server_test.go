package main

import (
	"context"
	"io"
	"net"
	"net/http"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/peerlimit/peerlimit"
	"github.com/peerlimit/peerlimit/internal/sim"
)

// serveOn runs the server at port 80 of a host, as run does; the result tells when it has stopped serving.
func serveOn(t *testing.T, host *sim.Host, server *http.Server) (served chan error) {
	listener, err := host.Listen(host.IP() + ":80")
	require.NoError(t, err)
	served = make(chan error, 1)
	go func() { served <- server.Serve(listener) }()
	return served
}

// clientAt returns a client whose requests come from a host.
func clientAt(t *testing.T, host *sim.Host) *http.Client {
	transport := &http.Transport{
		DialContext: func(ctx context.Context, _, addr string) (net.Conn, error) { return host.Dial(ctx, addr) },
	}
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
	inBubble(t, func(t *testing.T, network *sim.Network) {
		node := simMember(t, network.Host(here))
		server := newServer(handlerOf(t, node, peerlimit.Per(1, maxWait).WithBurst(2)))
		served := serveOn(t, network.Host(here), server)
		client := clientAt(t, network.Host(there))

		url := "http://" + here + "/leaky"
		assert.Equal(t, http.StatusOK, status(client, url))
		start := time.Now()
		assert.Equal(t, http.StatusOK, status(client, url))
		assert.InDelta(t, maxWait.Seconds(), time.Since(start).Seconds(), 0.01)

		require.NoError(t, shutDown(server, node))
		assert.ErrorIs(t, <-served, http.ErrServerClosed)
	})
}

func TestShutDownLetsRequestsWaitForTheirTurn(t *testing.T) {
	inBubble(t, func(t *testing.T, network *sim.Network) {
		node := simMember(t, network.Host(here))
		server := newServer(handlerOf(t, node, peerlimit.Per(1, drainTimeout/2).WithBurst(2)))
		served := serveOn(t, network.Host(here), server)
		client := clientAt(t, network.Host(there))

		url := "http://" + here + "/leaky"
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
	inBubble(t, func(t *testing.T, network *sim.Network) {
		node := simMember(t, network.Host(here))
		server := newServer(handlerOf(t, node, peerlimit.Per(1, 2*drainTimeout).WithBurst(2)))
		served := serveOn(t, network.Host(here), server)
		client := clientAt(t, network.Host(there))

		url := "http://" + here + "/leaky"
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
			inBubble(t, func(t *testing.T, network *sim.Network) {
				node := simMember(t, network.Host(here))
				server := newServer(handlerOf(t, node, peerlimit.PerSecond(1)))
				served := serveOn(t, network.Host(here), server)

				conn, err := network.Host(there).Dial(t.Context(), here+":80")
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
