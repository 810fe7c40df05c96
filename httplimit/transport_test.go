package httplimit

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
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

// thirdParty is a RoundTripper that notes what it was sent and answers as it is told.
type thirdParty struct {
	mu      sync.Mutex // guards the fields below
	began   time.Time
	sent    []sent
	answers []*http.Response // one after the other; then 200
}

// sent is one request.
type sent struct {
	at   time.Duration
	body string
}

func newThirdParty(answers ...*http.Response) *thirdParty {
	return &thirdParty{began: time.Now(), answers: answers}
}

func (p *thirdParty) RoundTrip(r *http.Request) (*http.Response, error) {
	var body []byte
	if r.Body != nil {
		body, _ = io.ReadAll(r.Body)
		r.Body.Close()
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.sent = append(p.sent, sent{time.Since(p.began), string(body)})
	if len(p.answers) == 0 {
		return answer(http.StatusOK, "", ""), nil
	}
	next := p.answers[0]
	p.answers = p.answers[1:]
	return next, nil
}

func (p *thirdParty) times() (times []time.Duration) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, s := range p.sent {
		times = append(times, s.at)
	}
	return times
}

// answer makes an answer; fields that are empty are not there.
func answer(status int, retryAfter, date string) *http.Response {
	h := http.Header{}
	for name, value := range map[string]string{"Retry-After": retryAfter, "Date": date} {
		if value != "" {
			h.Set(name, value)
		}
	}
	return &http.Response{StatusCode: status, Header: h, Body: http.NoBody}
}

// clientOf returns a client that sends to base through a transport.
func clientOf(t *testing.T, taker Taker, base http.RoundTripper, o TransportOptions) *http.Client {
	t.Helper()
	o.Base = base
	transport, err := NewTransport(taker, o)
	require.NoError(t, err)
	return &http.Client{Transport: transport}
}

// call sends a request with a body.
func call(ctx context.Context, client *http.Client, url, body string) error {
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, url, strings.NewReader(body))
	if err != nil {
		return err
	}
	response, err := client.Do(r)
	if err == nil {
		response.Body.Close()
	}
	return err
}

const partner = "http://partner.example/orders"

var unlimited = answering(peerlimit.Decision{Allowed: true})

func TestRequestsWaitForTheirTurn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for name, taker := range takers(t, peerlimit.PerSecond(1).WithBurst(2)) {
			third := newThirdParty()
			client := clientOf(t, taker, third, TransportOptions{})
			for i := range 4 {
				require.NoError(t, call(t.Context(), client, partner, fmt.Sprint("order ", i)))
			}
			assert.Equal(t, []sent{{0, "order 0"}, {0, "order 1"}, {time.Second, "order 2"}, {2 * time.Second, "order 3"}}, third.sent, name)
		}
	})
}

// Instances that share a third party's quota stay within it together.
func TestInstancesShareAQuota(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cluster := peerlimittest.NewCluster(t, 3)
		third := newThirdParty()
		var calls sync.WaitGroup
		for _, limiter := range cluster.Limiters("partner", peerlimit.PerSecond(10).WithBurst(1)) {
			client := clientOf(t, limiter, third, TransportOptions{})
			for range 10 {
				calls.Go(func() { assert.NoError(t, call(t.Context(), client, partner, "order")) })
			}
		}
		calls.Wait()
		times := third.times()
		require.Len(t, times, 30)
		for i := range times[1:] {
			assert.InDelta(t, 0.1, (times[i+1] - times[i]).Seconds(), 0.02, "evenly, but for the way to the owner and back")
		}
	})
}

