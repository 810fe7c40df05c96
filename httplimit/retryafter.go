package httplimit

import (
	"math"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"time"
)

// retryAfter returns how long an answer asks to wait: more than 0 only when its status is 429 or 503.
func retryAfter(r *http.Response) time.Duration {
	if r.StatusCode != http.StatusTooManyRequests && r.StatusCode != http.StatusServiceUnavailable {
		return 0
	}
	value := strings.TrimSpace(r.Header.Get(fieldRetryAfter))
	if isDigits(value) {
		seconds, err := strconv.ParseInt(value, 10, 64)
		if err != nil || seconds > int64(math.MaxInt64/time.Second) {
			return math.MaxInt64 // which the transport bounds
		}
		return time.Duration(seconds) * time.Second
	}
	at, err := http.ParseTime(value)
	if err != nil {
		return 0
	}
	now, err := http.ParseTime(r.Header.Get("Date")) // by the same clock
	if err != nil {
		now = time.Now()
	}
	return max(0, at.Sub(now))
}

// isDigits reports whether s is a number as Retry-After has it: without a sign.
func isDigits(s string) bool {
	for _, c := range []byte(s) {
		if c < '0' || c > '9' {
			return false
		}
	}
	return s != ""
}

// maxPauses bounds the memory of pauses; a third party has few keys, and those that are over make room.
const maxPauses = 10_000

// pauses remembers which keys are held back, and until when. The zero value is empty.
type pauses struct {
	mu    sync.Mutex // guards until
	until map[string]time.Time
}

// left returns how long a key is still held back; 0 when it is not.
func (p *pauses) left(key string) time.Duration {
	p.mu.Lock()
	defer p.mu.Unlock()
	return max(0, time.Until(p.until[key]))
}

// set holds a key back for that long from now, unless it is held back for longer. When there is no room it is not: its
// requests then get more answers that say to come back later.
func (p *pauses) set(key string, wait time.Duration) {
	p.mu.Lock()
	defer p.mu.Unlock()
	now := time.Now()
	if p.until == nil {
		p.until = make(map[string]time.Time)
	}
	if len(p.until) >= maxPauses {
		for k, until := range p.until {
			if !until.After(now) {
				delete(p.until, k)
			}
		}
	}
	if _, known := p.until[key]; !known && len(p.until) >= maxPauses {
		return
	}
	if until := now.Add(wait); until.After(p.until[key]) {
		p.until[key] = until
	}
}
