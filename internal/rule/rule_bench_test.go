package rule

import (
	"fmt"
	"runtime"
	"testing"

	"github.com/peerlimit/peerlimit/internal/limit"
	"github.com/peerlimit/peerlimit/internal/wire"
)

// BenchmarkRuleMemory reports what a limit takes on the heap that no other bucket has, and what it takes under a name of its own.
func BenchmarkRuleMemory(b *testing.B) {
	const count = 100_000
	for what, name := range map[string]func(i int) string{
		"one name": func(int) string { return "per-customer" },
		"names":    func(i int) string { return fmt.Sprintf("customer-%011d", i) },
	} {
		b.Run(what, func(b *testing.B) {
			for range b.N {
				before := heapInUse()
				known := New(2 * count)
				for i := range count {
					if _, err := known.Find(wire.AppendRule(nil, name(i), []limit.Limit{perHour(1000 + float64(i)/7)})); err != nil {
						b.Fatal(err)
					}
				}
				b.ReportMetric(float64(heapInUse()-before)/count, "bytes/rule")
				runtime.KeepAlive(known)
			}
		})
	}
}

// BenchmarkLookup finds one of many rules.
func BenchmarkLookup(b *testing.B) {
	for _, count := range []int{10, 10_000, 100_000} {
		b.Run(fmt.Sprint(count), func(b *testing.B) {
			known := New(2 * count)
			encoded := make([][]byte, count)
			for i := range encoded {
				encoded[i] = wire.AppendRule(nil, "per-customer", []limit.Limit{perHour(1000 + float64(i)/7)})
				if _, err := known.Find(encoded[i]); err != nil {
					b.Fatal(err)
				}
			}
			b.ResetTimer()
			b.RunParallel(func(pb *testing.PB) {
				for i := 0; pb.Next(); i++ {
					if known.Lookup(encoded[i*7919%count]) == nil {
						b.Error("forgotten")
					}
				}
			})
		})
	}
}

// heapInUse returns the bytes on the heap that are in use.
func heapInUse() uint64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}
