package peerlimit

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
)

// A receiver that closes the node waits for itself, whether it was called before the closing began or by it.
func TestEventsAreClosedThoughTheReceiverWaitsForThat(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		closed := make(chan struct{})
		received := 0
		e := startEvents(func(Event) {
			received++
			<-closed
		})
		e.emit(EventRing, "", "")
		e.emit(EventRing, "", "")
		began := time.Now()
		e.close() // the first event has not been delivered yet
		require.LessOrEqual(t, time.Since(began), receiverGrace)
		close(closed)
		<-e.done
		require.Equal(t, 2, received, "what was queued is delivered")
	})
}

// An event is one line, whatever the names and errors in it are.
func TestAnEventPrints(t *testing.T) {
	e := Event{Kind: EventLinkDown, Member: "api\x1b[2J-1\u202e", Detail: "it said: \r\n\u009b31m\xff"}
	require.Equal(t, `link down api\x1b[2J-1\u202e: it said: \r\n\u009b31m\xff`, e.String())
}

// Events that a slow receiver has no room for are dropped and counted, and who noticed them never waits.
func TestEventsAreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		gate := make(chan struct{})
		received := 0
		e := startEvents(func(Event) {
			<-gate
			received++
		})
		e.emit(EventRing, "", "")
		synctest.Wait() // it is being delivered, and no longer queued
		for range maxQueuedEvents + 7 {
			e.emit(EventRing, "", "")
		}
		require.EqualValues(t, 7, e.dropped.Load())
		close(gate)
		e.close()
		require.Equal(t, 1+maxQueuedEvents, received)
	})
}
