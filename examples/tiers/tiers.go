package main

import (
	"context"
	"fmt"
	"maps"
	"net/http"
	"sync"

	"github.com/peerlimit/peerlimit"
	"github.com/peerlimit/peerlimit/httplimit"
)

// limits are what each tier may do.
var limits = map[string]peerlimit.Limit{
	"free":       peerlimit.PerSecond(5),
	"enterprise": peerlimit.PerSecond(100),
}

// tiers knows the tier of each customer: what a service would have in its database and in a cache before it. All
// instances should learn of a change, but not at the same moment: the limit goes with each request to the node that
// decides.
type tiers struct {
	mu sync.RWMutex // guards of
	of map[string]string
}

func newTiers(of map[string]string) *tiers { return &tiers{of: maps.Clone(of)} }

// set changes the tier of a customer.
func (t *tiers) set(customer, tier string) error {
	if _, known := limits[tier]; !known {
		return fmt.Errorf("tier %q of customer %q is not known", tier, customer)
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.of[customer] = tier
	return nil
}

// tier returns the tier of a customer. A customer who is not known has the free one.
func (t *tiers) tier(customer string) string {
	t.mu.RLock()
	defer t.mu.RUnlock()
	if tier, known := t.of[customer]; known {
		return tier
	}
	return "free"
}

// newHandler returns a service that limits each customer by its tier.
func newHandler(node *peerlimit.Node, customers *tiers) (http.Handler, error) {
	perCustomer, err := node.LimiterFunc("per-customer", func(_ context.Context, customer string) []peerlimit.Limit {
		return []peerlimit.Limit{limits[customers.tier(customer)]}
	})
	if err != nil {
		return nil, err
	}
	// The header stands for the result of authentication: this service believes it, so only the authenticating proxy may set it.
	limit, err := httplimit.New(perCustomer, httplimit.Options{Name: "per-customer", Key: httplimit.Header("X-Customer")})
	if err != nil {
		return nil, err
	}
	return limit(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "text/plain; charset=utf-8")
		_, _ = fmt.Fprintf(w, "hello, %s\n", r.Header.Get("X-Customer")) // #nosec G705 -- plain text
	})), nil
}
