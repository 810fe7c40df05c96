package grpclimit

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"time"

	"github.com/peerlimit/peerlimit"
)

// ErrInvalid means that [New] was called with what cannot be used; the text says what.
var ErrInvalid = errors.New("grpclimit: invalid")

// Taker takes cost tokens from the bucket of key, if they can be had now. A [*peerlimit.Limiter] is one. One that also has
// an Await method, as a Limiter has, or a Reserve method, is asked for a turn where a call may wait, first come, first served
// across the cluster; another is asked again when its RetryAfter is over.
type Taker interface {
	Take(ctx context.Context, key string, cost float64) (peerlimit.Decision, error)
}

// TakerFunc is a function as a [Taker], for a [peerlimit.Bucket] or for a test.
type TakerFunc func(ctx context.Context, key string, cost float64) (peerlimit.Decision, error)

// Take calls f.
func (f TakerFunc) Take(ctx context.Context, key string, cost float64) (peerlimit.Decision, error) {
	return f(ctx, key, cost)
}

type awaiter interface {
	Await(ctx context.Context, key string, cost float64) (peerlimit.Decision, error)
}

type reserver interface {
	Reserve(ctx context.Context, key string, cost float64) (*peerlimit.Reservation, error)
}

// CostFunc returns how many tokens a call, or a message, takes. 0 is free, and asks nobody. It is called by many goroutines
// at once.
type CostFunc func(ctx context.Context, call Call) float64

// Options say how calls are limited. The zero value is valid.
type Options struct {
	// Name of the quota as clients are told it, in QuotaFailure. "" means the method.
	Name string

	// Key says which bucket a call takes from. Nil means [PeerIP] in a server and [Target] in a client.
	Key KeyFunc

	// Cost is how many tokens a call takes, a stream when it begins. Nil means 1 for each.
	Cost CostFunc

	// MessageCost is how many tokens each message of a stream takes besides, when a server receives it or a client sends
	// it. Nil means none. A denial is the error of RecvMsg or SendMsg; a message that was received is dropped with it.
	MessageCost CostFunc

	// MaxWait is how long a call or message may wait for its tokens. 0 means as long as its context lasts in a client, and
	// not at all in a server. Negative means not at all. One that would have to wait longer, or beyond the deadline of its
	// context, or beyond Config.MaxWait of the node, is denied at once. A delay of a leaky bucket is slept in any case.
	MaxWait time.Duration

	// Denied returns the error for a call that was denied; nil lets it pass, to try out a limit. Nil means
	// [DeniedError].
	Denied func(ctx context.Context, call Call, d peerlimit.Decision) error

	// Failed returns the error for a call about which nothing was decided, because Key or Take failed; nil lets it pass. A
	// cluster that is in trouble is no error: then the limiter's fallback decides. Nil means [FailedError]. The end of a
	// call's context is not its business.
	Failed func(ctx context.Context, call Call, err error) error
}

// Limit has the interceptors. Make one with [New]; it is safe for concurrent use, and one may serve servers and clients.
type Limit struct {
	options Options
	taker   Taker
}

// New returns interceptors that take from taker. An error matches [ErrInvalid].
func New(taker Taker, o Options) (*Limit, error) {
	if taker == nil {
		return nil, fmt.Errorf("%w: taker is nil", ErrInvalid)
	}
	if v := reflect.ValueOf(taker); (v.Kind() == reflect.Pointer || v.Kind() == reflect.Func) && v.IsNil() {
		return nil, fmt.Errorf("%w: taker is a nil %T", ErrInvalid, taker)
	}
	return &Limit{options: o, taker: taker}, nil
}

// maxWait returns how long a call may wait, 0 for not at all.
func (l *Limit) maxWait(call Call) time.Duration {
	if l.options.MaxWait == 0 && call.Client {
		return foreverWait
	}
	return max(0, l.options.MaxWait)
}

// foreverWait stands for as long as the context lasts: a hundred years.
const foreverWait = 100 * 365 * 24 * time.Hour
