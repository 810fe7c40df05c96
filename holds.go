package peerlimit

import "sync/atomic"

// holds counts, in tests, the buckets that are gone over while a partition's lock is held. What is done to one bucket,
// as by a take, counts only what it moves of others.
var holds holdProbe

// holdProbe is off unless a test has turned it on.
type holdProbe struct {
	on            atomic.Bool
	now, greatest atomic.Int64
}

// touch counts buckets that are gone over.
func (p *holdProbe) touch(n int) {
	if p.on.Load() {
		p.greatest.Store(max(p.greatest.Load(), p.now.Add(int64(n))))
	}
}

// released notes that the lock was.
func (p *holdProbe) released() {
	if p.on.Load() {
		p.now.Store(0)
	}
}
