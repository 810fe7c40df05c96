package main

import (
	"context"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/peerlimit/peerlimit"
	_ "github.com/peerlimit/peerlimit/internal/onecore"
	"github.com/peerlimit/peerlimit/internal/sim"
)

const (
	here  = "10.0.0.1"
	there = "10.0.0.2"
)

// inBubble runs a test in virtual time, on a network in memory.
func inBubble(t *testing.T, test func(t *testing.T, network *sim.Network)) {
	synctest.Test(t, func(t *testing.T) {
		network := sim.New(1)
		t.Cleanup(network.Close)
		test(t, network)
	})
}

// simMember starts a member at a host of a network in memory.
func simMember(t *testing.T, host *sim.Host, join ...string) *peerlimit.Node {
	return member(t, peerlimit.Config{Network: host, BindAddr: host.IP() + ":7946", Insecure: true, Join: join})
}

// member starts a member that ends with the test.
func member(t *testing.T, cfg peerlimit.Config) *peerlimit.Node {
	t.Helper()
	cfg.MaxWait = maxWait
	cfg.RPCTimeout = 10 * time.Second // on a busy machine an answer may be late, and only the answers matter here
	cfg.Logger = slog.New(slog.DiscardHandler)
	node, err := peerlimit.Start(cfg)
	require.NoError(t, err)
	t.Cleanup(func() { assert.NoError(t, node.Close()) })
	return node
}

// joined waits until every node sees and reaches all of them.
func joined(t *testing.T, nodes ...*peerlimit.Node) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	for _, node := range nodes {
		require.NoError(t, node.WaitReady(ctx, len(nodes)))
	}
}

func handlerOf(t *testing.T, node *peerlimit.Node, limit peerlimit.Limit) http.Handler {
	t.Helper()
	handler, err := newHandler(node, limit)
	require.NoError(t, err)
	return handler
}

// get asks a handler as a client at 192.0.2.1 would.
func get(t *testing.T, handler http.Handler, path string) *httptest.ResponseRecorder {
	return getFrom(t.Context(), handler, "192.0.2.1:50000", path)
}

func getFrom(ctx context.Context, handler http.Handler, remoteAddr, path string) *httptest.ResponseRecorder {
	request := httptest.NewRequestWithContext(ctx, http.MethodGet, path, nil)
	request.RemoteAddr = remoteAddr
	response := httptest.NewRecorder()
	handler.ServeHTTP(response, request)
	return response
}
