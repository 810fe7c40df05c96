package peerlimit

import (
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
)

func TestHistogram(t *testing.T) {
	var d durations
	for _, lasted := range []time.Duration{
		0, 50 * time.Microsecond, // the first
		50*time.Microsecond + 1, 100 * time.Microsecond, // the second
		100*time.Microsecond + 1,                        // the third
		204800 * time.Microsecond,                       // the last but one
		204800*time.Microsecond + 1, time.Hour, 1 << 62, // more than all
	} {
		d.add(lasted)
	}
	h := d.histogram()
	assert.Len(t, h.Bounds, 13)
	assert.Equal(t, 204800*time.Microsecond, h.Bounds[12])
	assert.Equal(t, []uint64{2, 2, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 3}, h.Counts)
}
