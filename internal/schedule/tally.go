package schedule

import (
	"fmt"
	"math"
	"time"

	"github.com/peerlimit/peerlimit"
	"github.com/peerlimit/peerlimit/internal/oracle"
)

// Tally sums up the runs of one family: the measured columns of docs/guarantees.md.
type Tally struct {
	runs, failed, keys int
	calls, alone       int           // calls made, and those that were decided by a share
	leased, remembered int           // that were decided by a lease, or by a denial before
	waited             int           // that had waited for their turn
	slowest            time.Duration // call that does not wait, on a node that was not frozen
	overtaken          time.Duration // the most by which one that waited was

	exceeded   int     // keys that were given more than B + R·w
	mostExcess float64 // of those, in parts of B + R·w
	ofAllowed  float64 // and in parts of what the events of the run allow
	leastRate  float64 // of a saturated key, in parts of B + R·w, over the whole run; with what may have been spent in vain
	leastCalm  float64 // the same while members change, in parts of R·w, in the time that is judged after an event
	calm       bool    // there was such a time
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
		if c.key.plan.use == waiting {
			t.waited++
		} else if !c.paused {
			t.slowest = max(t.slowest, c.end-c.start)
		}
	}
	t.overtaken = max(t.overtaken, r.outOfTurn)
	if least := r.leastCalm(); !math.IsInf(least, 1) && (!t.calm || least < t.leastCalm) {
		t.leastCalm, t.calm = least, true
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
	if r.asked(k) && k.plan.limits[0] == l {
		if rate := (report.Run.Admitted + r.spentInVain(k, 0, r.stopped)) / grown(l, r.stopped-r.loaded); t.leastRate == 0 || rate < t.leastRate {
			t.leastRate = rate
		}
	}
}

func (t *Tally) String() string {
	calm := ""
	if t.calm {
		calm = fmt.Sprintf("; from %v to %v after an event: %.1f %% of the limit", calmFrom, calmFrom+calmFor, 100*t.leastCalm)
	}
	return fmt.Sprintf("%d runs, %d failed; %d keys: %d were given more than B + R·w, at most %.0f %% more and %.0f %% of what the "+
		"events allow; least admitted of a saturated key: %.1f %% of B + R·w; %d calls, %d by a share, %d by a lease, %d by a denial before, %d after a wait, overtaken by %v, slowest %v%s",
		t.runs, t.failed, t.keys, t.exceeded, 100*t.mostExcess, 100*t.ofAllowed, 100*t.leastRate, t.calls, t.alone, t.leased, t.remembered,
		t.waited, t.overtaken.Round(time.Millisecond), t.slowest.Round(time.Millisecond), calm)
}
