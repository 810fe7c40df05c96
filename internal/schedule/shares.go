package schedule

import (
	"math"
	"slices"

	"github.com/peerlimit/peerlimit"
	"github.com/peerlimit/peerlimit/internal/oracle"
)

// Judging the shares of a clean split by the bound that the table of docs/guarantees.md promises, in every window of it. The
// allowance of a split covers the time around it as well, so it is large enough to hide shares that are too large.

// wholeTokens is what apart of n members may give out beyond apart/n of a key's limit: where a share of the burst is worth less
// than a token, those that come first for the key hold a whole one, or the burst where that is less.
func (k *keyRun) wholeTokens(l peerlimit.Limit, apart, n int) float64 {
	burst, smallest := burstOf(l), math.Inf(1)
	for _, other := range k.plan.limits {
		smallest = math.Min(smallest, burstOf(other))
	}
	if smallest >= float64(n) {
		return 0
	}
	holders := math.Min(float64(apart), math.Max(1, math.Floor(smallest)))
	return holders * math.Max(0, math.Min(burst, 1)-burst/float64(n))
}

// judgeSplit judges the takes of a key while the cluster was split, a majority and others, and nothing else went wrong: from when
// the old holder's quorum has lapsed, if it was on a smaller side.
func (r *Run) judgeSplit(e event, k *keyRun, l peerlimit.Limit) {
	if e.kind != split || !r.s.hasMajority(e) || r.s.foundsApart(e) || r.disturbed(e) {
		return
	}
	part, apart, n := r.s.parted(e)
	bound := oracle.New(oracle.Limit{Tokens: l.Tokens, Period: l.Period, Burst: burstOf(l)}.Times(1 + part))
	for _, c := range r.calls {
		if c.key == k && c.admitted && c.start >= e.at+quorumLasts+leaseTime && c.end <= e.end() {
			bound.Admit(oracle.Take{Start: c.start, End: c.end, Cost: c.cost})
		}
	}
	if report, extra := bound.Report(), k.wholeTokens(l, apart, n); !report.Within(extra) {
		r.saw("over the bound of a split", k, "%v (%v), %d of %d apart from %v to %v, whole tokens %.4g: %v",
			k, l, apart, n, e.at, e.end(), extra, report)
	}
}

// disturbed reports whether an event before or during a split still matters while that lasts. Nodes that join one of its sides are
// part of it.
func (r *Run) disturbed(e event) bool {
	return slices.ContainsFunc(r.happened, func(other event) bool {
		ofASide := other.kind == join && slices.ContainsFunc(e.sides, func(side []int) bool { return slices.Contains(side, other.node) })
		return !ofASide && other.at != e.at && other.at <= e.end() && other.end()+rejoin >= e.at
	})
}

// largestSide returns the most nodes of one side of a split that were there when it began.
func (s *Schedule) largestSide(e event) []int {
	sides := s.sidesAt(e, e.at)
	if len(sides) == 0 {
		return nil
	}
	return slices.MaxFunc(sides, func(a, b []int) int { return len(a) - len(b) })
}
