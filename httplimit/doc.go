// Package httplimit puts peerlimit in front of an HTTP service, and behind an HTTP client.
//
// [New] makes a middleware. Each request takes tokens from the bucket of its key: by default the client's IP address. One
// that is denied is answered with 429, Retry-After and a problem document; every answer tells how much is left in the
// fields RateLimit and RateLimit-Policy of draft-ietf-httpapi-ratelimit-headers. The ResponseWriter is handed on as it is,
// so a handler can flush, hijack and whatever else the server lets it do.
//
//	perClient, err := node.Limiter("per-client", peerlimit.PerMinute(100).WithBurst(20))
//	if err != nil { ... }
//	limit, err := httplimit.New(perClient, httplimit.Options{Name: "per-client"})
//	if err != nil { ... }
//	http.Handle("/", limit(handler))
//
// Middlewares can be stacked, each with a Name of its own. A request then takes from one after the other, the outermost
// first; what the outer ones took stays spent when an inner one denies. [peerlimit.TakeAll] in a [TakerFunc] takes from all
// limiters or from none.
//
// [NewTransport] makes an [http.RoundTripper] that waits for its turn before it calls a third party, and obeys its
// Retry-After.
package httplimit
