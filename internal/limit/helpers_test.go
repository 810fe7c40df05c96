package limit

import "time"

func per(tokens float64, period time.Duration) Limit {
	return Limit{Tokens: tokens, Period: period}
}

func perSecond(tokens float64) Limit { return per(tokens, time.Second) }

func perMinute(tokens float64) Limit { return per(tokens, time.Minute) }

func perHour(tokens float64) Limit { return per(tokens, time.Hour) }

func withBurst(l Limit, tokens float64) Limit {
	l.Burst = tokens
	return l
}

func leaky(l Limit) Limit {
	l.Algorithm = LeakyBucket
	return l
}
