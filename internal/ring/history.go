package ring

import (
	"sync/atomic"
	"time"
)

// History remembers the previous owners while one ring follows another: a previous owner probably still holds. It is safe for
// concurrent use, but for Note, which one goroutine calls at a time.
type History struct {
	self string
	now  func() int64

	// previous names, for each partition whose owner has changed, the previous owner: until the new one has acquired it,
	// most probably that one holds. ringSince is when owners changed last. Both are written by Note and read by all;
	// previous is cleared where this node begins to hold.
	previous  [Partitions]atomic.Pointer[string]
	ringSince atomic.Int64

	// before is the ring before the last change: a new standby may not have a replica yet, which the one before has.
	before atomic.Pointer[Ring]
}

// previousMemory is how long after a change of the ring the previous owner of a partition is worth asking.
const previousMemory = 5 * time.Second

// NewHistory returns the history of a node of that name that has seen no change. now returns nanoseconds of its monotonic clock.
func NewHistory(self string, now func() int64) *History { return &History{self: self, now: now} }

// PreviousOwner returns the other node that owned a partition before, or "". While one ring follows another, what is noted
// may already be of the next: there it is this node that owned before, which must not ask itself and wait for the answer.
func (h *History) PreviousOwner(part uint16) string {
	if name := h.previous[part].Load(); name != nil && *name != h.self {
		return *name
	}
	return ""
}

// Note remembers the owners, on the ring before, of what a new ring gives to others. A node that joins had none before:
// there it is the member that would own without it.
func (h *History) Note(old, next *Ring, holdsAny bool) {
	self := h.self
	if joining := len(old.Members()) <= 1 && !holdsAny; joining {
		old = next.Without(self)
	}
	names := old.Members()
	for part := range uint16(Partitions) {
		if i := old.OwnerIndex(part); i >= 0 && names[i] != next.Owner(part) {
			h.previous[part].Store(&names[i]) // names never change
		}
	}
	h.before.Store(old)
	h.ringSince.Store(h.now())
}

// Before returns the ring before the last change, if that was a moment ago, or nil.
func (h *History) Before() *Ring {
	if h.now()-h.ringSince.Load() < int64(previousMemory) {
		return h.before.Load()
	}
	return nil
}

// Acquired forgets the previous owner of a partition: this node holds it, and takes are not to be passed on to that one once it has
// been given away again.
func (h *History) Acquired(part uint16) { h.previous[part].Store(nil) }
