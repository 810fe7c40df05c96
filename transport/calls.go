package transport

import "math"

// call is one caller waiting for its response. Calls are reused through a pool
// that belongs to one client.
//
// Invariant: the goroutine that removes a call from its table, and no other, sets answer
// and err and sends on done exactly once; or the caller removes it itself and
// nothing is sent. So done is empty whenever the call is not registered.
type call struct {
	done     chan struct{} // capacity 1, so that completing never blocks
	id       uint32
	deadline int64  // nanoseconds on the client's clock
	answer   []byte // a copy; its memory is kept for the next call
	err      error
}

func newCall() any { return &call{done: make(chan struct{}, 1)} }

// complete hands the outcome to the caller, of answer a copy. Only the one that
// took the call out of the table may call it, and not while holding a lock.
func (c *call) complete(answer []byte, err error) {
	c.answer, c.err = append(c.answer[:0], answer...), err
	c.done <- struct{}{}
}

// keptRoom is the largest room for a response that is kept for the next call:
// enough for any take, and little for tens of thousands of calls.
const keptRoom = 256

// forget makes a call that is over ready for the next.
func (c *call) forget() {
	c.err = nil
	if c.answer = c.answer[:0]; cap(c.answer) > keptRoom {
		c.answer = nil
	}
}

const (
	firstTableSize = 64
	never          = math.MaxInt64 // a time that does not come
)

// callTable finds calls in flight by id. Ids count up and the slot is the id
// modulo a power of two, at most half full: finding is one index, and a response
// that comes after its call was given up meets another id in the slot. An id
// comes back after four billion calls on one connection, more than an hour at a
// million a second. Not safe for concurrent use.
type callTable struct {
	slots    []*call // the call with id i can only be at i mod len(slots)
	count    int
	lastID   uint32
	earliest int64 // no call in the table has an earlier deadline
}

func newCallTable() callTable {
	return callTable{slots: make([]*call, firstTableSize), earliest: never}
}

// add gives c an id that no call in flight has.
func (t *callTable) add(c *call) {
	if 2*(t.count+1) > len(t.slots) {
		t.grow()
	}
	mask := uint32(len(t.slots) - 1)
	for {
		t.lastID++
		if slot := &t.slots[t.lastID&mask]; *slot == nil {
			*slot = c
			break
		}
	}
	c.id = t.lastID
	t.count++
	t.earliest = min(t.earliest, c.deadline)
}

// grow doubles the table. Calls in different slots stay in different slots.
func (t *callTable) grow() {
	old := t.slots
	t.slots = make([]*call, 2*len(old))
	mask := uint32(len(t.slots) - 1)
	for _, c := range old {
		if c != nil {
			t.slots[c.id&mask] = c
		}
	}
}

// take removes and returns the call with the given id, or returns nil.
func (t *callTable) take(id uint32) *call {
	slot := &t.slots[id&uint32(len(t.slots)-1)]
	c := *slot
	if c == nil || c.id != id {
		return nil
	}
	*slot = nil
	t.count--
	return c
}

// takeExpired removes and returns the calls whose deadline is not after now.
func (t *callTable) takeExpired(now int64) []*call {
	if now < t.earliest {
		return nil
	}
	var expired []*call
	t.earliest = never
	for i, c := range t.slots {
		switch {
		case c == nil:
		case c.deadline <= now:
			t.slots[i] = nil
			t.count--
			expired = append(expired, c)
		default:
			t.earliest = min(t.earliest, c.deadline)
		}
	}
	return expired
}

// takeAll empties the table.
func (t *callTable) takeAll() []*call {
	return t.takeExpired(never)
}
