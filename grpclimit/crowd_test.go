package grpclimit_test

import (
	"context"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"google.golang.org/grpc"

	"github.com/peerlimit/peerlimit"
	"github.com/peerlimit/peerlimit/grpclimit"
	"github.com/peerlimit/peerlimit/internal/crowd"
	"github.com/peerlimit/peerlimit/peerlimittest"
)

// Twice as many clients call as can be served, and hang up after a second on average: those that stay are served at the rate of the
// limit.
func TestACrowdThatHangsUpIsServedAtTheFullRate(t *testing.T) {
	limit := peerlimit.PerSecond(100).WithBurst(1)
	for _, nodes := range []int{1, 3} {
		for _, hangUp := range []bool{true, false} {
			t.Run(fmt.Sprintf("%d nodes, hang up %v", nodes, hangUp), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					judge := peerlimittest.NewJudge(t, limit)
					var limits []*grpclimit.Limit
					for _, limiter := range peerlimittest.NewCluster(t, nodes).Limiters("api", limit) {
						limits = append(limits, mustNew(t, limiter, grpclimit.Options{Key: oneKey, MaxWait: 30 * time.Second}))
					}
					c := crowd.Crowd{Rate: 200, Patience: time.Second, Length: 30 * time.Second, HangUp: hangUp, Seed: 1}
					result := c.Run(t.Context(), func(ctx context.Context, i int) error {
						_, err := limits[i%nodes].UnaryServer(ctx, nil, &grpc.UnaryServerInfo{FullMethod: sayMethod}, func(context.Context, any) (any, error) {
							judge.AdmitBetween(time.Now().Add(-5*time.Millisecond), time.Now(), 1)
							return nil, nil
						})
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
