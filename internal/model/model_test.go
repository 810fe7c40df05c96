package model_test

import (
	"errors"
	"flag"
	"fmt"
	"slices"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/peerlimit/peerlimit/internal/model"
	"github.com/peerlimit/peerlimit/internal/onecore"
)

var (
	long  = flag.Bool("model.long", false, "also walk without each rule that nothing has missed yet")
	walks = flag.Int("model.walks", 300, "random walks for each cluster")
	seed  = flag.Uint64("model.seed", 1, "seed of the random walks")
)

// maxStates keeps a breadth-first search below about a gigabyte of memory.
const maxStates = 3_000_000

// anything allows one event of every kind, and up to three together.
var anything = model.Events{Crashes: 1, Pauses: 1, Cuts: 1, Joins: 1, Leaves: 1, Lapses: 1, Total: 3}

// twoJoins allows two nodes to join at once, in the middle of other events.
var twoJoins = model.Events{Crashes: 1, Pauses: 1, Cuts: 1, Joins: 2, Leaves: 1, Total: 4}

// forgets allows nodes to forget others, and these to come back.
var forgets = model.Events{Crashes: 1, Cuts: 2, Joins: 1, Leaves: 1, Forgets: 2, Total: 5}

// exhaustion is a cluster small enough to see every state of it.
type exhaustion struct {
	name    string
	cluster model.Config
	states  int  // as counted: a change of the rules that changes it should be a change one meant
	slow    bool // with the race detector
}

func TestSmallClustersExhausted(t *testing.T) {
	for _, c := range exhaustions {
		if c.slow && onecore.RaceDetector {
			continue
		}
		t.Run(c.name, func(t *testing.T) {
			c.cluster.Rules = model.AllRules()
			r := model.Explore(c.cluster, maxStates, 20)
			requireClean(t, r)
			assert.True(t, r.Exhausted)
			assert.Equal(t, c.states, r.States)
			assert.Zero(t, r.CutOffs)
			t.Logf("%d states, %d steps deep, way back from %d", r.States, r.Depth, r.Live)
		})
	}
}

// walked are clusters too large to exhaust.
var walked = []model.Config{
	{Nodes: 3, Members: 3, Messages: 3, Takes: 2, Events: anything},
	{Nodes: 3, Members: 2, Messages: 3, Takes: 2, Events: anything},
	{Nodes: 4, Members: 3, Messages: 4, Takes: 2, Ring: 3, Events: anything},
	{Nodes: 4, Members: 4, Messages: 4, Takes: 1, Ring: 1, Events: anything},
	{Nodes: 3, Members: 3, Apart: 1, Messages: 3, Takes: 4, Events: anything},
	{Nodes: 4, Members: 4, Apart: 2, Messages: 3, Takes: 4, Events: anything},
	{Nodes: 4, Members: 4, Apart: 2, Messages: 3, Takes: 4, Ring: model.LowestFirst, Events: anything},
	{Nodes: 4, Members: 2, Messages: 3, Takes: 2, Bare: true, Events: twoJoins},
	{Nodes: 3, Members: 3, Messages: 2, Takes: 2, Events: forgets},
	{Nodes: 4, Members: 3, Messages: 2, Takes: 2, Events: forgets},
	{Nodes: 3, Members: 3, Messages: 2, Takes: 2, Tidy: true, Events: anything},
	{Nodes: 4, Members: 3, Messages: 3, Takes: 2, Tidy: true, Events: anything},
	{Nodes: 3, Members: 2, Messages: 3, Takes: 3, Pieces: true, Events: anything},
	{Nodes: 4, Members: 3, Messages: 3, Takes: 3, Pieces: true, Events: twoJoins},
}

func TestWalks(t *testing.T) {
	for _, c := range walked {
		c.Rules = model.AllRules()
		for _, muted := range []bool{false, true} {
			t.Run(fmt.Sprintf("%d of %d nodes, %d apart, pieces %t, muted %t", c.Members, c.Nodes, c.Apart, c.Pieces, muted), func(t *testing.T) {
				r := model.Walk(c, someWalks(muted))
				requireClean(t, r)
				t.Logf("%d steps, way back from %d, undecided %d", r.States, r.Live, r.CutOffs)
			})
		}
	}
}

