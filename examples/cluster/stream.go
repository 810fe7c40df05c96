package main

import (
	"sync/atomic"
	"time"
)

// What the demo tells while it runs, to whatever shows it. An observer is called from one goroutine at a time.

// observer is shown a run: Began once, then Sampled and Happened in the order of time, and Judged in the end. When the
// limit is changed, which can be done on the page, what was before is judged as well.
type observer interface {
	Began(cast []castMember)
	Sampled(sample)
	Happened(event)
	Judged(verdict)
}

// castMember is a node process at the beginning.
type castMember struct {
	Name string
	PID  int
	URL  string
	Owns []string // keys
}

// sample is what happened since the one before.
type sample struct {
	At       time.Duration // its end, since the load began
	Interval time.Duration // its length
	Limit    float64       // what the limits of all keys together allow, per second
	counts
}

// counts of calls that were answered.
type counts struct {
	Offered  int
	Admitted int
	ByNode   map[string]int // admitted, by the node that was asked
	ByOrigin map[string]int // admitted, by origin
	ByKey    map[string]int // admitted
}

// minus returns what was counted since c was old, without what is zero.
func (c counts) minus(old counts) counts {
	return counts{
		Offered: c.Offered - old.Offered, Admitted: c.Admitted - old.Admitted,
		ByNode: difference(c.ByNode, old.ByNode), ByOrigin: difference(c.ByOrigin, old.ByOrigin), ByKey: difference(c.ByKey, old.ByKey),
	}
}

func difference(now, old map[string]int) map[string]int {
	d := make(map[string]int)
	for name, n := range now {
		if n > old[name] {
			d[name] = n - old[name]
		}
	}
	return d
}

// event is something that was done, or that the nodes noticed.
type event struct {
	At   time.Duration
	Done bool // by the demo; otherwise noticed
	Text string
}

// clock counts from the beginning of the load, on the monotonic clock; before, it stands at zero.
type clock struct{ began atomic.Pointer[time.Time] }

func (c *clock) start() {
	now := time.Now()
	c.began.Store(&now)
}

// of returns what the clock showed at a time that another process of this machine has told. When that was is taken from how long
// ago it is, so that the wall clock may be set in the course of a run.
func (c *clock) of(told time.Time) time.Duration {
	ago := max(0, time.Since(told))
	return max(0, c.elapsed()-ago)
}

func (c *clock) elapsed() time.Duration {
	if began := c.began.Load(); began != nil {
		return time.Since(*began)
	}
	return 0
}
