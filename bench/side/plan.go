package main

import (
	"slices"
	"time"

	"github.com/peerlimit/peerlimit/bench/contest"
)

// The tables, each measured by one or more blocks.
const (
	tableLocal    = "local"
	tableRemote   = "remote"
	tableHot      = "hot"
	tableZipf     = "zipf"
	tableVariants = "variants"
	tableJudged   = "judged"
	tableIdle     = "idle"
	tableMemory   = "memory"
)

// Variants of a table's scenario.
const (
	variantAbove   = "limit above the load"
	variantInWay   = "limit in the way"
	variantAllowed = "allowed"
	variantDenied  = "denied"
	variantLeaky   = "leaky bucket"
	variantThree   = "three limits"
	variantSecret  = "encrypted"
	variantNoCopy  = "without replication"
)

// Contestants that the report speaks of by name.
const (
	programPeerlimit  = "peerlimit"
	programGubernator = "gubernator"
	programRedis      = "redis_rate"
	programPingPong   = "ping-pong"
	programXTimeRate  = "x/time/rate"
	labelNoLeases     = "peerlimit without leases"
)

// exactModes are those in which Gubernator's owner decides.
var exactModes = []string{"BATCHING", "NO_BATCHING"}

const globalMode = "GLOBAL"

var modes = append(exactModes[:len(exactModes):len(exactModes)], globalMode)

// libraries are for one process.
var libraries = []string{programXTimeRate, "go-limiter", "throttled", "uber/ratelimit", "juju/ratelimit", "failsafe-go"}

var (
	// roomy is never in the way of 100,000 keys, and is remembered for hours.
	roomy = contest.Limit{Tokens: 1000, Period: time.Hour, Burst: 1000}

	// endless is never in the way of one key.
	endless = contest.Limit{Tokens: 1e9, Period: time.Second, Burst: 1e9}

	// single is used up by the take that makes its bucket.
	single = contest.Limit{Tokens: 1, Period: time.Hour, Burst: 1}

	// hotLimit is far below what all contestants can be asked for of one key.
	hotLimit = contest.Limit{Tokens: 10_000, Period: time.Second, Burst: 1000}

	// judgedLimit is below what all contestants can be asked for of each of a hundred keys.
	judgedLimit = contest.Limit{Tokens: 50, Period: time.Second, Burst: 20}

	threeLimits = []contest.Limit{
		roomy, {Tokens: 10_000, Period: 24 * time.Hour, Burst: 10_000}, {Tokens: 1e6, Period: 24 * time.Hour, Burst: 1e6},
	}
)

const (
	manyKeys   = 100_000
	judgedKeys = 100
	memoryKeys = 1_000_000
	mostKeys   = 2 * memoryKeys // that a node must have room for

	// localTimeEvery is the part of local decisions that is timed.
	localTimeEvery = 16
)

// entrant is a contestant as it is started for one block.
type entrant struct {
	program, label, place string
	setup                 contest.Setup
	cells                 []cell
}

// cell is one scenario of an entrant.
type cell struct {
	table, variant string
	scenario       contest.Scenario
	idle           time.Duration // just wait
	memory         bool          // make many keys
}

// block is a set of entrants that are compared: each is started, measured and stopped, and then the next one.
type block struct {
	name     string
	entrants []entrant
	once     bool // what it measures hardly differs between rounds
}

// scenario has what most have in common: takes of roomy limits that are all timed and all allowed.
func scenario(name, keys string, callers int, lasts time.Duration) contest.Scenario {
	return contest.Scenario{
		Name: name, Keys: keys, KeyCount: manyKeys, Choice: contest.ChoiceUniform, Callers: callers, Lasts: lasts,
		Limits: []contest.Limit{roomy}, Expect: contest.ExpectAllowed, TimeEvery: 1,
	}
}

// plan is everything that is measured.
func plan(lasts time.Duration) []block {
	return []block{
		localBlock(lasts), loneBlock(lasts), crowdBlock(lasts), hotBlock(lasts), zipfBlock(lasts), variantsBlock(lasts), memoryBlock(),
	}
}

