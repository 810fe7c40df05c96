package fallback_test

import (
	"fmt"
	"math"
	"testing"

	"github.com/stretchr/testify/assert"
	"pgregory.net/rapid"

	"github.com/peerlimit/peerlimit/fallback"
)

func TestDivided(t *testing.T) {
	assert.Equal(t, 1.0, fallback.Divided(fallback.Reach{Known: 1, Reachable: 1, Sharing: 1}))
	assert.Equal(t, 0.2, fallback.Divided(fallback.Reach{Known: 5, Reachable: 3, Sharing: 1}), "a node for itself")
	assert.Equal(t, 0.6, fallback.Divided(fallback.Reach{Known: 5, Reachable: 3, Sharing: 3}), "a side that shares")
	assert.Zero(t, fallback.Divided(fallback.Reach{Known: 5}))
	assert.Zero(t, fallback.Divided(fallback.Reach{}), "the zero Reach has nobody to share with")
	assert.Zero(t, fallback.Divided(fallback.Reach{Known: -1, Sharing: -1}))
}

// However a cluster falls apart, the shares of all sides together, or of all members by themselves, are the whole limit.
func TestSharesAddUpToOne(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		known := rapid.IntRange(1, 300).Draw(t, "known")
		var sides, alone float64
		for left := known; left > 0; {
			side := rapid.IntRange(1, left).Draw(t, "side")
			sides += fallback.Divided(fallback.Reach{Known: known, Reachable: side, Sharing: side})
			alone += float64(side) * fallback.Divided(fallback.Reach{Known: known, Reachable: side, Sharing: 1})
			left -= side
		}
		assert.InDelta(t, 1, sides, 1e-9)
		assert.InDelta(t, 1, alone, 1e-9)
	})
}

func TestOpenAndClosed(t *testing.T) {
	reach := fallback.Reach{Known: 3, Reachable: 1, Sharing: 1}
	assert.True(t, math.IsInf(fallback.Open(reach), 1))
	assert.Zero(t, fallback.Closed(reach))
}

func ExampleDivided() {
	fmt.Println(fallback.Divided(fallback.Reach{Known: 4, Reachable: 1, Sharing: 1}))
	// Output: 0.25
}

// A policy of one's own: half of the limit while most of the cluster is in reach, nothing otherwise.
func ExamplePolicy() {
	var cautious fallback.Policy = func(r fallback.Reach) float64 {
		if 2*r.Reachable > r.Known {
			return 0.5 * fallback.Divided(r)
		}
		return 0
	}
	fmt.Println(cautious(fallback.Reach{Known: 4, Reachable: 3, Sharing: 1}), cautious(fallback.Reach{Known: 4, Reachable: 1, Sharing: 1}))
	// Output: 0.125 0
}
