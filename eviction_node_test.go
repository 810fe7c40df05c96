package peerlimit_test

import (
	"context"
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/peerlimit/peerlimit"
	"github.com/peerlimit/peerlimit/internal/onecore"
	"github.com/peerlimit/peerlimit/peerlimittest"
)

// Whoever sends endless fresh keys to a node does not make it forget who has nothing left.
func TestANodeUnderEndlessFreshKeysForgetsNoExhaustedOne(t *testing.T) {
	if testing.Short() || onecore.RaceDetector {
		t.Skip("2,000,000 keys take the race detector too long, and tests of fewer have the same goroutines")
	}
	const maxKeys, exhausted, fresh = 100_000, 1000, 2_000_000
	node := peerlimittest.NewNode(t, func(c *peerlimit.Config) { c.MaxKeys = maxKeys })
	limiter, err := node.Limiter("api", peerlimit.PerHour(10))
	require.NoError(t, err)
	ctx := context.Background()
	for i := range exhausted {
		require.True(t, limiter.AllowN(ctx, fmt.Sprint("exhausted-", i), 10))
	}
	before := peerlimit.HeapInUse()
	for i := range fresh {
		if !limiter.Allow(ctx, fmt.Sprint("fresh-", i)) {
			t.Fatalf("fresh key %d is refused", i)
		}
		if i%10 == 0 {
			k := i / 10 % exhausted
			if limiter.Allow(ctx, fmt.Sprint("exhausted-", k)) {
				t.Fatalf("exhausted key %d is admitted after %d fresh ones", k, i)
			}
		}
		if i%1000 == 0 {
			require.LessOrEqual(t, node.Stats().Keys, maxKeys)
		}
	}
	require.EqualValues(t, fresh+exhausted-maxKeys, node.Stats().Evicted)
	perKey := float64(peerlimit.HeapInUse()-before) / (maxKeys - exhausted)
	t.Logf("%.0f bytes a key", perKey)
	require.Less(t, perKey, 1.05*116, "see Sizing in docs/operations.md; and what is not of keys")
}
