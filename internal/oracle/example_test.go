package oracle_test

import (
	"fmt"
	"time"

	"github.com/peerlimit/peerlimit/internal/oracle"
)

// A cluster of two nodes shares 100 a second with a burst of 10 and is driven to
// exhaustion. Then one node is restarted, forgets the bucket and starts with a
// full one.
func Example() {
	limit := oracle.Limit{Tokens: 100, Period: time.Second, Burst: 10}
	judge := oracle.New(limit)
	admit := func(at time.Duration, count int) {
		for range count {
			judge.Admit(oracle.Take{Start: at, End: at + time.Millisecond, Cost: 1})
		}
	}
	admit(0, 10)
	for at := 10 * time.Millisecond; at <= 500*time.Millisecond; at += 10 * time.Millisecond {
		admit(at, 1)
	}
	admit(500*time.Millisecond, 10) // the restarted node's burst
	admit(900*time.Millisecond, 5)

	report := judge.Report()
	fmt.Println(report)
	fmt.Println("keeps to the limit:", report.Within(0))
	fmt.Println("keeps to it but for one burst:", report.Within(limit.Burst))
	fmt.Printf("used of the first 400 ms: %.2f\n", judge.Utilization(0, 400*time.Millisecond))

	// Output:
	// 75 takes admitted 75 of 100.1 tokens (0.7493); worst window 0s–501ms: 70 of 60.1, excess 9.9
	// keeps to the limit: false
	// keeps to it but for one burst: true
	// used of the first 400 ms: 0.98
}
