package iolimit_test

import (
	"context"
	"fmt"
	"io"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"

	"github.com/peerlimit/peerlimit"
	"github.com/peerlimit/peerlimit/internal/crowd"
	"github.com/peerlimit/peerlimit/iolimit"
	"github.com/peerlimit/peerlimit/peerlimittest"
)

// Twice as many transfers of a byte begin as can be served, and are broken off after a second on average: those that go on are
// served at the rate of the limit.
func TestACrowdThatHangsUpIsServedAtTheFullRate(t *testing.T) {
	limit := peerlimit.PerSecond(100).WithBurst(1)
	for _, nodes := range []int{1, 3} {
		for _, hangUp := range []bool{true, false} {
			t.Run(fmt.Sprintf("%d nodes, hang up %v", nodes, hangUp), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					judge := peerlimittest.NewJudge(t, limit)
					limiters := peerlimittest.NewCluster(t, nodes).Limiters("bytes", limit)
					c := crowd.Crowd{Rate: 200, Patience: time.Second, Length: 30 * time.Second, HangUp: hangUp, Seed: 1}
					result := c.Run(t.Context(), func(ctx context.Context, i int) error {
						w, err := iolimit.NewWriter(ctx, io.Discard, iolimit.Bandwidth{Taker: limiters[i%nodes], Key: "k"})
						if err != nil {
							return err
						}
						if _, err = w.Write([]byte{1}); err == nil {
							judge.AdmitBetween(time.Now().Add(-5*time.Millisecond), time.Now(), 1)
						}
						_ = w.Close()
						return err
					})
					t.Logf("%+v", result)
					judge.Held(t, 0)
					assert.GreaterOrEqual(t, result.PerSecond(), 98.0)
				})
			})
		}
	}
}
