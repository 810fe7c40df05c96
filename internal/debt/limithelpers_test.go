package debt

import (
	"time"

	"github.com/peerlimit/peerlimit/internal/limit"
)

func per(tokens float64, period time.Duration) limit.Limit {
	return limit.Limit{Tokens: tokens, Period: period}
}

func perMinute(tokens float64) limit.Limit { return per(tokens, time.Minute) }

func perHour(tokens float64) limit.Limit { return per(tokens, time.Hour) }
