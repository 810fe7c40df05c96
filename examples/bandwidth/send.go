package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"time"

	"github.com/peerlimit/peerlimit"
	"github.com/peerlimit/peerlimit/iolimit"
)

// result is what was sent.
type result struct {
	sent    []int64       // bytes, by node
	elapsed time.Duration // from before the first to after the last
}

// send sends from every node at once, each to a receiver of its own, as much as the limit lets through for that long.
func send(ctx context.Context, limiters []*peerlimit.Limiter, duration time.Duration) (result, error) {
	began := time.Now()
	ctx, cancel := context.WithTimeout(ctx, duration)
	defer cancel()
	r := result{sent: make([]int64, len(limiters))}
	failed := make([]error, len(limiters))
	var all sync.WaitGroup
	for i, limiter := range limiters {
		all.Go(func() { r.sent[i], failed[i] = sendFrom(ctx, limiter) })
	}
	all.Wait()
	r.elapsed = time.Since(began)
	return r, errors.Join(failed...)
}

// sendFrom sends under one node's limiter until ctx ends and returns how many bytes that were. All nodes use the same key,
// so they share; a key for each customer would give each customer a bandwidth of its own.
func sendFrom(ctx context.Context, limiter *peerlimit.Limiter) (int64, error) {
	w, err := iolimit.NewWriter(ctx, io.Discard, iolimit.Bandwidth{Taker: limiter, Key: "uplink"})
	if err != nil {
		return 0, err
	}
	defer w.Close()
	n, err := io.Copy(w, endless{})
	if ctx.Err() != nil {
		err = nil // the time is over, or somebody has pressed Ctrl-C
	}
	return n, err
}

// endless is a file that never ends.
type endless struct{}

func (endless) Read(p []byte) (int, error) { return len(p), nil }

// print writes a table, and fails when more was sent than the limit allows.
func (r result) print(out io.Writer, limit peerlimit.Limit) error {
	var total int64
	for _, n := range r.sent {
		total += n
	}
	for i, n := range r.sent {
		fmt.Fprintf(out, "node-%d  %12s  %5.1f %%\n", i, megabytes(float64(n)), 100*float64(n)/max(1, float64(total)))
	}
	allowed := limit.Burst + limit.Tokens*r.elapsed.Seconds()
	fmt.Fprintf(out, "all     %12s  in %v; burst + rate*time allows %s\n",
		megabytes(float64(total)), r.elapsed.Round(time.Millisecond), megabytes(allowed))
	if float64(total) > allowed {
		return fmt.Errorf("%d bytes were sent, more than the limit allows", total)
	}
	return nil
}
