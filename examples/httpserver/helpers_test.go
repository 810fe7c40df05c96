package main

import (
	"context"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/peerlimit/peerlimit"
	"github.com/peerlimit/peerlimit/peerlimittest"
)

// simMember starts a member that is alone on a network in memory.
func simMember(t *testing.T) *peerlimit.Node { return peerlimittest.NewNode(t, configure) }

// configure sets what the tests want of a member.
func configure(cfg *peerlimit.Config) {
	cfg.MaxWait = maxWait
	cfg.RPCTimeout = 10 * time.Second // on a busy machine an answer may be late, and only the answers matter here
	cfg.Logger = slog.New(slog.DiscardHandler)
}

// member starts a member that ends with the test.
func member(t *testing.T, cfg peerlimit.Config) *peerlimit.Node {
	t.Helper()
	configure(&cfg)
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
