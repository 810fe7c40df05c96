package httplimit

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/peerlimit/peerlimit"
	"github.com/peerlimit/peerlimit/internal/crowd"
	"github.com/peerlimit/peerlimit/peerlimittest"
)

// Twice as many clients come as can be served, and hang up after a second on average: those that stay are served at the rate of the
// limit.
func TestACrowdThatHangsUpIsServedAtTheFullRate(t *testing.T) {
	limit := peerlimit.PerSecond(100).WithBurst(1)
	for _, nodes := range []int{1, 3} {
		for _, maxWait := range []time.Duration{time.Second, 30 * time.Second} {
			for _, hangUp := range []bool{true, false} {
				t.Run(fmt.Sprintf("%d nodes, MaxWait %v, hang up %v", nodes, maxWait, hangUp), func(t *testing.T) {
					synctest.Test(t, func(t *testing.T) {
						judge := peerlimittest.NewJudge(t, limit)
						var handlers []http.Handler
						for _, limiter := range peerlimittest.NewCluster(t, nodes).Limiters("api", limit) {
							handlers = append(handlers, limited(t, limiter, Options{Name: "api", MaxWait: maxWait}, http.HandlerFunc(noteServed)))
						}
						c := crowd.Crowd{Rate: 200, Patience: time.Second, Length: 30 * time.Second, HangUp: hangUp, Seed: 1}
						result := c.Run(t.Context(), func(ctx context.Context, i int) error {
							var served atomic.Bool
							r := httptest.NewRequestWithContext(context.WithValue(ctx, servedKey{}, &served), http.MethodGet, "/", nil)
							handlers[i%nodes].ServeHTTP(httptest.NewRecorder(), r)
							if !served.Load() {
								return errors.New("not served")
							}
							judge.AdmitBetween(time.Now().Add(-5*time.Millisecond), time.Now(), 1)
							return nil
						})
						t.Logf("%+v", result)
						judge.Held(t, 0)
						assert.GreaterOrEqual(t, result.PerSecond(), 98.0)
					})
				})
			}
		}
	}
}

type servedKey struct{}

func noteServed(_ http.ResponseWriter, r *http.Request) {
	r.Context().Value(servedKey{}).(*atomic.Bool).Store(true)
}

// A node that is cut off has a request wait for as long as it may; it is not denied at once because there is no share.
func TestWaitingWhileCutOff(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cluster := peerlimittest.NewCluster(t, 3)
		limiter, err := cluster.Node(0).Limiter("api", peerlimit.PerSecond(20).WithBurst(1))
		require.NoError(t, err)
		cluster.Isolate(0)
		time.Sleep(3 * time.Second)
		const maxWait = 2 * time.Second
		for k := range 6 {
			handler := limited(t, limiter, Options{
				Name: "api", MaxWait: maxWait, Key: func(*http.Request) (string, error) { return fmt.Sprint("key", k), nil },
			}, ok)
			if status, took := ask(t.Context(), handler); status != http.StatusOK {
				assert.Equal(t, http.StatusTooManyRequests, status)
				assert.GreaterOrEqual(t, took, maxWait, "key %d", k)
			}
		}
	})
}
