package peerlimit

import (
	"fmt"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestMarksAreBounded(t *testing.T) {
	known := func(name string) bool { return name != "gone" }
	var h holding
	require.True(t, h.mark("gone", 1, known))
	for i := range 2 * maxMarks {
		require.True(t, h.mark(fmt.Sprint(i), uint64(i+1), known))
		require.False(t, h.mark(fmt.Sprint(i), uint64(i+1), known))
		require.LessOrEqual(t, len(h.marks), maxMarks)
	}
	assert.NotContains(t, h.marks, "gone")
	assert.Contains(t, h.marks, fmt.Sprint(2*maxMarks-1))
}