func TestRetryAfterHoldsFollowingRequestsBack(t *testing.T) {
	const date = "Mon, 06 Jul 2026 10:00:00 GMT"
	for name, c := range map[string]struct {
		answer *http.Response
		held   time.Duration
	}{
		"seconds":                   {answer(429, "7", ""), 7 * time.Second},
		"unavailable":               {answer(503, "7", ""), 7 * time.Second},
		"spaces":                    {answer(429, " 7 ", ""), 7 * time.Second},
		"a date":                    {answer(429, "Sat, 01 Jan 2000 00:00:09 GMT", ""), 9 * time.Second},
		"a date by their own clock": {answer(429, "Mon, 06 Jul 2026 10:00:05 GMT", date), 5 * time.Second},
		"a date in the past":        {answer(429, "Mon, 06 Jul 2026 09:00:00 GMT", date), 0},
		"an old form of date":       {answer(429, "Monday, 06-Jul-26 10:00:04 GMT", date), 4 * time.Second},
		"no time":                   {answer(429, "0", ""), 0},
		"nothing":                   {answer(429, "", ""), 0},
		"a negative time":           {answer(429, "-7", ""), 0},
		"a fraction":                {answer(429, "7.5", ""), 0},
		"nonsense":                  {answer(429, "soon", ""), 0},
		"another status":            {answer(200, "7", ""), 0},
		"a redirect":                {answer(302, "7", ""), 0},
		"longer than is obeyed":     {answer(429, "3600", ""), 20 * time.Second},
		"longer than can be":        {answer(429, "99999999999999999999999", ""), 20 * time.Second},
		"longer than a duration":    {answer(503, "9999999999999", ""), 20 * time.Second},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) { // which begins on 1 January 2000, at midnight
				third := newThirdParty(c.answer)
				client := clientOf(t, unlimited, third, TransportOptions{MaxRetryAfter: 20 * time.Second})
				require.NoError(t, call(t.Context(), client, partner, "first"))
				require.NoError(t, call(t.Context(), client, "http://other.example/", "elsewhere"))
				require.NoError(t, call(t.Context(), client, partner, "second"))
				require.NoError(t, call(t.Context(), client, partner, "third"))
				assert.Equal(t, []sent{{0, "first"}, {0, "elsewhere"}, {c.held, "second"}, {c.held, "third"}}, third.sent)
			})
		})
	}
}

// A shorter Retry-After does not make others come back sooner than they were told.
func TestTheLongestRetryAfterCounts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var p pauses
		p.set("k", 10*time.Second)
		p.set("k", time.Second)
		time.Sleep(4 * time.Second)
		assert.Equal(t, 6*time.Second, p.left("k"))
		p.set("k", 20*time.Second)
		assert.Equal(t, 20*time.Second, p.left("k"))
		time.Sleep(time.Minute)
		assert.Zero(t, p.left("k"))
		assert.Zero(t, p.left("another"))
	})
}

func TestPausesAreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var p pauses
		for i := range maxPauses {
			p.set(fmt.Sprint(i), time.Minute)
		}
		p.set("one too many", time.Minute)
		assert.Zero(t, p.left("one too many"))
		p.set("7", time.Hour)
		assert.Equal(t, time.Hour, p.left("7"))
		time.Sleep(time.Minute)
		p.set("the next", time.Minute)
		assert.Equal(t, time.Minute, p.left("the next"))
		assert.Len(t, p.until, 2)
	})
}

