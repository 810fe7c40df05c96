package limit

import (
	"math"
	"time"
)

// Decisions without a bucket: what a node answers that has none, and what it can tell from another decision.

// Unlimited is what a node answers that does not limit: all that the first limit can hold is there.
func (set *Set) Unlimited() Decision {
	return Decision{Allowed: true, Limit: set.Limits[0], Remaining: set.Meters[0].burst}
}

// Refusal is what a node answers that has nothing to give out. It does not know when there will be something; the time in which the
// limit earns the cost is when it is worth asking again.
func (set *Set) Refusal(cost float64) Decision {
	d := Decision{RetryAfter: time.Millisecond}
	d.Limit = set.Limits[0]
	for i := range set.Meters[:set.Active] {
		m := &set.Meters[i]
		if retry := m.nanos(math.Max(cost, math.Min(1, m.burst))); retry > d.RetryAfter {
			d.RetryAfter, d.Limit = retry, set.Limits[i]
		}
		d.ResetAfter = max(d.ResetAfter, m.nanos(m.burst))
	}
	return d
}

// WaitFor returns how long it takes until cost can be had, by what a peek has told: it asked for one token.
func WaitFor(cost float64, peeked *Decision) time.Duration {
	m := newMeter(peeked.Limit)
	if peeked.Allowed {
		return m.nanos(cost - peeked.Remaining)
	}
	asked := min(1, m.burst)
	return AddNanos(peeked.RetryAfter, m.nanos(cost-asked)) - m.nanos(asked-cost)
}
