// Package seldom logs what can happen as often as a peer likes: the first time at once, and then once in an interval, with how
// often it was not said.
package seldom

import (
	"context"
	"log/slog"
	"sync"
	"time"
)

// Interval is how often the log says that something happened again: a peer that floods a node must not flood its log.
const Interval = time.Minute

// Log writes warnings of one kind to a logger. It is safe for concurrent use.
type Log struct {
	log *slog.Logger

	mu     sync.Mutex // guards the fields below, and is not held while anything is written
	next   time.Time  // when the next one may be logged
	unsaid int        // since the last one that was
}

// New returns a Log that has written nothing yet.
func New(log *slog.Logger) *Log { return &Log{log: log} }

// Warn logs a warning, unless one was logged less than Interval ago: then it logs at debug level, and the next warning says
// as the attribute "suppressed" how many those were.
func (l *Log) Warn(message string, attributes ...any) { l.Log(slog.LevelWarn, message, attributes...) }

// Log is Warn at another level.
func (l *Log) Log(level slog.Level, message string, attributes ...any) {
	now := time.Now()
	l.mu.Lock()
	due := !now.Before(l.next)
	unsaid := l.unsaid
	if l.unsaid++; due {
		l.next, l.unsaid = now.Add(Interval), 0
	}
	l.mu.Unlock()
	if !due {
		l.log.Debug(message, attributes...)
		return
	}
	if unsaid > 0 {
		attributes = append(attributes, slog.Int("suppressed", unsaid))
	}
	l.log.Log(context.Background(), level, message, attributes...)
}
