package peerlimit

import (
	"math"
	"time"
)

// Decisions without a bucket: what a node answers that has none, and what it can tell from another decision.

// unlimited is what a node answers that does not limit: all that the first limit can hold is there.
func (set *limitSet) unlimited() coreDecision {
	return coreDecision{Allowed: true, Limit: set.limits[0], Remaining: set.meters[0].burst}
}

// refusal is what a node answers that has nothing to give out. It does not know when there will be something; the time in which the
// limit earns the cost is when it is worth asking again.
func (set *limitSet) refusal(cost float64) coreDecision {
	d := coreDecision{RetryAfter: time.Millisecond}
	d.Limit = set.limits[0]
	for i := range set.meters[:set.active] {
		m := &set.meters[i]
		if retry := m.nanos(math.Max(cost, math.Min(1, m.burst))); retry > d.RetryAfter {
			d.RetryAfter, d.Limit = retry, set.limits[i]
		}
		d.ResetAfter = max(d.ResetAfter, m.nanos(m.burst))
	}
	return d
}

// waitFor returns how long it takes until cost can be had, by what a peek has told: it asked for one token.
func waitFor(cost float64, peeked *coreDecision) time.Duration {
	m := newMeter(peeked.Limit)
	if peeked.Allowed {
		return m.nanos(cost - peeked.Remaining)
	}
	asked := min(1, m.burst)
	return addNanos(peeked.RetryAfter, m.nanos(cost-asked)) - m.nanos(asked-cost)
}
