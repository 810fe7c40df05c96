package main

import (
	"context"
	"net/http"
	"net/http/httptest"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/peerlimit/peerlimit"
	"github.com/peerlimit/peerlimit/peerlimittest"
)

const (
	allowedBody = `{"allowed":true,"ip":"192.0.2.1","message":"Request allowed"}`
	deniedBody  = `{"allowed":false,"ip":"192.0.2.1","message":"Rate limit exceeded"}`
)

func assertAllowed(t *testing.T, response *httptest.ResponseRecorder) {
	t.Helper()
	assert.Equal(t, http.StatusOK, response.Code)
	assert.Equal(t, allowedBody, response.Body.String())
	assert.Equal(t, "application/json", response.Header().Get("Content-Type"))
	assert.Empty(t, response.Header().Values("Retry-After"))
}

func assertDenied(t *testing.T, response *httptest.ResponseRecorder, retryAfter string) {
	t.Helper()
	assert.Equal(t, http.StatusTooManyRequests, response.Code)
	assert.Equal(t, deniedBody, response.Body.String())
	assert.Equal(t, "application/json", response.Header().Get("Content-Type"))
	assert.Equal(t, []string{retryAfter}, response.Header().Values("Retry-After"))
}

func TestTokenAllowsABurstAndThenTheRate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		node := simMember(t)
		handler := handlerOf(t, node, peerlimit.PerSecond(0.5).WithBurst(3))
		for range 3 {
			assertAllowed(t, get(t, handler, "/token"))
		}
		assertDenied(t, get(t, handler, "/token"), "2")
		time.Sleep(500 * time.Millisecond)
		assertDenied(t, get(t, handler, "/token"), "2") // of 1.5 s: rounded up
		time.Sleep(1500 * time.Millisecond)
		assertAllowed(t, get(t, handler, "/token"))
		assertDenied(t, get(t, handler, "/token"), "2")
	})
}

func TestAnswersTellTheLimit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		node := simMember(t)
		handler := handlerOf(t, node, peerlimit.PerMinute(60).WithBurst(3))
		for _, path := range []string{"token", "leaky"} {
			fields := get(t, handler, "/"+path).Header()
			assert.Equal(t, []string{`"` + path + `";q=60;w=60`}, fields.Values("RateLimit-Policy"))
			assert.Equal(t, []string{`"` + path + `";r=2;t=1`}, fields.Values("RateLimit"))
		}
	})
}

func TestEveryAddressHasABucketOfItsOwn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		node := simMember(t)
		handler := handlerOf(t, node, peerlimit.PerHour(1))
		for _, client := range []struct{ addr, ip string }{
			{"192.0.2.1:1", "192.0.2.1"},
			{"192.0.2.2:1", "192.0.2.2"},
			{"[2001:db8:0:1::1]:1", "2001:db8:0:1::/64"},
			{"[2001:db8:0:2::1]:1", "2001:db8:0:2::/64"},
		} {
			for _, path := range []string{"/token", "/leaky"} { // which do not share a bucket either
				first := getFrom(t.Context(), handler, client.addr, path)
				assert.Equal(t, `{"allowed":true,"ip":"`+client.ip+`","message":"Request allowed"}`, first.Body.String())
			}
		}
		for _, same := range []string{"192.0.2.1:2", "[::ffff:192.0.2.1]:3"} {
			assertDenied(t, getFrom(t.Context(), handler, same, "/token"), "3600")
		}
		neighbour := getFrom(t.Context(), handler, "[2001:db8:0:1:2:3:4:5]:1", "/token") // most likely the same client
		assert.Equal(t, http.StatusTooManyRequests, neighbour.Code)
	})
}

func TestAHeaderDoesNotMakeAnotherClient(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		node := simMember(t)
		handler := handlerOf(t, node, peerlimit.PerHour(1))
		assertAllowed(t, get(t, handler, "/token"))
		request := httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/token", nil)
		request.RemoteAddr = "192.0.2.1:50000"
		request.Header.Set("X-Forwarded-For", "198.51.100.7")
		request.Header.Set("Forwarded", "for=198.51.100.7")
		response := httptest.NewRecorder()
		handler.ServeHTTP(response, request)
		assertDenied(t, response, "3600")
	})
}

func TestLeakyAnswersEvenlyAndRefusesAtOnceWhenFull(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		node := simMember(t)
		handler := handlerOf(t, node, peerlimit.PerSecond(0.5).WithBurst(4))
		start := time.Now()
		var mu sync.Mutex
		var answered []time.Duration
		var waiting sync.WaitGroup
		for range 4 {
			waiting.Go(func() {
				assertAllowed(t, get(t, handler, "/leaky"))
				mu.Lock()
				defer mu.Unlock()
				answered = append(answered, time.Since(start))
			})
		}
		synctest.Wait() // all four are in the bucket

		assertDenied(t, get(t, handler, "/leaky"), "2")
		assert.Zero(t, time.Since(start), "a refusal waits for nothing")
		assertAllowed(t, get(t, handler, "/token"))

		waiting.Wait()
		assert.Equal(t, []time.Duration{0, 2 * time.Second, 4 * time.Second, 6 * time.Second}, answered)
	})
}

