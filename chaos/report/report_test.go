package main

import (
	"encoding/json"
	"flag"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/peerlimit/peerlimit/chaos"
)

var update = flag.Bool("update", false, "write testdata/chaos.md anew")

func ones(n, value int) []int {
	samples := make([]int, n)
	for i := range samples {
		samples[i] = value
	}
	return samples
}

func example(program string) chaos.Result {
	full := 187.0
	r := chaos.Result{
		Scenario: "KillTheOwner", Guarantee: "B + R·w, and what was lost", Program: program, Started: "2026-01-02T03:04:05Z",
		Seconds: 10, Nodes: 5, Events: []chaos.Event{{AtMS: 4000, Text: "SIGKILL n2"}},
		Keys: []chaos.Keys{
			{
				Kind: "saturated", Number: 1, Burst: 100, Rate: 100, Admitted: 504, Allowed: 500, Over: 4, OverAllowed: 10,
				UnderPercent: 1.25, SampleMS: 100, Offered: ones(100, 30), Served: ones(100, 10),
			},
			{Kind: "exhausted", Number: 40, Burst: 10, Rate: 10.0 / 3600, Admitted: 10, Allowed: 10, SampleMS: 100, Offered: ones(100, 30), Served: ones(100, 0)},
		},
		Calls: 6000, SlowestMS: 46, NoiseMS: 17, FullRateMS: &full,
	}
	if program != own {
		r.Started, r.FullRateMS, r.Failed, r.Violations = "2026-01-01T00:00:00Z", nil, 960, []string{"960 of 6000 calls failed"}
	}
	return r
}

func write(t *testing.T, dir, name string, r chaos.Result) {
	text, err := json.Marshal(r)
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(filepath.Join(dir, name), text, 0o644))
}

func TestReport(t *testing.T) {
	in, out := t.TempDir(), t.TempDir()
	write(t, in, "a.json", example("other"))
	write(t, in, "b.json", example(own))
	calm := example(own)
	calm.Violations = []string{"the whole limit was not given out again"}
	calm.Measured = []chaos.Measure{{What: "Takes decided by shares", Value: 0.125, Unit: "%", Promised: "at most 1 %"}, {What: "Slowest newcomer", Value: 2, Unit: "s"}}
	calm.Scenario, calm.Events, calm.FullRateMS, calm.Started = "Calm", nil, nil, "2026-01-02T03:05:05Z"
	write(t, in, "c.json", calm)
	require.NoError(t, run(in, out, "Measured on paper."))
	text, err := os.ReadFile(filepath.Join(out, "chaos.md"))
	require.NoError(t, err)
	golden := filepath.Join("testdata", "chaos.md")
	if *update {
		require.NoError(t, os.WriteFile(golden, text, 0o644))
	}
	want, err := os.ReadFile(golden)
	require.NoError(t, err)
	assert.Equal(t, string(want), string(text))
	for _, name := range []string{"KillTheOwner", "Calm"} {
		chart, err := os.ReadFile(filepath.Join(out, "chaos", name+".svg"))
		require.NoError(t, err)
		for _, words := range []string{"takes a second", "seconds", "admitted", "asked for", "the limit", name + ": peerlimit"} {
			assert.Contains(t, string(chart), words, name)
		}
	}
}

// The document names the Gubernator that the scenarios ran with, and the benchmarks have the same one.
func TestTheDocumentNamesGubernatorsVersion(t *testing.T) {
	for _, module := range []string{"../gubernator", "../../bench/gubernator"} {
		text, err := os.ReadFile(filepath.Join(module, "go.mod"))
		require.NoError(t, err)
		assert.Contains(t, string(text), "github.com/gubernator-io/gubernator/v2 "+gubernatorVersion+"\n", module)
	}
}

func TestWhatIsNoResultIsRefused(t *testing.T) {
	assert.ErrorContains(t, run(t.TempDir(), t.TempDir(), ""), "no results")
	for name, test := range map[string]struct {
		change func(*chaos.Result)
		says   string
	}{
		"no name":       {func(r *chaos.Result) { r.Scenario = "" }, `scenario is ""`},
		"a path":        {func(r *chaos.Result) { r.Scenario = "../x" }, `scenario is "../x"`},
		"no program":    {func(r *chaos.Result) { r.Program = "" }, "program"},
		"no time":       {func(r *chaos.Result) { r.Seconds = 0 }, "seconds are 0"},
		"no samples":    {func(r *chaos.Result) { r.Keys[0].Served = nil }, "saturated"},
		"odd samples":   {func(r *chaos.Result) { r.Keys[1].Offered = ones(3, 3) }, "exhausted"},
		"no interval":   {func(r *chaos.Result) { r.Keys[0].SampleMS = 0 }, "0 ms"},
		"few samples":   {func(r *chaos.Result) { r.Keys[0].Served, r.Keys[0].Offered = ones(1, 1), ones(1, 1) }, "too few"},
		"nothing asked": {func(r *chaos.Result) { r.Keys = nil }, "no saturated key"},
	} {
		t.Run(name, func(t *testing.T) {
			in, r := t.TempDir(), example(own)
			test.change(&r)
			write(t, in, "a.json", r)
			assert.ErrorContains(t, run(in, t.TempDir(), ""), test.says)
		})
	}
	in := t.TempDir()
	require.NoError(t, os.WriteFile(filepath.Join(in, "a.json"), []byte("{"), 0o644))
	assert.ErrorContains(t, run(in, t.TempDir(), ""), "a.json")
}
