package httplimit

import (
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"time"

	"github.com/dunglas/httpsfv"

	"github.com/peerlimit/peerlimit"
)

// ErrorChoice says what becomes of a request about which nothing could be decided.
type ErrorChoice int

const (
	// Deny answers it without the handler. It is the zero value.
	Deny ErrorChoice = iota

	// Pass hands it on to the handler, not limited.
	Pass
)

// String returns "Deny" or "Pass".
func (c ErrorChoice) String() string {
	switch c {
	case Deny:
		return "Deny"
	case Pass:
		return "Pass"
	}
	return "ErrorChoice(" + strconv.Itoa(int(c)) + ")"
}

// Options say how a middleware limits. Only Name is required.
type Options struct {
	// Name of the policy in the answers' header fields: printable ASCII characters, at least one. Middlewares that are
	// stacked have different names: each has its place in the fields, and of two with the same name the inner one takes the
	// place of the outer. They take from their buckets all the same.
	Name string

	// Key says which bucket a request takes from. Nil means the client's IP address as ClientIP(IPOptions{}) finds it, which
	// behind a proxy is that of the proxy.
	Key KeyFunc

	// Cost is how many tokens a request takes. Nil means 1 for each. A request that costs 0 is handed on without a
	// take. It is called once for each request, by many goroutines at once.
	Cost func(r *http.Request) float64

	// MaxWait is how long a request may wait for its tokens. 0 means not at all. With a *peerlimit.Limiter requests wait
	// first come, first served, and one that would have to wait longer, or longer than Config.MaxWait, is denied immediately;
	// each is a request to the key's owner, because leases and remembered denials are for takes. Another Taker is asked again
	// when its RetryAfter is over. A request whose context ends stops waiting. The delay of a leaky bucket's decision is slept
	// whatever MaxWait is.
	MaxWait time.Duration

	// Denied answers a request that was denied. The header fields are set; it writes status and body. Nil means 429 with a
	// problem document, whose violated-policies has the name of the limiter that denied (peerlimit.Decision.Denied), or Name
	// where the Taker tells none.
	Denied func(w http.ResponseWriter, r *http.Request, d peerlimit.Decision)

	// KeyErrors says what to do when Key fails or returns a key that is not valid. Pass means that a client that leaves out
	// what Key looks for is not limited.
	KeyErrors ErrorChoice

	// TakeErrors says what to do when Take fails. A cluster that is in trouble is no error: then the limiter's fallback
	// decides. A *peerlimit.Limiter fails when its node was closed, which Pass lets through. What a client could bring about
	// never passes: a wrong call, such as a cost above the burst, no valid limit from a LimiterFunc, and a request whose
	// context has ended.
	TakeErrors ErrorChoice

	// Failed answers a request about which nothing could be decided and that does not pass. Nil means a problem document
	// with status 429 when the cost is above the burst, 400 when the error matches ErrNoKey or peerlimit.ErrInvalidKey, and
	// 503 otherwise, without a body when the request's context has ended.
	Failed func(w http.ResponseWriter, r *http.Request, err error)

	// OnError is told each error of Key and Take, also when the request passes; to log them, for example. The end of a
	// request's context is none. Nil means that errors are not reported.
	OnError func(r *http.Request, err error)

	// Unit is what a token is, as the field RateLimit-Policy tells it: "requests", which is what "" means to clients,
	// "content-bytes", or another of printable ASCII characters.
	Unit string

	// NoRateLimitFields leaves out RateLimit and RateLimit-Policy, for services that do not want to tell their limits. Retry-After
	// is set in any case.
	NoRateLimitFields bool

	// LegacyFields sets X-RateLimit-Limit (the burst), X-RateLimit-Remaining, and X-RateLimit-Reset (the Unix time in
	// seconds at which the bucket is full again, or at which to come back when it denies). They tell of one policy: the one
	// with the least left.
	LegacyFields bool
}

// middleware is a policy: checked options, with the defaults filled in.
type middleware struct {
	Options
	taker Taker
}

