// Package signup is a service with a limit, and with the test that such a service should have: its instances run in one
// process, over a network in memory, and the one that decides about a key is killed while others ask about it. The test
// takes milliseconds, because its time is controlled.
package signup

import (
	"net/http"

	"github.com/peerlimit/peerlimit"
	"github.com/peerlimit/peerlimit/httplimit"
)

// Limit is how often one invitation may be used: five times a minute, over all instances together.
var Limit = peerlimit.PerMinute(5)

// NewHandler returns what one instance serves: POST /signup with the header Invitation.
func NewHandler(node *peerlimit.Node) (http.Handler, error) {
	limiter, err := node.Limiter("signup", Limit)
	if err != nil {
		return nil, err
	}
	limited, err := httplimit.New(limiter, httplimit.Options{Name: "signup", Key: httplimit.Header("Invitation")})
	if err != nil {
		return nil, err
	}
	mux := http.NewServeMux()
	mux.Handle("POST /signup", limited(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(http.StatusCreated)
	})))
	return mux, nil
}
