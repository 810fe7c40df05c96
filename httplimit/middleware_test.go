package httplimit

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"math"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/peerlimit/peerlimit"
	"github.com/peerlimit/peerlimit/peerlimittest"
)

// ok is a handler that lets everything be.
var ok = http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "hello\n") })

// limited returns a handler behind a middleware.
func limited(t require.TestingT, taker Taker, o Options, next http.Handler) http.Handler {
	middleware, err := New(taker, o)
	require.NoError(t, err)
	return middleware(next)
}

// answering is a Taker that always answers the same.
func answering(d peerlimit.Decision) TakerFunc {
	return func(context.Context, string, float64) (peerlimit.Decision, error) { return d, nil }
}

// failing is a Taker that never decides.
func failing(err error) TakerFunc {
	return func(context.Context, string, float64) (peerlimit.Decision, error) { return peerlimit.Decision{}, err }
}

// bucket is a Taker with one bucket for all keys, which cannot reserve.
func bucket(t require.TestingT, limits ...peerlimit.Limit) TakerFunc {
	b, err := peerlimit.NewBucket(limits...)
	require.NoError(t, err)
	return func(_ context.Context, _ string, cost float64) (peerlimit.Decision, error) { return b.Take(cost) }
}

// get asks a handler as a client at 192.0.2.1 would.
func get(handler http.Handler) *httptest.ResponseRecorder {
	w := httptest.NewRecorder()
	handler.ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/", nil))
	return w
}

// wire returns an answer as it is on the wire, as curl -i shows it, but for the date.
func wire(t *testing.T, handler http.Handler) string {
	w := get(handler)
	text, err := httputil.DumpResponse(w.Result(), true)
	require.NoError(t, err)
	return strings.ReplaceAll(string(text), "\r\n", "\n")
}

func TestAnswersOnTheWire(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		limiter, err := peerlimittest.NewNode(t).Limiter("api", peerlimit.PerMinute(100))
		require.NoError(t, err)
		handler := limited(t, limiter, Options{Name: "api", Cost: func(*http.Request) float64 { return 49.5 }}, ok)
		assert.Equal(t, `HTTP/1.1 200 OK
Connection: close
Content-Type: text/plain; charset=utf-8
Ratelimit: "api";r=50;t=30
Ratelimit-Policy: "api";q=100;w=60

hello
`, wire(t, handler))
		assert.Contains(t, wire(t, handler), "\nRatelimit: \"api\";r=1;t=60\n")
		assert.Equal(t, `HTTP/1.1 429 Too Many Requests
Connection: close
Content-Type: application/problem+json
Ratelimit: "api";r=1;t=30
Ratelimit-Policy: "api";q=100;w=60
Retry-After: 30
X-Content-Type-Options: nosniff

{"type":"https://iana.org/assignments/http-problem-types#quota-exceeded","title":"Request cannot be satisfied as assigned quota has been exceeded","status":429,"violated-policies":["api"]}
`, wire(t, handler))
		time.Sleep(30 * time.Second)
		assert.Contains(t, wire(t, handler), "200 OK", "a client that obeys Retry-After passes")
	})
}

// Of several limiters the answer names the one that denied, and of one that does its own name; where nothing has a name, it is the
// policy's.
func TestTheAnswerNamesTheLimiterThatDenied(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		node := peerlimittest.NewNode(t)
		perUser, err := node.Limiter("per-user", peerlimit.PerHour(1))
		require.NoError(t, err)
		everyone, err := node.Limiter("everyone", peerlimit.PerHour(3), peerlimit.PerMinute(100))
		require.NoError(t, err)
		all := TakerFunc(func(ctx context.Context, key string, cost float64) (peerlimit.Decision, error) {
			return peerlimit.TakeAll(ctx, peerlimit.Request{Limiter: perUser, Key: key, Cost: cost}, peerlimit.Request{Limiter: everyone, Key: "all", Cost: cost})
		})
		violated := func(taker Taker, user string) (policies []string) {
			handler := limited(t, taker, Options{Name: "api", Key: func(*http.Request) (string, error) { return user, nil }}, ok)
			for {
				if w := get(handler); w.Code == http.StatusTooManyRequests {
					var document problem
					require.NoError(t, json.Unmarshal(w.Body.Bytes(), &document))
					return document.Violated
				}
			}
		}
		assert.Equal(t, []string{"per-user"}, violated(all, "bob"))
		assert.Equal(t, []string{"per-user"}, violated(perUser, "eve"))
		assert.Equal(t, []string{"everyone"}, violated(everyone, "all"))
		assert.Equal(t, []string{"everyone"}, violated(all, "carol"))
		assert.Equal(t, []string{"api"}, violated(bucket(t, peerlimit.PerHour(1)), "bob"))
	})
}

