package main

import (
	"bytes"
	"context"
	"fmt"
	"maps"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/peerlimit/peerlimit"
	"github.com/peerlimit/peerlimit/peerlimittest"
)

// handlersOf returns the service on each node of a cluster.
func handlersOf(t *testing.T, cluster *peerlimittest.Cluster) (handlers []http.Handler) {
	t.Helper()
	for _, node := range cluster.Nodes() {
		handler, err := newHandler(node)
		require.NoError(t, err)
		handlers = append(handlers, handler)
	}
	return handlers
}

// try tries to log in and returns the answer.
func try(ctx context.Context, handler http.Handler, a attempt) *httptest.ResponseRecorder {
	form := url.Values{"account": {a.account}, "password": {a.password}}
	r := httptest.NewRequestWithContext(ctx, http.MethodPost, "/login", strings.NewReader(form.Encode()))
	r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	r.Header.Set("X-Forwarded-For", a.ip)
	r.RemoteAddr = "127.0.0.1:50000"
	w := httptest.NewRecorder()
	handler.ServeHTTP(w, r)
	return w
}

// statuses makes attempts over the handlers in turn and counts the answers.
func statuses(t *testing.T, handlers []http.Handler, attempts int, of func(i int) attempt) map[int]int {
	t.Helper()
	counts := make(map[int]int)
	for i := range attempts {
		counts[try(t.Context(), handlers[i%len(handlers)], of(i)).Code]++
	}
	return counts
}

func TestGuessesOnOneAccountFromEverywhere(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		handlers := handlersOf(t, peerlimittest.NewCluster(t, 3))
		guess := func(i int) attempt {
			return attempt{[]string{"bob", "Bob", " BOB "}[i%3], fmt.Sprint(i), fmt.Sprint("198.51.100.", i)}
		}
		assert.Equal(t, map[int]int{401: 2, 429: 98}, statuses(t, handlers, 100, guess))

		denied := try(t.Context(), handlers[0], attempt{"bob", "correct horse", "192.0.2.1"})
		assert.Equal(t, http.StatusTooManyRequests, denied.Code, "also for a person who knows the password")
		assert.Equal(t, "50", denied.Header().Get("Retry-After"))
		assert.Empty(t, denied.Header().Get("RateLimit"))

		time.Sleep(50 * time.Second)
		assert.Equal(t, map[int]int{401: 1, 429: 9}, statuses(t, handlers, 10, guess))
		time.Sleep(50 * time.Second)
		assert.Equal(t, map[int]int{200: 1}, statuses(t, handlers, 1, func(int) attempt { return attempt{"bob", "correct horse", "192.0.2.1"} }))
	})
}

func TestGuessesOnManyAccountsFromOneAddress(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		handlers := handlersOf(t, peerlimittest.NewCluster(t, 3))
		assert.Equal(t, map[int]int{401: 20, 429: 30}, statuses(t, handlers, 50, func(i int) attempt {
			return attempt{fmt.Sprint("user", i), "123456", "203.0.113.7"}
		}))
		assert.Equal(t, map[int]int{200: 1}, statuses(t, handlers, 1, func(int) attempt { return attempt{"bob", "correct horse", "192.0.2.1"} }))
	})
}

// Guesses at the same moment get no more than guesses one after the other.
func TestGuessesAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		handlers := handlersOf(t, peerlimittest.NewCluster(t, 3))
		var mu sync.Mutex
		counts := make(map[int]int)
		var guesses sync.WaitGroup
		for i := range 60 {
			guesses.Go(func() {
				status := try(t.Context(), handlers[i%3], attempt{"bob", fmt.Sprint(i), fmt.Sprint("198.51.100.", i)}).Code
				mu.Lock()
				defer mu.Unlock()
				counts[status]++
			})
		}
		guesses.Wait()
		assert.Equal(t, map[int]int{401: 2, 429: 58}, counts)
	})
}

// A person who knows the password pays a fifth.
func TestLoginsThatSucceedAreCheap(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cluster := peerlimittest.NewCluster(t, 3)
		handlers := handlersOf(t, cluster)
		login := func(int) attempt { return attempt{"bob", "correct horse", "192.0.2.1"} }
		assert.Equal(t, map[int]int{200: 6, 429: 1}, statuses(t, handlers, 7, login), "an attempt needs 5 tokens, and 4 come back")

		perIP, err := cluster.Node(0).Limiter("login-ip", ipLimit)
		require.NoError(t, err)
		d, err := perIP.Peek(t.Context(), "192.0.2.1")
		require.NoError(t, err)
		assert.InDelta(t, 94, d.Remaining, 0.5, "and the one that was denied cost nothing")
	})
}

