// Package contest is what all contestants of the side-by-side benchmark share: what they are asked to do, the load that asks
// them, and how it is measured. A contestant is a process that reads commands from its standard input, one JSON object a
// line, and answers each with one line; see [Serve].
package contest

import (
	"errors"
	"fmt"
	"slices"
	"time"
)

// Limit lets in Burst at once and then Tokens in every Period.
type Limit struct {
	Tokens int64
	Period time.Duration
	Burst  int64
}

// PerSecond is the limit as a number of tokens a second.
func (l Limit) PerSecond() float64 { return float64(l.Tokens) / l.Period.Seconds() }

// Which keys are taken from, by which node decides about them.
const (
	KeysLocal  = "local"  // those that the node asked decides about itself
	KeysRemote = "remote" // those that another node decides about
	KeysAny    = "any"    // all
)

// In which order keys are taken from.
const (
	ChoiceUniform = "uniform"
	ChoiceZipf    = "zipf" // with s = 1.1
)

// What every answer must be; others count as failed.
const (
	ExpectAllowed = "allowed"
	ExpectDenied  = "denied"
)

// Scenario is what one run asks of a contestant.
type Scenario struct {
	// Name is the limiter's name: scenarios of different names share no buckets.
	Name string

	Keys     string // KeysLocal, KeysRemote or KeysAny
	KeyCount int
	Choice   string // ChoiceUniform or ChoiceZipf
	Callers  int    // at once, each of which takes again as soon as it has an answer; 0: as many as GOMAXPROCS
	Lasts    time.Duration

	Limits []Limit // of each key; a take passes all of them
	Leaky  bool    // leaky instead of token buckets
	Mode   string  // for a contestant that has several, such as Gubernator's behaviors
	Expect string  // ExpectAllowed, ExpectDenied, or empty when limits are in the way

	// TimeEvery is how many takes there are for each one whose duration is measured: 1 means all of them. Looking at the clock
	// twice takes as long as some local decisions.
	TimeEvery int

	// Judge says to count what was admitted by key, and to compare it with what the first limit allows.
	Judge bool
}

func (s *Scenario) check() error {
	switch {
	case s.Name == "":
		return errors.New("scenario: Name is empty")
	case !slices.Contains([]string{KeysLocal, KeysRemote, KeysAny}, s.Keys):
		return fmt.Errorf("scenario: Keys is %q; it must be %s, %s or %s", s.Keys, KeysLocal, KeysRemote, KeysAny)
	case s.KeyCount < 1:
		return fmt.Errorf("scenario: KeyCount is %d; it must be positive", s.KeyCount)
	case s.Choice != ChoiceUniform && s.Choice != ChoiceZipf:
		return fmt.Errorf("scenario: Choice is %q; it must be %s or %s", s.Choice, ChoiceUniform, ChoiceZipf)
	case s.Callers < 0:
		return fmt.Errorf("scenario: Callers is %d; it must not be negative", s.Callers)
	case s.Lasts <= 0:
		return fmt.Errorf("scenario: Lasts is %v; it must be positive", s.Lasts)
	case len(s.Limits) == 0:
		return errors.New("scenario: Limits is empty")
	case s.TimeEvery < 1:
		return fmt.Errorf("scenario: TimeEvery is %d; it must be positive", s.TimeEvery)
	}
	return nil
}

// Result is what was measured in one run.
type Result struct {
	Takes, Admitted, Denied int64

	// Failed counts errors, decisions by a node that should not have made them, and responses that cannot be right; FirstFailure is one.
	Failed       int64
	FirstFailure string `json:",omitempty"`

	Callers        int     // that there were
	Seconds        float64 // from the first take to the end of the last one
	P50, P99, P999 float64 // of how long a take lasted, in nanoseconds
	CPUSeconds     float64 // of this process
	Mallocs        uint64  // of this process
	Judged         *Judged `json:",omitempty"`
}

// PerSecond is the rate of takes that were answered.
func (r *Result) PerSecond() float64 { return float64(r.Takes-r.Failed) / r.Seconds }

// PerTake is how many nanoseconds of one caller's time one take lasted.
func (r *Result) PerTake() float64 {
	return r.Seconds * 1e9 * float64(r.Callers) / float64(max(1, r.Takes))
}

// Judged compares what was admitted with what a limit allows in the time of the run: burst + rate·time for each key, and no
// more than was asked for.
type Judged struct {
	Admitted int64
	Allowed  float64
	Worst    float64 // the greatest part of burst + rate·time that was admitted of one key
}

// Usage is what a process has used since it began.
type Usage struct {
	CPUSeconds float64
	Mallocs    uint64
}

// Memory is what keys take.
type Memory struct {
	Keys      int
	LiveBytes int64 // objects that are alive, more than before
	HeapBytes int64 // spans that have such objects, more than before
}

// Setup says how a contestant's nodes are started. What a contestant does not have means nothing to it.
type Setup struct {
	Nodes    int    // in this process, which form a cluster when they are more than one; the first one is asked
	Join     string // the address of another process's node
	Server   string // the address of a server that decides
	Keys     int    // the greatest number of keys there will be
	Leases   bool   // with what makes hot keys fast: leases and remembered denials
	Secret   bool   // encrypted
	NoCopies bool   // without replication
}

// Take is one take from a key. An error also tells of a decision by a node that should not have made it.
type Take func(key string) (admitted bool, err error)

// Contestant is one limiter, as this benchmark drives it.
type Contestant interface {
	// Start starts its nodes and returns the address by which other processes meet them.
	Start(setup Setup) (address string, err error)

	// Meet returns when the nodes with these addresses, those of this process among them, are one cluster.
	Meet(addresses []string) error

	// Owns says whether the node that is asked decides about a key of a scenario.
	Owns(s *Scenario, key string) bool

	// Take returns how a key is taken from under a scenario.
	Take(s *Scenario) (Take, error)

	// Fill returns how the bucket of a key that this process decides about, or keeps a copy of, is made; nil means that it
	// has none to make.
	Fill(s *Scenario) (Take, error)

	Close() error
}
