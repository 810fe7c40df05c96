package hotkeys

import (
	"time"

	"github.com/peerlimit/peerlimit/internal/limit"
)

func per(tokens float64, period time.Duration) limit.Limit {
	return limit.Limit{Tokens: tokens, Period: period}
}

func perSecond(tokens float64) limit.Limit { return per(tokens, time.Second) }

func withBurst(l limit.Limit, tokens float64) limit.Limit {
	l.Burst = tokens
	return l
}
