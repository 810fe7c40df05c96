package iolimit

import (
	"context"
	"net"
	"os"
	"sync"
	"time"
)

// sleep returns after d, or with the interruption when ctx ends first.
func sleep(ctx context.Context, d time.Duration) error {
	if d <= 0 {
		return nil
	}
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return interruption(ctx)
	}
}

// interruption returns nil as long as ctx lasts, then why it ended: what this package gave as the cause, or ctx.Err().
func interruption(ctx context.Context) error {
	if ctx.Err() == nil {
		return nil
	}
	switch cause := context.Cause(ctx); cause {
	case ErrClosed, net.ErrClosed, os.ErrDeadlineExceeded:
		return cause
	}
	return ctx.Err()
}

// deadline is a context that ends at a time that can be changed, also after it has come.
type deadline struct {
	parent context.Context

	// mu guards the fields below, for a few instructions.
	mu     sync.Mutex
	ctx    context.Context
	cancel context.CancelCauseFunc
	timer  *time.Timer // ends ctx; nil when there is no deadline
}

// newDeadline returns a deadline that never comes; its context ends when parent does.
func newDeadline(parent context.Context) *deadline {
	d := &deadline{parent: parent}
	d.ctx, d.cancel = context.WithCancelCause(parent)
	return d
}

// context returns what ends at the deadline. It lasts for as long as the deadline is put off before it comes.
func (d *deadline) context() context.Context {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.ctx
}

// set changes the deadline. The zero time is never.
func (d *deadline) set(t time.Time) {
	d.mu.Lock()
	defer d.mu.Unlock()
	came := d.ctx.Err() != nil || d.timer != nil && !d.timer.Stop()
	d.timer = nil
	if came {
		d.cancel(os.ErrDeadlineExceeded) // the timer has done so, or is about to
		d.ctx, d.cancel = context.WithCancelCause(d.parent)
	}
	if t.IsZero() {
		return
	}
	cancel := d.cancel
	if wait := time.Until(t); wait > 0 {
		d.timer = time.AfterFunc(wait, func() { cancel(os.ErrDeadlineExceeded) })
	} else {
		cancel(os.ErrDeadlineExceeded)
	}
}

// stop releases the timer. The parent has ended.
func (d *deadline) stop() {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.timer != nil {
		d.timer.Stop()
	}
}
