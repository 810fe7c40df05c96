package store

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/peerlimit/peerlimit/internal/limit"
	"github.com/peerlimit/peerlimit/internal/ring"
	"github.com/peerlimit/peerlimit/internal/rule"
	"github.com/peerlimit/peerlimit/internal/wire"
	"github.com/stretchr/testify/require"
)

// What arrives in pieces of replicas is bounded, whatever a member sends, and passes.
func TestArrivingPiecesAreBounded(t *testing.T) {
	known, tab := rule.New(1000), New(Config{MaxKeys: 1000})
	set := mustFind(t, known, "api", []limit.Limit{perHour(10)}).Set
	send := func(part uint16, count int, first, last bool, now int64) wire.ReplicaStatus {
		piece := wire.ReplicaPart{Part: part, Version: wire.Version{Ballot: wire.Ballot{Number: 1, By: "b"}, Holder: "b", Seq: 1}, Full: true, First: first, Last: last}
		for i := range count {
			key := strings.Repeat("x", 1000) + fmt.Sprint(i)
			piece.Content.Buckets = append(piece.Content.Buckets, wire.Image{Limiter: "api", Key: key, Set: set, Levels: []float64{5}})
		}
		ack, _ := tab.AcceptReplica(&piece, true, known, now)
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

	later := int64(ArrivalTime + time.Second)
	for part := range uint16(ring.Partitions) {
		tab.DropArrived(part, later)
	}
	require.Zero(t, tab.arrivingSize.Load())
	require.Equal(t, wire.ReplicaTaken, send(9, 100, true, false, later))
}
