package httplimit_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"time"

	"github.com/peerlimit/peerlimit"
	"github.com/peerlimit/peerlimit/httplimit"
)

// startExample starts a cluster of one; a service gives BindAddr and Join.
func startExample() *peerlimit.Node {
	node, err := peerlimit.Start(peerlimit.Config{Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		log.Fatal(err)
	}
	return node
}

var hello = http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, "hello\n") })

// get asks a handler with a request that has these header fields.
func get(handler http.Handler, path string, fields ...string) *httptest.ResponseRecorder {
	r := httptest.NewRequest(http.MethodGet, path, nil)
	for i := 0; i < len(fields); i += 2 {
		r.Header.Set(fields[i], fields[i+1])
	}
	w := httptest.NewRecorder()
	handler.ServeHTTP(w, r)
	return w
}

// Each client IP may send two requests an hour, whichever instance of the service it asks.
func ExampleNew() {
	node := startExample()
	defer node.Close()
	perClient, err := node.Limiter("per-client", peerlimit.PerHour(2))
	if err != nil {
		log.Fatal(err)
	}
	limit, err := httplimit.New(perClient, httplimit.Options{Name: "per-client"})
	if err != nil {
		log.Fatal(err)
	}
	handler := limit(hello)
	for range 3 {
		answer := get(handler, "/")
		told := answer.Header()
		fmt.Printf("%d %s %s %q\n", answer.Code, told.Get("RateLimit-Policy"), told.Get("RateLimit"), told.Get("Retry-After"))
	}
	// Output:
	// 200 "per-client";q=2;w=3600 "per-client";r=1;t=1800 ""
	// 200 "per-client";q=2;w=3600 "per-client";r=0;t=3600 ""
	// 429 "per-client";q=2;w=3600 "per-client";r=0;t=1800 "1800"
}

// Customers have tiers: the limits depend on the key. A customer's header was checked by the proxy that let the request in.
func ExampleNew_tiers() {
	node := startExample()
	defer node.Close()
	perCustomer, err := node.LimiterFunc("per-customer", func(_ context.Context, key string) []peerlimit.Limit {
		if strings.HasPrefix(key, "enterprise-") {
			return []peerlimit.Limit{peerlimit.PerSecond(100)}
		}
		return []peerlimit.Limit{peerlimit.PerSecond(5)}
	})
	if err != nil {
		log.Fatal(err)
	}
	limit, err := httplimit.New(perCustomer, httplimit.Options{Name: "per-customer", Key: httplimit.Header("X-Customer")})
	if err != nil {
		log.Fatal(err)
	}
	for _, customer := range []string{"free-bob", "enterprise-acme"} {
		fmt.Println(get(limit(hello), "/", "X-Customer", customer).Header().Get("RateLimit-Policy"))
	}
	// Output:
	// "per-customer";q=5;w=1
	// "per-customer";q=100;w=1
}

// Uploads cost what they weigh, and wait up to ten seconds for their turn.
func ExampleNew_cost() {
	node := startExample()
	defer node.Close()
	uploads, err := node.Limiter("uploads", peerlimit.PerSecond(1<<20).WithBurst(10<<20))
	if err != nil {
		log.Fatal(err)
	}
	limit, err := httplimit.New(uploads, httplimit.Options{
		Name:    "uploads",
		Unit:    "content-bytes",
		Cost:    func(r *http.Request) float64 { return float64(max(r.ContentLength, 1<<10)) }, // -1: not known
		MaxWait: 10 * time.Second,
		OnError: func(r *http.Request, err error) { slog.Error("no decision", "path", r.URL.Path, "error", err) },
	})
	if err != nil {
		log.Fatal(err)
	}
	r := httptest.NewRequest(http.MethodPut, "/", strings.NewReader(strings.Repeat("x", 4<<20)))
	w := httptest.NewRecorder()
	limit(hello).ServeHTTP(w, r)
	fmt.Println(w.Code, w.Header().Get("RateLimit-Policy"))
	// Output: 200 "uploads";q=1048576;qu="content-bytes";w=1
}

// A request counts against the user and the tenant, or against neither.
func ExampleTakerFunc() {
	node := startExample()
	defer node.Close()
	perUser, err := node.Limiter("per-user", peerlimit.PerMinute(60))
	if err != nil {
		log.Fatal(err)
	}
	perTenant, err := node.Limiter("per-tenant", peerlimit.PerMinute(100))
	if err != nil {
		log.Fatal(err)
	}
	both := httplimit.TakerFunc(func(ctx context.Context, key string, cost float64) (peerlimit.Decision, error) {
		tenant, _, _ := strings.Cut(key, "/")
		return peerlimit.TakeAll(ctx,
			peerlimit.Request{Limiter: perUser, Key: key, Cost: cost},
			peerlimit.Request{Limiter: perTenant, Key: tenant, Cost: cost})
	})
	limit, err := httplimit.New(both, httplimit.Options{Name: "api", Key: httplimit.Header("X-User")})
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(get(limit(hello), "/", "X-User", "acme/bob").Header().Get("RateLimit-Policy"))
	// Output: "api";q=60;w=60
}

