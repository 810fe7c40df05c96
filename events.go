package peerlimit

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/peerlimit/peerlimit/internal/linklog"
	"github.com/peerlimit/peerlimit/internal/printable"
	"github.com/peerlimit/peerlimit/internal/signal"
)

// Event is something rare that a node noticed.
type Event struct {
	Time   time.Time
	Kind   EventKind
	Member string // the identity it is about; empty for EventRing
	Detail string // for people
}

// String returns the event as one line without its time. What does not print in it is written as in a Go string: members
// choose their names, and errors may repeat what another process has sent.
func (e Event) String() string {
	s := e.Kind.String()
	if e.Member != "" {
		s += " " + e.Member
	}
	if e.Detail != "" {
		s += ": " + e.Detail
	}
	return printable.Text(s)
}

// EventKind says what kind of event it is.
type EventKind uint8

// The kinds of events.
const (
	EventMemberJoined    EventKind = 1 + iota // a member was seen for the first time, or again
	EventMemberLeaving                        // a member announced that it is going
	EventMemberLeft                           // a member went as announced
	EventMemberFailed                         // a member went without a word
	EventRing                                 // the owners of partitions changed
	EventLinkUp                               // takes can be sent to a member
	EventLinkDown                             // takes cannot be sent to a member
	EventDegraded                             // takes on a member's keys are decided by shares, because no holder can be reached
	EventRecovered                            // the member's keys are decided in full again, by that member or by others
	EventQuorumLost                           // this node hears from no majority of its witnesses any more, and decides by shares
	EventAcquired                             // this node has acquired partitions
	EventQuorumRegained                       // this node hears from a majority again
	EventMemberForgotten                      // a member that had failed is no longer one of those that limits are divided by
)

var eventNames = map[EventKind]string{
	EventMemberJoined: "member joined", EventMemberLeaving: "member leaving", EventMemberLeft: "member left",
	EventQuorumLost: "quorum lost", EventQuorumRegained: "quorum regained", EventAcquired: "acquired",
	EventMemberFailed: "member failed", EventRing: "ring changed", EventLinkUp: "link up", EventLinkDown: "link down",
	EventDegraded: "degraded", EventRecovered: "recovered", EventMemberForgotten: "member forgotten",
}

// String returns the kind in lower case, such as "member failed".
func (k EventKind) String() string {
	if name, ok := eventNames[k]; ok {
		return name
	}
	return fmt.Sprintf("EventKind(%d)", uint8(k))
}

// eventLine is how an event is logged: the level says what an operator must do.
type eventLine struct {
	Level slog.Level
	Text  string
}

// eventLines has the line of every kind. docs/operations.md lists them.
var eventLines = map[EventKind]eventLine{
	EventMemberJoined:    {slog.LevelInfo, "member joined"},
	EventMemberLeaving:   {slog.LevelInfo, "member leaving"},
	EventMemberLeft:      {slog.LevelInfo, "member left"},
	EventMemberFailed:    {slog.LevelWarn, "member failed, limits are still divided by it"},
	EventMemberForgotten: {slog.LevelInfo, "member forgotten, limits are divided by one fewer"},
	EventRing:            {slog.LevelInfo, "owners of partitions changed"},
	EventLinkUp:          eventLine(linklog.LineUp),
	EventLinkDown:        eventLine(linklog.LineDown),
	EventDegraded:        {slog.LevelWarn, "degraded, a member's keys are limited to a share"},
	EventRecovered:       {slog.LevelInfo, "recovered, a member's keys have their whole limit again"},
	EventQuorumLost:      {slog.LevelWarn, "quorum lost, limits are divided until it returns"},
	EventQuorumRegained:  {slog.LevelInfo, "quorum regained"},
	EventAcquired:        {slog.LevelInfo, "partitions acquired"},
}

// lineAcquiredEmpty is said in place of the kind's own line of partitions without state, unless the node has just started.
var lineAcquiredEmpty = eventLine{slog.LevelWarn, "partitions acquired without state, their keys start with a full burst"}