// New returns a middleware that takes from taker for each request. An error matches [ErrInvalid] and names the field of the
// options that is wrong, and its value.
//
// Every answer tells the decision in RateLimit-Policy: "name";q=100;w=60 (100 tokens in 60 seconds) and RateLimit:
// "name";r=50;t=30 (50 left now, all of them in 30 seconds; of one that was denied, the time to wait). Of several limits
// that is the strictest, and all numbers are rounded to the safe side. An answer to a request that was denied has
// Retry-After in whole seconds, at least 1. Each is one field, whatever is stacked; the handler sees them in
// w.Header() and may change them.
func New(taker Taker, o Options) (func(http.Handler) http.Handler, error) {
	if err := checkTaker(taker); err != nil {
		return nil, err
	}
	if err := o.check(); err != nil {
		return nil, err
	}
	m := &middleware{Options: o, taker: taker}
	if m.Key == nil {
		key, err := ClientIP(IPOptions{})
		if err != nil {
			return nil, err
		}
		m.Key = key
	}
	if m.Cost == nil {
		m.Cost = func(*http.Request) float64 { return 1 }
	}
	if m.Denied == nil {
		m.Denied = m.writeDenied
	}
	if m.Failed == nil {
		m.Failed = m.writeFailed
	}
	if m.OnError == nil {
		m.OnError = func(*http.Request, error) {}
	}
	return func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { m.serve(w, r, next) })
	}, nil
}

// check returns an error that names the field that is wrong, and its value.
func (o *Options) check() error {
	if o.Name == "" {
		return fmt.Errorf(`%w: Name is ""; it is what clients know the policy by`, ErrInvalid)
	}
	for _, text := range []struct{ field, value string }{{"Name", o.Name}, {"Unit", o.Unit}} {
		if _, err := httpsfv.Marshal(httpsfv.NewItem(text.value)); err != nil {
			return fmt.Errorf("%w: %s is %q; only printable ASCII characters can be in a header field", ErrInvalid, text.field, text.value)
		}
	}
	if o.MaxWait < 0 {
		return fmt.Errorf("%w: MaxWait is %v; it must not be negative", ErrInvalid, o.MaxWait)
	}
	for _, choice := range []struct {
		field string
		value ErrorChoice
	}{{"KeyErrors", o.KeyErrors}, {"TakeErrors", o.TakeErrors}} {
		if choice.value != Deny && choice.value != Pass {
			return fmt.Errorf("%w: %s is %v; it must be Deny or Pass", ErrInvalid, choice.field, choice.value)
		}
	}
	return nil
}

// serve hands a request on to next, or answers it.
func (m *middleware) serve(w http.ResponseWriter, r *http.Request, next http.Handler) {
	key, err := checkedKey(m.Key, r)
	if err != nil {
		m.fail(w, r, next, err, m.KeyErrors == Pass)
		return
	}
	cost := m.Cost(r)
	if cost == 0 {
		next.ServeHTTP(w, r)
		return
	}
	t, err := awaitTurn(r.Context(), m.taker, key, cost, m.MaxWait)
	if err != nil {
		m.fail(w, r, next, err, m.TakeErrors == Pass && !isClientsFault(r, err))
		return
	}
	m.setFields(w.Header(), t.decision)
	if !t.decision.Allowed {
		m.Denied(w, r, t.decision)
		return
	}
	next.ServeHTTP(w, r)
}

// fail is for a request about which nothing was decided.
func (m *middleware) fail(w http.ResponseWriter, r *http.Request, next http.Handler, err error, pass bool) {
	if r.Context().Err() == nil {
		m.OnError(r, err)
	}
	if pass {
		next.ServeHTTP(w, r)
		return
	}
	m.Failed(w, r, err)
}

// isClientsFault reports whether the client may have brought an error of Take about.
func isClientsFault(r *http.Request, err error) bool {
	if r.Context().Err() != nil {
		return true
	}
	for _, fault := range []error{
		peerlimit.ErrInvalidKey, peerlimit.ErrInvalidCost, peerlimit.ErrExceedsBurst, peerlimit.ErrInvalidLimit, peerlimit.ErrInvalidRequest,
	} {
		if errors.Is(err, fault) {
			return true
		}
	}
	return false
}
