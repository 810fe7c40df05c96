package rule

import (
	"fmt"
	"testing"

	"github.com/peerlimit/peerlimit/internal/limit"
	"github.com/peerlimit/peerlimit/internal/wire"
	"github.com/stretchr/testify/require"
)

// Names that other members ask about leave room for those of this node's own limiters, and are forgotten when nobody uses them.
func TestNamesThatNobodyUsesAreForgotten(t *testing.T) {
	known := New()
	require.NoError(t, known.Keep("mine"))
	mine := mustFind(t, known, "mine", []limit.Limit{perHour(10)})
	count := 0
	var err error
	for ; err == nil && count < 2*maxNames; count++ {
		_, err = known.IDOf(fmt.Sprint("flood-", count))
	}
	require.ErrorIs(t, err, ErrName)
	require.Equal(t, maxNames-ownNames, count-1)
	require.NoError(t, known.Keep("mine too"))

	kept := mustFind(t, known, "flood-7", []limit.Limit{perHour(10)})
	for range nameTurns {
		require.Equal(t, maxNames-ownNames, known.count, "not yet")
		_, err = known.Find(wire.AppendRule(nil, "flood-8", []limit.Limit{perHour(10)}))
		require.NoError(t, err)
		known.ForgetNames(func(mark func(LimiterID)) { mark(kept.ID) })
	}
	require.Equal(t, 2, known.count)
	id, err := known.IDOf("flood-7")
	require.NoError(t, err)
	require.Equal(t, kept.ID, id, "there is a bucket under it")
	id, err = known.IDOf("mine")
	require.NoError(t, err)
	require.Equal(t, mine.ID, id)
	require.Equal(t, "mine", known.Name(id))

	ids := map[LimiterID]bool{}
	for i := range maxNames - ownNames - 2 {
		id, err := known.IDOf(fmt.Sprint("new-", i))
		require.NoError(t, err)
		require.False(t, ids[id] || id == kept.ID || id == mine.ID, "an id for each")
		ids[id] = true
		require.Equal(t, fmt.Sprint("new-", i), known.Name(id))
	}
}