// A client that hangs up as soon as it is let in has paid no more than another.
func TestHangingUpAfterALogin(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cluster := peerlimittest.NewCluster(t, 3)
		s := &service{}
		for name, limiter := range map[string]**peerlimit.Limiter{"login-account": &s.perAccount, "login-ip": &s.perIP} {
			limit := map[string]peerlimit.Limit{"login-account": accountLimit, "login-ip": ipLimit}[name]
			made, err := cluster.Node(0).Limiter(name, limit)
			require.NoError(t, err)
			*limiter = made
		}
		_, err := s.take(t.Context(), "bob 192.0.2.1", failureCost)
		require.NoError(t, err)
		ctx, hangUp := context.WithCancel(t.Context())
		hangUp()
		s.giveBack(ctx, "bob 192.0.2.1")
		d, err := s.perAccount.Peek(t.Context(), "bob")
		require.NoError(t, err)
		assert.InDelta(t, 9, d.Remaining, 0.1)
	})
}

// A node that is cut off lets nobody guess.
func TestNobodyGuessesWhileTheClusterIsInTrouble(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cluster := peerlimittest.NewCluster(t, 3)
		handlers := handlersOf(t, cluster)
		cluster.Isolate(0)
		time.Sleep(2 * time.Second) // it does not decide in full about its own accounts any more
		assert.Equal(t, map[int]int{429: 30}, statuses(t, handlers[:1], 30, func(i int) attempt {
			return attempt{fmt.Sprint("user", i), "123456", fmt.Sprint("198.51.100.", i)}
		}))
		assert.Equal(t, map[int]int{401: 2, 429: 28}, statuses(t, handlers[1:], 30, func(i int) attempt {
			return attempt{"bob", "123456", fmt.Sprint("198.51.100.", i)}
		}), "the others go on")
	})
}

func TestBadRequests(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		handlers := handlersOf(t, peerlimittest.NewCluster(t, 1))
		for name, account := range map[string]string{"none": " ", "too long a name": strings.Repeat("x", 1025), "too long a body": strings.Repeat("x", 5<<10)} {
			assert.Equal(t, http.StatusBadRequest, try(t.Context(), handlers[0], attempt{account, "x", "192.0.2.1"}).Code, name)
		}
		w := httptest.NewRecorder()
		handlers[0].ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/login?account=bob&password=correct+horse", nil))
		assert.Equal(t, http.StatusMethodNotAllowed, w.Code)
		w = httptest.NewRecorder()
		handlers[0].ServeHTTP(w, httptest.NewRequest(http.MethodPost, "/login?account=bob&password=correct+horse", nil))
		assert.Equal(t, http.StatusBadRequest, w.Code, "what is in an address is in logs")
	})
}

// The program as it is started. On a machine that stands still for a moment its instances lose sight of each other, and
// then nobody logs in; never does anybody guess more often than the limits allow.
func TestRun(t *testing.T) {
	var out bytes.Buffer
	began := time.Now()
	require.NoError(t, run(t.Context(), &out))
	minutes := time.Since(began).Minutes()

	answers := make(map[string]map[string]int) // by scene and status
	var title string
	for line := range strings.Lines(out.String()) {
		var times int
		var status string
		if n, _ := fmt.Sscanf(line, "  %d times %s", &times, &status); n == 2 {
			answers[title][status] += times
			continue
		}
		title = strings.TrimSuffix(line, ":\n")
		answers[title] = make(map[string]int)
	}
	for _, s := range scenes {
		sum := 0
		for _, times := range answers[s.title] {
			sum += times
		}
		assert.Equal(t, s.attempts, sum, "%s:\n%s", s.title, out.String())
		assert.Subset(t, []string{"200", "401", "429"}, slices.Collect(maps.Keys(answers[s.title])))
	}
	assert.LessOrEqual(t, float64(answers[scenes[1].title]["401"]), 2+minutes*60/50)
	assert.LessOrEqual(t, float64(answers[scenes[2].title]["401"]), 20+minutes*12)
}

func TestRunEndsWithItsContext(t *testing.T) {
	ctx, end := context.WithCancel(t.Context())
	end()
	assert.ErrorIs(t, run(ctx, new(bytes.Buffer)), context.Canceled)
}
