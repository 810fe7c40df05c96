package httplimit

import (
	"errors"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/peerlimit/peerlimit"
)

// fixed is a key function.
func fixed(key string) KeyFunc {
	return func(*http.Request) (string, error) { return key, nil }
}

func TestHeaderAsKey(t *testing.T) {
	r := httptest.NewRequest(http.MethodGet, "/", nil)
	key := Header("x-api-key")
	_, err := key(r)
	assert.ErrorIs(t, err, ErrNoKey)
	assert.ErrorContains(t, err, `"x-api-key"`)
	r.Header.Set("X-API-Key", "")
	_, err = key(r)
	assert.ErrorIs(t, err, ErrNoKey)
	r.Header.Set("X-API-Key", "s3cret")
	got, err := key(r)
	require.NoError(t, err)
	assert.Equal(t, "s3cret", got)
}

func TestRoutePatternAsKey(t *testing.T) {
	_, err := RoutePattern(httptest.NewRequest(http.MethodGet, "/users/bob", nil))
	assert.ErrorContains(t, err, "http.ServeMux")

	var got string
	mux := http.NewServeMux()
	mux.HandleFunc("GET /users/{id}", func(_ http.ResponseWriter, r *http.Request) { got, err = RoutePattern(r) })
	mux.ServeHTTP(httptest.NewRecorder(), httptest.NewRequest(http.MethodGet, "/users/bob", nil))
	require.NoError(t, err)
	assert.Equal(t, "GET /users/{id}", got)
}

func TestJoinFailsWithItsParts(t *testing.T) {
	r := httptest.NewRequest(http.MethodGet, "/", nil)
	failure := errors.New("no")
	failing := func(*http.Request) (string, error) { return "", failure }
	_, err := Join(fixed("a"), failing, fixed("b"))(r)
	assert.ErrorIs(t, err, failure)
	_, err = Join()(r)
	assert.ErrorContains(t, err, "Join of no parts")
	got, err := Join(fixed("192.0.2.1"), fixed("GET /"))(r)
	require.NoError(t, err)
	assert.Equal(t, "192.0.2.1|GET /", got)
}

// Different parts make different keys, be there a separator in them or not.
func TestJoinedKeysAreUnambiguous(t *testing.T) {
	r := httptest.NewRequest(http.MethodGet, "/", nil)
	part := rapid.StringMatching(`[a|\\]{0,4}`)
	rapid.Check(t, func(t *rapid.T) {
		var keys [2]string
		var parts [2][]string
		for i := range keys {
			parts[i] = rapid.SliceOfN(part, 1, 3).Draw(t, "parts")
			var functions []KeyFunc
			for _, p := range parts[i] {
				functions = append(functions, fixed(p))
			}
			key, err := Join(functions...)(r)
			require.NoError(t, err)
			keys[i] = key
		}
		require.Equal(t, strings.Join(parts[0], "\x00") == strings.Join(parts[1], "\x00"), keys[0] == keys[1], "%q", parts)
	})
}

func TestKeysThatNoLimiterWouldTake(t *testing.T) {
	r := httptest.NewRequest(http.MethodGet, "/", nil)
	for _, bad := range []string{"", strings.Repeat("k", peerlimit.MaxKeyLen+1)} {
		_, err := checkedKey(fixed(bad), r)
		assert.ErrorIs(t, err, peerlimit.ErrInvalidKey)
	}
	longest := strings.Repeat("k", peerlimit.MaxKeyLen)
	got, err := checkedKey(fixed(longest), r)
	require.NoError(t, err)
	assert.Equal(t, longest, got)
}
