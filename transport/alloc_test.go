//go:build !race

package transport

import (
	"context"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// The race detector makes sync.Pool forget at random, so these tests are built
// without it. They count the allocations of the whole process, so a call is
// counted on both ends.

func TestCallAllocatesItsAnswerOnly(t *testing.T) {
	client, peer := benchPair(t, echo)
	request := make([]byte, benchPayload)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	allocs := testing.AllocsPerRun(2000, func() {
		_, err := client.Call(ctx, peer, request, 10*time.Second)
		require.NoError(t, err)
	})
	assert.LessOrEqual(t, allocs, 1.0)
}

func TestCallAppendAllocatesNothing(t *testing.T) {
	client, peer := benchPair(t, echo)
	request := make([]byte, benchPayload)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	allocs := testing.AllocsPerRun(2000, func() {
		var room [2 * benchPayload]byte
		answer, err := client.CallAppend(ctx, peer, room[:0], request, 10*time.Second)
		if err != nil || len(answer) != benchPayload {
			t.Error(len(answer), err)
		}
	})
	assert.Zero(t, allocs)
}

func TestFailingAtOnceAllocatesNothing(t *testing.T) {
	client := startClient(t, newMemNetwork(), nil)
	peer := Peer{Name: testServer, Addr: "mem:100"}
	_, err := client.Call(t.Context(), peer, nil, 10*time.Second)
	require.ErrorIs(t, err, ErrUnreachable)
	ctx := t.Context()
	assert.Zero(t, testing.AllocsPerRun(1000, func() {
		client.Call(ctx, peer, nil, time.Second)
		client.Post(peer, nil)
		client.State(peer.Name)
	}))
}
