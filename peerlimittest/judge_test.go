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
	})
}

// A burst that is left out is what flows in in one period, as for limits.
func TestJudgeKnowsTheDefaultBurst(t *testing.T) {
	judge := peerlimittest.NewJudge(t, peerlimit.PerSecond(3))
	judge.Admit(time.Now(), 3)
	judge.Held(t, 0)
}
