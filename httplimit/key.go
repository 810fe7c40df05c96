package httplimit

import (
	"errors"
	"fmt"
	"net/http"
	"strings"

	"github.com/peerlimit/peerlimit"
)

// ErrInvalid is matched by the errors of [New], [NewTransport] and [ClientIP]: the text says which argument or field of the
// options is wrong, and its value.
var ErrInvalid = errors.New("httplimit: invalid")

// ErrNoKey means that the client has left out what it is to be limited by, such as the header that a key function looks
// for.
var ErrNoKey = errors.New("httplimit: no key")

// KeyFunc returns the key of a request: requests with the same key share a bucket. A key is 1 to 1,024 bytes of
// anything; another one is an error that matches [peerlimit.ErrInvalidKey]. It is called for every request, by many
// goroutines at once.
type KeyFunc func(r *http.Request) (string, error)

// Header returns the value of a request header as the key, such as an API key. A request without it, or with an empty
// one, has [ErrNoKey]. Clients choose what they send: limit by a header only behind something that has checked it.
func Header(name string) KeyFunc {
	return func(r *http.Request) (string, error) {
		if value := r.Header.Get(name); value != "" {
			return value, nil
		}
		return "", fmt.Errorf("%w: header %q is missing or empty", ErrNoKey, name)
	}
}

// RoutePattern returns the pattern that [http.ServeMux] matched, such as "GET /users/{id}", as the key: one bucket for
// each route, whatever is in its path. The mux sets it, so the middleware has to be inside of the mux, around the
// handlers it is given; elsewhere a request has none, which is an error.
func RoutePattern(r *http.Request) (string, error) {
	if r.Pattern == "" {
		return "", errors.New("httplimit: the request has no Pattern; the middleware must be inside of an http.ServeMux")
	}
	return r.Pattern, nil
}

// Join returns a key made of several, such as a client and a route. Different parts never make the same key. It fails
// with the first error of its parts, and when there are none.
func Join(parts ...KeyFunc) KeyFunc {
	return func(r *http.Request) (string, error) {
		if len(parts) == 0 {
			return "", errors.New("httplimit: Join of no parts")
		}
		var key strings.Builder
		for i, part := range parts {
			value, err := part(r)
			if err != nil {
				return "", err
			}
			if i > 0 {
				key.WriteByte('|')
			}
			key.WriteString(escaper.Replace(value))
		}
		return key.String(), nil
	}
}

// escaper keeps what stands between the parts of a key out of the parts.
var escaper = strings.NewReplacer(`\`, `\\`, `|`, `\|`)

// checkedKey returns the key of a request if a limiter would take it.
func checkedKey(key KeyFunc, r *http.Request) (string, error) {
	k, err := key(r)
	switch {
	case err != nil:
		return "", err
	case k == "":
		return "", fmt.Errorf("%w: it is empty", peerlimit.ErrInvalidKey)
	case len(k) > peerlimit.MaxKeyLen:
		return "", fmt.Errorf("%w: it is %d bytes long; at most %d are allowed", peerlimit.ErrInvalidKey, len(k), peerlimit.MaxKeyLen)
	}
	return k, nil
}
