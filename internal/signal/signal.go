// Package signal wakes a goroutine without waiting for it.
package signal

// Signal tells one goroutine that there may be something to do. The goroutine receives from it and then looks for itself: any
// number of calls of Send before that are one. The zero value never tells anything; use New.
type Signal chan struct{}

// New returns a signal that has not been sent.
func New() Signal { return make(Signal, 1) }

// Send has the next receive return, or the one that waits. It never waits itself, so a lock may be held.
func (s Signal) Send() {
	select {
	case s <- struct{}{}:
	default: // sent and not yet received: the receiver is going to look anyway
	}
}
