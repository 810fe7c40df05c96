package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"time"

	"github.com/peerlimit/peerlimit/bench/contest"
)

// results are what one run of the benchmark leaves.
type results struct {
	Date     time.Time
	Command  string
	Machine  string
	Versions []string
	Skipped  []string `json:",omitempty"` // contestants that could not be measured here, and why

	Measurements []measurement
}

// measurement is one scenario in one round.
type measurement struct {
	Round      int
	Table      string
	Contestant string
	Place      string // of its nodes: placeThree and so on
	Variant    string `json:",omitempty"` // of the table's scenario

	Scenario *contest.Scenario `json:",omitempty"`
	Result   *contest.Result   `json:",omitempty"`
	Others   *contest.Usage    `json:",omitempty"` // what the other processes of the cluster have used, or the server
	Wire     *wire             `json:",omitempty"`
	Memory   *contest.Memory   `json:",omitempty"`
	Seconds  float64           `json:",omitempty"` // of an idle cluster
}

// save writes each measurement to a line of its own.
func (r *results) save(file string) error {
	text, err := json.Marshal(r)
	if err != nil {
		return err
	}
	text = bytes.ReplaceAll(text, []byte(`{"Round":`), []byte("\n"+`{"Round":`))
	return os.WriteFile(file, append(text, '\n'), 0o644)
}

func load(file string) (*results, error) {
	text, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	var r results
	if err := json.Unmarshal(text, &r); err != nil {
		return nil, fmt.Errorf("%s: %w", file, err)
	}
	if len(r.Measurements) == 0 {
		return nil, fmt.Errorf("%s: there are no measurements", file)
	}
	return &r, nil
}
