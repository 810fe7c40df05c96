package limit

import (
	"time"

	"github.com/peerlimit/peerlimit/internal/signal"
)

// Line is who waits at one bucket of this process. The goroutine of the first in it sleeps until its turn comes, gives the turns that
// have come by then, and wakes the one that is first after it. No other goroutine is needed.
//
// Whoever calls a method holds the lock of the bucket's state. The zero value is an empty line.
type Line struct {
	waits   uint64                   // how many have waited
	waiting map[uint64]signal.Signal // of those that do, by the number of the wait
}

// Len returns how many wait.
func (l *Line) Len() int { return len(l.waiting) }

// Join enters the line. woken is nil when nothing is to be waited for: the turn has come, or d is a denial, or the line is full.
func (l *Line) Join(s *State, a *Request, now int64) (turn *Turn, woken signal.Signal, d Decision) {
	l.Serve(s, now)
	l.waits++
	turn = &Turn{ID: TurnID{Number: l.waits}, Since: now}
	if d = s.Await(a, turn, now); !d.Allowed || turn.Granted {
		return turn, nil, d
	}
	woken = signal.New()
	if l.waiting == nil {
		l.waiting = make(map[uint64]signal.Signal)
	}
	l.waiting[turn.ID.Number] = woken
	return turn, woken, d
}

// Look gives the turns that have come, and tells one that waits whether its own has, whether it is the first, and when the
// first turn comes.
func (l *Line) Look(s *State, turn *Turn, now int64) (due time.Duration, first, granted bool) {
	if !turn.Granted {
		due = time.Duration(l.Serve(s, now) - now)
	}
	if turn.Granted {
		l.Wake(s, turn)
	}
	return due, s.FirstTurn() == turn.ID, turn.Granted
}

// Leave takes one that waits out of the line, and reports whether its turn has come even so.
func (l *Line) Leave(s *State, turn *Turn, now int64) (granted bool) {
	l.Serve(s, now)
	if !turn.Granted {
		s.LeaveTurn(turn.ID, 0, now)
		delete(l.waiting, turn.ID.Number)
	}
	l.Wake(s, turn)
	return turn.Granted
}

// Serve gives the turns that have come and returns when the next one does.
func (l *Line) Serve(s *State, now int64) (next int64) {
	granted, next := s.Serve(now)
	for _, turn := range granted {
		if woken := l.waiting[turn.ID.Number]; woken != nil {
			woken.Send()
			delete(l.waiting, turn.ID.Number)
		}
	}
	return next
}

// Wake has the first of the line look when its turn comes, unless that is the caller itself, which may be nil.
func (l *Line) Wake(s *State, self *Turn) {
	first := s.FirstTurn()
	if woken := l.waiting[first.Number]; woken != nil && (self == nil || first != self.ID) {
		woken.Send()
	}
}
