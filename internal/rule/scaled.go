package rule

import (
	"math"

	"github.com/peerlimit/peerlimit/internal/limit"
)

// Share is the part of a rule's limits that one node may give out when it decides without the holder. The zero Share gives out
// nothing.
type Share struct {
	// Rate is the part of each rate, and of each burst that is worth a token or more at this part.
	Rate float64

	// All is the part of each burst that all members together may have. A burst that is worth less than a token at Rate is a token,
	// if there is as much at All.
	All float64
}

// hair is the relative rounding of a share: 49 times a 49th is less than 1.
const hair = 1e-9

// Divide returns the share of the rule's limits that one member gives out, and how many of the members have it: those that come
// first for a key. The others have nothing. granted is what the fallback policy grants to as many members as are sharing the
// share; it is above 0 and finite.
//
// A share of a small burst can be worth less than a token, which would let nothing through anywhere. Then only as many members
// as there are whole tokens have a share, and at least one, with a token each. Their rate is that of a share all the same: of a
// cluster that falls apart, m members that are cut off are to admit m/N of the rate, and all of them may be among the first.
func (r *Rule) Divide(granted float64, sharing, members int) (share Share, holders int) {
	if granted >= 1 {
		return Share{Rate: granted, All: granted}, members
	}
	all := granted / float64(sharing) * float64(members)
	share = Share{Rate: granted, All: all}
	smallest := r.Set.SmallestBurst() * (1 + hair)
	if smallest*granted >= 1 {
		return share, members
	}
	return share, max(1, int(min(smallest*all, float64(members))))
}

// burst returns what is given out of a burst.
func (s Share) burst(whole float64) float64 {
	return math.Max(math.Min(whole*s.All, math.Max(whole*s.Rate, 1)), math.SmallestNonzeroFloat64)
}

// Scaled returns the rule under a share. The last one is kept: shares change only when members do.
func (r *Rule) Scaled(share Share) *Rule {
	if last := r.lastScaled.Load(); last != nil && last.share == share {
		return last.rule
	}
	limits := make([]limit.Limit, len(r.Set.Limits))
	for i, l := range r.Set.Limits {
		limits[i] = l
		limits[i].Burst = share.burst(l.Capacity())
		limits[i].Tokens = math.Max(l.Tokens*share.Rate, limit.MinRate*float64(l.Period))
	}
	scaled := newRule(r.Name, limits, r.Encoded)
	r.lastScaled.Store(&scaledRule{share: share, rule: scaled})
	return scaled
}

// scaledRule is a rule under a share.
type scaledRule struct {
	share Share
	rule  *Rule
}
