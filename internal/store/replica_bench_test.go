package store

import (
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/peerlimit/peerlimit/internal/holding"
	"github.com/peerlimit/peerlimit/internal/limit"
	"github.com/peerlimit/peerlimit/internal/ring"
	"github.com/peerlimit/peerlimit/internal/rule"
	"github.com/peerlimit/peerlimit/internal/wire"
	"github.com/stretchr/testify/require"
)

// BenchmarkReplication is what replication costs each take: a node that holds 100 000 keys sends its standby what random
// takes have changed, as many as come in one interval. ns/take is the holder's part of it, sending aside, B/take what is
// sent, and standby-ns/take the standby's part.
func BenchmarkReplication(b *testing.B) {
	for _, takes := range []int{100, 2000, 20000} {
		b.Run(fmt.Sprintf("%d takes at once", takes), func(b *testing.B) { benchmarkReplication(b, takes) })
	}
}

func benchmarkReplication(b *testing.B, takes int) {
	const keys = 100_000
	holder, standby, known, knownThere := tableOfNode(), tableOfNode(), rule.New(1000), rule.New(1000)
	found := mustFind(b, known, "api", []limit.Limit{perHour(1e9)})
	for part := range uint16(ring.Partitions) {
		p := &holder.partitions[part]
		p.Holding.Hold(wire.Version{Ballot: wire.Ballot{Number: 5, By: "node0-01234567"}, Holder: "node0-01234567"})
		p.Holding.Replicate(holding.Replication{Standby: "standby", Complete: true})
		p.publish()
		standby.partitions[part].Holding.Copy = p.Holding.Copy
	}
	type place struct {
		part uint16
		id   rule.BucketKey
	}
	places := make([]place, keys)
	for i := range places {
		key := fmt.Sprintf("user-%06d", i)
		places[i] = place{found.Hash.Partition(key), found.Bucket(key)}
	}
	var packing, taking time.Duration
	sent, now := 0, int64(0)
	b.ResetTimer()
	for range b.N {
		for range takes {
			now++
			at := &places[rand.IntN(keys)]
			holder.decide(at.part, at.id, &limit.Request{Set: found.Set, Cost: 1}, now)
		}
		var parts []uint16
		began := time.Now()
		holder.EachChanged(func(part uint16) { parts = append(parts, part) })
		packing += time.Since(began)
		for len(parts) > 0 {
			began = time.Now()
			s := NewShipment()
			for len(parts) > 0 {
				if result, _ := holder.Pack(s, parts[0], "standby", now); result == PackedLater {
					break
				}
				parts = parts[1:]
			}
			message := wire.AppendReplicaRequest(nil, &s.Request)
			packing += time.Since(began)
			sent += len(message)

			began = time.Now()
			q, err := (&wire.ReplicaMemory{Message: message}).Decode(knownThere.PlainSet)
			require.NoError(b, err)
			acks := make([]wire.ReplicaAck, len(q.Parts))
			for i := range q.Parts {
				acks[i], _ = standby.AcceptReplica(&q.Parts[i], true, knownThere, now)
			}
			taking += time.Since(began)

			began = time.Now()
			for i := range acks {
				holder.Delivered(s, i, "standby", acks[i], false, now)
			}
			packing += time.Since(began)
		}
	}
	all := float64(b.N * takes)
	b.ReportMetric(float64(packing)/all, "ns/take")
	b.ReportMetric(float64(taking)/all, "standby-ns/take")
	b.ReportMetric(float64(sent)/all, "B/take")
}