// byMode is a cell for each of Gubernator's modes. They share buckets unless these are judged.
func byMode(c cell) (cells []cell) {
	for _, mode := range modes {
		with := c
		with.scenario.Mode = mode
		if c.scenario.Judge {
			with.scenario.Name += "-" + mode
		}
		cells = append(cells, with)
	}
	return cells
}

// forGubernator is a cell whose judged limits are leaky: Gubernator's leaky bucket lets in a burst and then a steady rate as
// others' token buckets do. Its token bucket is full again after each period.
func forGubernator(c cell) []cell {
	if c.scenario.Judge {
		c.scenario.Leaky = true
	}
	if c.scenario.Expect == contest.ExpectDenied {
		c.scenario.Expect = "" // with GLOBAL the first answers may be others
	}
	return byMode(c)
}

// everybody is the contestants that can decide for other processes, each with the cells.
func everybody(setup contest.Setup, cells ...cell) []entrant {
	setup.Keys = mostKeys
	var ofGubernator []cell
	for _, c := range cells {
		ofGubernator = append(ofGubernator, forGubernator(c)...)
	}
	return []entrant{
		{program: programPeerlimit, place: placeThree, setup: setup, cells: cells},
		{program: programGubernator, place: placeThree, setup: setup, cells: ofGubernator},
		{program: programRedis, place: placeServer, setup: setup, cells: slices.Clone(cells)},
	}
}

// inOneProcess is those contestants that have nodes, with all nodes in one process.
func inOneProcess(entrants []entrant) (inOne []entrant) {
	for _, e := range entrants {
		if e.place == placeThree {
			e.place = placeOne
			inOne = append(inOne, e)
		}
	}
	return inOne
}

func localBlock(lasts time.Duration) block {
	s := scenario("local", contest.KeysLocal, 0, lasts)
	s.TimeEvery = localTimeEvery
	c := cell{table: tableLocal, scenario: s}
	b := block{name: "local"}
	for _, e := range everybody(contest.Setup{}, c) {
		if e.place == placeThree {
			b.entrants = append(b.entrants, e)
		}
	}
	for _, name := range libraries {
		b.entrants = append(b.entrants, entrant{program: name, place: placeAlone, cells: []cell{c}})
	}
	b.entrants = append(b.entrants, inOneProcess(b.entrants)...)
	return b
}

// remote is takes from keys that others decide about.
func remote(callers int, lasts time.Duration) cell {
	return cell{table: tableRemote, scenario: scenario("remote", contest.KeysRemote, callers, lasts)}
}

func loneBlock(lasts time.Duration) block {
	b := block{name: "lone", entrants: everybody(contest.Setup{}, remote(1, lasts))}
	b.entrants = append(b.entrants, inOneProcess(b.entrants)...)
	b.entrants = append(b.entrants, entrant{program: programPingPong, place: placeTwo, cells: []cell{remote(1, lasts)}})
	return b
}

func crowdBlock(lasts time.Duration) block {
	b := block{name: "crowd", entrants: everybody(contest.Setup{}, remote(16, lasts), remote(256, lasts), remote(1024, lasts))}
	b.entrants = append(b.entrants, inOneProcess(everybody(contest.Setup{}, remote(256, lasts)))...)
	return b
}

func hotBlock(lasts time.Duration) block {
	var cells []cell
	for _, callers := range []int{0, 256} {
		s := scenario("hot", contest.KeysRemote, callers, lasts)
		s.KeyCount = 1
		if callers == 256 {
			s.Name = "hot-256"
		}
		above, inWay := s, s
		above.Limits = []contest.Limit{endless}
		inWay.Name += "-limited"
		inWay.Limits, inWay.Expect, inWay.Judge = []contest.Limit{hotLimit}, "", true
		cells = append(cells,
			cell{table: tableHot, variant: variantAbove, scenario: above}, cell{table: tableHot, variant: variantInWay, scenario: inWay})
	}
	b := block{name: "hot", entrants: everybody(contest.Setup{Leases: true}, cells...)}
	for _, e := range b.entrants {
		if e.program == programPeerlimit {
			for i := range e.cells {
				e.cells[i].scenario.TimeEvery = localTimeEvery // it decides most of them without asking
			}
		}
	}
	return b
}

