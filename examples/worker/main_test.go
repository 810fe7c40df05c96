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

// The whole program, over loopback.
func TestRun(t *testing.T) {
	var out strings.Builder
	require.NoError(t, run(t.Context(), strings.Fields("-nodes 2 -workers 3 -jobs 60 -quota 500"), &out))
	lines := strings.Split(out.String(), "\n")
	require.Len(t, lines, 5, out.String())
	assert.Equal(t, "2 nodes with 3 workers each do 60 jobs; the third party allows 500 calls a second", lines[0])
	assert.Regexp(t, `^node-0 +\d+ jobs, by worker \[\d+ \d+ \d+\]$`, lines[1])
	assert.Regexp(t, `^node-1 +\d+ jobs, by worker \[\d+ \d+ \d+\]$`, lines[2])
	assert.Regexp(t, `^the third party was called 60 times in .*; its quota allows \d+$`, lines[3])
}

// Turns come one by one at the rate of the quota, and workers of all nodes get as many.
func TestFleetKeepsToTheQuota(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := options{quota: 50}
		limiters := peerlimittest.NewCluster(t, 3).Limiters("third-party", o.limit())
		done, err := work(t.Context(), limiters, 4, 301)
		require.NoError(t, err)
		require.NoError(t, done.print(io.Discard, o.limit()))
		assert.Equal(t, 301, done.calls)
		assert.GreaterOrEqual(t, done.elapsed, 6*time.Second, "the first at once, and 300 at 50 a second")
		assert.Less(t, done.elapsed, 6100*time.Millisecond, "and nothing is wasted")
		for node, workers := range done.byNode {
			for worker, n := range workers {
				assert.InDelta(t, 301.0/12, n, 2, "worker %d of node %d", worker, node)
			}
		}
	})
}

func TestAFailureEndsTheFleet(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cluster := peerlimittest.NewCluster(t, 2)
		limiters := cluster.Limiters("third-party", peerlimit.PerSecond(1).WithBurst(1))
		ctx, cancel := context.WithCancel(t.Context())
		time.AfterFunc(1500*time.Millisecond, cancel)
		done, err := work(ctx, limiters, 2, 100)
		assert.ErrorIs(t, err, context.Canceled)
		assert.Equal(t, 2, done.calls)

		require.NoError(t, cluster.Node(1).Close())
		_, err = work(t.Context(), limiters, 2, 100)
		assert.ErrorIs(t, err, peerlimit.ErrClosed)
	})
}

func TestTooMuchIsAFailure(t *testing.T) {
	o := outcome{calls: 12, elapsed: time.Second}
	assert.NoError(t, o.print(io.Discard, peerlimit.PerSecond(11).WithBurst(1)))
	assert.ErrorContains(t, o.print(io.Discard, peerlimit.PerSecond(10).WithBurst(1)), "12 calls")
}

func TestFlagsAreChecked(t *testing.T) {
	for want, args := range map[string]string{
		"-nodes is 0":         "-nodes 0",
		"-workers is 101":     "-workers 101",
		"-jobs is 0":          "-jobs 0",
		"-jobs is 601":        "-jobs 601 -quota 1",
		"-quota is NaN":       "-quota NaN",
		`"now" is not a flag`: "now",
		"not defined: -x":     "-x",
	} {
		err := run(t.Context(), strings.Fields(args), io.Discard)
		assert.ErrorIs(t, err, errBadFlag)
		assert.ErrorContains(t, err, want)
	}
	assert.NoError(t, run(t.Context(), []string{"-h"}, io.Discard))
}
