package main

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/peerlimit/peerlimit"
)

// A node's limit, its network and its buckets are the demo's business: a page of another site that is open in a browser on
// this machine changes none of them, whether it knows the address or has given it a name.
func TestNodesObeyNoPageOfAnotherSite(t *testing.T) {
	node, err := peerlimit.Start(peerlimit.Config{Name: "node-1"})
	require.NoError(t, err)
	defer node.Close()
	s := &service{network: newCuttable()}
	s.node = node
	require.NoError(t, s.setLimit(limitOrder{100, 10}))
	s.limiter, err = node.Limiter(limiterName, peerlimit.PerSecond(1).WithBurst(10))
	require.NoError(t, err)
	server := httptest.NewServer(s.routes())
	defer server.Close()
	post := func(path, body string, change func(*http.Request)) int {
		r, err := http.NewRequest(http.MethodPost, server.URL+path, strings.NewReader(body))
		require.NoError(t, err)
		change(r)
		response, err := http.DefaultClient.Do(r)
		require.NoError(t, err)
		defer response.Body.Close()
		return response.StatusCode
	}
	before := *s.limit.Load()
	for _, c := range []struct{ path, body string }{
		{"/limit", `{"Rate":1,"Burst":1}`}, {"/cut", `{"Addresses":["127.0.0.1:1"]}`}, {"/take?key=a", ""},
	} {
		for name, change := range map[string]func(*http.Request){
			"of another origin":  func(r *http.Request) { r.Header.Set("Origin", "http://evil.example") },
			"of no origin":       func(r *http.Request) { r.Header.Set("Origin", "null") },
			"said by a browser":  func(r *http.Request) { r.Header.Set("Sec-Fetch-Site", "cross-site") },
			"of the same site":   func(r *http.Request) { r.Header.Set("Sec-Fetch-Site", "same-site") },
			"on another port":    func(r *http.Request) { r.Header.Set("Origin", "http://127.0.0.1:1") },
			"by a name":          func(r *http.Request) { r.Host = "evil.example:80"; r.Header.Set("Origin", "http://evil.example:80") },
			"by a name, no port": func(r *http.Request) { r.Host = "evil.example" },
		} {
			assert.GreaterOrEqual(t, post(c.path, c.body, change), 400, "%s, %s", c.path, name)
		}
	}
	assert.Equal(t, before, *s.limit.Load())
	away, _ := s.network.isAway("127.0.0.1:1")
	assert.False(t, away)
	d, err := s.limiter.Peek(t.Context(), "a")
	require.NoError(t, err)
	assert.Equal(t, 10.0, d.Remaining, "no take was made")

	assert.Equal(t, http.StatusNoContent, post("/limit", `{"Rate":1,"Burst":1}`, func(*http.Request) {}))
	assert.Equal(t, http.StatusNoContent, post("/cut", `{"Addresses":["127.0.0.1:1"]}`, func(*http.Request) {}))
	assert.Equal(t, http.StatusOK, post("/take?key=a", "", func(*http.Request) {}))
	assert.Equal(t, http.StatusBadRequest, post("/limit", `{"Addresses":["`+strings.Repeat("x", maxOrder)+`"]}`, func(*http.Request) {}))
}
