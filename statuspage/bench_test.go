package statuspage

import (
	"fmt"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/peerlimit/peerlimit"
)

// What the page costs: a sample is taken of one of 64 takes, and a browser asks for the page every two seconds.

func BenchmarkSample(b *testing.B) {
	keys := newBusyKeys(time.Now())
	samples := make([]peerlimit.Sample, 1<<12)
	for i := range samples {
		samples[i] = peerlimit.Sample{Limiter: "api", Key: fmt.Sprint("user-", i&(i>>1)), Allowed: i%3 > 0}
	}
	b.ReportAllocs()
	i := 0
	for b.Loop() {
		keys.add(samples[i%len(samples)], time.Now())
		i++
	}
}

func BenchmarkPage(b *testing.B) {
	node, err := peerlimit.Start(peerlimit.Config{})
	require.NoError(b, err)
	defer node.Close()
	limiter, err := node.Limiter("api", peerlimit.PerSecond(10))
	require.NoError(b, err)
	page, err := New(node, Options{})
	require.NoError(b, err)
	defer page.Close()
	for i := range 100_000 {
		_, err := limiter.Take(b.Context(), fmt.Sprint("user-", i%100), 1)
		require.NoError(b, err)
	}
	request := httptest.NewRequest("GET", "/", nil)
	b.ReportAllocs()
	for b.Loop() {
		page.ServeHTTP(httptest.NewRecorder(), request)
	}
}

// BenchmarkTake is a take with and without a page.
func BenchmarkTake(b *testing.B) {
	for _, sampled := range []bool{false, true} {
		b.Run(fmt.Sprintf("sampled=%v", sampled), func(b *testing.B) {
			node, err := peerlimit.Start(peerlimit.Config{})
			require.NoError(b, err)
			defer node.Close()
			limiter, err := node.Limiter("api", peerlimit.PerSecond(10))
			require.NoError(b, err)
			if sampled {
				page, err := New(node, Options{})
				require.NoError(b, err)
				defer page.Close()
			}
			for b.Loop() {
				_, _ = limiter.Take(b.Context(), "k", 1) // what it decides does not matter
			}
		})
	}
}
