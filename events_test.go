package peerlimit

import (
	"bytes"
	"log/slog"
	"strings"
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
		}, nil)
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
		}, nil)
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

// Every kind of event has a line, and every event is logged once though nobody receives it.
func TestEveryEventIsLogged(t *testing.T) {
	for kind := range eventNames {
		var logs bytes.Buffer
		e := startEvents(nil, slog.New(slog.NewTextHandler(&logs, nil)))
		e.emit(kind, "api\x1b-1", "why")
		line, listed := eventLines[kind]
		require.True(t, listed, kind)
		require.Equal(t, 1, bytes.Count(logs.Bytes(), []byte("\n")), "%s: %s", kind, logs.String())
		require.Contains(t, logs.String(), "level="+line.level.String()+" msg=")
		require.Contains(t, logs.String(), line.text)
		require.Contains(t, logs.String(), "detail=why")
		require.NotContains(t, logs.String(), "\x1b")
	}
	require.Len(t, eventLines, len(eventNames))
}

// A link that falls silent and answers again many times a second is not a line an operator sees, and one that breaks as often is one
// line of each kind in ten seconds, with the number of the others.
func TestALinkThatFlapsIsLoggedSeldom(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var logs bytes.Buffer
		e := startEvents(nil, slog.New(slog.NewTextHandler(&logs, nil)))
		for range 1000 {
			e.emitAs(lineSuspect, EventLinkDown, "b", "no answer")
			e.emit(EventLinkUp, "b", "")
			time.Sleep(10 * time.Millisecond)
		}
		require.Empty(t, logs.String())
		for range 2500 { // 25 s
			e.emit(EventLinkDown, "b", "broken")
			e.emit(EventLinkUp, "b", "")
			time.Sleep(10 * time.Millisecond)
		}
		require.Equal(t, 3, strings.Count(logs.String(), "level=WARN"), logs.String())
		require.Equal(t, 3, strings.Count(logs.String(), "level=INFO"), logs.String())
		require.Equal(t, 4, strings.Count(logs.String(), "suppressed=999"), logs.String())
		e.emit(EventLinkDown, "c", "broken")
		require.Contains(t, logs.String(), "member=c", "another member is another matter")
	})
}