// write logs an event. Links may change many times a second.
func (e *events) write(line eventLine, kind EventKind, member, detail string) {
	switch {
	case e.log == nil:
		return
	case kind == EventLinkUp:
		e.links.Change(member, linklog.Up, detail)
		return
	case kind == EventLinkDown && line == eventLine(linklog.LineSilent):
		e.links.Change(member, linklog.Silent, detail)
		return
	case kind == EventLinkDown:
		e.links.Change(member, linklog.Down, detail)
		return
	}
	var attributes []any
	if member != "" {
		attributes = append(attributes, slog.String("member", printable.Text(member)))
	}
	if detail != "" {
		attributes = append(attributes, slog.String("detail", printable.Text(detail)))
	}
	e.log.Log(context.Background(), line.Level, line.Text, attributes...)
}

// maxQueuedEvents is how many events may wait for a slow receiver: a few for every member of a large cluster.
const maxQueuedEvents = 1024

// maxRecentEvents is how many events a node remembers to show them.
const maxRecentEvents = 64

// latest returns the last events, the latest first.
func (e *events) latest() []Event {
	e.mu.Lock()
	defer e.mu.Unlock()
	events := slices.Clone(e.recent)
	slices.Reverse(events)
	return events
}

// events hands events to the user's function, one at a time and in order, from a goroutine of its own, so that a call that
// notices something never waits for the user.
type events struct {
	receive func(Event)
	log     *slog.Logger // nil in tests only
	links   *linklog.Log // nil when log is
	dropped atomic.Uint64

	// mu guards queue, closed and recent.
	mu     sync.Mutex
	queue  []Event
	closed bool
	recent []Event // the last maxRecentEvents, also when nobody receives them; the oldest first

	wake signal.Signal // capacity 1: there is something in the queue, or it was closed
	done chan struct{} // closed when the goroutine has ended
}

func startEvents(receive func(Event), log *slog.Logger) *events {
	e := &events{receive: receive, log: log, wake: signal.New(), done: make(chan struct{})}
	if log != nil {
		e.links = linklog.New(log)
	}
	if receive == nil {
		close(e.done)
		return e
	}
	go e.run()
	return e
}

// emit notes an event and queues it, or drops it when too many wait.
func (e *events) emit(kind EventKind, member, detail string) {
	e.emitAs(eventLines[kind], kind, member, detail)
}

// emitAs is emit with another line for the log than the kind's own.
func (e *events) emitAs(line eventLine, kind EventKind, member, detail string) {
	e.write(line, kind, member, detail)
	event := Event{Time: time.Now(), Kind: kind, Member: member, Detail: detail}
	e.mu.Lock()
	if len(e.recent) == maxRecentEvents {
		e.recent = append(e.recent[:0], e.recent[1:]...)
	}
	e.recent = append(e.recent, event)
	if e.receive == nil {
		e.mu.Unlock()
		return
	}
	full := len(e.queue) >= maxQueuedEvents
	if !e.closed && !full {
		e.queue = append(e.queue, event)
	}
	e.mu.Unlock()
	if full {
		e.dropped.Add(1)
	}
	e.wake.Send()
}

func (e *events) run() {
	defer close(e.done)
	for range e.wake {
		for {
			e.mu.Lock()
			queue, closed := e.queue, e.closed
			e.queue = nil
			e.mu.Unlock()
			if len(queue) == 0 {
				if closed {
					return
				}
				break
			}
			for _, event := range queue {
				e.receive(event)
			}
		}
	}
}

// receiverGrace is how long close waits for a receiver that does not return. It may be closing the node itself, and would
// wait for close as close waits for it.
const receiverGrace = time.Second

// close lets what is queued be delivered and waits for the goroutine to end, for at most receiverGrace.
func (e *events) close() {
	e.mu.Lock()
	e.closed = true
	e.mu.Unlock()
	e.wake.Send()
	timer := time.NewTimer(receiverGrace)
	defer timer.Stop()
	select {
	case <-e.done:
	case <-timer.C:
	}
}
