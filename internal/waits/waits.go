package waits

import (
	"sync"

	"github.com/peerlimit/peerlimit/internal/wire"
)

// Waits are the callers of one node that wait. The zero value has none; it is safe for concurrent use.
type Waits struct {
	// mu guards the fields below, for a look-up or an update of them.
	mu       sync.Mutex
	count    uint64
	byNumber map[uint64]*Wait
}

// Wait is one caller that waits.
type Wait struct {
	Number uint64

	// Woken receives what the wait is told; of what nobody has received yet, a turn that has come and otherwise the last.
	Woken chan wire.Wake

	over bool // guarded by Waits.mu
}

// Begin enters a caller.
func (w *Waits) Begin() *Wait {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.byNumber == nil {
		w.byNumber = make(map[uint64]*Wait)
	}
	w.count++
	wait := &Wait{Number: w.count, Woken: make(chan wire.Wake, 1)}
	w.byNumber[wait.Number] = wait
	return wait
}

// End says that the caller waits no more. It returns the turn that it was given and has not received, if there is one.
func (w *Waits) End(wait *Wait) (last wire.Wake, granted bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if wait.over {
		return last, false
	}
	wait.over = true
	delete(w.byNumber, wait.Number)
	select {
	case last = <-wait.Woken:
		return last, last.Granted
	default:
		return last, false
	}
}

// Tell wakes a caller, and reports whether it still waits. One that was given a turn is told nothing else.
func (w *Waits) Tell(wake *wire.Wake) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	wait := w.byNumber[wake.Turn.Number]
	if wait == nil {
		return false
	}
	select {
	case wait.Woken <- *wake:
		return true
	default:
	}
	select { // it has not received what came before
	case before := <-wait.Woken:
		if before.Granted {
			wake = &before
		}
	default:
	}
	wait.Woken <- *wake // of capacity 1, and only Tell sends
	return true
}

// Len returns how many callers wait.
func (w *Waits) Len() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return len(w.byNumber)
}
