package wire

import (
	"fmt"
	"testing"

	"github.com/peerlimit/peerlimit/internal/limit"
)

func benchmarkReplica() (ReplicaRequest, setsOf) {
	known := make(setsOf)
	set, _ := known.plain("api", []limit.Limit{perSecond(100)})
	var content Content
	for i := range 100 {
		content.Buckets = append(content.Buckets, Image{
			Limiter: "api", Key: fmt.Sprintf("user-%015d", i), Set: set, Levels: []float64{float64(i) / 3},
		})
	}
	v := Version{100_000, Ballot{12, "web-12345678"}, 3, "web-12345679"}
	return ReplicaRequest{[]ReplicaPart{{Part: 2000, Version: v, Since: 99_990, Content: content}}}, known
}

// BenchmarkReplica is what a holder and its standby do for 100 changed buckets of 20-byte keys and one limit.
func BenchmarkReplica(b *testing.B) {
	q, known := benchmarkReplica()
	encoded := AppendReplicaRequest(nil, &q)
	buffer := make([]byte, 0, 2*len(encoded))
	perBucket := func(b *testing.B) {
		b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/100, "ns/bucket")
		b.ReportMetric(float64(len(encoded))/100, "bytes/bucket")
	}
	b.Run("encode", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			AppendReplicaRequest(buffer, &q)
		}
		perBucket(b)
	})
	b.Run("decode", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if _, err := (&ReplicaMemory{Message: encoded}).Decode(known.plain); err != nil {
				b.Fatal(err)
			}
		}
		perBucket(b)
	})
}
