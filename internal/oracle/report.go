package oracle

import (
	"cmp"
	"fmt"
	"math"
	"slices"
)

// A Report says how a run kept to a limit. The zero Report is that of a run in
// which nothing was admitted.
type Report struct {
	Limit Limit
	Takes int // how many were admitted

	// Run is the whole run, from the start of the first take to the end of the
	// last, and Ratio what was admitted in it over what was allowed.
	Run   Window
	Ratio float64

	// Worst is the window with the greatest excess of all windows, and Excess
	// that excess in tokens, or 0 when no window has one. When none has, Worst
	// is the window that came nearest to it.
	Worst  Window
	Excess float64

	// MaxRate is the greatest rate of admission, in tokens a second, over any
	// window of one Period.
	MaxRate float64
}

// Report judges what was recorded so far by the oracle's limit. It takes
// O(n log n) time.
func (o *Oracle) Report() Report { return o.Against(o.limit) }

// Against judges what was recorded so far by another limit, for guarantees that
// are not plainly "the limit". It panics when the limit is out of range.
func (o *Oracle) Against(limit Limit) Report {
	limit.mustBeValid()
	takes, refunds := o.snapshot()
	report := Report{Limit: limit, Takes: len(takes)}
	if len(takes) == 0 {
		return report
	}
	first := slices.MinFunc(takes, func(a, b Take) int { return cmp.Compare(a.Start, b.Start) }).Start
	last := slices.MaxFunc(takes, func(a, b Take) int { return cmp.Compare(a.End, b.End) }).End
	report.Run = limit.window(takes, refunds, first, last)
	report.Ratio = ratio(report.Run.Admitted, report.Run.Allowed)
	report.Worst = limit.worst(takes, refunds)
	report.Excess = max(0, report.Worst.Excess())
	report.MaxRate = maxRate(takes, limit.Period)
	return report
}

// Within reports whether no window has more than extra tokens too many, apart
// from [Tolerance] times what the guarantee allows in the worst window.
func (r Report) Within(extra float64) bool {
	return r.Excess <= extra+Tolerance*(r.Worst.Allowed+extra)
}

// String describes the run in one line, for a failed test.
func (r Report) String() string {
	return fmt.Sprintf("%d takes admitted %.6g of %.6g tokens (%.4f); worst window %v–%v: %.6g of %.6g, excess %.6g",
		r.Takes, r.Run.Admitted, r.Run.Allowed, r.Ratio,
		r.Worst.From, r.Worst.To, r.Worst.Admitted, r.Worst.Allowed, r.Excess)
}

// ratio is admitted over allowed, for amounts that may be 0.
func ratio(admitted, allowed float64) float64 {
	switch {
	case admitted == 0:
		return 0
	case allowed <= 0:
		return math.Inf(1)
	}
	return admitted / allowed
}
