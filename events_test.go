package peerlimit

import (
	"bytes"
	"context"
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

// Events that a slow receiver has no room for are dropped and counted, and the goroutine that noticed them never waits.
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
		require.Contains(t, logs.String(), "level="+line.Level.String()+" msg=")
		require.Contains(t, logs.String(), line.Text)
		require.Contains(t, logs.String(), "detail=why")
		require.NotContains(t, logs.String(), "\x1b")
	}
	require.Len(t, eventLines, len(eventNames))
}

// A link that breaks and comes back many times a second is one line of each kind, then one a minute, and when it is over the log
// ends with what has become of it.
func TestALinkThatFlapsIsLoggedOnceAMinute(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var logs LockedBuffer
		e := startEvents(nil, slog.New(slog.NewTextHandler(&logs, nil)))
		runLinks(t, e)
		for range 12_500 { // 125 s
			e.emit(EventLinkDown, "b", "broken")
			time.Sleep(5 * time.Millisecond)
			e.emit(EventLinkUp, "b", "")
			time.Sleep(5 * time.Millisecond)
		}
		require.Equal(t, 3, strings.Count(logs.String(), "level=WARN"), logs.String())
		require.Equal(t, 1, strings.Count(logs.String(), "level=INFO"), logs.String())
		e.emit(EventLinkDown, "b", "broken for good")
		time.Sleep(12 * time.Second)
		lines := strings.Split(strings.TrimSpace(logs.String()), "\n")
		require.Len(t, lines, 5)
		require.Contains(t, lines[4], "level=WARN")
		require.Contains(t, lines[4], `detail="broken for good"`)
	})
}

// runLinks runs what follows the links of events until the test ends.
func runLinks(t *testing.T, e *events) {
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() { defer close(done); e.links.Run(ctx) }()
	t.Cleanup(func() { cancel(); <-done })
}