// TestUnmissedRules fails when walks notice the absence of a rule that is listed as unmissed: it then belongs among the
// removals, with the search that found it. Without -model.long it only takes a few walks without each.
func TestUnmissedRules(t *testing.T) {
	for _, rule := range unmissed {
		for _, c := range walked {
			c.Rules = model.AllRules().Without(rule)
			w := someWalks(true)
			if !*long {
				w.Count = 10
			}
			if r := model.Walk(c, w); r.Violation != nil {
				assert.Failf(t, "a search misses "+rule, "%v\n%v", c, r.Violation)
			}
		}
	}
}

// someWalks are as many as the flags say, and fewer with the race detector.
func someWalks(muted bool) model.Walks {
	n := *walks
	if onecore.RaceDetector {
		n = max(1, n/10)
	}
	return model.Walks{Seed: *seed, Count: n, Length: 150, LiveEvery: 60, Muted: muted}
}

// TestEveryRuleIsNeeded removes one rule at a time and expects the model to notice.
func TestEveryRuleIsNeeded(t *testing.T) {
	for _, c := range slices.Concat(removals, panelRemovals) {
		if c.states > 0 && onecore.RaceDetector {
			continue
		}
		t.Run(c.rule, func(t *testing.T) {
			r := c.search(c.without())
			require.NotNil(t, r.Violation, "%d steps found nothing", r.States)
			assert.ErrorIs(t, r.Violation, c.property)
			t.Logf("after %d steps: %v", r.States, r.Violation)
			if c.cluster.Script != nil { // the script is legal, and harmless with the rule
				c.cluster.Rules = model.AllRules()
				requireClean(t, c.search(c.cluster))
			}
		})
	}
}

// TestEveryRuleIsAccountedFor keeps the tables complete: a new rule is either seen to be needed or admitted not to be.
func TestEveryRuleIsAccountedFor(t *testing.T) {
	var listed []string
	for _, c := range slices.Concat(removals, panelRemovals) {
		listed = append(listed, c.rule)
	}
	assert.ElementsMatch(t, model.RuleNames(), append(listed, unmissed...))
}

func TestWithoutSwitchesOffOneRule(t *testing.T) {
	for _, name := range model.RuleNames() {
		assert.NotEqual(t, model.AllRules(), model.AllRules().Without(name), name)
	}
	assert.Panics(t, func() { model.AllRules().Without("no such rule") })
}

func TestTheSameSeedTakesTheSameWalk(t *testing.T) {
	c := model.Config{Nodes: 3, Members: 3, Messages: 2, Takes: 1, Events: anything, Rules: model.AllRules().Without("LeaveWaitsForStandby")}
	w := model.Walks{Seed: 1, Count: 100, Length: 100, Muted: true}
	first, second := model.Walk(c, w), model.Walk(c, w)
	require.NotNil(t, first.Violation)
	assert.Equal(t, first, second)
}

func TestAViolationIsToldInNumberedSteps(t *testing.T) {
	c := model.Config{
		Nodes: 3, Members: 2, Messages: 2, Events: model.Events{Joins: 1, Total: 1},
		Rules: model.AllRules().Without("GivingStopsHolding"),
	}
	r := model.Explore(c, 100_000, 0)
	require.NotNil(t, r.Violation)
	assert.True(t, errors.Is(r.Violation, model.ErrTwoDeciders))
	assert.Contains(t, r.Violation.Error(), "S1: two nodes decide in full\n  1. EVENT C joins through ")
	assert.Contains(t, r.Violation.Error(), "C receives B's copy")
	assert.Contains(t, r.Violation.Error(), "   C up holding")
}

func requireClean(t *testing.T, r model.Result) {
	t.Helper()
	if r.Violation != nil {
		require.FailNow(t, "violation", "%v", r.Violation)
	}
}
