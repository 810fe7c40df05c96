package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/netip"
	"strconv"
	"time"

	"github.com/peerlimit/peerlimit"
)

// service answers requests. Its limiters keep separate buckets for the same client, because their names differ.
type service struct {
	token *peerlimit.Limiter
	leaky *peerlimit.Limiter
}

// newHandler returns the service's routes. The mux answers other methods with 405 and other paths with 404.
func newHandler(node *peerlimit.Node, limit peerlimit.Limit) (http.Handler, error) {
	token, err := node.Limiter("token", limit)
	if err != nil {
		return nil, err
	}
	leaky, err := node.Limiter("leaky", limit.Leaky())
	if err != nil {
		return nil, err
	}
	s := &service{token: token, leaky: leaky}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /token", s.handleToken)
	mux.HandleFunc("GET /leaky", s.handleLeaky)
	mux.HandleFunc("GET /healthz", handleHealth)
	return mux, nil
}

// handleToken lets a client's burst through at once and refuses what is above the rate.
func (s *service) handleToken(w http.ResponseWriter, r *http.Request) {
	ip, err := clientIP(r)
	if err != nil {
		fail(w, r, err)
		return
	}
	decision, err := s.token.Take(r.Context(), ip, 1)
	if err != nil {
		fail(w, r, err)
		return
	}
	respond(w, ip, decision)
}

// handleLeaky holds a client's requests back until their turn, which comes evenly at the rate, and refuses at once when
// the bucket is full. A client that does not wait gives its turn back, unless others already stand behind it.
func (s *service) handleLeaky(w http.ResponseWriter, r *http.Request) {
	ip, err := clientIP(r)
	if err != nil {
		fail(w, r, err)
		return
	}
	decision := peerlimit.Decision{Allowed: true}
	if err := s.leaky.Wait(r.Context(), ip); err != nil {
		var limited *peerlimit.LimitedError
		if !errors.As(err, &limited) {
			fail(w, r, err)
			return
		}
		decision = limited.Decision
	}
	respond(w, ip, decision)
}

// handleHealth says yes, always: the port is not served before the node is ready.
func handleHealth(w http.ResponseWriter, _ *http.Request) {
	_, _ = io.WriteString(w, "ok\n")
}

// clientIP is the address the connection comes from. Behind a proxy that is the proxy's, and all clients would share one
// bucket: then take the address that the proxy reports, and only from a proxy you trust, because anyone can send the
// header. A client with IPv6 usually has a whole /64 to choose addresses from; limiting the prefix would stop that.
func clientIP(r *http.Request) (string, error) {
	addr, err := netip.ParseAddrPort(r.RemoteAddr)
	if err != nil {
		return "", fmt.Errorf("no client address: %w", err)
	}
	return addr.Addr().Unmap().String(), nil
}

// answer is the body of every decision.
type answer struct {
	Allowed bool   `json:"allowed"`
	IP      string `json:"ip"`
	Message string `json:"message"`
}

// respond tells the client what was decided.
func respond(w http.ResponseWriter, ip string, decision peerlimit.Decision) {
	status, a := http.StatusOK, answer{Allowed: true, IP: ip, Message: "Request allowed"}
	if !decision.Allowed {
		status, a = http.StatusTooManyRequests, answer{IP: ip, Message: "Rate limit exceeded"}
		w.Header().Set("Retry-After", strconv.FormatInt(retryAfterSeconds(decision.RetryAfter), 10))
	}
	body, _ := json.Marshal(a) // a struct of strings always can be
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store") // a stored answer would be neither counted nor true
	w.WriteHeader(status)
	_, _ = w.Write(body) // fails only when the client has gone
}

// retryAfterSeconds rounds up to what the header can say: a client that obeys is never too early, and never told 0.
func retryAfterSeconds(wait time.Duration) int64 {
	seconds := int64(wait / time.Second)
	if wait%time.Second > 0 {
		seconds++
	}
	return max(1, seconds)
}

// fail answers a request that nothing was decided about. A denial is not an error, and neither is a member that cannot be
// reached, so what comes here is a client that has gone or a node that was closed.
func fail(w http.ResponseWriter, r *http.Request, err error) {
	if r.Context().Err() != nil {
		return // nobody is there to be answered
	}
	slog.Error("no decision", "path", r.URL.Path, "error", err)
	http.Error(w, "no decision", http.StatusServiceUnavailable)
}
