package main

import (
	"bytes"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestBadFlagsAreNamedWithTheirValue(t *testing.T) {
	for _, c := range []struct{ args, flag, value string }{
		{"-nodes 0", "-nodes", "0"},
		{"-nodes -3", "-nodes", "-3"},
		{"-nodes 8", "-nodes", "8"},
		{"-nodes 1", "-nodes", "1"}, // which chaos would leave nobody of
		{"-nodes many", "-nodes", "many"},
		{"-rate 0", "-rate", "0"},
		{"-rate -5", "-rate", "-5"},
		{"-rate NaN", "-rate", "NaN"},
		{"-rate Inf", "-rate", "+Inf"},
		{"-rate 10001", "-rate", "10001"},
		{"-rate fast", "-rate", "fast"},
		{"-burst 0.9", "-burst", "0.9"},
		{"-burst NaN", "-burst", "NaN"},
		{"-burst 2e6", "-burst", "2e+06"},
		{"-duration 1s", "-duration", "1s"},
		{"-duration 1h", "-duration", "1h0m0s"},
		{"-duration 20", "-duration", "20"},
		{"-chaos=perhaps", "-chaos", "perhaps"},
		{"-port 80", "-port", ""},
		{"-http 8090", "-http", "8090"},
		{"-http 127.0.0.1:", "-http", "127.0.0.1:"},
		{"-http 127.0.0.1:99999", "-http", "99999"},
		{"-http 192.0.2.1:0", "-http", "192.0.2.1:0"}, // an address of somebody else
		{"now", "", "now"},
	} {
		t.Run(c.args, func(t *testing.T) {
			var stdout, stderr bytes.Buffer
			assert.Equal(t, exitUsage, run(strings.Fields(c.args), &stdout, &stderr))
			assert.Contains(t, stderr.String(), c.flag)
			assert.Contains(t, stderr.String(), c.value)
			assert.Empty(t, stdout.String())
		})
	}
}

func TestDefaults(t *testing.T) {
	o, err := parseOptions(nil, nil)
	require.NoError(t, err)
	assert.Equal(t, options{nodes: 5, rate: 100, burst: 50, duration: 20 * time.Second, chaos: true}, o)
}

// With a page the run is long, and what is done to the nodes is up to the person who looks at it; but what is said holds.
func TestDefaultsWithAPage(t *testing.T) {
	o, err := parseOptions([]string{"-http", "localhost:0"}, nil)
	require.NoError(t, err)
	assert.Equal(t, options{nodes: 5, rate: 100, burst: 50, duration: maxDuration, page: "localhost:0"}, o)

	o, err = parseOptions([]string{"-http", ":8090", "-chaos", "-duration", "20s"}, nil)
	require.NoError(t, err)
	assert.True(t, o.chaos)
	assert.Equal(t, 20*time.Second, o.duration)
}

func TestOneNodeIsEnoughWithoutChaos(t *testing.T) {
	o, err := parseOptions([]string{"-nodes", "1", "-chaos=false"}, nil)
	require.NoError(t, err)
	assert.Equal(t, 1, o.nodes)
}

func TestHelpExplainsEveryFlagAndFits(t *testing.T) {
	var stdout, stderr bytes.Buffer
	assert.Equal(t, exitHeld, run([]string{"-h"}, &stdout, &stderr))
	assert.Empty(t, stderr.String())
	for _, flag := range []string{"-nodes", "-rate", "-burst", "-duration", "-chaos", "-http"} {
		assert.Contains(t, stdout.String(), "\n  "+flag)
	}
	assertFits(t, stdout.String())
}

// assertFits checks that no line is wider than the terminal that the output is made for.
func assertFits(t *testing.T, output string) {
	t.Helper()
	for line := range strings.Lines(output) {
		assert.LessOrEqual(t, utf8.RuneCountInString(strings.TrimSuffix(line, "\n")), maxColumns, "too wide: %q", line)
	}
}
