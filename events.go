package peerlimit

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/peerlimit/peerlimit/internal/printable"
	"github.com/peerlimit/peerlimit/internal/seldom"
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
	level slog.Level
	text  string
}

// eventLines has the line of every kind. docs/operations.md lists them.
var eventLines = map[EventKind]eventLine{
	EventMemberJoined:    {slog.LevelInfo, "member joined"},
	EventMemberLeaving:   {slog.LevelInfo, "member leaving"},
	EventMemberLeft:      {slog.LevelInfo, "member left"},
	EventMemberFailed:    {slog.LevelWarn, "member failed, limits are still divided by it"},
	EventMemberForgotten: {slog.LevelInfo, "member forgotten, limits are divided by one fewer"},
	EventRing:            {slog.LevelInfo, "owners of partitions changed"},
	EventLinkUp:          {slog.LevelInfo, "connected to member"},
	EventLinkDown:        {slog.LevelWarn, "cannot reach member, check its process, the takes port, Secret and versions"},
	EventDegraded:        {slog.LevelWarn, "degraded, a member's keys are limited to a share"},
	EventRecovered:       {slog.LevelInfo, "recovered, a member's keys have their whole limit again"},
	EventQuorumLost:      {slog.LevelWarn, "quorum lost, limits are divided until it returns"},
	EventQuorumRegained:  {slog.LevelInfo, "quorum regained"},
	EventAcquired:        {slog.LevelInfo, "partitions acquired"},
}

// These are said in place of the kind's own line where the operator must do something else about it.
var (
	// lineAcquiredEmpty is for partitions without state, unless the node has just started.
	lineAcquiredEmpty = eventLine{slog.LevelWarn, "partitions acquired without state, their keys start with a full burst"}
	// lineSuspect is for a link that is open and silent. It may be so many times a second on a busy machine; one that stays
	// silent is closed, and that is logged.
	lineSuspect = eventLine{slog.LevelDebug, "member does not answer for the moment"}
	// lineAnswers is for a link that was silent.
	lineAnswers = eventLine{slog.LevelDebug, "member answers again"}
)

// linkLine is what a limiter of lines is for: a member's link that went up, or down.
type linkLine struct {
	kind   EventKind
	member string
}

// maxLinkLines bounds how many of them a node keeps apart.
const maxLinkLines = 1024

// write logs an event. A link that goes up and down all the time is one line of each kind in refusalInterval.
func (e *events) write(line eventLine, kind EventKind, member, detail string) {
	if e.log == nil {
		return
	}
	line = e.afterSilence(line, kind, member)
	var attributes []any
	if member != "" {
		attributes = append(attributes, slog.String("member", printable.Text(member)))
	}
	if detail != "" {
		attributes = append(attributes, slog.String("detail", printable.Text(detail)))
	}
	if line.level > slog.LevelDebug && (kind == EventLinkUp || kind == EventLinkDown) {
		e.linkLimit(linkLine{kind, member}).Log(line.level, line.text, attributes...)
		return
	}
	e.log.Log(context.Background(), line.level, line.text, attributes...)
}

// afterSilence returns line, or lineAnswers for a link that is up again after it was only silent.
func (e *events) afterSilence(line eventLine, kind EventKind, member string) eventLine {
	if kind != EventLinkUp && kind != EventLinkDown {
		return line
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	if kind == EventLinkUp && e.silent[member] {
		line = lineAnswers
	}
	delete(e.silent, member)
	if line == lineSuspect {
		e.silent[member] = true
	}
	return line
}

// linkLimit returns what limits a line about a member's link.
func (e *events) linkLimit(key linkLine) *seldom.Log {
	e.mu.Lock()
	defer e.mu.Unlock()
	limit := e.linkLines[key]
	if limit == nil {
		if len(e.linkLines) >= maxLinkLines {
			clear(e.linkLines)
		}
		limit = seldom.New(e.log)
		e.linkLines[key] = limit
	}
	return limit
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

// events hands events to the user's function, one at a time and in order, from a goroutine of its own, so that whoever
// notices something never waits for the user.
type events struct {
	receive func(Event)
	log     *slog.Logger // nil in tests only
	dropped atomic.Uint64

	// mu guards queue, closed and recent.
	mu        sync.Mutex
	queue     []Event
	closed    bool
	silent    map[string]bool          // members whose link was silent when it was last heard of, guarded by mu
	linkLines map[linkLine]*seldom.Log // what may be logged about a member's link, guarded by mu
	recent    []Event                  // the last maxRecentEvents, also when nobody receives them; the oldest first

	wake signal.Signal // capacity 1: there is something in the queue, or it was closed
	done chan struct{} // closed when the goroutine has ended
}

func startEvents(receive func(Event), log *slog.Logger) *events {
	e := &events{receive: receive, log: log, linkLines: make(map[linkLine]*seldom.Log), silent: make(map[string]bool), wake: signal.New(), done: make(chan struct{})}
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
