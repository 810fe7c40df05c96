package peerlimittest

import (
	"math"
	"testing"
	"time"

	"github.com/peerlimit/peerlimit"
	"github.com/peerlimit/peerlimit/internal/oracle"
)

// Judge says whether what was admitted of one key kept to a limit: whether in no window of any length w more than B + R·w
// tokens were, for a burst B and a rate R. It knows nothing of how peerlimit works, and shares nothing with it, so it is as
// good for another limiter. A key with several limits has a judge for each. Its methods are safe for concurrent use.
type Judge struct {
	oracle *oracle.Oracle
	limit  peerlimit.Limit
	began  time.Time
}

// NewJudge returns a judge for a limit. One that is not valid fails the test.
func NewJudge(t testing.TB, limit peerlimit.Limit) *Judge {
	t.Helper()
	if err := limit.Validate(); err != nil {
		t.Fatalf("peerlimittest: %v", err)
	}
	burst := limit.Burst
	if burst == 0 {
		burst = math.Max(limit.Tokens, 1)
	}
	return &Judge{
		oracle: oracle.New(oracle.Limit{Tokens: limit.Tokens, Period: limit.Period, Burst: burst}),
		limit:  limit, began: time.Now(),
	}
}

// Admit records that cost tokens were admitted by a call, or a request of your service, that began at start and has ended
// now. It was decided at some instant in between, so it counts in a window when the window has all of it.
func (j *Judge) Admit(start time.Time, cost float64) {
	j.oracle.Admit(oracle.Take{Start: start.Sub(j.began), End: time.Since(j.began), Cost: cost})
}

// Refund records that cost tokens were given back, by a call that began at start and has ended now. They may be admitted
// once more.
func (j *Judge) Refund(start time.Time, cost float64) {
	j.oracle.Refund(oracle.Take{Start: start.Sub(j.began), End: time.Since(j.began), Cost: cost})
}

// Admitted returns how many tokens were admitted in all, refunds taken off.
func (j *Judge) Admitted() float64 { return j.oracle.Report().Run.Admitted }

// Excess returns how many tokens more than B + R·w were admitted in the worst window; 0 when the limit was kept.
func (j *Judge) Excess() float64 { return max(0, j.oracle.Report().Excess) }

// Held fails the test when in some window more than extra tokens above B + R·w were admitted. What may be, after what fault,
// is in docs/guarantees.md; when nothing failed it is 0. That is with a relative rounding of a thousand-millionth.
func (j *Judge) Held(t testing.TB, extra float64) {
	t.Helper()
	if report := j.oracle.Report(); !report.Within(extra) {
		t.Errorf("peerlimittest: more was admitted than %v allows, and %v tokens: %v", j.limit, extra, report)
	}
}
