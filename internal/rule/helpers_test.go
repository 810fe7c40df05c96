package rule

import (
	"time"
	"unsafe"

	"github.com/peerlimit/peerlimit/internal/limit"
	"github.com/peerlimit/peerlimit/internal/wire"
	"github.com/stretchr/testify/require"
)

func per(tokens float64, period time.Duration) limit.Limit {
	return limit.Limit{Tokens: tokens, Period: period}
}

func perHour(tokens float64) limit.Limit { return per(tokens, time.Hour) }

func mustFind(t require.TestingT, known *Rules, name string, limits []limit.Limit) *Rule {
	found, err := known.Find(wire.AppendRule(nil, name, limits))
	require.NoError(t, err)
	return found
}

// addressOf returns where a set is, for a test that must not refer to it.
func addressOf(set *limit.Set) uintptr { return uintptr(unsafe.Pointer(set)) }
