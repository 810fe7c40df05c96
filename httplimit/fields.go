package httplimit

import (
	"math"
	"net/http"
	"strconv"
	"time"

	"github.com/dunglas/httpsfv"

	"github.com/peerlimit/peerlimit"
)

// The names of header fields, in the form that http.Header wants.
const (
	fieldPolicy     = "Ratelimit-Policy"
	fieldLimit      = "Ratelimit"
	fieldRetryAfter = "Retry-After"

	legacyLimit     = "X-Ratelimit-Limit"
	legacyRemaining = "X-Ratelimit-Remaining"
	legacyReset     = "X-Ratelimit-Reset"
)

// maxInteger is the greatest integer of a structured field (RFC 9651, 3.3.1).
const maxInteger = 999_999_999_999_999

// setFields tells what was decided. Whatever is there of other policies stays, in one list; an item of the same name is
// replaced.
func (m *middleware) setFields(h http.Header, d peerlimit.Decision) {
	retryAfter := wholeSeconds(d.RetryAfter)
	if !d.Allowed {
		retryAfter = max(1, retryAfter) // a client is never told to come back immediately
		h.Set(fieldRetryAfter, strconv.FormatInt(retryAfter, 10))
	}
	if d.Limit.Validate() != nil {
		return // a decision that does not say by which limit
	}
	remaining, reset := wholeTokens(d.Remaining), resetSeconds(d)
	if !d.Allowed {
		reset = min(reset, retryAfter)
	}
	if !m.NoRateLimitFields {
		m.setPolicy(h, d.Limit)
		item := httpsfv.NewItem(m.Name)
		item.Params.Add("r", remaining)
		item.Params.Add("t", reset)
		mergeItem(h, fieldLimit, item)
	}
	if m.LegacyFields {
		setLegacy(h, d, remaining, reset)
	}
}

// setPolicy tells the limit: it is the same in every answer.
func (m *middleware) setPolicy(h http.Header, limit peerlimit.Limit) {
	quota, window := quotaOf(limit)
	item := httpsfv.NewItem(m.Name)
	item.Params.Add("q", quota)
	if m.Unit != "" {
		item.Params.Add("qu", m.Unit)
	}
	item.Params.Add("w", window)
	mergeItem(h, fieldPolicy, item)
}

// mergeItem puts an item into a list field, in place of the one of the same name or at the end. What is there and is no
// list is of no use to anybody, and goes.
func mergeItem(h http.Header, field string, item httpsfv.Item) {
	list, err := httpsfv.UnmarshalList(h[field])
	if err != nil {
		list = nil
	}
	merged := httpsfv.List{}
	placed := false
	for _, member := range list {
		if other, is := member.(httpsfv.Item); is && other.Value == item.Value {
			if placed {
				continue
			}
			member, placed = item, true
		}
		merged = append(merged, member)
	}
	if !placed {
		merged = append(merged, item)
	}
	value, err := httpsfv.Marshal(merged)
	if err != nil {
		return // what was parsed and what New has checked can be written
	}
	h.Set(field, value)
}

// setLegacy sets the fields that were in use before the draft. They tell of one policy only: the one with the least left,
// or the one that denies.
func setLegacy(h http.Header, d peerlimit.Decision, remaining, reset int64) {
	if others, err := strconv.ParseInt(h.Get(legacyRemaining), 10, 64); err == nil && others < remaining && d.Allowed {
		return
	}
	h.Set(legacyLimit, strconv.FormatInt(wholeTokens(burstOf(d.Limit)), 10))
	h.Set(legacyRemaining, strconv.FormatInt(remaining, 10))
	h.Set(legacyReset, strconv.FormatInt(time.Now().Unix()+reset, 10))
}

// quotaOf returns a limit as whole tokens in a window of whole seconds: of the same rate where a window of up to ten
// times the shortest can express it, and otherwise of one that is a little lower.
func quotaOf(limit peerlimit.Limit) (quota, window int64) {
	period := limit.Period.Seconds()
	shortest := math.Ceil(math.Max(period, period/limit.Tokens))
	for times := 1.0; ; times++ {
		tokens := limit.Tokens * (shortest * times / period)
		whole := math.Round(tokens)
		if math.Abs(tokens-whole) <= 1e-9*whole || times == 10 {
			return wholeTokens(tokens * (1 + 1e-9)), wholeTokens(shortest * times)
		}
	}
}

// resetSeconds returns when the bucket is full again. ResetAfter is that of all limits of a limiter, the strictest may be
// full sooner.
func resetSeconds(d peerlimit.Decision) int64 {
	missing := math.Max(0, burstOf(d.Limit)-d.Remaining)
	refill := missing / d.Limit.Tokens * d.Limit.Period.Seconds()
	return min(wholeSeconds(d.ResetAfter), wholeTokens(math.Ceil(refill)))
}

// burstOf is Burst with its default.
func burstOf(limit peerlimit.Limit) float64 {
	if limit.Burst == 0 {
		return math.Max(limit.Tokens, 1)
	}
	return limit.Burst
}

// wholeTokens rounds down to what a field can hold.
func wholeTokens(tokens float64) int64 {
	if !(tokens > 0) {
		return 0
	}
	return int64(math.Min(tokens, maxInteger))
}

// wholeSeconds rounds up, to 0 or more.
func wholeSeconds(d time.Duration) int64 {
	seconds := int64(d / time.Second)
	if d%time.Second > 0 {
		seconds++
	}
	return max(0, seconds)
}
