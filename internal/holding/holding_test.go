package holding

import (
	"fmt"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestMarksAreBounded(t *testing.T) {
	known := func(name string) bool { return name != "gone" }
	var h Holding
	require.True(t, h.MarkDebt("gone", 1, known))
	for i := range 2 * maxMarks {
		require.True(t, h.MarkDebt(fmt.Sprint(i), uint64(i+1), known))
		require.False(t, h.MarkDebt(fmt.Sprint(i), uint64(i+1), known))
		require.LessOrEqual(t, len(h.DebtMarks), maxMarks)
	}
	assert.NotContains(t, h.DebtMarks, "gone")
	assert.Contains(t, h.DebtMarks, fmt.Sprint(2*maxMarks-1))
}
