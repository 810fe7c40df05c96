package peerlimit

import (
	"fmt"
	"github.com/peerlimit/peerlimit/internal/limit"
	"testing"
)

func benchmarkReplica() (replicaRequest, setsOf) {
	known := make(setsOf)
	set, _ := known.plain("api", []limit.Limit{perSecond(100)})
	var content partContent
	for i := range 100 {
		content.buckets = append(content.buckets, bucketImage{
			limiter: "api", key: fmt.Sprintf("user-%015d", i), set: set, levels: []float64{float64(i) / 3},
		})
	}
	v := version{100_000, election{12, "web-12345678"}, 3, "web-12345679"}
	return replicaRequest{[]replicaPart{{part: 2000, version: v, since: 99_990, content: content}}}, known
}

// BenchmarkReplica is what a holder and its standby do for 100 changed buckets of 20-byte keys and one limit.
func BenchmarkReplica(b *testing.B) {
	q, known := benchmarkReplica()
	encoded := appendReplicaRequest(nil, &q)
	buffer := make([]byte, 0, 2*len(encoded))
	perBucket := func(b *testing.B) {
		b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/100, "ns/bucket")
		b.ReportMetric(float64(len(encoded))/100, "bytes/bucket")
	}
	b.Run("encode", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			appendReplicaRequest(buffer, &q)
		}
		perBucket(b)
	})
	b.Run("decode", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if _, err := decodeReplicaRequest(encoded, known.plain); err != nil {
				b.Fatal(err)
			}
		}
		perBucket(b)
	})
}
