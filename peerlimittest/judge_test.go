package peerlimittest_test

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/peerlimit/peerlimit"
	"github.com/peerlimit/peerlimit/peerlimittest"
)

// verdict is a test that is told of failures.
type verdict struct {
	testing.TB
	failed bool
}

func (v *verdict) Helper()               {}
func (v *verdict) Errorf(string, ...any) { v.failed = true }

func TestJudge(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		judge := peerlimittest.NewJudge(t, peerlimit.PerSecond(10).WithBurst(5))
		held := func(extra float64) bool {
			v := &verdict{TB: t}
			judge.Held(v, extra)
			return !v.failed
		}
		require.True(t, held(0))
		judge.Admit(time.Now(), 5)
		start := time.Now()
		time.Sleep(100 * time.Millisecond)
		judge.Admit(start, 1)
		require.True(t, held(0))
		require.Zero(t, judge.Excess())
		judge.Admit(time.Now(), 2)
		require.False(t, held(1.9))
		require.True(t, held(2))
		require.InDelta(t, 2, judge.Excess(), 1e-9)
		require.Equal(t, 8.0, judge.Admitted())
		judge.Refund(start, 2)
		require.True(t, held(0))
		require.Equal(t, 6.0, judge.Admitted())
	})
}

// What was recorded before is judged as what is seen happening, with the window that is worst.
func TestJudgeOfARecord(t *testing.T) {
	judge, err := peerlimittest.JudgeOf(peerlimit.PerSecond(10).WithBurst(5))
	require.NoError(t, err)
	require.Zero(t, judge.Worst())
	began := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	at := func(ms int) time.Time { return began.Add(time.Duration(ms) * time.Millisecond) }
	judge.AdmitBetween(at(0), at(50), 5)
	judge.AdmitBetween(at(1000), at(1000), 4)
	judge.AdmitBetween(at(1100), at(1200), 4)
	worst := judge.Worst()
	require.True(t, worst.From.Equal(at(1000)) && worst.To.Equal(at(1200)), "%v", worst)
	require.Equal(t, 8.0, worst.Admitted)
	require.InDelta(t, 7, worst.Allowed, 1e-9)
	require.InDelta(t, 1, worst.Excess(), 1e-9)

	lenient := judge.Clone()
	lenient.RefundBetween(at(1150), at(1300), 1)
	require.InDelta(t, 1, judge.Excess(), 1e-9, "it was not told")
	lenient.Held(t, 0)
	require.Equal(t, 1.0, lenient.Worst().Refunded)
	require.Equal(t, 13.0, judge.Admitted())
	require.Equal(t, 12.0, lenient.Admitted())
	lenient.AdmitBetween(at(1300), at(1300), 4)
	require.Equal(t, 13.0, judge.Admitted())
}

func TestJudgeDoesNotGuess(t *testing.T) {
	_, err := peerlimittest.JudgeOf(peerlimit.PerSecond(-1))
	require.ErrorIs(t, err, peerlimit.ErrInvalidLimit)
	require.ErrorContains(t, err, "Tokens is -1")
	judge := peerlimittest.NewJudge(t, peerlimit.PerSecond(1))
	now := time.Now()
	require.Panics(t, func() { judge.AdmitBetween(now, now.Add(-1), 1) })
	require.Panics(t, func() { judge.RefundBetween(now, now, -1) })
}

// A burst that is left out is what flows in in one period, as for limits.
func TestJudgeKnowsTheDefaultBurst(t *testing.T) {
	judge := peerlimittest.NewJudge(t, peerlimit.PerSecond(3))
	judge.Admit(time.Now(), 3)
	judge.Held(t, 0)
}
