package main

import (
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/peerlimit/peerlimit/bench/contest"
)

var update = flag.Bool("update", false, "write testdata/side.md anew")

// invented are results of everything that is planned, in two rounds, with figures that were measured nowhere: peerlimit's are
// ten times as good as those of others.
func invented() *results {
	r := &results{
		Date: time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC), Command: "hand", Machine: "paper", Versions: []string{"one v1", "two v2"},
		Skipped: []string{"three: it is not there"},
	}
	for round := 1; round <= 2; round++ {
		for _, b := range plan(time.Second) {
			for _, e := range b.entrants {
				for _, c := range e.cells {
					r.Measurements = append(r.Measurements, inventedMeasurement(round, &e, &c))
				}
			}
		}
	}
	return r
}

func inventedMeasurement(round int, e *entrant, c *cell) measurement {
	m := measurement{Round: round, Table: c.table, Contestant: e.name(c.scenario.Mode), Place: e.place, Variant: c.variant}
	if c.idle > 0 {
		m.Seconds, m.Others = 2, &contest.Usage{CPUSeconds: 0.03}
		return m
	}
	s := c.scenario
	m.Scenario = &s
	if c.memory {
		m.Memory = &contest.Memory{Keys: 1000, LiveBytes: 120_000, HeapBytes: 148_000}
		return m
	}
	takes := int64(1000 * round)
	if e.program == programPeerlimit {
		takes *= 10
	}
	m.Result = &contest.Result{
		Takes: takes, Admitted: takes, Callers: max(2, s.Callers), Seconds: 1, P50: 1e9 / float64(takes), P99: 2e9 / float64(takes),
		P999: 4e9 / float64(takes), CPUSeconds: 1, Mallocs: uint64(takes) / 2,
	}
	if e.program == programGubernator {
		m.Result.Failed, m.Result.FirstFailure = 10, "it took too long"
	}
	if s.Judge {
		m.Result.Judged = &contest.Judged{Admitted: takes, Allowed: float64(takes) / 0.99, Worst: 0.995}
	}
	m.Others = &contest.Usage{CPUSeconds: 0.5, Mallocs: uint64(takes)}
	m.Wire = &wire{Out: uint64(54 * takes), Back: uint64(41 * takes), All: uint64(130 * takes)}
	return m
}

func TestReport(t *testing.T) {
	dir := t.TempDir()
	file, document, charts, notes := filepath.Join(dir, "r.json"), filepath.Join(dir, "a", "side.md"), filepath.Join(dir, "charts"), filepath.Join(dir, "notes.md")
	require.NoError(t, invented().save(file))
	require.NoError(t, os.WriteFile(notes, []byte("Nobody knows.\n"), 0o644))
	require.NoError(t, run(&options{in: file, document: document, charts: charts, notes: notes}))
	text, err := os.ReadFile(document)
	require.NoError(t, err)
	golden := filepath.Join("testdata", "side.md")
	if *update {
		require.NoError(t, os.WriteFile(golden, text, 0o644))
	}
	want, err := os.ReadFile(golden)
	require.NoError(t, err)
	assert.Equal(t, string(want), string(text))
	assert.True(t, strings.HasPrefix(string(text), "## Side by side\n"))
	assert.NotContains(t, string(text), "NaN")
	for _, s := range sections {
		for _, c := range s.charts {
			drawn, err := os.ReadFile(filepath.Join(charts, c.file))
			require.NoError(t, err)
			assert.Contains(t, string(drawn), c.axis)
			assert.Contains(t, string(drawn), programPeerlimit)
			assert.Contains(t, string(text), "(benchmarks/"+c.file+")")
		}
	}
}

// A part of the plan is reported without what was not measured.
func TestReportOfAPart(t *testing.T) {
	r := invented()
	var remote []measurement
	for _, m := range r.Measurements {
		if m.Table == tableRemote && m.Contestant != programRedis {
			remote = append(remote, m)
		}
	}
	r.Measurements = remote
	text := string(compose(r, ""))
	assert.Contains(t, text, "### Remote decisions")
	assert.NotContains(t, text, "### Memory")
	assert.NotContains(t, text, "Where the time goes")
	assert.Contains(t, text, "not measured")
	require.NoError(t, drawCharts(r, t.TempDir()))
}

func TestOutcome(t *testing.T) {
	for want, b := range map[string]budget{
		"met":                       {bound: 2, measured: figure{median: 2, rounds: 1}, show: digits},
		"missed by 50.0 %":          {bound: 2, measured: figure{median: 3, rounds: 1}, show: digits},
		"missed: 2.50 × the budget": {bound: 2, measured: figure{median: 5, rounds: 1}, show: digits},
		"missed by 3.00":            {bound: 0, measured: figure{median: 3, rounds: 1}, show: digits},
		"missed by 25.0 %":          {least: true, bound: 8, measured: figure{median: 6, rounds: 1}, show: digits},
		"not measured":              {bound: 2, show: digits},
	} {
		assert.Equal(t, want, b.outcome())
	}
	above := budget{least: true, bound: 8, measured: figure{median: 9, rounds: 1}, show: digits}
	assert.Equal(t, "met", above.outcome())
	assert.Equal(t, "≥ 8.00", above.text())
}

func TestFigures(t *testing.T) {
	assert.Equal(t, figure{2.5, 1, 4, 4}, figureOf([]float64{4, 1, 3, 2}))
	assert.Equal(t, "2.50 (1.00–4.00)", figureOf([]float64{4, 1, 3, 2}).text(digits))
	assert.Equal(t, "–", figure{}.text(digits))
	for want, x := range map[string]float64{"0": 0, "0.010": 0.01, "0.99": 0.986, "12.3": 12.345, "999": 999.4, "1,234,568": 1234567.8, "-1,000": -1000} {
		assert.Equal(t, want, digits(x))
	}
	assert.Equal(t, "1,230,000", rate(1234567))
	for want, ns := range map[string]float64{"412 ns": 412, "12.4 µs": 12400, "1.50 ms": 1.5e6, "2.00 s": 2e9} {
		assert.Equal(t, want, duration(ns))
	}
}

func TestWhatIsNoResultIsRefused(t *testing.T) {
	file := filepath.Join(t.TempDir(), "r.json")
	_, err := load(file)
	assert.ErrorIs(t, err, os.ErrNotExist)
	require.NoError(t, os.WriteFile(file, []byte("{}"), 0o644))
	_, err = load(file)
	assert.ErrorContains(t, err, "no measurements")
	require.NoError(t, os.WriteFile(file, []byte("{"), 0o644))
	_, err = load(file)
	assert.ErrorContains(t, err, "r.json")
	assert.ErrorContains(t, run(&options{}), "-rounds is 0")
	assert.ErrorContains(t, run(&options{rounds: 1, lasts: 1, warmUp: 1}), "-contestant")
}

// Every contestant alternates, in every block, and no two scenarios of one entrant share buckets by mistake.
func TestPlan(t *testing.T) {
	for _, b := range plan(time.Second) {
		assert.NotEmpty(t, b.entrants, b.name)
		for _, e := range b.entrants {
			assert.NotEmpty(t, e.cells, e.program)
			limits := make(map[string][]contest.Limit)
			for _, c := range e.cells {
				if before, ok := limits[c.scenario.Name]; ok {
					assert.Equal(t, before, c.scenario.Limits, "%s: %s", e.program, c.scenario.Name)
				}
				limits[c.scenario.Name] = c.scenario.Limits
			}
		}
	}
}
