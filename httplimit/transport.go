package httplimit

import (
	"errors"
	"fmt"
	"net/http"
	"time"

	"github.com/peerlimit/peerlimit"
)

// TransportOptions say how a [Transport] waits. The zero TransportOptions will do.
type TransportOptions struct {
	// Base sends the requests. Nil means http.DefaultTransport.
	Base http.RoundTripper

	// Key says which bucket a request takes from, and which requests a Retry-After holds back. Nil means the host of its
	// URL, with the port if there is one. ClientIP and RoutePattern are of no use here: they are for requests that came in.
	Key KeyFunc

	// Cost is how many tokens a request takes. Nil means 1 for each. A request that costs 0 takes no turn.
	Cost func(r *http.Request) float64

	// MaxWait is how long a request may wait in all before it is sent. 0 means a minute. A request that would have to wait
	// longer fails immediately with an error that matches peerlimit.ErrLimited.
	MaxWait time.Duration

	// MaxRetryAfter is how long a Retry-After may hold requests back, however long it asks for: it is another's word. 0
	// means an hour.
	MaxRetryAfter time.Duration
}

const (
	defaultMaxWait       = time.Minute
	defaultMaxRetryAfter = time.Hour
)

// Transport is an [http.RoundTripper] that holds requests back until it is their turn. Make one with [NewTransport]; it is
// safe for concurrent use, starts no goroutine, and needs no closing.
type Transport struct {
	options TransportOptions
	taker   Taker
	pauses  pauses
}

// NewTransport returns a transport that takes from taker before it sends a request, so that instances which share a
// third party's quota stay within it. It waits for the tokens as a middleware with MaxWait does.
//
// When an answer is 429 or 503 and has a Retry-After, in seconds or as a date, later requests with the same key are not sent
// before that time is over, by this transport. The answer itself is handed to the caller, and no request is sent twice.
//
// An error matches [ErrInvalid] and names the field of the options that is wrong, and its value.
func NewTransport(taker Taker, o TransportOptions) (*Transport, error) {
	if err := checkTaker(taker); err != nil {
		return nil, err
	}
	if o.MaxWait < 0 {
		return nil, fmt.Errorf("%w: MaxWait is %v; it must not be negative", ErrInvalid, o.MaxWait)
	}
	if o.MaxRetryAfter < 0 {
		return nil, fmt.Errorf("%w: MaxRetryAfter is %v; it must not be negative", ErrInvalid, o.MaxRetryAfter)
	}
	if o.Base == nil {
		o.Base = http.DefaultTransport
	}
	if o.Key == nil {
		o.Key = host
	}
	if o.Cost == nil {
		o.Cost = func(*http.Request) float64 { return 1 }
	}
	if o.MaxWait == 0 {
		o.MaxWait = defaultMaxWait
	}
	if o.MaxRetryAfter == 0 {
		o.MaxRetryAfter = defaultMaxRetryAfter
	}
	return &Transport{options: o, taker: taker}, nil
}

// RoundTrip waits for the request's turn and sends it. An error is that of Base, or one of these, and then nothing was
// sent: it matches [peerlimit.ErrLimited], and [*peerlimit.LimitedError] says when to try again; it is the context's; it is
// that of Key, or of Take.
func (t *Transport) RoundTrip(r *http.Request) (*http.Response, error) {
	key, err := t.wait(r)
	if err != nil {
		if r.Body != nil {
			_ = r.Body.Close() // as a RoundTripper has to; it was not read
		}
		return nil, err
	}
	response, err := t.options.Base.RoundTrip(r)
	if err == nil {
		if wait := retryAfter(response); wait > 0 {
			t.pauses.set(key, min(wait, t.options.MaxRetryAfter))
		}
	}
	return response, err
}

// CloseIdleConnections is what [http.Client.CloseIdleConnections] calls: it closes those of Base.
func (t *Transport) CloseIdleConnections() {
	if base, can := t.options.Base.(interface{ CloseIdleConnections() }); can {
		base.CloseIdleConnections()
	}
}

// wait returns when the request may be sent. It pauses before it takes a turn, and again if others were told to come
// back later in the meantime; then the turn is given back if the pause is too long, where that can be done.
func (t *Transport) wait(r *http.Request) (key string, err error) {
	end := time.Now().Add(t.options.MaxWait)
	key, err = checkedKey(t.options.Key, r)
	if err != nil {
		return "", err
	}
	if err := t.pause(r, key, end); err != nil {
		return "", err
	}
	cost := t.options.Cost(r)
	if cost == 0 {
		return key, nil
	}
	turn, err := awaitTurn(r.Context(), t.taker, key, cost, time.Until(end))
	if err != nil {
		return "", err
	}
	if err := turn.decision.Err(); err != nil {
		return "", fmt.Errorf("httplimit: not sent: %w", err)
	}
	if err := t.pause(r, key, end); err != nil {
		if turn.giveBack != nil {
			turn.giveBack()
		}
		return "", err
	}
	return key, nil
}

// pause waits until no Retry-After holds the key back any more, if that is before end.
func (t *Transport) pause(r *http.Request, key string, end time.Time) error {
	for {
		wait := t.pauses.left(key)
		if wait == 0 {
			return r.Context().Err()
		}
		deadline, has := r.Context().Deadline()
		if wait > time.Until(end) || has && wait > time.Until(deadline) {
			return &pausedError{peerlimit.LimitedError{Decision: peerlimit.Decision{RetryAfter: wait}}}
		}
		if err := sleep(r.Context(), wait); err != nil {
			return err
		}
	}
}

// pausedError says that a Retry-After lies too far ahead.
type pausedError struct{ limited peerlimit.LimitedError }

func (e *pausedError) Error() string {
	return fmt.Sprintf("httplimit: not sent: an answer before said to retry after %v more", e.limited.Decision.RetryAfter.Round(time.Microsecond))
}

// Unwrap makes the error match peerlimit.ErrLimited and *peerlimit.LimitedError.
func (e *pausedError) Unwrap() error { return &e.limited }

// host is the key of requests that go out.
func host(r *http.Request) (string, error) {
	if r.URL == nil || r.URL.Host == "" {
		return "", errors.New("httplimit: the request's URL has no host")
	}
	return r.URL.Host, nil
}
