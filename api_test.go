package peerlimit_test

import (
	"context"
	"crypto/tls"
	"log/slog"
	"time"

	"github.com/hashicorp/memberlist"

	"github.com/peerlimit/peerlimit"
	"github.com/peerlimit/peerlimit/fallback"
	"github.com/peerlimit/peerlimit/transport"
)

// The public API, as users compile against it. What stands here does not change.

var _ = []func(float64) peerlimit.Limit{peerlimit.PerSecond, peerlimit.PerMinute, peerlimit.PerHour}

var (
	_ func(float64, time.Duration) peerlimit.Limit        = peerlimit.Per
	_ func(...peerlimit.Limit) (*peerlimit.Bucket, error) = peerlimit.NewBucket
	_ func(peerlimit.Config) (*peerlimit.Node, error)     = peerlimit.Start
	_                                                     = peerlimit.Limit{Tokens: 1, Period: time.Second, Burst: 1, Algorithm: peerlimit.LeakyBucket}
	_ interface{ Validate() error }                       = peerlimit.Limit{}
	_ interface{ WithBurst(float64) peerlimit.Limit }     = peerlimit.Limit{}
	_ interface{ Leaky() peerlimit.Limit }                = peerlimit.Limit{}
	_ interface{ WithMinCost(float64) peerlimit.Limit }   = peerlimit.Limit{}
	_ interface {
		Delay() time.Duration
		Cancel()
	} = (*peerlimit.Reservation)(nil)
	_ interface{ Err() error } = peerlimit.Decision{}
	_ error                    = (*peerlimit.LimitedError)(nil)
	_ transport.Network        = transport.TCP{}
	_                          = []fallback.Policy{fallback.Divided, fallback.Open, fallback.Closed}
	_                          = fallback.Reach{Known: 3, Reachable: 2, Sharing: 1}
	_                          = []peerlimit.Algorithm{peerlimit.TokenBucket, peerlimit.LeakyBucket}
)

var _ interface {
	Allow() bool
	AllowN(cost float64) bool
	Take(cost float64) (peerlimit.Decision, error)
	Peek() peerlimit.Decision
	Wait(ctx context.Context) error
	WaitN(ctx context.Context, cost float64) error
	Reserve(cost float64) (*peerlimit.Reservation, error)
	Refund(cost float64) error
	Reset()
} = (*peerlimit.Bucket)(nil)

var _ interface {
	Limiter(name string, limits ...peerlimit.Limit) (*peerlimit.Limiter, error)
	LimiterFunc(name string, limits func(ctx context.Context, key string) []peerlimit.Limit) (*peerlimit.Limiter, error)
	WaitReady(ctx context.Context, members int) error
	Self() peerlimit.Member
	Members() []peerlimit.Member
	Stats() peerlimit.Stats
	Leave(ctx context.Context) error
	Close() error
} = (*peerlimit.Node)(nil)

var _ interface {
	Allow(ctx context.Context, key string) bool
	AllowN(ctx context.Context, key string, cost float64) bool
	Take(ctx context.Context, key string, cost float64) (peerlimit.Decision, error)
	Peek(ctx context.Context, key string) (peerlimit.Decision, error)
	Wait(ctx context.Context, key string) error
	WaitN(ctx context.Context, key string, cost float64) error
	Reserve(ctx context.Context, key string, cost float64) (*peerlimit.Reservation, error)
	Refund(ctx context.Context, key string, cost float64) error
	Reset(ctx context.Context, key string) error
	Owner(key string) peerlimit.Member
	Placement(key string) peerlimit.Placement
	WithFallback(p fallback.Policy) *peerlimit.Limiter
} = (*peerlimit.Limiter)(nil)

var _ = peerlimit.Decision{
	Allowed: true, Limit: peerlimit.Limit{}, Remaining: 1, RetryAfter: time.Second, ResetAfter: time.Second, Delay: time.Second,
	Origin: peerlimit.OriginLocal,
}

var _ = []peerlimit.Origin{
	peerlimit.OriginLocal, peerlimit.OriginRemote, peerlimit.OriginLease, peerlimit.OriginDenialCache, peerlimit.OriginStandby,
	peerlimit.OriginFallback,
}

var _ = []error{
	peerlimit.ErrInvalidCost, peerlimit.ErrInvalidKey, peerlimit.ErrExceedsBurst, peerlimit.ErrInvalidLimit, peerlimit.ErrClosed,
	peerlimit.ErrLimited, peerlimit.ErrUnheard,
}

var _ = peerlimit.Config{
	Cluster: "", Name: "", BindAddr: "", AdvertiseAddr: "", RPCAddr: "", Join: []string{}, ExpectMembers: 0,
	Secret: []byte{}, AcceptSecrets: [][]byte{}, TLS: (*tls.Config)(nil), Insecure: false, Fallback: fallback.Divided,
	RPCTimeout: time.Second, ReplicaInterval: time.Second, MaxWait: time.Second, OutvoteAfter: time.Second, SplitMemory: time.Second, MaxKeys: 0,
	Logger: (*slog.Logger)(nil), OnEvent: func(peerlimit.Event) {}, Network: transport.Network(nil),
	Memberlist: func(*memberlist.Config) {},
}

var _ = peerlimit.Member{Name: "", Addr: "", RPCAddr: "", State: peerlimit.MemberAlive, Self: false}
