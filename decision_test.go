package peerlimit

import (
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/peerlimit/peerlimit/internal/limit"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestDecisionErr(t *testing.T) {
	assert.NoError(t, Decision{Allowed: true}.Err())

	d := Decision{Limit: PerMinute(5), RetryAfter: 1500 * time.Millisecond}
	err := fmt.Errorf("sending mail: %w", d.Err())
	require.ErrorIs(t, err, ErrLimited)
	var limited *LimitedError
	require.ErrorAs(t, err, &limited)
	assert.Equal(t, d, limited.Decision)
	assert.EqualError(t, d.Err(), "peerlimit: limited by 5 per 1m0s, burst 5: retry after 1.5s")

	for _, other := range []error{ErrInvalidLimit, ErrInvalidCost, ErrExceedsBurst, ErrClosed} {
		assert.False(t, errors.Is(err, other), "%v is not %v", err, other)
	}
	assert.Error(t, Decision{}.Err(), "the zero Decision is a denial")
}

func TestOriginNames(t *testing.T) {
	assert.Equal(t, OriginLocal, Decision{}.Origin)
	for origin, name := range map[Origin]string{
		OriginLocal: "local", OriginRemote: "remote", OriginLease: "lease", OriginDenialCache: "denial-cache",
		OriginStandby: "standby", OriginFallback: "fallback", Origin(limit.OriginCount): "Origin(6)",
	} {
		assert.Equal(t, name, origin.String())
	}
}
