package sim

import (
	"sync"
	"time"
)

// A deadline ends the waits of one direction of a socket. Guarded by the
// network's lock.
type deadline struct {
	clock *schedule
	set   bool
	at    time.Duration
	due   event
}

// init makes the deadline wake waiters when it passes.
func (d *deadline) init(clock *schedule, waiters *sync.Cond) {
	d.clock = clock
	d.due.fire = waiters.Broadcast
}

// reset changes the deadline; the zero time removes it. One in the past wakes
// waiters as soon as the clock runs.
func (d *deadline) reset(t time.Time) {
	d.set = !t.IsZero()
	if !d.set {
		d.clock.cancel(&d.due)
		return
	}
	d.at = max(0, t.Sub(d.clock.base))
	d.clock.set(&d.due, d.at)
}

// passed reports whether calls must fail with os.ErrDeadlineExceeded.
func (d *deadline) passed() bool { return d.set && d.clock.now() >= d.at }