func TestLeakyRefusesWhatWouldWaitTooLong(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		node := simMember(t)
		handler := handlerOf(t, node, peerlimit.PerMinute(4).WithBurst(1000))
		var waiting sync.WaitGroup
		for range 1 + maxWait/(15*time.Second) {
			waiting.Go(func() { assertAllowed(t, get(t, handler, "/leaky")) })
		}
		synctest.Wait()
		assertDenied(t, get(t, handler, "/leaky"), "15")
		waiting.Wait()
	})
}

func TestAClientThatGivesUpGivesItsTurnBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		node := simMember(t)
		handler := handlerOf(t, node, peerlimit.PerSecond(1).WithBurst(2))
		assertAllowed(t, get(t, handler, "/leaky"))

		ctx, giveUp := context.WithCancel(t.Context())
		ended := make(chan *httptest.ResponseRecorder)
		go func() { ended <- getFrom(ctx, handler, "192.0.2.1:50000", "/leaky") }()
		synctest.Wait()
		assertDenied(t, get(t, handler, "/leaky"), "1")
		giveUp()
		assert.Zero(t, (<-ended).Body.Len(), "nobody is there to be answered")

		assertAllowed(t, get(t, handler, "/leaky"))
	})
}

func TestOtherMethodsAndPaths(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		node := simMember(t)
		handler := handlerOf(t, node, peerlimit.PerHour(1))
		for _, path := range []string{"/token", "/leaky", "/healthz"} {
			for _, method := range []string{http.MethodPost, http.MethodPut, http.MethodDelete, http.MethodOptions} {
				response := httptest.NewRecorder()
				handler.ServeHTTP(response, httptest.NewRequestWithContext(t.Context(), method, path, nil))
				assert.Equal(t, http.StatusMethodNotAllowed, response.Code, "%s %s", method, path)
				assert.Equal(t, "GET, HEAD", response.Header().Get("Allow"), "%s %s", method, path)
			}
		}
		for _, path := range []string{"/", "/tokens", "/token/", "/leaky/1"} {
			assert.Equal(t, http.StatusNotFound, get(t, handler, path).Code, path)
		}
		assertAllowed(t, get(t, handler, "/token")) // none of that has cost anything
		assert.Equal(t, http.StatusOK, get(t, handler, "/healthz").Code)
	})
}

func TestWithoutADecisionNothingIsAllowed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		node := simMember(t)
		handler := handlerOf(t, node, peerlimit.PerHour(1))
		for _, path := range []string{"/token", "/leaky"} {
			unknown := getFrom(t.Context(), handler, "@", path)
			assert.Equal(t, http.StatusServiceUnavailable, unknown.Code, path)
		}
		require.NoError(t, node.Close())
		for _, path := range []string{"/token", "/leaky"} {
			assert.Equal(t, http.StatusServiceUnavailable, get(t, handler, path).Code, path)
		}
	})
}

func TestJoinedInstancesShareALeakyBucket(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		nodes := peerlimittest.NewCluster(t, 2, configure).Nodes()
		limit := peerlimit.PerSecond(1).WithBurst(4)
		handlers := []http.Handler{handlerOf(t, nodes[0], limit), handlerOf(t, nodes[1], limit)}

		start := time.Now()
		var mu sync.Mutex
		var answered []time.Duration
		var denied int
		var waiting sync.WaitGroup
		for i := range 6 {
			waiting.Go(func() {
				response := get(t, handlers[i%2], "/leaky")
				mu.Lock()
				defer mu.Unlock()
				if response.Code == http.StatusOK {
					answered = append(answered, time.Since(start))
				} else {
					denied++
				}
			})
		}
		waiting.Wait()
		assert.Len(t, answered, 4)
		assert.Equal(t, 2, denied)
		slices.Sort(answered)
		for i, at := range answered {
			assert.InDelta(t, float64(i), at.Seconds(), 0.01, "a second apart, but for the way to the owner and back")
		}
	})
}

func TestJoinedInstancesShareALimitOverLoopback(t *testing.T) {
	first := member(t, peerlimit.Config{})
	second := member(t, peerlimit.Config{Join: []string{first.Self().Addr}})
	joined(t, first, second)
	limit := peerlimit.PerHour(1).WithBurst(5)
	handlers := []http.Handler{handlerOf(t, first, limit), handlerOf(t, second, limit)}
	for _, client := range []string{"192.0.2.1:1", "192.0.2.2:1", "192.0.2.3:1", "192.0.2.4:1"} { // owned here and there
		allowed := 0
		for i := range 12 {
			if getFrom(t.Context(), handlers[i%2], client, "/token").Code == http.StatusOK {
				allowed++
			}
		}
		assert.Equal(t, 5, allowed, client)
	}
}
