package main

import (
	"context"
	"io"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/peerlimit/peerlimit"
	"github.com/peerlimit/peerlimit/peerlimittest"
)

// The whole program, over loopback. How much gets through in so little time is the machine's; that it is not too much is
// the program's own verdict.
func TestRun(t *testing.T) {
	var out strings.Builder
	require.NoError(t, run(t.Context(), []string{"-nodes", "2", "-rate", "1000000", "-duration", "300ms"}, &out))
	lines := strings.Split(out.String(), "\n")
	require.Len(t, lines, 5, out.String())
	assert.Equal(t, "2 nodes share 1.000 MB a second for 300ms", lines[0])
	assert.Regexp(t, `^node-0 +[\d.]+ MB +[\d.]+ %$`, lines[1])
	assert.Regexp(t, `^node-1 +[\d.]+ MB +[\d.]+ %$`, lines[2])
	assert.Regexp(t, `^all +[\d.]+ MB +in .*; burst \+ rate\*time allows [\d.]+ MB$`, lines[3])
}

// Three nodes get a third each, and all of it together.
func TestNodesShareEqually(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := options{rate: 1e6, duration: 5 * time.Second}
		limiters := peerlimittest.NewCluster(t, 3).Limiters("bandwidth", o.limit())
		r, err := send(t.Context(), limiters, o.duration)
		require.NoError(t, err)
		require.NoError(t, r.print(io.Discard, o.limit()))
		allowed := 5.1e6
		var total float64
		for i, n := range r.sent {
			assert.InEpsilon(t, allowed/3, float64(n), 0.1, "node %d of %v", i, r.sent)
			total += float64(n)
		}
		assert.Greater(t, total, 0.98*allowed)
	})
}

func TestTooMuchIsAFailure(t *testing.T) {
	r := result{sent: []int64{1000, 1001}, elapsed: time.Second}
	assert.NoError(t, r.print(io.Discard, peerlimit.PerSecond(1001).WithBurst(1000)))
	assert.ErrorContains(t, r.print(io.Discard, peerlimit.PerSecond(1000).WithBurst(1000)), "2001 bytes were sent")
}

func TestItEndsWhenInterrupted(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	err := run(ctx, []string{"-nodes", "2", "-duration", "10m"}, io.Discard)
	assert.ErrorIs(t, err, context.Canceled)
}

func TestFlagsAreChecked(t *testing.T) {
	for want, args := range map[string]string{
		"-nodes is 0":         "-nodes 0",
		"-nodes is 8":         "-nodes 8",
		"-rate is 999":        "-rate 999",
		"-rate is NaN":        "-rate NaN",
		"-duration is 11m0s":  "-duration 11m",
		`"now" is not a flag`: "now",
		"not defined: -x":     "-x",
	} {
		err := run(t.Context(), strings.Fields(args), io.Discard)
		assert.ErrorIs(t, err, errBadFlag)
		assert.ErrorContains(t, err, want)
	}
	assert.NoError(t, run(t.Context(), []string{"-h"}, io.Discard))
}
