// Package limit is the arithmetic of one bucket: what it remembers, one request to it, tokens that are leased out, and how a
// reservation is undone. It is pure: time is passed in, and nothing is locked.
package limit
