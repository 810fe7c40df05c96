package store

import (
	"math/bits"
	"runtime"
)

// Steps: what is done to many buckets of a partition is done to some at a time, so that a take of one
// of them waits for some tenths of a millisecond, however many there are. A caller that chooses the keys of a million buckets may
// have put all of them into one partition: which one a key belongs to is no secret.

const (
	// stepLooks bounds the buckets that are looked at in one step, and stepChanges those that are added, dropped or moved in
	// the order of eviction, which takes longer.
	stepLooks   = 512
	stepChanges = 64

	// StepCharges bounds the charges of one step, but for those of a single report.
	StepCharges = 128
)

// InSteps does something to a partition in steps, with its lock held in each of them and not in between. Others may do
// anything to the partition then: a step has to look anew whether it is still wanted.
func (t *Table) InSteps(part uint16, step func(p *Partition) (more bool)) {
	p := t.Lock(part)
	steps := 0
	for ; step(p); steps++ {
		if steps == 0 {
			t.inWork[part/64].Or(1 << (part % 64))
		}
		p.giveWay()
	}
	p.Unlock()
	if steps > 0 {
		t.inWork[part/64].And(^uint64(1 << (part % 64))) // should another goroutine be at it, too, somebody waits for a step
	}
}

// IsInWork reports whether something is being done to a partition in steps. A goroutine that answers one request after the other, also
// about other partitions, then does better than to wait for its lock.
func (t *Table) IsInWork(part uint16) bool { return t.inWork[part/64].Load()>>(part%64)&1 == 1 }

// giveWay lets goroutines pass that wait for p.mu, which the caller holds before and after it.
func (p *Partition) giveWay() {
	p.Unlock()
	runtime.Gosched()
	p.mu.Lock()
}

// underway is what is being done to a partition, or has yet to be.
type underway struct {
	// What is left to do when the buckets of the partition were replaced by others, all at once. The table's count of keys is
	// that of the new ones already; its order of eviction still has the old ones, and not the new ones yet.
	old   []buckets // dropped
	gone  uint32    // where in the first of them to go on
	place bool      // there are some in the partition that are not in the order
	next  uint32    // where to go on

	// stale are buckets that still seem to be listed in dirty, and are not; see forgetChanges.
	stale []*bucket

	// arriving is a replica that comes in pieces, until the last one is there; nil when there is none.
	arriving *arriving

	// storing is whose changes are being stored; nil when none are.
	storing *storesNext
}

// start returns what is under way, which the partition has from now on. The caller holds p.mu.
func (p *Partition) start() *underway {
	if p.underway == nil {
		p.underway = new(underway)
	}
	return p.underway
}

// ended notes that something is not under way any more. The caller holds p.mu.
func (p *Partition) ended() {
	if u := p.underway; len(u.old) == 0 && !u.place && u.stale == nil && u.arriving == nil && u.storing == nil {
		p.underway = nil
	}
}

// exchange makes others the buckets of a partition. The rest is done by the sweeper, so that nobody waits for it. The caller
// holds p.mu.
func (t *Table) exchange(p *Partition, others buckets) {
	u := p.start()
	if p.buckets.used > 0 {
		u.old = append(u.old, p.buckets)
	}
	t.keys.Add(int64(others.used) - int64(p.buckets.used))
	p.buckets = others
	u.place, u.next = others.used > 0, 0
	p.dirty, u.stale, p.Holding.Unlisted = nil, nil, false // the new ones are not in them
	u.storing = nil
	if p.ended(); p.underway != nil {
		t.untidy[p.number/64].Or(1 << (p.number % 64))
		t.wakeSweeper.Send()
	}
}

// tidyAll does what is left to do in all partitions.
func (t *Table) tidyAll(clock func() int64) {
	for i := range t.untidy {
		for word := t.untidy[i].Swap(0); word != 0; word &= word - 1 {
			t.tidy(uint16(64*i+bits.TrailingZeros64(word)), clock())
		}
	}
}

// tidy does what is left to do since the buckets of a partition were replaced.
func (t *Table) tidy(part uint16, now int64) {
	t.InSteps(part, func(p *Partition) (more bool) { return t.tidyUp(p, now) })
}

// tidyUp is a step of tidy, and reports whether there is more to do. The caller holds p.mu.
func (t *Table) tidyUp(p *Partition, now int64) (more bool) {
	u := p.underway
	if u == nil {
		return false
	}
	var room [stepChanges]slot
	some := room[:0]
	collect := func(hash uint64, b *bucket) bool {
		if len(some) == stepChanges {
			return false
		}
		some = append(some, slot{hash, b})
		return true
	}
	switch {
	case len(u.old) > 0:
		if u.gone = u.old[0].inOrder(u.gone, collect); u.gone == 0 {
			u.old[0] = buckets{}
			u.old = u.old[1:]
		}
		for _, dropped := range some {
			t.forget(dropped.bucket)
		}
	case u.place:
		u.next = p.buckets.inOrder(u.next, collect)
		u.place = u.next != 0
		for _, added := range some {
			t.admitLate(p, added.bucket, now)
		}
	}
	more = len(u.old) > 0 || u.place
	p.ended()
	return more
}
