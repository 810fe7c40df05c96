package peerlimit

import "time"

func per(tokens float64, period time.Duration) coreLimit {
	return coreLimit{Tokens: tokens, Period: period}
}

func perSecond(tokens float64) coreLimit { return per(tokens, time.Second) }

func perMinute(tokens float64) coreLimit { return per(tokens, time.Minute) }

func perHour(tokens float64) coreLimit { return per(tokens, time.Hour) }

func withBurst(l coreLimit, tokens float64) coreLimit {
	l.Burst = tokens
	return l
}

func leaky(l coreLimit) coreLimit {
	l.Algorithm = coreLeakyBucket
	return l
}
