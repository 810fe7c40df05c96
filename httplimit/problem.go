package httplimit

import (
	"cmp"
	"encoding/json"
	"errors"
	"net/http"

	"github.com/peerlimit/peerlimit"
)

// quotaExceeded is the problem type of draft-ietf-httpapi-ratelimit-headers for a request that exceeds a policy.
const (
	quotaExceeded      = "https://iana.org/assignments/http-problem-types#quota-exceeded"
	quotaExceededTitle = "Request cannot be satisfied as assigned quota has been exceeded"
)

// problem is a problem document (RFC 9457).
type problem struct {
	Type     string   `json:"type,omitempty"` // none: the title says what the status says
	Title    string   `json:"title"`
	Status   int      `json:"status"`
	Violated []string `json:"violated-policies,omitempty"`
}

// write answers with the problem.
func (p problem) write(w http.ResponseWriter) {
	body, _ := json.Marshal(p) // strings and a number always can be
	h := w.Header()
	h.Set("Content-Type", "application/problem+json")
	h.Set("X-Content-Type-Options", "nosniff")
	h.Del("Content-Length") // of an answer that is not given
	w.WriteHeader(p.Status)
	_, _ = w.Write(append(body, '\n')) // fails only when the client has gone
}

// exceeded is the answer to a request that a policy of that name denies.
func exceeded(policy string) problem {
	return problem{Type: quotaExceeded, Title: quotaExceededTitle, Status: http.StatusTooManyRequests, Violated: []string{policy}}
}

// writeDenied is the answer to a request that was denied, unless there is Options.Denied. It names the limiter that denied; a
// Taker that has no name for it is this middleware's policy.
func (m *middleware) writeDenied(w http.ResponseWriter, _ *http.Request, d peerlimit.Decision) {
	exceeded(cmp.Or(d.Denied, m.Name)).write(w)
}

// writeFailed is the answer to a request about which nothing was decided, unless there is Options.Failed.
func (m *middleware) writeFailed(w http.ResponseWriter, r *http.Request, err error) {
	switch {
	case r.Context().Err() != nil:
		w.WriteHeader(http.StatusServiceUnavailable) // most likely the client has gone
	case errors.Is(err, peerlimit.ErrExceedsBurst):
		exceeded(m.Name).write(w) // and waiting would be in vain: no Retry-After
	case errors.Is(err, ErrNoKey), errors.Is(err, peerlimit.ErrInvalidKey):
		problem{Title: "Request cannot be limited as its key is missing or malformed", Status: http.StatusBadRequest}.write(w)
	default:
		problem{Title: http.StatusText(http.StatusServiceUnavailable), Status: http.StatusServiceUnavailable}.write(w)
	}
}
