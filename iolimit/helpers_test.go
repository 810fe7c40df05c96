package iolimit_test

import (
	"context"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/peerlimit/peerlimit"
	_ "github.com/peerlimit/peerlimit/internal/onecore"
	"github.com/peerlimit/peerlimit/iolimit"
)

const ms = time.Millisecond

// tally is a bucket that is taken from by whatever key, and counts.
type tally struct {
	*peerlimit.Bucket

	mu       sync.Mutex // guards what follows
	takes    int        // that were allowed, and reservations
	asked    int        // all requests
	taken    float64
	refunded float64
}

func newTally(t require.TestingT, limits ...peerlimit.Limit) *tally {
	bucket, err := peerlimit.NewBucket(limits...)
	require.NoError(t, err)
	return &tally{Bucket: bucket}
}

func (b *tally) count(cost float64, granted bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.asked++
	if granted {
		b.takes++
		b.taken += cost
	}
}

func (b *tally) Take(_ context.Context, _ string, cost float64) (peerlimit.Decision, error) {
	d, err := b.Bucket.Take(cost)
	b.count(cost, err == nil && d.Allowed)
	return d, err
}

func (b *tally) Reserve(_ context.Context, _ string, cost float64) (*peerlimit.Reservation, error) {
	r, err := b.Bucket.Reserve(cost)
	b.count(cost, err == nil)
	return r, err
}

func (b *tally) Refund(_ context.Context, _ string, cost float64) error {
	b.mu.Lock()
	b.refunded += cost
	b.mu.Unlock()
	return b.Bucket.Refund(cost)
}

// net returns what was taken and not given back.
func (b *tally) net() float64 {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.taken - b.refunded
}

// requests returns how many takes succeeded and how many requests there were.
func (b *tally) requests() (takes, asked int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.takes, b.asked
}

// takeOnly is a Taker that can do nothing else.
type takeOnly struct{ tally *tally }

func (o takeOnly) Take(ctx context.Context, key string, cost float64) (peerlimit.Decision, error) {
	return o.tally.Take(ctx, key, cost)
}

// judge counts the bytes that pass, from all that share it, against burst + rate*t.
type judge struct {
	t           assert.TestingT
	began       time.Time
	rate, burst float64

	mu     sync.Mutex // guards passed
	passed int
}

func newJudge(t assert.TestingT, limit peerlimit.Limit) *judge {
	return &judge{t: t, began: time.Now(), rate: limit.Tokens / limit.Period.Seconds(), burst: limit.Burst}
}

func (j *judge) pass(n int) {
	j.mu.Lock()
	j.passed += n
	passed := float64(j.passed)
	j.mu.Unlock()
	allowed := j.burst + j.rate*time.Since(j.began).Seconds()
	if passed > allowed*(1+1e-9) {
		j.t.Errorf("after %v %v bytes have passed, and no more than %v may have", time.Since(j.began), passed, allowed)
	}
}

func (j *judge) total() int {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.passed
}

// Write is a sink that keeps nothing.
func (j *judge) Write(p []byte) (int, error) {
	j.pass(len(p))
	return len(p), nil
}

func mustNewWriter(t *testing.T, sink interface{ Write([]byte) (int, error) }, b iolimit.Bandwidth) *iolimit.Writer {
	t.Helper()
	w, err := iolimit.NewWriter(t.Context(), sink, b)
	require.NoError(t, err)
	return w
}

func mustNewReader(t *testing.T, source interface{ Read([]byte) (int, error) }, b iolimit.Bandwidth) *iolimit.Reader {
	t.Helper()
	r, err := iolimit.NewReader(t.Context(), source, b)
	require.NoError(t, err)
	return r
}

// content returns n bytes that look like nothing else.
func content(n int) []byte {
	random := rand.New(rand.NewPCG(1, uint64(n)))
	p := make([]byte, n)
	for i := range p {
		p[i] = byte(random.Uint32())
	}
	return p
}

// sameBytes compares without printing a megabyte.
func sameBytes(t assert.TestingT, want, got []byte) {
	if string(want) != string(got) {
		assert.Fail(t, "other bytes have arrived than were sent")
	}
}
