package main

import (
	"errors"
	"fmt"
	"io"
	"time"
)

// runner measures a plan.
type runner struct {
	programs programs
	rounds   int
	warmUp   time.Duration
	progress io.Writer
	results  *results
}

// run goes through all blocks in each round. Within a block the contestants come one after the other, each round beginning
// with another one, so that a machine that becomes slower hits all alike. While one is measured no other one is running.
func (r *runner) run(blocks []block) error {
	began := time.Now()
	for round := range r.rounds {
		for _, b := range blocks {
			if b.once && round > 0 {
				continue
			}
			for i := range b.entrants {
				e := &b.entrants[(i+round)%len(b.entrants)]
				if e.program == programRedis && r.programs.redis == "" {
					continue
				}
				if err := r.enter(round, e); err != nil {
					return fmt.Errorf("round %d, %s, %s: %w", round+1, b.name, e.program, err)
				}
			}
			_, _ = fmt.Fprintf(r.progress, "%4.0f s: round %d of %d, %s\n", time.Since(began).Seconds(), round+1, r.rounds, b.name)
		}
	}
	return nil
}

// enter starts an entrant, measures its cells and stops it.
func (r *runner) enter(round int, e *entrant) (err error) {
	c, err := r.programs.start(e)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, c.stop()) }()
	for i := range e.cells {
		m, err := c.measure(&e.cells[i], r.warmUp)
		if err != nil {
			return err
		}
		m.Round, m.Place = round+1, e.place
		mode := ""
		if e.label == "" && m.Scenario != nil {
			mode = m.Scenario.Mode
		}
		m.Contestant = e.name(mode)
		r.results.Measurements = append(r.results.Measurements, *m)
	}
	return nil
}
