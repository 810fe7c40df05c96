package striped

import (
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"

	"github.com/peerlimit/peerlimit/internal/limit"
)

func TestDurations(t *testing.T) {
	var d Durations
	for _, lasted := range []time.Duration{
		0, 50 * time.Microsecond, // the first
		50*time.Microsecond + 1, 100 * time.Microsecond, // the second
		100*time.Microsecond + 1,                            // the third
		204800 * time.Microsecond,                           // the last but one
		204800*time.Microsecond + 1, time.Hour, time.Second, // more than all
	} {
		d.Add(lasted)
	}
	bounds, counts, sum := d.Sums()
	assert.Len(t, bounds, 13)
	assert.Equal(t, 204800*time.Microsecond, bounds[12])
	assert.Equal(t, []uint64{2, 2, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 3}, counts)
	assert.Equal(t, time.Hour+time.Second+2*204800*time.Microsecond+300*time.Microsecond+3, sum)
}

// Nothing is lost when many count at once.
func TestDecisions(t *testing.T) {
	var c Decisions
	var all sync.WaitGroup
	for g := range 8 {
		all.Go(func() {
			for range 1000 {
				c.Add(&limit.Decision{Allowed: g%2 == 0, Origin: limit.OriginLease})
				c.Add(&limit.Decision{Origin: limit.OriginCount}) // of a later version
			}
		})
	}
	all.Wait()
	allowed, denied := c.Of(limit.OriginLease)
	assert.EqualValues(t, 4000, allowed)
	assert.EqualValues(t, 4000, denied)
	allowed, denied = c.Of(limit.OriginLocal)
	assert.Zero(t, allowed+denied)
}