// A turn that comes too late is told immediately, and so is a pause; nothing is sent and the body is closed.
func TestWhatWouldWaitTooLongFailsAtOnce(t *testing.T) {
	for name, c := range map[string]struct {
		taker  Taker
		answer *http.Response
		wait   time.Duration
	}{
		"the turn":  {bucket(t, peerlimit.PerMinute(1)), answer(200, "", ""), time.Minute},
		"the pause": {unlimited, answer(429, "60", ""), time.Minute},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				for _, within := range []time.Duration{0, 30 * time.Second} { // of the options, of the context
					third := newThirdParty(c.answer)
					taker := c.taker
					if name == "the turn" {
						taker = bucket(t, peerlimit.PerMinute(1))
					}
					ctx, o := t.Context(), TransportOptions{MaxWait: 30 * time.Second}
					if within > 0 {
						o.MaxWait = time.Hour
						limited, cancel := context.WithTimeout(ctx, within)
						defer cancel()
						ctx = limited
					}
					client := clientOf(t, taker, third, o)
					require.NoError(t, call(ctx, client, partner, "first"))

					body := &closable{Reader: strings.NewReader("second")}
					r, err := http.NewRequestWithContext(ctx, http.MethodPost, partner, body)
					require.NoError(t, err)
					began := time.Now()
					_, err = client.Do(r)
					assert.ErrorIs(t, err, peerlimit.ErrLimited)
					var denied *peerlimit.LimitedError
					require.ErrorAs(t, err, &denied)
					assert.Equal(t, c.wait, denied.Decision.RetryAfter)
					assert.ErrorContains(t, err, "retry after 1m0s")
					assert.Zero(t, time.Since(began))
					assert.True(t, body.closed)
					assert.Len(t, third.times(), 1)
				}
			})
		})
	}
}

// closable is a body that knows whether it was closed.
type closable struct {
	io.Reader
	closed bool
}

func (c *closable) Close() error {
	c.closed = true
	return nil
}

// A request that gives up waiting is told so, and another one gets its turn.
func TestGivingUpWhileWaiting(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for name, taker := range takers(t, peerlimit.PerMinute(1)) {
			third := newThirdParty()
			client := clientOf(t, taker, third, TransportOptions{})
			require.NoError(t, call(t.Context(), client, partner, "first"))

			ctx, giveUp := context.WithCancel(t.Context())
			time.AfterFunc(10*time.Second, giveUp)
			began := time.Now()
			assert.ErrorIs(t, call(ctx, client, partner, "second"), context.Canceled, name)
			assert.Equal(t, 10*time.Second, time.Since(began), name)

			require.NoError(t, call(t.Context(), client, partner, "third"))
			require.Len(t, third.sent, 2, name)
			assert.InDelta(t, 60, third.sent[1].at.Seconds(), 1e-6, name)
			assert.Equal(t, "third", third.sent[1].body, name)
		}
	})
}

func TestGivingUpDuringAPause(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		third := newThirdParty(answer(429, "60", ""))
		client := clientOf(t, unlimited, third, TransportOptions{})
		require.NoError(t, call(t.Context(), client, partner, "first"))
		ctx, giveUp := context.WithCancel(t.Context())
		time.AfterFunc(10*time.Second, giveUp)
		began := time.Now()
		assert.ErrorIs(t, call(ctx, client, partner, "second"), context.Canceled)
		assert.Equal(t, 10*time.Second, time.Since(began))
		assert.Len(t, third.times(), 1)
	})
}

// A request that waits for its turn hears of a Retry-After that comes in meanwhile.
func TestAPauseThatBeginsWhileWaiting(t *testing.T) {
	for _, held := range []time.Duration{20 * time.Second, 10 * time.Minute} {
		synctest.Test(t, func(t *testing.T) {
			limiter, err := peerlimittest.NewNode(t).Limiter("partner", peerlimit.Per(1, 10*time.Second))
			require.NoError(t, err)
			third := newThirdParty(answer(429, fmt.Sprint(held.Seconds()), ""))
			slow := roundTripper(func(r *http.Request) (*http.Response, error) {
				time.Sleep(5 * time.Second)
				return third.RoundTrip(r)
			})
			client := clientOf(t, limiter, slow, TransportOptions{})
			var calls sync.WaitGroup
			calls.Go(func() { assert.NoError(t, call(t.Context(), client, partner, "first")) })
			synctest.Wait()
			err = call(t.Context(), client, partner, "second")
			calls.Wait()
			if held == 20*time.Second {
				require.NoError(t, err)
				assert.Equal(t, []sent{{5 * time.Second, "first"}, {30 * time.Second, "second"}}, third.sent)
				return
			}
			assert.ErrorIs(t, err, peerlimit.ErrLimited)
			assert.True(t, limiter.Allow(t.Context(), "partner.example"), "its turn was given back")
		})
	}
}

