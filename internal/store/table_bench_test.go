package store

import (
	"fmt"
	"runtime"
	"testing"

	"github.com/peerlimit/peerlimit/internal/limit"
	"github.com/peerlimit/peerlimit/internal/rule"
)

// BenchmarkTableMemory fills a table with keys of one limit and reports what a key takes on the heap, its own bytes
// included.
func BenchmarkTableMemory(b *testing.B) {
	known := rule.New(1000)
	r := mustFind(b, known, "api", []limit.Limit{perHour(1000)})
	for _, length := range []int{13, 20, 36} {
		for _, keys := range []int{30_000, 100_000, 300_000, 1_000_000} {
			b.Run(fmt.Sprintf("length=%d/keys=%d", length, keys), func(b *testing.B) {
				for range b.N {
					before := heapInUse()
					t := New(Config{MaxKeys: keys})
					empty := heapInUse()
					for i := range keys {
						key := fmt.Sprintf("%0*d", length, i)
						t.decide(r.Hash.Partition(key), r.Bucket(key), &limit.Request{Set: r.Set, Cost: 1}, 0)
					}
					b.ReportMetric(float64(heapInUse()-empty)/float64(keys), "bytes/key")
					b.ReportMetric(float64(empty-before), "bytes/table")
					runtime.KeepAlive(t)
				}
			})
		}
	}
}

// heapInUse returns the bytes on the heap that are in use.
func heapInUse() uint64 {
	runtime.GC()
	runtime.GC() // what is in a sync.Pool survives the first
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}
