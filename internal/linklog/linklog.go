// Package linklog writes what happens to links between members: each change at once where a link is calm, and one line a minute where it
// goes up and down all the time.
package linklog

import (
	"context"
	"log/slog"
	"sync"
	"time"

	"github.com/peerlimit/peerlimit/internal/printable"
	"github.com/peerlimit/peerlimit/internal/seldom"
	"github.com/peerlimit/peerlimit/internal/signal"
)

// State is what a link is found to be.
type State uint8

// The states of a link.
const (
	Up State = iota
	Silent
	Down
	states
)

// Line is what is logged: the level says what an operator must do.
type Line struct {
	Level slog.Level
	Text  string
}

// The lines of links. docs/operations.md lists them.
var (
	LineUp   = Line{slog.LevelInfo, "connected to member"}
	LineDown = Line{slog.LevelWarn, "cannot reach member, check its process, the takes port, Secret and versions"}

	// LineSilent is for a link that is open and silent. It may be so many times a second on a busy machine; one that stays silent
	// is closed, and that is LineDown.
	LineSilent = Line{slog.LevelDebug, "member does not answer for the moment"}

	// LineAnswers is for a link that was silent.
	LineAnswers = Line{slog.LevelDebug, "member answers again"}

	// LineFlaps stands for all changes of a link in a minute.
	LineFlaps = Line{slog.LevelWarn, "link to member goes up and down, check the network and that member's processor"}
)

const (
	// steady is for how long a link has to be the same before a change of it is news again.
	steady = 10 * time.Second

	// sweepInterval is how often it is looked for links that have become steady, while there are others.
	sweepInterval = time.Second

	// maxLinks bounds the links that are followed: those that changed in the last ten seconds. Over it the one that changed
	// longest ago counts as steady.
	maxLinks = 1024

	// maxQueued bounds the lines that wait for a slow logger.
	maxQueued = 1024
)

// Log writes lines about links. Change is safe for concurrent use, and never waits for the others that write.
type Log struct {
	log  *slog.Logger
	wake signal.Signal // there are links that are not steady

	mu      sync.Mutex // guards what follows, and is not held while anything is written
	links   map[string]*link
	queue   []entry
	writing bool // somebody writes the queue, and goes on until it is empty: so the lines are in the order of the changes
}

// link is a link that is not steady.
type link struct {
	state   State
	detail  string
	changed time.Time    // last
	told    time.Time    // when the last line was logged, or the link began to change
	said    [states]bool // what was logged since it was steady: that is not news again
	changes int          // since the last line
	unsaid  int          // of those, that would have been a line
	owed    bool         // the log does not end with the link's state
}

// entry is a line that is to be written.
type entry struct {
	Line
	member, detail string
	suppressed     int
}

// New returns a Log that has written nothing yet.
func New(log *slog.Logger) *Log {
	return &Log{log: log, wake: signal.New(), links: make(map[string]*link)}
}

// Change takes in that the link to a member is in a state. detail is for people.
func (l *Log) Change(member string, state State, detail string) {
	now := time.Now()
	l.mu.Lock()
	k := l.links[member]
	if k == nil {
		if len(l.links) >= maxLinks {
			l.endOldestLocked()
		}
		k = &link{told: now}
		l.links[member] = k
	}
	line := lineOf(state)
	if state == Up && k.state == Silent {
		line = LineAnswers
	}
	k.state, k.detail, k.changed = state, detail, now
	k.changes++
	if line.Level <= slog.LevelDebug {
		l.queueLocked(entry{line, member, detail, 0})
	} else {
		l.newsLocked(k, entry{line, member, detail, k.unsaid}, now)
	}
	l.mu.Unlock()
	l.write()
	l.wake.Send()
}

// newsLocked has a line logged, unless the log has said the same since the link was steady. Called with mu held.
func (l *Log) newsLocked(k *link, e entry, now time.Time) {
	if !k.said[k.state] && l.queueLocked(e) {
		k.said[k.state] = true
		k.told, k.changes, k.unsaid, k.owed = now, 0, 0, false
		return
	}
	k.unsaid++
	k.owed = true
	e.Level, e.suppressed = slog.LevelDebug, 0
	l.queueLocked(e)
}

// lineOf returns the line of a link that has come to a state and stays there.
func lineOf(state State) Line {
	switch state {
	case Up:
		return LineUp
	case Silent:
		return LineSilent
	}
	return LineDown
}

// Run says what links that go up and down have come to, until ctx ends.
func (l *Log) Run(ctx context.Context) {
	timer := time.NewTimer(sweepInterval)
	defer timer.Stop()
	for {
		select {
		case <-l.wake:
		case <-ctx.Done():
			return
		}
		for l.sweep(time.Now()) > 0 {
			timer.Reset(sweepInterval)
			select {
			case <-timer.C:
			case <-ctx.Done():
				return
			}
		}
	}
}

// sweep ends the links that have become steady, says of others that they change all the time, and returns how many are left.
func (l *Log) sweep(now time.Time) (left int) {
	l.mu.Lock()
	for member, k := range l.links {
		switch {
		case now.Sub(k.changed) >= steady:
			l.endLocked(member, k)
		case k.changes > 0 && now.Sub(k.told) >= seldom.Interval:
			if l.queueLocked(entry{LineFlaps, member, k.detail, k.changes}) {
				k.told, k.changes, k.unsaid, k.owed = now, 0, 0, true
			}
		}
	}
	left = len(l.links)
	l.mu.Unlock()
	l.write()
	return left
}

// endLocked follows a link no longer: a change of it is news. The log ends with its state. Called with mu held.
func (l *Log) endLocked(member string, k *link) {
	if k.owed {
		line := lineOf(k.state)
		if k.state == Silent {
			line = LineDown
		}
		if !l.queueLocked(entry{line, member, k.detail, k.unsaid}) {
			return // the logger is slow: the next sweep comes back to it
		}
	}
	delete(l.links, member)
}

// endOldestLocked makes room for another link. Called with mu held.
func (l *Log) endOldestLocked() {
	var oldest string
	var k *link
	for member, other := range l.links {
		if k == nil || other.changed.Before(k.changed) {
			oldest, k = member, other
		}
	}
	l.endLocked(oldest, k)
	delete(l.links, oldest)
}

// queueLocked has a line written, unless too many wait. Called with mu held.
func (l *Log) queueLocked(e entry) bool {
	if len(l.queue) >= maxQueued {
		return false
	}
	l.queue = append(l.queue, e)
	return true
}

// write writes what is queued, unless somebody else does.
func (l *Log) write() {
	l.mu.Lock()
	if l.writing {
		l.mu.Unlock()
		return
	}
	l.writing = true
	for len(l.queue) > 0 {
		queue := l.queue
		l.queue = nil
		l.mu.Unlock()
		for _, e := range queue {
			l.line(e)
		}
		l.mu.Lock()
	}
	l.writing = false
	l.mu.Unlock()
}

// line logs one line.
func (l *Log) line(e entry) {
	attributes := []any{slog.String("member", printable.Text(e.member))}
	if e.detail != "" {
		attributes = append(attributes, slog.String("detail", printable.Text(e.detail)))
	}
	if e.suppressed > 0 {
		attributes = append(attributes, slog.Int("suppressed", e.suppressed))
	}
	l.log.Log(context.Background(), e.Level, e.Text, attributes...)
}
