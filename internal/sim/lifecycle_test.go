package sim_test

import (
	"runtime"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/peerlimit/peerlimit/internal/sim"
)

// Sockets, events under way and armed deadlines have no goroutine of their own,
// so none is left after Close though nothing else was closed.
func TestNoGoroutines(t *testing.T) {
	before := runtime.NumGoroutine()
	n := sim.New(1)
	a, b := n.Host(alice), n.Host(bob)
	packet := listenPacket(t, a, ":1")
	for range 50 {
		client, server := connect(t, a, b)
		write(t, client, "unread")
		require.NoError(t, server.SetDeadline(time.Now().Add(time.Hour)))
		send(t, packet, packet, "unread")
	}
	assert.LessOrEqual(t, runtime.NumGoroutine(), before+1, "the timer's, while it fires")
	n.Close()
	// A goroutine that Close waited for may still have to leave the count.
	for start := time.Now(); runtime.NumGoroutine() > before && time.Since(start) < 10*time.Second; {
		runtime.Gosched()
	}
	assert.LessOrEqual(t, runtime.NumGoroutine(), before)
}
