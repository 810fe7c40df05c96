package httplimit

import (
	"context"
	"net/http"
	"net/http/httptest"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/peerlimit/peerlimit"
	"github.com/peerlimit/peerlimit/peerlimittest"
)

// ask asks a handler and returns the status and how long it took.
func ask(ctx context.Context, handler http.Handler) (status int, took time.Duration) {
	began := time.Now()
	w := httptest.NewRecorder()
	handler.ServeHTTP(w, httptest.NewRequestWithContext(ctx, http.MethodGet, "/", nil))
	return w.Code, time.Since(began)
}

// takers are what a middleware can wait with: one that reserves turns and one that has to be asked again.
func takers(t *testing.T, limit peerlimit.Limit) map[string]Taker {
	limiter, err := peerlimittest.NewNode(t).Limiter("api", limit)
	require.NoError(t, err)
	return map[string]Taker{"reserves": limiter, "polls": bucket(t, limit)}
}

func TestWaitingForTokens(t *testing.T) {
	for _, name := range []string{"reserves", "polls"} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				handler := limited(t, takers(t, peerlimit.PerMinute(6).WithBurst(2))[name], Options{Name: "api", MaxWait: 25 * time.Second}, ok)
				var mu sync.Mutex
				answers := make(map[time.Duration]int)
				var clients sync.WaitGroup
				for range 6 {
					clients.Go(func() {
						status, took := ask(t.Context(), handler)
						mu.Lock()
						defer mu.Unlock()
						switch took {
						case 0, 10 * time.Second, 20 * time.Second:
						default:
							t.Errorf("%d after %v", status, took)
						}
						answers[took] += status
					})
				}
				clients.Wait()
				if name == "reserves" { // those that would wait too long are told immediately
					assert.Equal(t, map[time.Duration]int{0: 200 + 200 + 429 + 429, 10 * time.Second: 200, 20 * time.Second: 200}, answers)
				} else { // they are told when the time is over
					assert.Equal(t, map[time.Duration]int{0: 200 + 200, 10 * time.Second: 200, 20 * time.Second: 200 + 429 + 429}, answers)
				}
			})
		})
	}
}

func TestAnAnswerAfterWaitingHasItsFields(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for name, taker := range takers(t, peerlimit.PerSecond(1).WithBurst(2)) {
			handler := limited(t, taker, Options{Name: "api", MaxWait: time.Second}, ok)
			for range 3 {
				w := get(handler)
				assert.Equal(t, http.StatusOK, w.Code, name)
				assert.Empty(t, w.Header().Get("Retry-After"), name)
				assert.Equal(t, `"api";q=1;w=1`, w.Header().Get("RateLimit-Policy"), name)
				assert.Contains(t, w.Header().Get("RateLimit"), `"api";r=`, name)
			}
		}
	})
}

// A client that hangs up while it waits is not served, and its turn is another's.
func TestHangingUpWhileWaiting(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for name, taker := range takers(t, peerlimit.PerMinute(1)) {
			served := 0
			handler := limited(t, taker, Options{Name: "api", MaxWait: time.Hour}, http.HandlerFunc(func(http.ResponseWriter, *http.Request) { served++ }))
			status, took := ask(t.Context(), handler)
			assert.Equal(t, http.StatusOK, status, name)
			assert.Zero(t, took, name)

			ctx, hangUp := context.WithCancel(t.Context())
			time.AfterFunc(10*time.Second, hangUp)
			status, took = ask(ctx, handler)
			assert.Equal(t, http.StatusServiceUnavailable, status, name)
			assert.Equal(t, 10*time.Second, took, name)
			assert.Equal(t, 1, served, name)

			status, took = ask(t.Context(), handler)
			assert.Equal(t, http.StatusOK, status, name)
			assert.InDelta(t, 50, took.Seconds(), 1e-6, name)
		}
	})
}

// A request whose own deadline is nearer than its turn is denied immediately.
func TestADeadlineBeforeTheTurn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for name, taker := range takers(t, peerlimit.PerMinute(1)) {
			handler := limited(t, taker, Options{Name: "api", MaxWait: time.Hour}, ok)
			_, _ = ask(t.Context(), handler)
			ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
			defer cancel()
			status, took := ask(ctx, handler)
			assert.Equal(t, http.StatusTooManyRequests, status, name)
			assert.Zero(t, took, name)
		}
	})
}

// The shortest wait is one, and not an error.
func TestAWaitThatIsOverBeforeTheQuestion(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		limiter, err := peerlimittest.NewNode(t).Limiter("api", peerlimit.PerMinute(1))
		require.NoError(t, err)
		handler := limited(t, slowly{limiter}, Options{Name: "api", MaxWait: 1}, ok)
		status, _ := ask(t.Context(), handler)
		assert.Equal(t, http.StatusOK, status)
		status, _ = ask(t.Context(), handler)
		assert.Equal(t, http.StatusTooManyRequests, status)
	})
}

// slowly is a limiter whose requests take a nanosecond and more.
type slowly struct{ *peerlimit.Limiter }

func (s slowly) Reserve(ctx context.Context, key string, cost float64) (*peerlimit.Reservation, error) {
	time.Sleep(2 * time.Nanosecond)
	return s.Limiter.Reserve(ctx, key, cost)
}

// A leaky bucket lets requests through one after the other, whether the middleware may wait or not.
func TestALeakyBucketIsWaitedFor(t *testing.T) {
	for _, wait := range []time.Duration{0, time.Minute} {
		synctest.Test(t, func(t *testing.T) {
			for name, taker := range takers(t, peerlimit.PerSecond(1).WithBurst(3).Leaky()) {
				handler := limited(t, taker, Options{Name: "api", MaxWait: wait}, ok)
				var mu sync.Mutex
				answers := make(map[time.Duration]int)
				var clients sync.WaitGroup
				for range 3 {
					clients.Go(func() {
						status, took := ask(t.Context(), handler)
						mu.Lock()
						defer mu.Unlock()
						answers[took] += status
					})
				}
				clients.Wait()
				assert.Equal(t, map[time.Duration]int{0: 200, time.Second: 200, 2 * time.Second: 200}, answers, "%s %v", name, wait)
			}
		})
	}
}

// A denial that does not say when to come back is not waited for.
func TestADenialThatSaysNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		handler := limited(t, answering(peerlimit.Decision{}), Options{Name: "api", MaxWait: time.Hour}, ok)
		w := get(handler)
		assert.Equal(t, http.StatusTooManyRequests, w.Code)
		assert.Equal(t, "1", w.Header().Get("Retry-After"))
		assert.Empty(t, w.Header().Get("RateLimit"))
	})
}
