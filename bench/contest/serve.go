package contest

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"runtime"
	"sync"
	"sync/atomic"
	"time"
)

// What a contestant can be told to do.
const (
	OpStart  = "start"  // with Setup; answers with Address
	OpMeet   = "meet"   // with Addresses
	OpFind   = "find"   // with Scenario: chooses its keys; answers with Seen
	OpFill   = "fill"   // with Scenario and Seen: makes the buckets of all keys up to there that it decides about
	OpRun    = "run"    // with Scenario; answers with Result
	OpUsage  = "usage"  // answers with Usage
	OpMemory = "memory" // with Scenario: makes the buckets of its keys; answers with Memory
)

// Command is one line to a contestant.
type Command struct {
	Op        string
	Setup     Setup     `json:",omitzero"`
	Addresses []string  `json:",omitempty"`
	Scenario  *Scenario `json:",omitempty"`
	Seen      int       `json:",omitempty"`
}

// Answer is one line from a contestant.
type Answer struct {
	Error   string  `json:",omitempty"`
	Address string  `json:",omitempty"`
	Seen    int     `json:",omitempty"`
	Result  *Result `json:",omitempty"`
	Usage   *Usage  `json:",omitempty"`
	Memory  *Memory `json:",omitempty"`
}

// Serve does what it reads until there is nothing more to read, and closes the contestant.
func Serve(c Contestant, in io.Reader, out io.Writer) (err error) {
	defer func() { err = errors.Join(err, c.Close()) }()
	s := server{contestant: c}
	commands, answers := json.NewDecoder(bufio.NewReader(in)), json.NewEncoder(out)
	for {
		var command Command
		if err := commands.Decode(&command); errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return err
		}
		var answer Answer
		if err := s.do(&command, &answer); err != nil {
			answer = Answer{Error: fmt.Sprintf("%s: %v", command.Op, err)}
		}
		if err := answers.Encode(answer); err != nil {
			return err
		}
	}
}

// server remembers the last choice of keys: runs of one scenario follow each other.
type server struct {
	contestant Contestant
	chosen     Scenario // of which only what decides about keys counts
	keys       []string
	seen       int
	order      []uint32
}

func (s *server) do(command *Command, answer *Answer) (err error) {
	switch command.Op {
	case OpFind, OpFill, OpRun, OpMemory:
		if command.Scenario == nil {
			return errors.New("Scenario is missing")
		}
		if err := command.Scenario.check(); err != nil {
			return err
		}
	}
	switch command.Op {
	case OpStart:
		answer.Address, err = s.contestant.Start(command.Setup)
	case OpMeet:
		err = s.contestant.Meet(command.Addresses)
	case OpFind:
		err = s.choose(command.Scenario)
		answer.Seen = s.seen
	case OpFill:
		err = fill(s.contestant, command.Scenario, command.Seen)
	case OpRun:
		answer.Result, err = s.run(command.Scenario)
	case OpUsage:
		usage := UsageNow()
		answer.Usage = &usage
	case OpMemory:
		answer.Memory, err = measureMemory(s.contestant, command.Scenario)
	default:
		err = errors.New("there is no such command")
	}
	return err
}

func (s *server) choose(scenario *Scenario) (err error) {
	same := s.chosen.Name == scenario.Name && s.chosen.Keys == scenario.Keys && s.chosen.KeyCount == scenario.KeyCount
	if !same {
		if s.keys, s.seen, err = chooseKeys(s.contestant, scenario); err != nil {
			return err
		}
	}
	if !same || s.chosen.Choice != scenario.Choice {
		s.order = chooseOrder(scenario.Choice, scenario.KeyCount, rand.New(rand.NewPCG(1, 2)))
	}
	s.chosen = *scenario
	return nil
}

func (s *server) run(scenario *Scenario) (*Result, error) {
	if err := s.choose(scenario); err != nil {
		return nil, err
	}
	take, err := s.contestant.Take(scenario)
	if err != nil {
		return nil, err
	}
	l := load{scenario: scenario, take: take, keys: s.keys, order: s.order}
	result := l.run()
	return &result, nil
}

// fill makes buckets by a take each, on all processors.
func fill(c Contestant, s *Scenario, seen int) error {
	take, err := c.Fill(s)
	if err != nil || take == nil {
		return err
	}
	failures := make([]error, runtime.GOMAXPROCS(0))
	var filling sync.WaitGroup
	for first := range failures {
		filling.Go(func() {
			for i := first; i < seen && failures[first] == nil; i += len(failures) {
				_, failures[first] = take(key(i))
			}
		})
	}
	filling.Wait()
	return errors.Join(failures...)
}

// settling is how long what follows from many new keys is waited for, such as replicas on their way.
const settling = 2 * time.Second

// measureMemory makes the buckets of the scenario's keys, whose strings only the contestant keeps.
func measureMemory(c Contestant, s *Scenario) (*Memory, error) {
	take, err := c.Take(s)
	if err != nil {
		return nil, err
	}
	before := heap()
	if err := makeBuckets(c, s, take); err != nil {
		return nil, err
	}
	time.Sleep(settling)
	after := heap()
	runtime.KeepAlive(take)
	return &Memory{
		Keys: s.KeyCount, LiveBytes: int64(after.HeapAlloc) - int64(before.HeapAlloc), HeapBytes: int64(after.HeapInuse) - int64(before.HeapInuse),
	}, nil
}

// makeBuckets takes from as many new keys as the scenario has, by all of its callers at once.
func makeBuckets(c Contestant, s *Scenario, take Take) error {
	var looked, made atomic.Int64
	failures := make([]error, max(1, s.Callers))
	var making sync.WaitGroup
	for i := range failures {
		making.Go(func() {
			for {
				k := key(int(looked.Add(1) - 1))
				if s.Keys != KeysAny && c.Owns(s, k) != (s.Keys == KeysLocal) {
					continue
				}
				if made.Add(1) > int64(s.KeyCount) {
					return
				}
				if _, err := take(k); err != nil {
					failures[i] = fmt.Errorf("key %q: %w", k, err)
					return
				}
			}
		})
	}
	making.Wait()
	return errors.Join(failures...)
}

// heap is the heap after everything unused has gone: the second collection frees what pools keep over the first.
func heap() (m runtime.MemStats) {
	runtime.GC()
	runtime.GC()
	runtime.ReadMemStats(&m)
	return m
}