// roundTripper is a function as a RoundTripper.
type roundTripper func(r *http.Request) (*http.Response, error)

func (f roundTripper) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

func TestRequestsThatCannotBeJudgedAreNotSent(t *testing.T) {
	closed := errors.New("closed")
	third := newThirdParty()
	for name, c := range map[string]struct {
		taker Taker
		o     TransportOptions
		is    error
	}{
		"take fails":  {failing(closed), TransportOptions{}, closed},
		"above burst": {bucket(t, peerlimit.PerHour(1)), TransportOptions{Cost: func(*http.Request) float64 { return 2 }}, peerlimit.ErrExceedsBurst},
		"no key":      {unlimited, TransportOptions{Key: Header("X-Account")}, ErrNoKey},
		"empty key":   {unlimited, TransportOptions{Key: fixed("")}, peerlimit.ErrInvalidKey},
	} {
		assert.ErrorIs(t, call(t.Context(), clientOf(t, c.taker, third, c.o), partner, "order"), c.is, name)
	}
	_, err := clientOf(t, unlimited, third, TransportOptions{}).Transport.RoundTrip(&http.Request{})
	assert.ErrorContains(t, err, "no host")
	assert.Empty(t, third.times())

	free := clientOf(t, failing(closed), third, TransportOptions{Cost: func(*http.Request) float64 { return 0 }})
	assert.NoError(t, call(t.Context(), free, partner, "order"))
	assert.Len(t, third.times(), 1)
}

func TestAFailureToSendIsTold(t *testing.T) {
	failure := errors.New("no route")
	client := clientOf(t, unlimited, roundTripper(func(*http.Request) (*http.Response, error) { return nil, failure }), TransportOptions{})
	assert.ErrorIs(t, call(t.Context(), client, partner, "order"), failure)
}

func TestNewTransportRefusesBadOptions(t *testing.T) {
	for _, c := range []struct {
		taker Taker
		o     TransportOptions
		says  string
	}{
		{nil, TransportOptions{}, "taker is nil"},
		{unlimited, TransportOptions{MaxWait: -1}, "MaxWait is -1ns"},
		{unlimited, TransportOptions{MaxRetryAfter: -time.Hour}, "MaxRetryAfter is -1h0m0s"},
	} {
		transport, err := NewTransport(c.taker, c.o)
		assert.ErrorIs(t, err, ErrInvalid)
		assert.ErrorContains(t, err, "httplimit: invalid: "+c.says)
		assert.Nil(t, transport)
	}
}

// A real client and a real server, which is limited by the same package.
func TestClientAndServerAgree(t *testing.T) {
	server := httptest.NewServer(limited(t, bucket(t, peerlimit.PerHour(1)), Options{Name: "api"}, ok))
	defer server.Close()
	transport, err := NewTransport(unlimited, TransportOptions{})
	require.NoError(t, err)
	client := &http.Client{Transport: transport}
	defer client.CloseIdleConnections()
	require.NoError(t, call(t.Context(), client, server.URL, "first"))
	require.NoError(t, call(t.Context(), client, server.URL, "second")) // is answered with 429
	err = call(t.Context(), client, server.URL, "third")
	assert.ErrorIs(t, err, peerlimit.ErrLimited)
	var denied *peerlimit.LimitedError
	require.ErrorAs(t, err, &denied)
	assert.Greater(t, denied.Decision.RetryAfter, 50*time.Minute)
}

func TestIdleConnectionsAreThoseOfTheBase(t *testing.T) {
	base := &closing{}
	clientOf(t, unlimited, base, TransportOptions{}).CloseIdleConnections()
	assert.Equal(t, 1, base.closed)
	clientOf(t, unlimited, newThirdParty(), TransportOptions{}).CloseIdleConnections() // which has none
}

type closing struct {
	http.Transport
	closed int
}

func (c *closing) CloseIdleConnections() { c.closed++ }
