package schedule

import (
	"fmt"
	"time"

	"github.com/peerlimit/peerlimit"
	"github.com/peerlimit/peerlimit/internal/oracle"
)

// Tally sums up the runs of one family: the measured columns of docs/guarantees.md.
type Tally struct {
	runs, failed, keys int
	calls, alone       int           // calls made, and those that were decided by a share
	leased, remembered int           // that were decided by a lease, or by a denial before
	slowest            time.Duration // call, on a node that was not frozen

	exceeded   int     // keys that were given more than B + R·w
	mostExcess float64 // of those, in parts of B + R·w
	ofAllowed  float64 // and in parts of what the events of the run allow
	leastRate  float64 // of a saturated key, in parts of B + R·w, over the whole run
}

// Add takes in a run.
func (t *Tally) Add(r *Run) {
	t.runs++
	if len(r.wrong) > 0 {
		t.failed++
	}
	for _, c := range r.calls {
		t.calls++
		switch c.origin {
		case peerlimit.OriginFallback, peerlimit.OriginStandby:
			t.alone++
		case peerlimit.OriginLease:
			t.leased++
		case peerlimit.OriginDenialCache:
			t.remembered++
		}
		if !c.paused {
			t.slowest = max(t.slowest, c.end-c.start)
		}
	}
	for _, k := range r.keys {
		for i, o := range k.oracles {
			t.addKey(r, k, k.plan.limits[i], o.Report())
		}
	}
}

func (t *Tally) addKey(r *Run, k *keyRun, l peerlimit.Limit, report oracle.Report) {
	t.keys++
	if !report.Within(0) {
		t.exceeded++
		t.mostExcess = max(t.mostExcess, report.Excess/(report.Worst.Admitted-report.Excess))
		t.ofAllowed = max(t.ofAllowed, report.Excess/max(r.allowance(k, l), 0.01))
	}
	if k.plan.use == saturated && k.plan.limits[0] == l {
		if rate := report.Run.Admitted / grown(l, r.finished); t.leastRate == 0 || rate < t.leastRate {
			t.leastRate = rate
		}
	}
}

func (t *Tally) String() string {
	return fmt.Sprintf("%d runs, %d failed; %d keys: %d were given more than B + R·w, at most %.0f %% more and %.0f %% of what the "+
		"events allow; least admitted of a saturated key: %.1f %% of B + R·w; %d calls, %d by a share, %d by a lease, %d by a denial before, slowest %v",
		t.runs, t.failed, t.keys, t.exceeded, 100*t.mostExcess, 100*t.ofAllowed, 100*t.leastRate, t.calls, t.alone, t.leased, t.remembered,
		t.slowest.Round(time.Millisecond))
}