// What a server really sends, over a connection.
func TestAnswersOverLoopback(t *testing.T) {
	server := httptest.NewServer(limited(t, bucket(t, peerlimit.PerHour(1)), Options{Name: "api", LegacyFields: true}, ok))
	defer server.Close()
	for _, want := range []struct {
		status int
		fields map[string]string
	}{
		{http.StatusOK, map[string]string{"RateLimit": `"api";r=0;t=3600`, "RateLimit-Policy": `"api";q=1;w=3600`, "X-RateLimit-Limit": "1", "X-RateLimit-Remaining": "0", "Retry-After": ""}},
		{http.StatusTooManyRequests, map[string]string{"RateLimit": `"api";r=0;t=3600`, "Retry-After": "3600", "Content-Type": "application/problem+json"}},
	} {
		response, err := http.Get(server.URL)
		require.NoError(t, err)
		defer response.Body.Close()
		assert.Equal(t, want.status, response.StatusCode)
		for name, value := range want.fields {
			assert.Equal(t, value, response.Header.Get(name), name)
		}
		body, err := io.ReadAll(response.Body)
		require.NoError(t, err)
		if want.status == http.StatusTooManyRequests {
			var document map[string]any
			require.NoError(t, json.Unmarshal(body, &document))
			assert.Equal(t, []any{"api"}, document["violated-policies"])
		}
	}
}

func TestKeysAndCosts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var key string
		var cost float64
		taker := TakerFunc(func(_ context.Context, k string, c float64) (peerlimit.Decision, error) {
			key, cost = k, c
			return peerlimit.Decision{Allowed: true}, nil
		})
		get(limited(t, taker, Options{Name: "api"}, ok))
		assert.Equal(t, "192.0.2.1", key)
		assert.Equal(t, 1.0, cost)

		get(limited(t, taker, Options{Name: "api", Key: fixed("bob"), Cost: func(*http.Request) float64 { return 0.5 }}, ok))
		assert.Equal(t, "bob", key)
		assert.Equal(t, 0.5, cost)

		free := limited(t, failing(errors.New("asked")), Options{Name: "api", Cost: func(*http.Request) float64 { return 0 }}, ok)
		w := get(free)
		assert.Equal(t, http.StatusOK, w.Code)
		assert.Empty(t, w.Header().Get("RateLimit"))
	})
}

// What a handler can do with its ResponseWriter, it can do behind the middleware.
func TestTheResponseWriterIsHandedOn(t *testing.T) {
	w := httptest.NewRecorder()
	var got http.ResponseWriter
	handler := limited(t, bucket(t, peerlimit.PerHour(1)), Options{Name: "api"}, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { got = w }))
	handler.ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/", nil))
	assert.Same(t, w, got)
}

func TestOwnAnswers(t *testing.T) {
	limit := peerlimit.PerHour(1)
	var denied peerlimit.Decision
	handler := limited(t, bucket(t, limit), Options{
		Name: "api",
		Denied: func(w http.ResponseWriter, _ *http.Request, d peerlimit.Decision) {
			denied = d
			w.WriteHeader(http.StatusTeapot)
		},
	}, ok)
	assert.Equal(t, http.StatusOK, get(handler).Code)
	w := get(handler)
	assert.Equal(t, http.StatusTeapot, w.Code)
	assert.Equal(t, limit, denied.Limit)
	assert.Equal(t, []string{"3600"}, w.Header().Values("Retry-After"))
	assert.Equal(t, []string{`"api";r=0;t=3600`}, w.Header().Values("RateLimit"))
}

func TestWhenNothingIsDecided(t *testing.T) {
	closed := errors.New("closed")
	noKey := func(*http.Request) (string, error) { return "", ErrNoKey }
	for _, c := range []struct {
		name   string
		taker  Taker
		o      Options
		status int
	}{
		{"take fails", failing(closed), Options{}, http.StatusServiceUnavailable},
		{"take fails and passes", failing(closed), Options{TakeErrors: Pass}, http.StatusOK},
		{"a timeout of the taker passes", failing(context.DeadlineExceeded), Options{TakeErrors: Pass}, http.StatusOK},
		{"take fails, key errors pass", failing(closed), Options{KeyErrors: Pass}, http.StatusServiceUnavailable},
		{"no key", answering(peerlimit.Decision{Allowed: true}), Options{Key: noKey}, http.StatusBadRequest},
		{"no key passes", answering(peerlimit.Decision{}), Options{Key: noKey, KeyErrors: Pass}, http.StatusOK},
		{"no key, take errors pass", answering(peerlimit.Decision{}), Options{Key: noKey, TakeErrors: Pass}, http.StatusBadRequest},
		{"key too long", answering(peerlimit.Decision{}), Options{Key: fixed(strings.Repeat("k", 1025)), TakeErrors: Pass}, http.StatusBadRequest},
		{"key empty", answering(peerlimit.Decision{}), Options{Key: fixed(""), TakeErrors: Pass}, http.StatusBadRequest},
		{"key fails otherwise", answering(peerlimit.Decision{}), Options{Key: RoutePattern}, http.StatusServiceUnavailable},
		{"above burst", bucket(t, peerlimit.PerHour(1)), Options{Cost: func(*http.Request) float64 { return 2 }, TakeErrors: Pass}, http.StatusTooManyRequests},
		{"wrong cost", bucket(t, peerlimit.PerHour(1)), Options{Cost: func(*http.Request) float64 { return math.NaN() }, TakeErrors: Pass}, http.StatusServiceUnavailable},
		{"no limit", failing(peerlimit.ErrInvalidLimit), Options{TakeErrors: Pass}, http.StatusServiceUnavailable},
		{"twice the same bucket", failing(peerlimit.ErrInvalidRequest), Options{TakeErrors: Pass}, http.StatusServiceUnavailable},
	} {
		t.Run(c.name, func(t *testing.T) {
			c.o.Name = "api"
			told := 0
			c.o.OnError = func(_ *http.Request, err error) {
				assert.Error(t, err)
				told++
			}
			w := get(limited(t, c.taker, c.o, ok))
			assert.Equal(t, c.status, w.Code)
			assert.Equal(t, 1, told)
			assert.Empty(t, w.Header().Get("Retry-After"))
			assert.Empty(t, w.Header().Get("RateLimit"))
			if c.status != http.StatusOK {
				assert.Equal(t, "application/problem+json", w.Header().Get("Content-Type"))
				var document problem
				require.NoError(t, json.Unmarshal(w.Body.Bytes(), &document))
				assert.Equal(t, c.status, document.Status)
				assert.NotEmpty(t, document.Title)
			}
		})
	}
}

