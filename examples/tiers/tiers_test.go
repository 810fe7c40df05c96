package main

import (
	"bytes"
	"context"
	"net/http"
	"net/http/httptest"
	"regexp"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/peerlimit/peerlimit/peerlimittest"
)

// admitted asks handlers in turn, so many times, and returns how often the answer was yes.
func admitted(t *testing.T, handlers []http.Handler, customer string, times int) (yes int) {
	t.Helper()
	for i := range times {
		r := httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/", nil)
		r.Header.Set("X-Customer", customer)
		w := httptest.NewRecorder()
		handlers[i%len(handlers)].ServeHTTP(w, r)
		if w.Code == http.StatusOK {
			yes++
			assert.Equal(t, "hello, "+customer+"\n", w.Body.String())
			continue
		}
		assert.Equal(t, http.StatusTooManyRequests, w.Code)
	}
	return yes
}

// assertAdmitted asks more often than a limit allows, and wants all that it does allow: what is there now and what comes
// while asking.
func assertAdmitted(t *testing.T, handlers []http.Handler, customer string, now, rate float64) {
	t.Helper()
	began := time.Now() // of the bubble
	yes := float64(admitted(t, handlers, customer, 200))
	due := now + rate*time.Since(began).Seconds()
	assert.LessOrEqual(t, yes, due)
	assert.Greater(t, yes, due-2, "a part of a token is left, and one may have come after the last request")
}

// cluster returns the handlers of three instances that share the limits.
func cluster(t *testing.T, customers *tiers) (handlers []http.Handler) {
	t.Helper()
	for _, node := range peerlimittest.NewCluster(t, 3).Nodes() {
		handler, err := newHandler(node, customers)
		require.NoError(t, err)
		handlers = append(handlers, handler)
	}
	return handlers
}

func TestEachTierHasItsLimit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		handlers := cluster(t, newTiers(map[string]string{"acme": "enterprise", "bob": "free"}))
		assertAdmitted(t, handlers, "acme", 100, 100)
		assert.Equal(t, 5, admitted(t, handlers, "bob", 20))
		assert.Equal(t, 5, admitted(t, handlers, "somebody", 20), "a customer who is not known has the free tier")
	})
}

// An upgrade counts from the next request on, on all instances, and what was taken before stays taken.
func TestATierThatChanges(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		customers := newTiers(map[string]string{"bob": "free"})
		handlers := cluster(t, customers)
		assert.Equal(t, 5, admitted(t, handlers, "bob", 20))

		require.NoError(t, customers.set("bob", "enterprise"))
		assertAdmitted(t, handlers, "bob", 95, 100)
		time.Sleep(time.Second)
		assertAdmitted(t, handlers, "bob", 100, 100)

		require.NoError(t, customers.set("bob", "free"))
		time.Sleep(30 * time.Second)
		assert.Equal(t, 5, admitted(t, handlers, "bob", 20))
	})
}

func TestATierThatIsNotKnown(t *testing.T) {
	customers := newTiers(map[string]string{"bob": "free"})
	assert.ErrorContains(t, customers.set("bob", "golden"), `tier "golden" of customer "bob"`)
	assert.Equal(t, "free", customers.tier("bob"))
}

func TestWithoutACustomer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		handlers := cluster(t, newTiers(nil))
		w := httptest.NewRecorder()
		handlers[0].ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/", nil))
		assert.Equal(t, http.StatusBadRequest, w.Code)
	})
}

// The program as it is started, for a shorter time.
func TestRun(t *testing.T) {
	var out bytes.Buffer
	require.NoError(t, run(t.Context(), []string{"-duration", "500ms"}, &out))
	lines := regexp.MustCompile(`(?m)^(\w+) +(\w+) +\d+ sent, +[1-9]\d* admitted, +\d+ denied; (.*)$`).FindAllStringSubmatch(out.String(), -1)
	var told [][]string
	for _, line := range lines {
		told = append(told, line[1:])
	}
	assert.Equal(t, [][]string{
		{"bob", "free", `"per-customer";q=5;w=1`}, {"acme", "enterprise", `"per-customer";q=100;w=1`},
		{"bob", "enterprise", `"per-customer";q=100;w=1`}, {"acme", "enterprise", `"per-customer";q=100;w=1`},
	}, told, out.String())
}

func TestRunRefusesBadFlags(t *testing.T) {
	for says, args := range map[string][]string{
		"-duration is 0s": {"-duration", "0"}, `invalid value "soon"`: {"-duration", "soon"}, "-x": {"-x"}, `"more"`: {"more"},
	} {
		assert.ErrorContains(t, run(t.Context(), args, new(bytes.Buffer)), says)
	}
}

func TestRunEndsWithItsContext(t *testing.T) {
	ctx, end := context.WithCancel(t.Context())
	end()
	assert.ErrorIs(t, run(ctx, nil, new(bytes.Buffer)), context.Canceled)
}
