package oracle

import (
	"cmp"
	"fmt"
	"slices"
	"time"
)

// maxRate returns the greatest rate in any window of the given length. Any such
// window can be moved back to the end of its last take without losing a take,
// so only windows that end at the end of a take need a look.
func maxRate(takes []Take, length time.Duration) float64 {
	starts := distinct(takes, func(t Take) time.Duration { return t.Start })
	takes = slices.Clone(takes)
	slices.SortFunc(takes, func(a, b Take) int { return cmp.Compare(a.End, b.End) })
	tree := newSuffixTree(len(starts))
	most := 0.0
	for _, t := range takes {
		tree.add(lastUpTo(starts, t.Start), t.Cost)
		// The first start that lies in the window; t.Start may lie before it.
		if from := lastUpTo(starts, t.End-length-1) + 1; from < len(starts) {
			most = max(most, tree.from(from))
		}
	}
	return most / length.Seconds()
}

// A Point is what was admitted and given back in one interval of a timeline.
type Point struct {
	At                 time.Duration // where the interval begins
	Admitted, Refunded float64       // by calls that ended in it
}

// maxPoints bounds a timeline: more is a mistake in the unit of the interval.
const maxPoints = 1 << 20

// Timeline returns what was admitted per interval, for charts: from the
// interval in which the first call ended to that in which the last did, those
// in which nothing happened included. Intervals begin at multiples of their
// length. It panics when the length is not positive or asks for more than a
// million points.
func (o *Oracle) Timeline(interval time.Duration) []Point {
	takes, refunds := o.snapshot()
	all := slices.Concat(takes, refunds)
	if interval <= 0 {
		panic(fmt.Sprintf("oracle: timeline in intervals of %v", interval))
	}
	if len(all) == 0 {
		return nil
	}
	byEnd := func(a, b Take) int { return cmp.Compare(a.End, b.End) }
	first := floor(slices.MinFunc(all, byEnd).End, interval)
	count := (slices.MaxFunc(all, byEnd).End-first)/interval + 1
	if count > maxPoints {
		panic(fmt.Sprintf("oracle: timeline of %d intervals of %v", count, interval))
	}
	points := make([]Point, count)
	for i := range points {
		points[i].At = first + time.Duration(i)*interval
	}
	for _, t := range takes {
		points[(t.End-first)/interval].Admitted += t.Cost
	}
	for _, t := range refunds {
		points[(t.End-first)/interval].Refunded += t.Cost
	}
	return points
}

// floor returns the greatest multiple of unit that is not above d, which may be
// negative.
func floor(d, unit time.Duration) time.Duration {
	return d - ((d%unit)+unit)%unit
}