// One process that limits itself, with no node: a bucket that all requests share.
func ExampleTakerFunc_bucket() {
	bucket, err := peerlimit.NewBucket(peerlimit.PerSecond(100))
	if err != nil {
		log.Fatal(err)
	}
	taker := httplimit.TakerFunc(func(_ context.Context, _ string, cost float64) (peerlimit.Decision, error) {
		return bucket.Take(cost)
	})
	limit, err := httplimit.New(taker, httplimit.Options{Name: "everyone"})
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(get(limit(hello), "/").Code)
	// Output: 200
}

// Behind two proxies of one's own, the client is the address that the outer one has heard from.
func ExampleClientIP() {
	key, err := httplimit.ClientIP(httplimit.IPOptions{TrustedProxies: []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8")}})
	if err != nil {
		log.Fatal(err)
	}
	r := httptest.NewRequest(http.MethodGet, "/", nil)
	r.RemoteAddr = "10.0.0.2:4711"
	r.Header.Set("X-Forwarded-For", "203.0.113.9, 2001:db8:1:2:3:4:5:6, 10.0.0.1") // the client has written the first itself
	client, err := key(r)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(client)
	// Output: 2001:db8:1:2::/64
}

// Each client has a bucket for each route.
func ExampleJoin() {
	client, err := httplimit.ClientIP(httplimit.IPOptions{})
	if err != nil {
		log.Fatal(err)
	}
	key := httplimit.Join(client, httplimit.RoutePattern)
	mux := http.NewServeMux()
	mux.HandleFunc("GET /users/{id}", func(_ http.ResponseWriter, r *http.Request) {
		k, err := key(r)
		fmt.Println(k, err)
	})
	get(mux, "/users/bob")
	// Output: 192.0.2.1|GET /users/{id} <nil>
}

// One bucket for each route: the middleware stands inside of the mux, which says which pattern matched.
func ExampleRoutePattern() {
	node := startExample()
	defer node.Close()
	perRoute, err := node.Limiter("per-route", peerlimit.PerHour(1))
	if err != nil {
		log.Fatal(err)
	}
	limit, err := httplimit.New(perRoute, httplimit.Options{Name: "per-route", Key: httplimit.RoutePattern})
	if err != nil {
		log.Fatal(err)
	}
	mux := http.NewServeMux()
	mux.Handle("GET /users/{id}", limit(hello))
	mux.Handle("GET /orders/{id}", limit(hello))
	for _, path := range []string{"/users/bob", "/users/carol", "/orders/7"} {
		fmt.Println(path, get(mux, path).Code)
	}
	// Output:
	// /users/bob 200
	// /users/carol 429
	// /orders/7 200
}

// Requests without a key are answered with 400, unless KeyErrors lets them pass.
func ExampleHeader() {
	node := startExample()
	defer node.Close()
	perKey, err := node.Limiter("per-key", peerlimit.PerHour(10))
	if err != nil {
		log.Fatal(err)
	}
	for _, choice := range []httplimit.ErrorChoice{httplimit.Deny, httplimit.Pass} {
		limit, err := httplimit.New(perKey, httplimit.Options{Name: "per-key", Key: httplimit.Header("X-Api-Key"), KeyErrors: choice})
		if err != nil {
			log.Fatal(err)
		}
		fmt.Println(choice, get(limit(hello), "/").Code, get(limit(hello), "/", "X-Api-Key", "s3cret").Code)
	}
	// Output:
	// Deny 400 200
	// Pass 200 200
}

// All instances together call a third party a hundred times a second, evenly, and less when it says so.
func ExampleNewTransport() {
	node := startExample()
	defer node.Close()
	quota, err := node.Limiter("partner", peerlimit.PerSecond(100).WithBurst(1))
	if err != nil {
		log.Fatal(err)
	}
	transport, err := httplimit.NewTransport(quota, httplimit.TransportOptions{MaxWait: 5 * time.Second})
	if err != nil {
		log.Fatal(err)
	}
	client := &http.Client{Transport: transport}

	partner := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Retry-After", "30")
		w.WriteHeader(http.StatusServiceUnavailable)
	}))
	defer partner.Close()
	answer, err := client.Get(partner.URL)
	if err != nil {
		log.Fatal(err)
	}
	answer.Body.Close()
	fmt.Println(answer.Status)
	_, err = client.Get(partner.URL) // in 30 seconds, which is longer than MaxWait
	fmt.Println(errors.Is(err, peerlimit.ErrLimited))
	// Output:
	// 503 Service Unavailable
	// true
}
