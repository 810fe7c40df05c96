package main

import (
	"fmt"
	"net"
	"net/http"
)

// localOnly guards what the demo and its nodes serve on this machine from pages of other sites that are open in a browser
// here: they may not press buttons, not even by a name that leads to this machine.
func localOnly(handler http.Handler) http.Handler {
	guarded := http.NewCrossOriginProtection().Handler(handler)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("X-Content-Type-Options", "nosniff")
		w.Header().Set("Cache-Control", "no-store")
		if host, _, err := net.SplitHostPort(r.Host); err != nil || host != "localhost" && net.ParseIP(host) == nil {
			http.Error(w, fmt.Sprintf("this is found by an IP address or as localhost, not as %.100q", r.Host), http.StatusMisdirectedRequest)
			return
		}
		guarded.ServeHTTP(w, r)
	})
}
