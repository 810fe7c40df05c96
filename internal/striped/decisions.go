package striped

import (
	"sync/atomic"

	"github.com/peerlimit/peerlimit/internal/limit"
)

// Decisions counts decisions by origin and outcome. The zero value has counted none.
type Decisions [stripes]struct {
	by [limit.OriginCount]struct{ denied, allowed atomic.Uint64 }
	_  [64]byte // the next one's first line is another one's last otherwise
}

// Add counts a decision. One of an origin that this version does not know is not counted.
func (c *Decisions) Add(d *limit.Decision) {
	if d.Origin >= limit.OriginCount {
		return
	}
	count := &c[stripe()%stripes].by[d.Origin]
	if d.Allowed {
		count.allowed.Add(1)
	} else {
		count.denied.Add(1)
	}
}

// Of returns how many decisions of an origin were counted.
func (c *Decisions) Of(origin limit.Origin) (allowed, denied uint64) {
	for i := range c {
		allowed += c[i].by[origin].allowed.Load()
		denied += c[i].by[origin].denied.Load()
	}
	return allowed, denied
}
