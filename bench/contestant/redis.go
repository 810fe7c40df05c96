package main

import (
	"context"
	"errors"

	"github.com/go-redis/redis_rate/v10"
	"github.com/redis/go-redis/v9"

	"github.com/peerlimit/peerlimit/bench/contest"
)

const (
	// redisPool is one connection for each of the most callers that there are, so that nobody waits for one.
	redisPool = 1024

	// redisLimits is how many limits there can be in one take.
	redisLimits = 3
)

// redisRate asks a Redis server, which decides about all keys.
type redisRate struct{ client *redis.Client }

func (r *redisRate) Start(setup contest.Setup) (string, error) {
	r.client = redis.NewClient(&redis.Options{Addr: setup.Server, PoolSize: redisPool})
	return setup.Server, r.client.Ping(context.Background()).Err()
}

func (r *redisRate) Meet([]string) error                 { return nil }
func (r *redisRate) Owns(*contest.Scenario, string) bool { return false }
func (r *redisRate) Close() error {
	if r.client == nil {
		return nil
	}
	return r.client.Close()
}

func (r *redisRate) Take(s *contest.Scenario) (contest.Take, error) {
	limits, err := redisLimitsOf(s)
	if err != nil {
		return nil, err
	}
	ctx, prefix := context.Background(), s.Name+":"
	if len(limits) == 1 {
		limiter, limit := redis_rate.NewLimiter(r.client), limits[0]
		return func(key string) (bool, error) {
			result, err := limiter.Allow(ctx, prefix+key, limit)
			return err == nil && result.Allowed == 1, err
		}, nil
	}
	limiter := redis_rate.NewLimiter(pipelined{r.client, limits})
	return func(key string) (bool, error) {
		result, err := limiter.Allow(ctx, prefix+key, limits[0])
		return err == nil && result.Allowed == 1, err
	}, nil
}

func redisLimitsOf(s *contest.Scenario) (limits []redis_rate.Limit, err error) {
	if s.Leaky {
		return nil, errors.New("there is no leaky bucket")
	}
	if len(s.Limits) > redisLimits {
		return nil, errors.New("there are too many limits")
	}
	for _, l := range s.Limits {
		limits = append(limits, redis_rate.Limit{Rate: int(l.Tokens), Burst: int(l.Burst), Period: l.Period})
	}
	return limits, nil
}

// Fill has nothing to make: the first take of a key is the same work as any other, a read and a write.
func (r *redisRate) Fill(*contest.Scenario) (contest.Take, error) { return nil, nil }

// pipelined sends redis_rate's script once for each limit in one pipeline, which redis_rate itself cannot do. The answer is
// the first denial, or else that of the first limit. Unlike peerlimit it takes from the others when one denies.
type pipelined struct {
	*redis.Client
	limits []redis_rate.Limit
}

var limitSuffixes = [redisLimits]string{":0", ":1", ":2"}

// EvalSha is what redis_rate calls for a take.
func (p pipelined) EvalSha(ctx context.Context, sha string, keys []string, args ...any) *redis.Cmd {
	var answers [redisLimits]*redis.Cmd
	_, err := p.Client.Pipelined(ctx, func(pipe redis.Pipeliner) error {
		for i, l := range p.limits {
			answers[i] = pipe.EvalSha(ctx, sha, []string{keys[0] + limitSuffixes[i]}, l.Burst, l.Rate, l.Period.Seconds(), args[len(args)-1])
		}
		return nil
	})
	if err != nil {
		return answers[0] // with the error, so that the script is loaded if it is not there
	}
	for i := range p.limits {
		if values, ok := answers[i].Val().([]any); ok && len(values) > 0 && values[0] == int64(0) {
			return answers[i]
		}
	}
	return answers[0]
}
