package iolimit_test

import (
	"context"
	"fmt"
	"io"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/peerlimit/peerlimit"
	"github.com/peerlimit/peerlimit/iolimit"
)

// What a write costs, and how many requests it comes with, when there is bandwidth for all.
func BenchmarkWriter(b *testing.B) {
	for _, size := range []int{1400, 32 << 10, 1 << 20} {
		b.Run(fmt.Sprintf("%d bytes", size), func(b *testing.B) {
			bucket := newTally(b, peerlimit.PerSecond(1e15))
			w, err := iolimit.NewWriter(context.Background(), io.Discard, iolimit.Bandwidth{Taker: bucket, Key: "k"})
			require.NoError(b, err)
			defer w.Close()
			p := make([]byte, size)
			b.SetBytes(int64(size))
			b.ReportAllocs()
			for b.Loop() {
				if _, err := w.Write(p); err != nil {
					b.Fatal(err)
				}
			}
			_, asked := bucket.requests()
			b.ReportMetric(float64(asked)/float64(b.N), "requests/op")
		})
	}
}
