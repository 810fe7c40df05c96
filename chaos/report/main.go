// Command report writes docs/chaos.md, and a chart of each scenario, from what the scenarios of package chaos have left in a
// directory:
//
//	cd chaos/report && go run . -in DIR
//
// The document says how the results are made.
package main

import (
	"cmp"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"slices"

	"github.com/peerlimit/peerlimit/chaos"
)

func main() {
	in := flag.String("in", "", "directory of results, as -chaos.out writes them")
	out := flag.String("out", "../../docs", "directory to write chaos.md and chaos/*.svg to")
	machine := flag.String("machine", "", "where it was measured, for the document")
	flag.Parse()
	if err := run(*in, *out, *machine); err != nil {
		fmt.Fprintln(os.Stderr, "report:", err)
		os.Exit(1)
	}
}

func run(in, out, machine string) error {
	scenarios, err := load(in)
	if err != nil {
		return err
	}
	charts := filepath.Join(out, "chaos")
	if err := os.MkdirAll(charts, 0o755); err != nil {
		return err
	}
	for _, s := range scenarios {
		if err := drawChart(s, filepath.Join(charts, s.name+".svg")); err != nil {
			return fmt.Errorf("%s: %w", s.name, err)
		}
	}
	return os.WriteFile(filepath.Join(out, "chaos.md"), document(scenarios, machine), 0o644)
}

// scenario has the results of one scenario, peerlimit's first.
type scenario struct {
	name    string
	results []chaos.Result
}

// load reads all results of a directory, in the order in which the scenarios were run.
func load(dir string) ([]scenario, error) {
	files, err := filepath.Glob(filepath.Join(dir, "*.json"))
	if err != nil {
		return nil, err
	}
	if len(files) == 0 {
		return nil, fmt.Errorf("-in is %q: there are no results", dir)
	}
	var results []chaos.Result
	for _, file := range files {
		r, err := read(file)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", file, err)
		}
		results = append(results, r)
	}
	slices.SortStableFunc(results, func(a, b chaos.Result) int {
		return cmp.Or(cmp.Compare(b2i(a.Program != own), b2i(b.Program != own)), cmp.Compare(a.Started, b.Started))
	})
	var scenarios []scenario
	for _, r := range results {
		i := slices.IndexFunc(scenarios, func(s scenario) bool { return s.name == r.Scenario })
		if i < 0 {
			i = len(scenarios)
			scenarios = append(scenarios, scenario{name: r.Scenario})
		}
		scenarios[i].results = append(scenarios[i].results, r)
	}
	return scenarios, nil
}

// own is the program that the others are set beside.
const own = "peerlimit"

func b2i(b bool) int {
	if b {
		return 1
	}
	return 0
}

func read(file string) (r chaos.Result, err error) {
	text, err := os.ReadFile(file)
	if err != nil {
		return r, err
	}
	if err := json.Unmarshal(text, &r); err != nil {
		return r, err
	}
	switch {
	case r.Scenario == "" || r.Scenario != filepath.Base(r.Scenario):
		return r, fmt.Errorf("scenario is %q", r.Scenario)
	case r.Program == "":
		return r, errors.New("program is empty")
	case r.Seconds <= 0:
		return r, fmt.Errorf("seconds are %v", r.Seconds)
	}
	for _, k := range r.Keys {
		if k.SampleMS <= 0 || len(k.Served) == 0 || len(k.Served) != len(k.Offered) {
			return r, fmt.Errorf("the %s keys have %d and %d samples of %d ms", k.Kind, len(k.Offered), len(k.Served), k.SampleMS)
		}
	}
	return r, nil
}

// keys returns those of a kind, or nil.
func keys(r *chaos.Result, kind string) *chaos.Keys {
	for i := range r.Keys {
		if r.Keys[i].Kind == kind {
			return &r.Keys[i]
		}
	}
	return nil
}