func TestOwnAnswerWhenNothingIsDecided(t *testing.T) {
	closed := errors.New("closed")
	handler := limited(t, failing(closed), Options{Name: "api", Failed: func(w http.ResponseWriter, _ *http.Request, err error) {
		assert.ErrorIs(t, err, closed)
		w.WriteHeader(http.StatusTeapot)
	}}, ok)
	assert.Equal(t, http.StatusTeapot, get(handler).Code)
}

// A client that hangs up is never handed on for nothing, whatever may pass otherwise.
func TestAClientThatHasGoneIsNotServed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		limiter, err := peerlimittest.NewNode(t).Limiter("api", peerlimit.PerHour(1))
		require.NoError(t, err)
		handler := limited(t, limiter, Options{Name: "api", TakeErrors: Pass, OnError: func(*http.Request, error) { t.Error("no error") }},
			http.HandlerFunc(func(http.ResponseWriter, *http.Request) { t.Error("served") }))
		ctx, hangUp := context.WithCancel(t.Context())
		hangUp()
		w := httptest.NewRecorder()
		handler.ServeHTTP(w, httptest.NewRequestWithContext(ctx, http.MethodGet, "/", nil))
		assert.Equal(t, http.StatusServiceUnavailable, w.Code, "if somebody should be there after all")
		assert.Zero(t, w.Body.Len())
	})
}

func TestAClosedNode(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		node := peerlimittest.NewNode(t)
		limiter, err := node.Limiter("api", peerlimit.PerHour(1))
		require.NoError(t, err)
		require.NoError(t, node.Close())
		for _, wait := range []time.Duration{0, time.Second} {
			assert.Equal(t, http.StatusServiceUnavailable, get(limited(t, limiter, Options{Name: "api", MaxWait: wait}, ok)).Code)
			assert.Equal(t, http.StatusOK, get(limited(t, limiter, Options{Name: "api", MaxWait: wait, TakeErrors: Pass}, ok)).Code)
		}
	})
}

func TestNewRefusesBadOptions(t *testing.T) {
	taker := answering(peerlimit.Decision{})
	for _, c := range []struct {
		taker Taker
		o     Options
		says  string
	}{
		{nil, Options{Name: "api"}, "taker is nil"},
		{(*peerlimit.Limiter)(nil), Options{Name: "api"}, "taker is a nil *peerlimit.Limiter"},
		{TakerFunc(nil), Options{Name: "api"}, "taker is a nil httplimit.TakerFunc"},
		{taker, Options{}, `Name is ""`},
		{taker, Options{Name: "pro Kunde für alle"}, `Name is "pro Kunde für alle"`},
		{taker, Options{Name: "a\nb"}, `Name is "a\nb"`},
		{taker, Options{Name: "api", Unit: "\x7f"}, `Unit is "\x7f"`},
		{taker, Options{Name: "api", MaxWait: -time.Second}, "MaxWait is -1s"},
		{taker, Options{Name: "api", KeyErrors: 2}, "KeyErrors is ErrorChoice(2)"},
		{taker, Options{Name: "api", TakeErrors: -1}, "TakeErrors is ErrorChoice(-1)"},
	} {
		middleware, err := New(c.taker, c.o)
		assert.ErrorIs(t, err, ErrInvalid)
		assert.ErrorContains(t, err, "httplimit: invalid: "+c.says)
		assert.NotContains(t, err.Error(), "\n")
		assert.Nil(t, middleware)
	}
	assert.Equal(t, "Deny", Deny.String())
	assert.Equal(t, "Pass", Pass.String())
}
