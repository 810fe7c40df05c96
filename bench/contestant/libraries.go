package main

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/failsafe-go/failsafe-go/ratelimiter"
	juju "github.com/juju/ratelimit"
	"github.com/sethvargo/go-limiter/memorystore"
	"github.com/throttled/throttled/v2"
	"github.com/throttled/throttled/v2/store/memstore"
	uber "go.uber.org/ratelimit"
	"golang.org/x/time/rate"

	"github.com/peerlimit/peerlimit/bench/contest"
)

// library is a limiter of one process. There is one for each scenario's name.
type library struct {
	make func(contest.Limit) (contest.Take, error)

	name string
	take contest.Take
}

func (l *library) Start(contest.Setup) (string, error)            { return "", nil }
func (l *library) Meet([]string) error                            { return nil }
func (l *library) Owns(*contest.Scenario, string) bool            { return true }
func (l *library) Close() error                                   { return nil }
func (l *library) Fill(s *contest.Scenario) (contest.Take, error) { return l.Take(s) }

func (l *library) Take(s *contest.Scenario) (take contest.Take, err error) {
	if len(s.Limits) != 1 || s.Leaky {
		return nil, errors.New("only one token bucket is compared")
	}
	if l.name != s.Name {
		if l.take, err = l.make(s.Limits[0]); err != nil {
			return nil, err
		}
		l.name = s.Name
	}
	return l.take, nil
}

// perKey keeps a limiter for each key in a sync.Map, for libraries that have no store of their own.
func perKey[L any](create func() L, take func(L) bool) contest.Take {
	var limiters sync.Map
	return func(key string) (bool, error) {
		l, ok := limiters.Load(key)
		if !ok {
			l, _ = limiters.LoadOrStore(key, create())
		}
		return take(l.(L)), nil
	}
}

func xTimeRate(l contest.Limit) (contest.Take, error) {
	return perKey(func() *rate.Limiter { return rate.NewLimiter(rate.Limit(l.PerSecond()), int(l.Burst)) }, (*rate.Limiter).Allow), nil
}

func jujuRatelimit(l contest.Limit) (contest.Take, error) {
	return perKey(
		func() *juju.Bucket { return juju.NewBucket(l.Period/time.Duration(l.Tokens), l.Burst) },
		func(b *juju.Bucket) bool { return b.TakeAvailable(1) == 1 },
	), nil
}

func failsafeLimiter(l contest.Limit) (contest.Take, error) {
	return perKey(
		func() ratelimiter.RateLimiter[any] { return ratelimiter.NewBursty[any](uint(l.Tokens), l.Period) },
		func(r ratelimiter.RateLimiter[any]) bool { return r.TryAcquirePermit() },
	), nil
}

// goLimiter has a store that starts from full buckets after each period.
func goLimiter(l contest.Limit) (contest.Take, error) {
	store, err := memorystore.New(&memorystore.Config{Tokens: uint64(l.Tokens), Interval: l.Period})
	if err != nil {
		return nil, err
	}
	ctx := context.Background()
	return func(key string) (bool, error) {
		_, _, _, ok, err := store.Take(ctx, key)
		return ok, err
	}, nil
}

func throttledGCRA(l contest.Limit) (contest.Take, error) {
	store, err := memstore.NewCtx(0) // no bound, which is its fastest
	if err != nil {
		return nil, err
	}
	limiter, err := throttled.NewGCRARateLimiterCtx(store, throttled.RateQuota{
		MaxRate: throttled.PerDuration(int(l.Tokens), l.Period), MaxBurst: int(l.Burst) - 1,
	})
	if err != nil {
		return nil, err
	}
	ctx := context.Background()
	return func(key string) (bool, error) {
		limited, _, err := limiter.RateLimitCtx(ctx, key, 1)
		return !limited, err
	}, nil
}

// uberRatelimit is one limiter for all keys, because it does not deny but blocks: its rate is far above any load.
func uberRatelimit(contest.Limit) (contest.Take, error) {
	limiter := uber.New(1e9)
	return func(string) (bool, error) {
		limiter.Take()
		return true, nil
	}, nil
}
