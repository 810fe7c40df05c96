package oracle

import (
	"cmp"
	"fmt"
	"slices"
	"time"
)

// Utilization judges the other way round: not whether too much was admitted but
// whether enough was. It returns what was admitted in [from, to] over what the
// ideal bucket had at from, plus R·w, plus what was refunded. With a bucket
// untouched before from this is Admitted / (B + R·w). It means something only
// when more than the limit was being asked for all through the window; 1 is
// perfect then, less means that callers were starved. The ideal bucket at from
// has seen the takes that had ended before. Takes that straddle an edge of the
// window count neither before it nor in it, to the limiter's disadvantage.
//
// It is +Inf when something was admitted and nothing allowed, and 0 when
// nothing was admitted. It panics when from is after to.
func (o *Oracle) Utilization(from, to time.Duration) float64 {
	if from > to {
		panic(fmt.Sprintf("oracle: window from %v to %v", from, to))
	}
	takes, refunds := o.snapshot()
	w := o.limit.window(takes, refunds, from, to)
	return ratio(w.Admitted, w.Allowed-o.limit.levelBefore(takes, refunds, from))
}

// levelBefore returns how many tokens are missing from the ideal bucket at an
// instant, more than Burst when too many were taken.
func (l Limit) levelBefore(takes, refunds []Take, instant time.Duration) float64 {
	changes := make([]Take, 0, len(takes)+len(refunds))
	changes = append(changes, takes...)
	for _, r := range refunds {
		r.Cost = -r.Cost
		changes = append(changes, r)
	}
	changes = slices.DeleteFunc(changes, func(t Take) bool { return t.End >= instant })
	slices.SortFunc(changes, func(a, b Take) int { return cmp.Compare(a.End, b.End) })
	if len(changes) == 0 {
		return 0
	}
	level, at := 0.0, changes[0].End
	for _, t := range changes {
		// What a refund had left below 0, for a bucket that was full, goes here too.
		level = max(0, level-l.inflow(t.End-at))
		level += t.Cost
		at = t.End
	}
	return max(0, level-l.inflow(instant-at))
}
