package main

import (
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/netip"
	"strings"
	"time"

	"github.com/peerlimit/peerlimit"
	"github.com/peerlimit/peerlimit/fallback"
	"github.com/peerlimit/peerlimit/httplimit"
)

// Every attempt is paid for as if it failed, before the password is looked at, and one that succeeds gets most of it back.
// The other way round, a hundred guesses at the same moment would all be made before the first of them is punished.
const (
	successCost = 1.0 // tokens
	failureCost = 5.0

	maxBody       = 4 << 10 // bytes
	refundTimeout = time.Second
)

var (
	// An account has two guesses at once, and then one every 50 seconds. Anybody who knows an account's name can keep its owner
	// from logging in for as long; a service may want to ask for a second factor instead.
	accountLimit = peerlimit.PerMinute(6).WithBurst(10)

	// An address has twenty, and then twelve a minute: there may be a whole office behind it.
	ipLimit = peerlimit.PerMinute(60).WithBurst(100)

	// proxies may say which address their client has.
	proxies = []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}
)

// service lets people log in.
type service struct {
	perAccount, perIP *peerlimit.Limiter
	ip                httplimit.KeyFunc
}

// newHandler returns the service's routes.
func newHandler(node *peerlimit.Node) (http.Handler, error) {
	s := &service{}
	var err error
	if s.ip, err = httplimit.ClientIP(httplimit.IPOptions{TrustedProxies: proxies}); err != nil {
		return nil, err
	}
	if s.perAccount, err = closedLimiter(node, "login-account", accountLimit); err != nil {
		return nil, err
	}
	if s.perIP, err = closedLimiter(node, "login-ip", ipLimit); err != nil {
		return nil, err
	}
	limit, err := httplimit.New(httplimit.TakerFunc(s.take), httplimit.Options{
		Name: "login", Key: s.key,
		Cost:              func(*http.Request) float64 { return failureCost },
		NoRateLimitFields: true, // how many guesses are left is kept from the person who guesses
	})
	if err != nil {
		return nil, err
	}
	mux := http.NewServeMux()
	mux.Handle("POST /login", limit(http.HandlerFunc(s.login)))
	return http.MaxBytesHandler(mux, maxBody), nil
}

// closedLimiter returns a limiter that denies while the node which decides about a key cannot be reached: with the
// default fallback each node would let its share of guesses through.
func closedLimiter(node *peerlimit.Node, name string, limit peerlimit.Limit) (*peerlimit.Limiter, error) {
	limiter, err := node.Limiter(name, limit)
	if err != nil {
		return nil, err
	}
	return limiter.WithFallback(fallback.Closed), nil
}

// key is the account and the address. However an account is written, it is one account.
func (s *service) key(r *http.Request) (string, error) {
	account := strings.ToLower(strings.TrimSpace(r.PostFormValue("account")))
	if account == "" {
		return "", fmt.Errorf("%w: no account", httplimit.ErrNoKey)
	}
	ip, err := s.ip(r)
	return account + " " + ip, err
}

// buckets are those of a key, to take from or to give back to.
func (s *service) buckets(key string, cost float64) []peerlimit.Request {
	separator := strings.LastIndexByte(key, ' ') // an address has none in it
	return []peerlimit.Request{
		{Limiter: s.perAccount, Key: key[:separator], Cost: cost},
		{Limiter: s.perIP, Key: key[separator+1:], Cost: cost},
	}
}

// take takes from both buckets or from none: an attempt that the account's limit denies costs the address nothing.
func (s *service) take(ctx context.Context, key string, cost float64) (peerlimit.Decision, error) {
	return peerlimit.TakeAll(ctx, s.buckets(key, cost)...)
}

// login looks at the password.
func (s *service) login(w http.ResponseWriter, r *http.Request) {
	key, err := s.key(r)
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest) // which the middleware has answered before
		return
	}
	account := s.buckets(key, successCost)[0].Key
	if !passwordIs(account, r.PostFormValue("password")) {
		http.Error(w, "account or password is wrong", http.StatusUnauthorized) // the same for accounts that are not there
		return
	}
	s.giveBack(r.Context(), key)
	_, _ = io.WriteString(w, "welcome\n")
}

// GiveBack returns what a login costs less when it succeeds, also to a client that has hung up by now. What does not
// arrive is lost, which is the safe side.
func (s *service) giveBack(ctx context.Context, key string) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), refundTimeout)
	defer cancel()
	for _, b := range s.buckets(key, failureCost-successCost) {
		if err := b.Limiter.Refund(ctx, b.Key, b.Cost); err != nil {
			slog.Warn("a refund was lost", "err", err)
		}
	}
}

// passwords stands for a database of slow, salted hashes.
var passwords = map[string][sha256.Size]byte{"bob": sha256.Sum256([]byte("correct horse"))}

// passwordIs reports whether a password is that of an account. It takes as long when there is no such account.
func passwordIs(account, password string) bool {
	given, want := sha256.Sum256([]byte(password)), passwords[account]
	return subtle.ConstantTimeCompare(given[:], want[:]) == 1
}
