//go:build linux

package chaos

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// scenario is something that happens to a cluster, and what is promised when it does.
type scenario struct {
	name      string
	guarantee string // for people; allow is the same for the judge
	nodes     int
	hot       limit
	calls     int // a second of the saturated key at each node; 0 for hotCalls

	// rpcTimeout is peerlimit's setting, where so many processes start at once that some of them wait for a processor longer
	// than by default others wait for their answers; 0 for the default.
	rpcTimeout time.Duration

	// lasts is above how long the drivers ask for, and they ask no longer; 0 for their own default, of some minutes.
	lasts time.Duration

	network bool // it cuts links
	foreign bool // it makes sense for another program than peerlimit
	quick   bool // a few seconds: run by every go test
	ci      bool // of the short set

	fullRate bool // the whole limit must be given out again soon after the last sudden event

	// calmAfter is how long after the last sudden event nine tenths of the limit must be admitted in every second; 0: not judged.
	calmAfter time.Duration

	// mostShares is how much of all takes may be decided by shares, in percent; 0: not judged.
	mostShares float64

	// oldProgram, when not nil, returns the program that the nodes run at first.
	oldProgram func(t *testing.T) *os.File

	do    func(r *run)
	allow func(r *run, l limit, admitted []record) allowance
}

// selected reports whether the flags ask for this scenario.
func (s *scenario) selected() bool {
	switch {
	case *program != "peerlimit" && !s.foreign:
		return false
	case *chosen != "":
		return regexp.MustCompile(*chosen).MatchString(s.name)
	case *longSet:
		return true
	case *ciSet:
		return s.ci
	}
	return s.quick
}

func TestScenarios(t *testing.T) {
	for _, s := range scenarios {
		if !s.selected() {
			continue
		}
		t.Run(s.name, func(t *testing.T) {
			for range *repeat {
				if s.network && !*inside {
					runInside(t, s.name)
				} else {
					runScenario(t, &s)
				}
			}
		})
	}
}

func runScenario(t *testing.T, s *scenario) {
	var result Result
	t.Run("run", func(t *testing.T) { // its processes end with it
		r, records := execute(t, s)
		result = judge(r, records)
		report(t, &result)
		if *program == "peerlimit" {
			require.Empty(t, result.Violations)
		}
	})
	if *outDir != "" {
		encoded, err := json.MarshalIndent(result, "", "\t")
		require.NoError(t, err)
		require.NoError(t, os.MkdirAll(*outDir, 0o755))
		require.NoError(t, os.WriteFile(filepath.Join(*outDir, s.name+"."+*program+".json"), append(encoded, '\n'), 0o644))
	}
}

// report says what came of a run, in a few lines.
func report(t *testing.T, result *Result) {
	var b strings.Builder
	fmt.Fprintf(&b, "%s: %d calls in %.0f s, %d failed; slowest decision %.0f ms, other requests %.0f ms", result.Scenario,
		result.Calls, result.Seconds, result.Failed, result.SlowestMS, result.NoiseMS)
	if result.FullRateMS != nil {
		fmt.Fprintf(&b, "; the full rate again after %.0f ms", *result.FullRateMS)
	}
	for _, k := range result.Keys {
		fmt.Fprintf(&b, "\n%d %s: worst window %.0f admitted of %.1f, %.1f more (allowed: %.1f more)", k.Number, k.Kind, k.Admitted, k.Allowed, k.Over, k.OverAllowed)
		if k.Kind == "saturated" {
			fmt.Fprintf(&b, "; %.1f %% less in all", k.UnderPercent)
		}
	}
	for _, m := range result.Measured {
		fmt.Fprintf(&b, "\n%s", m)
	}
	t.Log(b.String())
}
