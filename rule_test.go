package peerlimit

import (
	"fmt"
	"testing"

	"github.com/peerlimit/peerlimit/internal/limit"
	"github.com/peerlimit/peerlimit/internal/wire"
	"github.com/stretchr/testify/require"
)

// Names that other members ask about leave room for those of this node's own limiters, and are forgotten when nobody uses them.
func TestNamesThatNobodyUsesAreForgotten(t *testing.T) {
	known := newRules()
	require.NoError(t, known.keep("mine"))
	mine := mustFind(t, known, "mine", []limit.Limit{perHour(10)})
	count := 0
	var err error
	for ; err == nil && count < 2*maxNames; count++ {
		_, err = known.idOf(fmt.Sprint("flood-", count))
	}
	require.ErrorIs(t, err, errName)
	require.Equal(t, maxNames-ownNames, count-1)
	require.NoError(t, known.keep("mine too"))

	kept := mustFind(t, known, "flood-7", []limit.Limit{perHour(10)})
	for range nameTurns {
		require.Equal(t, maxNames-ownNames, known.count, "not yet")
		_, err = known.find(wire.AppendRule(nil, "flood-8", []limit.Limit{perHour(10)}))
		require.NoError(t, err)
		known.forgetNames(func(mark func(limiterID)) { mark(kept.id) })
	}
	require.Equal(t, 2, known.count)
	id, err := known.idOf("flood-7")
	require.NoError(t, err)
	require.Equal(t, kept.id, id, "there is a bucket under it")
	id, err = known.idOf("mine")
	require.NoError(t, err)
	require.Equal(t, mine.id, id)
	require.Equal(t, "mine", known.name(id))

	ids := map[limiterID]bool{}
	for i := range maxNames - ownNames - 2 {
		id, err := known.idOf(fmt.Sprint("new-", i))
		require.NoError(t, err)
		require.False(t, ids[id] || id == kept.id || id == mine.id, "an id for each")
		ids[id] = true
		require.Equal(t, fmt.Sprint("new-", i), known.name(id))
	}
}
