package peerlimit

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/peerlimit/peerlimit/internal/limit"
	"github.com/peerlimit/peerlimit/internal/ring"
	"github.com/peerlimit/peerlimit/internal/wire"
	"github.com/stretchr/testify/require"
)

// Names that other members ask about leave room for those of this node's own limiters, and are forgotten when nobody uses them.
func TestNamesThatNobodyUsesAreForgotten(t *testing.T) {
	known, tab := newRules(), newTable(100)
	require.NoError(t, known.keep("mine"))
	mine := mustFind(t, known, "mine", []limit.Limit{perHour(10)})
	count := 0
	var err error
	for ; err == nil && count < 2*maxNames; count++ {
		_, err = known.idOf(fmt.Sprint("flood-", count))
	}
	require.ErrorIs(t, err, ErrInvalidName)
	require.Equal(t, maxNames-ownNames, count-1)
	require.NoError(t, known.keep("mine too"))

	kept := mustFind(t, known, "flood-7", []limit.Limit{perHour(10)})
	tab.partitions[7].store(tab, []wire.Image{{Limiter: "flood-7", Key: "k", Set: kept.set, Levels: []float64{5}}}, known, 0)
	for range nameTurns {
		require.Equal(t, maxNames-ownNames, known.count, "not yet")
		_, err = known.find(wire.AppendRule(nil, "flood-8", []limit.Limit{perHour(10)}))
		require.NoError(t, err)
		known.forgetNames(tab)
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

// What arrives in pieces of replicas is bounded, whatever a member sends, and passes.
func TestArrivingPiecesAreBounded(t *testing.T) {
	known, tab := newRules(), newTable(1000)
	set := mustFind(t, known, "api", []limit.Limit{perHour(10)}).set
	send := func(part uint16, count int, first, last bool, now int64) wire.ReplicaStatus {
		piece := wire.ReplicaPart{Part: part, Version: wire.Version{Ballot: wire.Ballot{Number: 1, By: "b"}, Holder: "b", Seq: 1}, Full: true, First: first, Last: last}
		for i := range count {
			key := strings.Repeat("x", 1000) + fmt.Sprint(i)
			piece.Content.Buckets = append(piece.Content.Buckets, wire.Image{Limiter: "api", Key: key, Set: set, Levels: []float64{5}})
		}
		ack, _ := tab.takeReplica(&piece, true, known, now)
		return ack.Status
	}
	refused := 0
	for part := range uint16(ring.Partitions) {
		if send(part, 100, true, false, 0) != wire.ReplicaTaken {
			refused++
		}
		require.LessOrEqual(t, tab.arrivingSize.Load(), int64(arrivingLeast))
	}
	require.Greater(t, refused, ring.Partitions/2)
	require.Equal(t, wire.ReplicaTaken, send(4000, 100, true, true, 0), "one in a piece needs no room")

	later := int64(arrivalTime + time.Second)
	for part := range uint16(ring.Partitions) {
		tab.dropArrived(part, later)
	}
	require.Zero(t, tab.arrivingSize.Load())
	require.Equal(t, wire.ReplicaTaken, send(9, 100, true, false, later))
}
