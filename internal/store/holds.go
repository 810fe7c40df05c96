package store

import "sync/atomic"

// Probe counts, in tests, what is gone over while a partition's lock is held: buckets, each of which may have to be fetched
// from memory. What a take does to its own bucket does not count.
var Probe holdProbe

// holdProbe is off unless a test has turned it on.
type holdProbe struct {
	on            atomic.Bool
	now, greatest atomic.Int64
	onReleased    func() // set before on is
}

// movesPerBucket is how many slots are moved in the time that it takes to go over a bucket: they lie one after the other.
const movesPerBucket = 8

// Start counts until end, from zero.
func (p *holdProbe) Start() {
	p.now.Store(0)
	p.greatest.Store(0)
	p.on.Store(true)
}

func (p *holdProbe) End() { p.on.Store(false) }

// Most returns the most that was gone over under one hold, since start.
func (p *holdProbe) Most() int64 { return p.greatest.Load() }

// touch counts buckets that are gone over.
func (p *holdProbe) touch(n int) {
	if p.on.Load() {
		p.greatest.Store(max(p.greatest.Load(), p.now.Add(int64(n))))
	}
}

// move counts slots that are moved.
func (p *holdProbe) move(n int) { p.touch((n + movesPerBucket - 1) / movesPerBucket) }

// Released notes that the lock was.
func (p *holdProbe) Released() {
	if p.on.Load() {
		p.now.Store(0)
		if p.onReleased != nil {
			p.onReleased()
		}
	}
}
