package main

import (
	"encoding/json"
	"io"
	"log/slog"
	"net/http"

	"github.com/peerlimit/peerlimit"
	"github.com/peerlimit/peerlimit/httplimit"
)

// service answers requests.
type service struct {
	// client is what tells clients apart: the address that the connection comes from, which with IPv6 is the /64. Behind a
	// proxy that is the proxy's, and all clients would share one bucket: then name the proxy among IPOptions.TrustedProxies.
	client httplimit.KeyFunc
}

// newHandler returns the service's routes. Their limiters keep separate buckets for the same client, because their names
// differ. The mux answers other methods with 405 and other paths with 404, which costs nothing.
func newHandler(node *peerlimit.Node, limit peerlimit.Limit) (http.Handler, error) {
	client, err := httplimit.ClientIP(httplimit.IPOptions{})
	if err != nil {
		return nil, err
	}
	s := &service{client: client}
	token, err := s.limited(node, "token", limit)
	if err != nil {
		return nil, err
	}
	leaky, err := s.limited(node, "leaky", limit.Leaky())
	if err != nil {
		return nil, err
	}
	mux := http.NewServeMux()
	mux.Handle("GET /token", token)
	mux.Handle("GET /leaky", leaky)
	mux.HandleFunc("GET /healthz", handleHealth)
	return mux, nil
}

// limited returns a handler that says yes to each client as often as the limit allows. A token bucket lets a client's burst
// through at once and refuses what is above the rate. A leaky bucket holds requests back until their turn, which comes
// evenly at the rate, and refuses at once when it is full; a client that does not wait gives its turn back, unless others
// already stand behind it.
func (s *service) limited(node *peerlimit.Node, name string, limit peerlimit.Limit) (http.Handler, error) {
	limiter, err := node.Limiter(name, limit)
	if err != nil {
		return nil, err
	}
	options := httplimit.Options{Name: name, Key: s.client, Denied: s.deny, OnError: logError}
	if limit.Algorithm == peerlimit.LeakyBucket {
		options.MaxWait = maxWait
	}
	middleware, err := httplimit.New(limiter, options)
	if err != nil {
		return nil, err
	}
	return middleware(http.HandlerFunc(s.allow)), nil
}

// handleHealth says yes, always: the port is not served before the node is ready.
func handleHealth(w http.ResponseWriter, _ *http.Request) {
	_, _ = io.WriteString(w, "ok\n")
}

// answer is the body of every decision.
type answer struct {
	Allowed bool   `json:"allowed"`
	IP      string `json:"ip"`
	Message string `json:"message"`
}

// allow answers a request that was let through.
func (s *service) allow(w http.ResponseWriter, r *http.Request) {
	s.respond(w, r, http.StatusOK, answer{Allowed: true, Message: "Request allowed"})
}

// deny answers one that was not. The middleware has said in the header when to come back.
func (s *service) deny(w http.ResponseWriter, r *http.Request, _ peerlimit.Decision) {
	s.respond(w, r, http.StatusTooManyRequests, answer{Message: "Rate limit exceeded"})
}

// respond tells the client what was decided about it.
func (s *service) respond(w http.ResponseWriter, r *http.Request, status int, a answer) {
	a.IP, _ = s.client(r)      // which the middleware has found before
	body, _ := json.Marshal(a) // a struct of strings always can be
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store") // a stored answer would be neither counted nor true
	w.WriteHeader(status)
	_, _ = w.Write(body) // fails only when the client has gone
}

// logError tells of a request about which nothing was decided, and which is answered with 503. A denial is not an error, and
// neither is a member that cannot be reached, so what comes here is a node that was closed.
func logError(r *http.Request, err error) {
	slog.Error("no decision", "path", r.URL.Path, "err", err)
}
