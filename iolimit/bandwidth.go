package iolimit

import (
	"context"
	"errors"
	"fmt"
	"reflect"

	"github.com/peerlimit/peerlimit"
)

// Errors of this package. Test for them with [errors.Is].
var (
	// ErrInvalid means that a [Bandwidth] or what it is for cannot be used; the text names the field and the value.
	ErrInvalid = errors.New("iolimit: invalid")

	// ErrClosed means that the [Reader] or [Writer] was closed. A closed [Conn] fails with [net.ErrClosed] instead.
	ErrClosed = errors.New("iolimit: closed")
)

// Taker decides whether cost bytes may pass now. A [*peerlimit.Limiter] is one. It must answer within a moment, as a
// Limiter does: a call under way is never broken off, so that what it has taken is not lost.
//
// A Taker that has an Await method, as a Limiter has, or a Reserve method, is asked for a turn once and then waited for, first
// come, first served across the cluster; otherwise it is asked again after each RetryAfter. One that has a Refund method, as a Limiter
// has, is given back what was not used; without it nothing is taken ahead.
type Taker interface {
	Take(ctx context.Context, key string, cost float64) (peerlimit.Decision, error)
}

type awaiter interface {
	Await(ctx context.Context, key string, cost float64) (peerlimit.Decision, error)
}

type reserver interface {
	Reserve(ctx context.Context, key string, cost float64) (*peerlimit.Reservation, error)
}

type refunder interface {
	Refund(ctx context.Context, key string, cost float64) error
}

const (
	// DefaultMaxTake is Bandwidth.MaxTake when that is 0: 1 MiB.
	DefaultMaxTake = 1 << 20

	maxMaxTake = 1 << 30
)

// Bandwidth says what a reader, a writer or one direction of a connection draws on: the bucket of Key under Taker, whose
// tokens are bytes. The zero Bandwidth is valid in [NewConn] only, and means no limit there.
type Bandwidth struct {
	// Taker decides. Its burst may be anything from one byte up: more bytes than that are taken in instalments.
	Taker Taker

	// Key is the bucket, as for Taker; those with equal keys share. It must not be empty.
	Key string

	// MaxTake is how many bytes are taken at once at most, from 1 to 1 GiB. 0 means [DefaultMaxTake].
	MaxTake int
}

// validate returns an error that names the field and its value.
func (b Bandwidth) validate() error {
	switch {
	case b.Taker == nil:
		return fmt.Errorf("%w Bandwidth: Taker is nil", ErrInvalid)
	case isNil(b.Taker):
		return fmt.Errorf("%w Bandwidth: Taker is a nil %T", ErrInvalid, b.Taker)
	case b.Key == "":
		return fmt.Errorf("%w Bandwidth: Key is empty", ErrInvalid)
	case b.MaxTake < 0 || b.MaxTake > maxMaxTake:
		return fmt.Errorf("%w Bandwidth: MaxTake is %d; it must be from 1 to %d, or 0 for %d",
			ErrInvalid, b.MaxTake, maxMaxTake, DefaultMaxTake)
	}
	return nil
}

// isNil reports whether a Taker would panic at the first call, such as a nil *peerlimit.Limiter.
func isNil(taker Taker) bool {
	v := reflect.ValueOf(taker)
	return (v.Kind() == reflect.Pointer || v.Kind() == reflect.Func) && v.IsNil()
}

// unlimited reports whether b is the zero Bandwidth.
func (b Bandwidth) unlimited() bool { return b.Taker == nil && b.Key == "" && b.MaxTake == 0 }
