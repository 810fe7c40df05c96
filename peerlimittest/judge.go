package peerlimittest

import (
	"fmt"
	"math"
	"sync"
	"testing"
	"time"

	"github.com/peerlimit/peerlimit"
	"github.com/peerlimit/peerlimit/internal/oracle"
)

// Judge says whether what was admitted of one key kept to a limit: whether in no window of any length w more than B + R·w
// tokens were, for a burst B and a rate R. It knows nothing of how peerlimit works, and shares nothing with it, so it is as
// good for another limiter. A key with several limits has a judge for each. Its methods are safe for concurrent use.
type Judge struct {
	limit  peerlimit.Limit
	began  time.Time
	oracle *oracle.Oracle

	mu       sync.Mutex // guards refunded, which goes with the oracle's refunds
	refunded float64    // tokens
}

// NewJudge returns a judge for a limit. One that is not valid fails the test.
func NewJudge(t testing.TB, limit peerlimit.Limit) *Judge {
	t.Helper()
	j, err := JudgeOf(limit)
	if err != nil {
		t.Fatal(err)
	}
	return j
}

// JudgeOf is [NewJudge] for a program that is no test, such as one that judges what a cluster in production has admitted. A
// limit that is not valid is an error.
func JudgeOf(limit peerlimit.Limit) (*Judge, error) {
	if err := limit.Validate(); err != nil {
		return nil, fmt.Errorf("peerlimittest: %w", err)
	}
	burst := limit.Burst
	if burst == 0 {
		burst = math.Max(limit.Tokens, 1)
	}
	return &Judge{
		oracle: oracle.New(oracle.Limit{Tokens: limit.Tokens, Period: limit.Period, Burst: burst}),
		limit:  limit, began: time.Now(),
	}, nil
}

// Admit records that cost tokens were admitted by a call, or a request of your service, that began at start and has ended
// now. It was decided at some instant in between, so it counts in a window when the window has all of it.
func (j *Judge) Admit(start time.Time, cost float64) { j.AdmitBetween(start, time.Now(), cost) }

// AdmitBetween is Admit for a call that ended at end, for judging what was recorded before. It panics when end is before
// start, or cost is negative or not finite: a judge does not guess. All instants that a judge is told of are within 290
// years of when it was made; only their distances matter.
func (j *Judge) AdmitBetween(start, end time.Time, cost float64) {
	j.oracle.Admit(j.call(start, end, cost))
}

// Refund records that cost tokens were given back, by a call that began at start and has ended now. They may be admitted
// once more.
func (j *Judge) Refund(start time.Time, cost float64) { j.RefundBetween(start, time.Now(), cost) }

// RefundBetween is Refund for a call that ended at end, as [Judge.AdmitBetween] is Admit. It also tells a judge of what else
// a window may have more, one that touches the time from start to end: what is allowed for a fault, say.
func (j *Judge) RefundBetween(start, end time.Time, cost float64) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.oracle.Refund(j.call(start, end, cost))
	j.refunded += cost
}

func (j *Judge) call(start, end time.Time, cost float64) oracle.Take {
	return oracle.Take{Start: start.Sub(j.began), End: end.Sub(j.began), Cost: cost}
}

// Clone returns a judge that knows what this one knows, and from then on goes its own way.
func (j *Judge) Clone() *Judge {
	j.mu.Lock()
	defer j.mu.Unlock()
	return &Judge{limit: j.limit, began: j.began, oracle: j.oracle.Between(math.MinInt64, math.MaxInt64), refunded: j.refunded}
}

// Admitted returns how many tokens were admitted in all, refunds taken off.
func (j *Judge) Admitted() float64 {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.oracle.Report().Run.Admitted - j.refunded
}

// Window is a stretch of time, its edges included, and what a judge knows of it, in tokens.
type Window struct {
	From, To time.Time
	Admitted float64 // by calls all of which lies in it
	Refunded float64 // by calls that have an instant in common with it
	Allowed  float64 // B + R·w, and what was refunded
}

// Excess returns how many tokens more were admitted than allowed; it is negative when fewer were.
func (w Window) Excess() float64 { return w.Admitted - w.Allowed }

// Worst returns the window with the greatest excess, of all that there are; when none exceeds what is allowed, the one that
// came nearest to it. It is the zero Window when nothing was admitted. It takes O(n log n) time for n calls.
func (j *Judge) Worst() Window {
	report := j.oracle.Report()
	if report.Takes == 0 {
		return Window{}
	}
	w := report.Worst
	return Window{From: j.began.Add(w.From), To: j.began.Add(w.To), Admitted: w.Admitted, Refunded: w.Refunded, Allowed: w.Allowed}
}

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
