package statuspage

import (
	"errors"
	"fmt"
	"net/http"
	"sync"
	"time"

	"github.com/peerlimit/peerlimit"
)

// Options are what can be chosen. The zero value shows everything.
type Options struct {
	// HideKeys shows eight hexadecimal digits instead of each busy key: the same for the same key as long as the page is
	// there, and nothing that a key could be computed from. A key in a query is shown as it is: the operator has it already.
	HideKeys bool
}

// Page is the status page of one node. It is an http.Handler for any path, safe for concurrent use.
type Page struct {
	node    *peerlimit.Node
	options Options
	keys    *busyKeys
	stop    func()
	once    sync.Once
}

// ErrInvalid is matched by the errors of [New].
var ErrInvalid = errors.New("statuspage: invalid")

// New returns the page of a node, and begins to sample the node's takes to know which keys are busy: one of 64, which costs
// a take some nanoseconds. An error matches [ErrInvalid]: node is nil.
func New(node *peerlimit.Node, o Options) (*Page, error) {
	if node == nil {
		return nil, fmt.Errorf("%w page: node is nil", ErrInvalid)
	}
	p := &Page{node: node, options: o, keys: newBusyKeys(time.Now())}
	stop, err := node.SampleTakes(sampleEvery, func(s peerlimit.Sample) { p.keys.add(s, time.Now()) })
	if err != nil {
		return nil, fmt.Errorf("%w page: %w", ErrInvalid, err)
	}
	p.stop = stop
	return p, nil
}

// Close ends the sampling. The page still works after that, but knows of no more keys. It need not be called before the
// process ends.
func (p *Page) Close() { p.once.Do(p.stop) }

// ServeHTTP answers GET and HEAD: with the page, or with the same as JSON when the request prefers application/json. With
// the query parameters limiter and key it also tells how that key stands; that takes nothing.
func (p *Page) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	h := w.Header()
	h.Set("Cache-Control", "no-store")
	h.Set("X-Content-Type-Options", "nosniff")
	if r.Method != http.MethodGet && r.Method != http.MethodHead {
		h.Set("Allow", "GET, HEAD")
		http.Error(w, "The status page only shows.", http.StatusMethodNotAllowed)
		return
	}
	h.Add("Vary", "Accept")
	report := p.report(r)
	if prefersJSON(r.Header.Values("Accept")) {
		writeJSON(w, report)
		return
	}
	writeHTML(w, report)
}
