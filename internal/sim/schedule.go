package sim

import (
	"container/heap"
	"sync"
	"time"
)

// An event is something that happens at an instant: an arrival, a
// retransmission, a deadline. The zero value with fire set is ready to use and
// may be scheduled again and again; it is in the queue at most once.
type event struct {
	at    time.Duration // since schedule.base
	order uint64        // first scheduled, first fired, among equal instants
	slot  int           // 1 + position in the queue; 0 when not in it
	fire  func()        // called with the network's lock held; must not block
}

// A schedule fires events in order of time with one timer, armed for the
// earliest. All its fields are guarded by the network's lock, and every method
// but run is called with it held.
type schedule struct {
	lock  *sync.Mutex
	base  time.Time
	queue eventQueue
	order uint64

	timer     *time.Timer   // nil until first armed
	armed     bool          // whether the timer is set for armedFor
	armedFor  time.Duration // since base
	firing    bool          // run is at work and will arm the timer when it is done
	callbacks int           // calls of run that are due, waiting for the lock or running
	finished  sync.Cond     // callbacks went down
	closed    bool
}

func (s *schedule) init(lock *sync.Mutex) {
	s.lock = lock
	s.base = time.Now()
	s.finished.L = lock
}

// now is the time since the network was made.
func (s *schedule) now() time.Duration { return time.Since(s.base) }

// set puts e into the queue for the instant at, or moves it there.
func (s *schedule) set(e *event, at time.Duration) {
	if s.closed {
		return
	}
	s.order++
	e.at, e.order = at, s.order
	if e.slot == 0 {
		heap.Push(&s.queue, e)
	} else {
		heap.Fix(&s.queue, e.slot-1)
	}
	s.arm()
}

// cancel takes e out of the queue, if it is there.
func (s *schedule) cancel(e *event) {
	if e.slot != 0 {
		heap.Remove(&s.queue, e.slot-1)
	}
}

// arm sets the timer for the earliest event unless it already fires by then.
// A timer that fires for a cancelled event finds nothing due, which is cheaper
// than resetting it at each cancel.
func (s *schedule) arm() {
	if s.firing || len(s.queue) == 0 {
		return
	}
	next := s.queue[0].at
	if s.armed && s.armedFor <= next {
		return
	}
	s.disarm()
	s.armed, s.armedFor = true, next
	s.callbacks++
	if wait := next - s.now(); s.timer == nil {
		s.timer = time.AfterFunc(wait, s.run)
	} else {
		s.timer.Reset(wait)
	}
}

// disarm stops the timer. A callback that has already left it runs all the
// same, finds what it finds, and stays counted until then.
func (s *schedule) disarm() {
	if s.timer != nil && s.timer.Stop() {
		s.callbacks--
	}
	s.armed = false
}

// run is the timer's callback.
func (s *schedule) run() {
	s.lock.Lock()
	defer s.lock.Unlock()
	s.armed, s.firing = false, true
	for now := s.now(); len(s.queue) > 0 && s.queue[0].at <= now; {
		heap.Pop(&s.queue).(*event).fire()
	}
	s.firing = false
	s.arm()
	s.callbacks--
	s.finished.Broadcast()
}

// close drops all events and returns when no callback is left.
func (s *schedule) close() {
	s.closed = true
	s.disarm()
	for _, e := range s.queue {
		e.slot = 0
	}
	s.queue = nil
	for s.callbacks > 0 {
		s.finished.Wait()
	}
}

// eventQueue implements heap.Interface.
type eventQueue []*event

func (q eventQueue) Len() int { return len(q) }

func (q eventQueue) Less(i, j int) bool {
	if q[i].at != q[j].at {
		return q[i].at < q[j].at
	}
	return q[i].order < q[j].order
}

func (q eventQueue) Swap(i, j int) {
	q[i], q[j] = q[j], q[i]
	q[i].slot, q[j].slot = i+1, j+1
}

func (q *eventQueue) Push(x any) {
	e := x.(*event)
	*q = append(*q, e)
	e.slot = len(*q)
}

func (q *eventQueue) Pop() any {
	last := len(*q) - 1
	e := (*q)[last]
	(*q)[last] = nil
	*q = (*q)[:last]
	e.slot = 0
	return e
}
