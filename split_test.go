package peerlimit_test

import (
	"context"
	"fmt"
	"math"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"

	"github.com/peerlimit/peerlimit"
	"github.com/peerlimit/peerlimit/internal/onecore"
	"github.com/peerlimit/peerlimit/internal/oracle"
	"github.com/peerlimit/peerlimit/peerlimittest"
)

// wholeTokens is what n members of which apart are cut off may give out beyond (B + R·w)(1 + apart/n) where the burst is smaller
// than the cluster: a share holds a token or nothing, and a token is more than B/n.
func wholeTokens(burst float64, n, apart int) float64 {
	if burst >= float64(n) {
		return 0
	}
	holders := math.Min(float64(apart), math.Max(1, math.Floor(burst)))
	return holders * (math.Min(burst, 1) - burst/float64(n))
}

// splitKey is a key that is asked for during a split, and what judges it.
type splitKey struct {
	name     string
	limiters []*peerlimit.Limiter
	limit    peerlimit.Limit
	oracle   *oracle.Oracle
	cost     float64
}

// A few members are cut off, each from all others or together: all together admit no more than the table of guarantees says,
// whatever the burst, in every window, of keys that are saturated and then left alone until they are full again.
func TestASplitAdmitsNoMoreThanItMayWithAnyBurst(t *testing.T) {
	playedBySchedules(t)
	for _, c := range []struct{ n, apart int }{{3, 1}, {4, 1}, {5, 1}, {5, 2}, {7, 2}, {7, 3}} {
		for _, together := range []bool{true, false} {
			if together && c.apart == 1 || onecore.RaceDetector && c.n > 3 {
				continue
			}
			t.Run(fmt.Sprintf("%d of %d, together %v", c.apart, c.n, together), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) { splitWithAnyBurst(t, c.n, c.apart, together) })
			})
		}
	}
}

func splitWithAnyBurst(t *testing.T, n, apart int, together bool) {
	cluster := peerlimittest.NewCluster(t, n)
	size := float64(n)
	var keys []splitKey
	for _, burst := range []float64{0.5, 1, 1.5, 2, 3, size - 0.5, size, 2 * size} {
		limit := peerlimit.PerSecond(20).WithBurst(burst).WithMinCost(math.Min(1, burst))
		limiters := cluster.Limiters(fmt.Sprint("burst-", burst), limit)
		for i := range 4 {
			allowed := oracle.Limit{Tokens: limit.Tokens, Period: limit.Period, Burst: burst}.Times(1 + float64(apart)/size)
			keys = append(keys, splitKey{fmt.Sprint("key", i), limiters, limit, oracle.New(allowed), math.Min(1, burst)})
		}
	}
	var rest []int
	for i := apart; i < n; i++ {
		rest = append(rest, i)
	}
	groups := [][]int{rest}
	for i := range apart {
		if together && i > 0 {
			groups[1] = append(groups[1], i)
		} else {
			groups = append(groups, []int{i})
		}
	}
	cluster.Split(groups...)
	time.Sleep(3 * time.Second)
	began := time.Now()
	for range 2 {
		saturateSides(t, keys, slices.Concat(groups[1:]...), apart, began, 5*time.Second)
		time.Sleep(time.Duration(2*size*size/20) * time.Second) // a share of the longest takes that long to be full again
	}
	for _, k := range keys {
		report := k.oracle.Report()
		assert.True(t, report.Within(wholeTokens(k.limit.Burst, n, apart)), "%s of %v: %v", k.name, k.limit, report)
	}
}

// saturateSides takes from every key on the members that are apart and on two of the others, as fast as it is earned and faster.
func saturateSides(t *testing.T, keys []splitKey, apart []int, other int, began time.Time, lasts time.Duration) {
	var callers sync.WaitGroup
	defer callers.Wait()
	end := time.Now().Add(lasts)
	for _, i := range append(apart, other, other+1) {
		callers.Go(func() {
			for time.Now().Before(end) {
				for _, k := range keys {
					start := time.Since(began)
					d, err := k.limiters[i].Take(context.Background(), k.name, k.cost)
					if assert.NoError(t, err) && d.Allowed {
						k.oracle.Admit(oracle.Take{Start: start, End: time.Since(began), Cost: k.cost})
					}
				}
				time.Sleep(15 * time.Millisecond)
			}
		})
	}
}
