package striped

import (
	"math/bits"
	"sync/atomic"
	"time"
)

const (
	// firstBound is that of the shortest durations that are told apart. Each further bound is twice the one before.
	firstBound = 50 * time.Microsecond
	boundCount = 13 // up to 205 ms: two RPC timeouts
)

// Durations counts durations by their length. The zero value has counted none.
type Durations [stripes]struct {
	counts [boundCount + 1]atomic.Uint64
	sum    atomic.Int64
	_      [64]byte // the next one's first line is another one's last otherwise
}

// Add counts a duration.
func (d *Durations) Add(lasted time.Duration) {
	i := 0
	if lasted > firstBound {
		i = min(bits.Len64(uint64((lasted-1)/firstBound)), boundCount)
	}
	s := &d[stripe()%stripes]
	s.counts[i].Add(1)
	s.sum.Add(int64(lasted))
}

// Sums returns how many durations were counted up to each bound, inclusive, and above the one before; last of all those above all bounds; and the sum of all.
func (d *Durations) Sums() (bounds []time.Duration, counts []uint64, sum time.Duration) {
	counts = make([]uint64, boundCount+1)
	for i := range boundCount {
		bounds = append(bounds, firstBound<<i)
	}
	for s := range d {
		sum += time.Duration(d[s].sum.Load())
		for i := range counts {
			counts[i] += d[s].counts[i].Load()
		}
	}
	return bounds, counts, sum
}
