package peerlimit_test

import (
	"context"
	"fmt"
	"math"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/peerlimit/peerlimit"
	"github.com/peerlimit/peerlimit/internal/onecore"
	"github.com/peerlimit/peerlimit/internal/oracle"
	"github.com/peerlimit/peerlimit/peerlimittest"
)

// What tests of whole clusters, from the outside, have in common.

// judge returns an oracle for a limit.
func judge(l peerlimit.Limit) *oracle.Oracle {
	return oracle.New(oracle.Limit{Tokens: l.Tokens, Period: l.Period, Burst: burstOf(l)})
}

func burstOf(l peerlimit.Limit) float64 {
	if l.Burst == 0 {
		return math.Max(l.Tokens, 1)
	}
	return l.Burst
}

// sizes returns those of the given numbers of nodes that are worth their time.
func sizes(all ...int) []int {
	return slices.DeleteFunc(all, func(size int) bool { return onecore.RaceDetector && size > 3 })
}

// saturate takes single tokens of key through every limiter, each from callers goroutines that try every pause, for as
// long as it says, and tells judge of what was admitted. It returns the number of takes that failed.
func saturate(t *testing.T, o *oracle.Oracle, began time.Time, limiters []*peerlimit.Limiter, key string, callers int, pause, duration time.Duration) {
	t.Helper()
	ctx := context.Background()
	end := time.Now().Add(duration)
	var wg sync.WaitGroup
	for _, l := range limiters {
		for range callers {
			wg.Go(func() {
				for time.Now().Before(end) {
					start := time.Since(began)
					d, err := l.Take(ctx, key, 1)
					if assert.NoError(t, err) && d.Allowed {
						o.Admit(oracle.Take{Start: start, End: time.Since(began), Cost: 1})
					}
					time.Sleep(pause)
				}
			})
		}
	}
	wg.Wait()
}

// requireHeld fails when more was admitted than the limit allows in some window, and extra tokens.
func requireHeld(t *testing.T, o *oracle.Oracle, extra float64) oracle.Report {
	t.Helper()
	report := o.Report()
	require.True(t, report.Within(extra), "over-admitted: %v", report)
	return report
}

// keyOwnedBy returns a key that starts with prefix and is owned by the member of that name.
func keyOwnedBy(t *testing.T, l *peerlimit.Limiter, name, prefix string) string {
	t.Helper()
	for i := range 10_000 {
		if key := fmt.Sprintf("%s-%d", prefix, i); l.Owner(key).Name == name {
			return key
		}
	}
	t.Fatalf("no key of 10,000 is owned by %s", name)
	return ""
}

// ringChanges returns how often the nodes of a cluster have changed their rings.
func ringChanges(cluster *peerlimittest.Cluster) (changes uint64) {
	for _, node := range cluster.Nodes() {
		changes += node.Stats().RingChanges
	}
	return changes
}

// decidedAlone returns how many takes the nodes of a cluster have admitted by their shares.
func decidedAlone(cluster *peerlimittest.Cluster) (takes float64) {
	for _, node := range cluster.Nodes() {
		takes += float64(node.Stats().Limiters["api"].Allowed[peerlimit.OriginFallback])
	}
	return takes
}

// playedBySchedules skips a test of a cluster in controlled time that takes minutes with the race detector: internal/schedule plays
// the same code under it, with more of everything.
func playedBySchedules(t *testing.T) {
	t.Helper()
	if onecore.RaceDetector {
		t.Skip("the race detector makes it take minutes, and sees the same code in internal/schedule")
	}
}