func zipfBlock(lasts time.Duration) block {
	above := scenario("zipf", contest.KeysAny, 256, lasts)
	above.Choice, above.Limits = contest.ChoiceZipf, []contest.Limit{endless}
	inWay := above
	inWay.Name, inWay.Limits, inWay.Expect, inWay.Judge = "zipf-limited", []contest.Limit{judgedLimit}, "", true
	cells := []cell{
		{table: tableZipf, variant: variantAbove, scenario: above}, {table: tableZipf, variant: variantInWay, scenario: inWay},
	}
	b := block{name: "zipf", entrants: everybody(contest.Setup{Leases: true}, cells...)}
	b.entrants = append(b.entrants, entrant{
		program: programPeerlimit, label: labelNoLeases, place: placeThree, setup: contest.Setup{Keys: mostKeys}, cells: cells,
	})
	return b
}

func variantsBlock(lasts time.Duration) block {
	const callers = 256
	variant := func(name string, change func(*contest.Scenario)) cell {
		s := scenario(name, contest.KeysRemote, callers, lasts)
		change(&s)
		return cell{table: tableVariants, variant: name, scenario: s}
	}
	allowed := variant(variantAllowed, func(*contest.Scenario) {})
	denied := variant(variantDenied, func(s *contest.Scenario) { s.Limits, s.Expect = []contest.Limit{single}, contest.ExpectDenied })
	leaky := variant(variantLeaky, func(s *contest.Scenario) { s.Leaky = true })
	three := variant(variantThree, func(s *contest.Scenario) { s.Limits = threeLimits })
	judged := variant("judged", func(s *contest.Scenario) {
		s.KeyCount, s.Limits, s.Expect, s.Judge = judgedKeys, []contest.Limit{judgedLimit}, "", true
	})
	judged.table, judged.variant = tableJudged, ""

	b := block{name: "variants", entrants: everybody(contest.Setup{}, allowed, denied, leaky, three, judged)}
	for i := range b.entrants {
		e := &b.entrants[i]
		switch e.program {
		case programRedis:
			e.cells = []cell{allowed, withoutExpectation(denied), three, judged}
		case programPeerlimit:
			e.cells = append([]cell{{table: tableIdle, idle: 2 * lasts}}, e.cells...)
		}
	}
	for _, special := range []struct {
		variant string
		setup   contest.Setup
	}{
		{variantSecret, contest.Setup{Keys: mostKeys, Secret: true}}, {variantNoCopy, contest.Setup{Keys: mostKeys, NoCopies: true}},
	} {
		c := allowed
		c.variant = special.variant
		b.entrants = append(b.entrants, entrant{program: programPeerlimit, place: placeThree, setup: special.setup, cells: []cell{c}})
	}
	return b
}

// withoutExpectation is for a contestant that has made no buckets before: its first answers are others.
func withoutExpectation(c cell) cell {
	c.scenario.Expect = ""
	return c
}

func memoryBlock() block {
	s := scenario("memory", contest.KeysLocal, 64, time.Second)
	s.KeyCount, s.Expect = memoryKeys, ""
	s.Limits = []contest.Limit{{Tokens: 10, Period: time.Hour, Burst: 10}}
	c := cell{table: tableMemory, memory: true, scenario: s}
	ofRedis, ofGubernator := c, c
	ofRedis.scenario.Keys = contest.KeysRemote
	ofGubernator.scenario.Mode = exactModes[0]
	setup := contest.Setup{Keys: mostKeys}
	b := block{name: "memory", once: true, entrants: []entrant{
		{program: programPeerlimit, place: placeAlone, setup: setup, cells: []cell{c}},
		{program: programPeerlimit, place: placeThree, setup: setup, cells: []cell{c}},
		{program: programGubernator, label: "Gubernator", place: placeAlone, setup: setup, cells: []cell{ofGubernator}},
		{program: programRedis, place: placeServer, setup: setup, cells: []cell{ofRedis}},
	}}
	for _, name := range libraries {
		if name != "uber/ratelimit" { // which has one limiter here
			b.entrants = append(b.entrants, entrant{program: name, place: placeAlone, cells: []cell{c}})
		}
	}
	return b
}
