package main

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestMain(m *testing.M) {
	if os.Getenv(childVariable) != "" {
		main()
		os.Exit(0)
	}
	os.Exit(m.Run())
}

func TestProcessesAreMeasured(t *testing.T) {
	var c cluster
	defer func() { c.close() }()
	join := ""
	for range 2 {
		_, err := c.add(&join)
		require.NoError(t, err)
	}
	_, err := c.all(order{Do: "meet", Members: 2})
	require.NoError(t, err)
	_, err = c[0].tell(order{Do: "fill", Keys: 100})
	require.NoError(t, err)
	reports, err := c.all(order{Do: "load", Callers: 2, Keys: 100, Lasts: 50 * time.Millisecond})
	require.NoError(t, err)
	for _, r := range reports {
		assert.Positive(t, r.Decisions)
		assert.Positive(t, r.CPU)
	}
	probed, err := c[1].tell(order{Do: "probe", Keys: 100, Lasts: 100 * time.Millisecond, Rate: 200})
	require.NoError(t, err)
	l := latenciesOf(probed.Calls, 0, time.Second)
	assert.Positive(t, l.Calls)
	assert.LessOrEqual(t, l.P50, l.P99)
	assert.LessOrEqual(t, l.P99, l.Max)
	_, err = c[0].tell(order{Do: "dance"})
	assert.ErrorContains(t, err, `do is "dance"`)
}

func TestRingsAreRead(t *testing.T) {
	file := filepath.Join(t.TempDir(), "rings")
	require.NoError(t, os.WriteFile(file, []byte(`goos: linux
BenchmarkRingBuild/100-2         	      21	  48199518 ns/op	 2965269 B/op	   38926 allocs/op
BenchmarkRingBuild/10-2 	     874	   1425360 ns/op	  710112 B/op	    3983 allocs/op
BenchmarkRingChange/100-2        	     237	   4880079 ns/op	 1397556 B/op	    1355 allocs/op
PASS
`), 0o600))
	rings, err := readRings(file)
	require.NoError(t, err)
	assert.Equal(t, []ringResult{
		{Members: 10, Build: 1425360},
		{Members: 100, Build: 48199518, Change: 4880079, Bytes: 1397556},
	}, rings)

	require.NoError(t, os.WriteFile(file, []byte("PASS\n"), 0o600))
	_, err = readRings(file)
	assert.ErrorContains(t, err, "no line")
}

func TestDocumentIsWritten(t *testing.T) {
	dir := t.TempDir()
	d := document{file: filepath.Join(dir, "scale.md"), prose: filepath.Join("..", "document", "scale.md"), charts: filepath.Join(dir, "charts")}
	r := &results{
		Processes: []processesResult{{Processes: 3, PerSecond: 400_000, PerMillion: 4 * time.Second}, {Processes: 9, PerSecond: 100_000}},
		Rings:     []ringResult{{Members: 10, Change: time.Millisecond}, {Members: 100, Change: 5 * time.Millisecond}},
		Move:      moveResult{Keys: 4_000_000, Moved: 1_000_000, Joined: 7 * time.Second},
	}
	require.NoError(t, d.write(r))
	text, err := os.ReadFile(d.file)
	require.NoError(t, err)
	assert.Contains(t, string(text), "| 3 | 400,000 | 4.0 s |")
	assert.Contains(t, string(text), "4,000,000 live keys")
	assert.FileExists(t, filepath.Join(d.charts, "rings.svg"))
}
