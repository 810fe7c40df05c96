package main

import (
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/peerlimit/peerlimit/bench/contest"
)

// Where the nodes of a contestant are.
const (
	placeThree  = "three"  // three processes of a node each
	placeOne    = "one"    // one process of three nodes
	placeAlone  = "alone"  // one process of one node, or with no node at all
	placeTwo    = "two"    // two processes
	placeServer = "server" // one process, and a server
)

// settling is for what goes on after buckets were made: replicas, copies, broadcasts.
const settling = 300 * time.Millisecond

// cluster is a contestant that has been started.
type cluster struct {
	place     string
	processes []*process // the first is asked
	server    *redisServer
	filled    map[string]bool // by scenario's name
}

// start starts an entrant's processes one after the other, each of which joins the first.
func (p *programs) start(e *entrant) (c *cluster, err error) {
	c = &cluster{place: e.place, filled: make(map[string]bool)}
	defer func() {
		if err != nil {
			err = errors.Join(err, c.stop())
		}
	}()
	setup, processes := e.setup, 1
	setup.Nodes = 1
	switch e.place {
	case placeThree:
		processes = 3
	case placeTwo:
		processes = 2
	case placeOne:
		setup.Nodes = 3
	case placeServer:
		if c.server, err = startRedis(p.redis); err != nil {
			return c, err
		}
		setup.Server = c.server.address
	}
	var addresses []string
	for range processes {
		process, err := startProcess(e.program, p.command(e.program)...)
		if err != nil {
			return c, err
		}
		c.processes = append(c.processes, process)
		answer, err := process.do(contest.Command{Op: contest.OpStart, Setup: setup})
		if err != nil {
			return c, err
		}
		addresses = append(addresses, answer.Address)
		setup.Join = addresses[0]
	}
	for _, process := range c.processes {
		if _, err := process.do(contest.Command{Op: contest.OpMeet, Addresses: addresses}); err != nil {
			return c, err
		}
	}
	c.settle()
	return c, nil
}

// settle waits, where there are nodes that have something to tell each other.
func (c *cluster) settle() {
	if c.place == placeThree || c.place == placeOne {
		time.Sleep(settling)
	}
}

// stop ends all processes, and says what went wrong with any.
func (c *cluster) stop() (err error) {
	for _, p := range c.processes {
		err = errors.Join(err, p.stop())
	}
	if c.server != nil {
		err = errors.Join(err, c.server.stop())
	}
	return err
}

func (c *cluster) asked() *process { return c.processes[0] }

func (c *cluster) pids() (pids []int) {
	for _, p := range c.processes {
		pids = append(pids, p.pid())
	}
	if c.server != nil {
		pids = append(pids, c.server.command.Process.Pid)
	}
	return pids
}

// othersUsage is what all processes but the one that is asked have used so far.
func (c *cluster) othersUsage() (*contest.Usage, error) {
	var sum contest.Usage
	for _, p := range c.processes[1:] {
		answer, err := p.do(contest.Command{Op: contest.OpUsage})
		if err != nil {
			return nil, err
		}
		sum.CPUSeconds += answer.Usage.CPUSeconds
		sum.Mallocs += answer.Usage.Mallocs
	}
	if c.server != nil {
		used, err := processorTime(c.server.command.Process.Pid)
		if err != nil {
			return nil, err
		}
		sum.CPUSeconds += used.Seconds()
	}
	return &sum, nil
}

// prepare makes the buckets of a scenario where they are decided about.
func (c *cluster) prepare(s *contest.Scenario) error {
	key := s.Name + "/" + s.Keys
	if c.filled[key] {
		return nil
	}
	c.filled[key] = true
	found, err := c.asked().do(contest.Command{Op: contest.OpFind, Scenario: s})
	if err != nil || s.Judge { // a contestant that is judged begins with nothing taken
		return err
	}
	failures := make([]error, len(c.processes))
	var filling sync.WaitGroup
	for i, p := range c.processes {
		if isAsked := i == 0; c.place == placeThree && isAsked == (s.Keys == contest.KeysRemote) && s.Keys != contest.KeysAny {
			continue // it decides about none of them
		}
		filling.Go(func() { _, failures[i] = p.do(contest.Command{Op: contest.OpFill, Scenario: s, Seen: found.Seen}) })
	}
	filling.Wait()
	if found.Seen >= manyKeys {
		c.settle()
	}
	return errors.Join(failures...)
}

// measure runs one scenario, after a short warm-up unless there is something to judge.
func (c *cluster) measure(cell *cell, warmUp time.Duration) (*measurement, error) {
	m := &measurement{Table: cell.table, Variant: cell.variant}
	switch {
	case cell.idle > 0:
		return m, c.measureIdle(m, cell.idle)
	case cell.memory:
		return m, c.measureMemory(m, &cell.scenario)
	}
	s := cell.scenario
	m.Scenario = &s
	if err := c.prepare(&s); err != nil {
		return nil, err
	}
	if !s.Judge {
		warm := s
		warm.Lasts = warmUp
		if _, err := c.asked().do(contest.Command{Op: contest.OpRun, Scenario: &warm}); err != nil {
			return nil, err
		}
	}
	before, err := c.othersUsage()
	if err != nil {
		return nil, err
	}
	carriedBefore, err := trafficOf(c.pids())
	if err != nil {
		return nil, err
	}
	answer, err := c.asked().do(contest.Command{Op: contest.OpRun, Scenario: &s})
	if err != nil {
		return nil, err
	}
	after, err := c.othersUsage()
	if err != nil {
		return nil, err
	}
	carriedAfter, err := trafficOf(c.pids())
	if err != nil {
		return nil, err
	}
	m.Result = answer.Result
	m.Others = &contest.Usage{CPUSeconds: after.CPUSeconds - before.CPUSeconds, Mallocs: after.Mallocs - before.Mallocs}
	m.Wire = carriedAfter.since(carriedBefore)
	return m, nil
}

// measureIdle measures what the other processes use when nobody takes anything.
func (c *cluster) measureIdle(m *measurement, lasts time.Duration) error {
	before, err := c.othersUsage()
	if err != nil {
		return err
	}
	began := time.Now()
	time.Sleep(lasts)
	after, err := c.othersUsage()
	if err != nil {
		return err
	}
	m.Seconds = time.Since(began).Seconds() * float64(len(c.processes)-1)
	m.Others = &contest.Usage{CPUSeconds: after.CPUSeconds - before.CPUSeconds}
	return nil
}

func (c *cluster) measureMemory(m *measurement, s *contest.Scenario) error {
	m.Scenario = s
	var before int64
	var err error
	if c.server != nil {
		if before, err = c.server.usedMemory(); err != nil {
			return err
		}
	}
	answer, err := c.asked().do(contest.Command{Op: contest.OpMemory, Scenario: s})
	if err != nil {
		return err
	}
	m.Memory = answer.Memory
	if c.server != nil {
		after, err := c.server.usedMemory()
		if err != nil {
			return err
		}
		m.Memory.LiveBytes, m.Memory.HeapBytes = after-before, after-before
	}
	return nil
}

// programs are where the contestants are.
type programs struct{ contestant, gubernator, redis string }

func (p *programs) command(program string) []string {
	if program == programGubernator {
		return []string{p.gubernator}
	}
	return []string{p.contestant, "-program", program}
}

// name of an entrant in the tables.
func (e *entrant) name(mode string) string {
	if mode != "" {
		return fmt.Sprintf("Gubernator %s", mode)
	}
	if e.label != "" {
		return e.label
	}
	return e.program
}
