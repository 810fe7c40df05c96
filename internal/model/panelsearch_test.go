package model_test

import (
	"fmt"
	"testing"

	"github.com/stretchr/testify/assert"

	"github.com/peerlimit/peerlimit/internal/model"
	"github.com/peerlimit/peerlimit/internal/onecore"
)

// panelExhaustion is a cluster with panels of which every state is seen.
type panelExhaustion struct {
	name    string
	cluster model.Config
	states  int  // 0: more than maxPanelStates, and so not exhausted
	long    bool // only with -model.long
}

var panelExhaustions = []panelExhaustion{
	{
		name:    "shrinking: three witnesses, one crashes, nothing is proposed before",
		cluster: model.Config{Nodes: 3, Members: 3, Panels: 3, Messages: 1, Events: model.Events{Crashes: 1, Total: 1}},
		states:  5_670,
	},
	{
		name: "goodbye: two witnesses, one closes",
		cluster: model.Config{
			Nodes: 2, Members: 2, Panels: 2, Messages: 1, Events: model.Events{Closes: 1, Proposals: 1, Total: 1},
		},
		states: 16_294,
	},
	{
		name: "growing: one witness, one joins",
		cluster: model.Config{
			Nodes: 2, Members: 1, Panels: 1, Messages: 1, Events: model.Events{Joins: 1, Proposals: 1, Total: 1},
		},
		states: 92_761, long: true,
	},
	{
		name: "leaving: one of two witnesses",
		cluster: model.Config{
			Nodes: 2, Members: 2, Panels: 2, Messages: 1, Events: model.Events{Leaves: 1, Proposals: 1, Total: 1},
		},
		states: 95_236, long: true,
	},
	{
		name: "shrinking: two witnesses, one crashes",
		cluster: model.Config{
			Nodes: 2, Members: 2, Panels: 2, Messages: 1, Events: model.Events{Crashes: 1, Proposals: 2, Total: 1},
		},
		states: 144_896, long: true,
	},
	{
		name: "one witness and a learner, a cut, two steps",
		cluster: model.Config{
			Nodes: 2, Members: 2, Panels: 1, Messages: 1, Events: model.Events{Cuts: 1, Proposals: 2, Total: 1},
		},
		states: 0, long: true,
	},
	{
		name:    "two that were alone meet",
		cluster: model.Config{Nodes: 2, Members: 2, Apart: 1, Panels: 1, Messages: 1, Takes: 2, Events: model.Events{Proposals: 1}},
		states:  0, long: true,
	},
}

// maxPanelStates is less than maxStates: states with panels are larger, and their steps slower.
const maxPanelStates = 300_000

func TestPanelsExhausted(t *testing.T) {
	for _, c := range panelExhaustions {
		if c.long && !*long || onecore.RaceDetector {
			continue
		}
		t.Run(c.name, func(t *testing.T) {
			c.cluster.Rules = model.AllRules()
			r := model.Explore(c.cluster, maxPanelStates, 50)
			requireClean(t, r)
			assert.Equal(t, c.states != 0, r.Exhausted)
			if c.states != 0 {
				assert.Equal(t, c.states, r.States)
			}
			t.Logf("%d states, %d steps deep, way back from %d, undecided %d", r.States, r.Depth, r.Live, r.CutOffs)
		})
	}
}

// newcomersOfOneSide is a split {A} | {B,C}, after which D and E start and reach only A.
var newcomersOfOneSide = panelRemovals[0].cluster.Script

// panelWalked are clusters with panels too large to exhaust, by what they are about.
var panelWalked = []struct {
	name    string
	cluster model.Config
}{
	{"shrinking", model.Config{
		Nodes: 4, Members: 4, Panels: 4, Messages: 2, Events: model.Events{Crashes: 2, Pauses: 1, Lapses: 1, Proposals: 5, Total: 3},
	}},
	{"growing", model.Config{
		Nodes: 5, Members: 3, Panels: 1, Messages: 2, Events: model.Events{Joins: 2, Cuts: 1, Lapses: 1, Proposals: 6, Total: 4},
	}},
	{"a cut minority meets those that moved on", model.Config{
		Nodes: 5, Members: 5, Panels: 3, Messages: 2, Events: model.Events{Proposals: 5, Cuts: 1, Crashes: 1, Total: 2},
		Script: []string{"EVENT A is cut off"},
	}},
	{"cuts one after the other", model.Config{
		Nodes: 5, Members: 5, Panels: 5, Messages: 2, Events: model.Events{Cuts: 4, Proposals: 6, Total: 4},
	}},
	{"newcomers of one side", model.Config{
		Nodes: 5, Members: 3, Panels: 3, Messages: 2, Events: model.Events{Cuts: 3, Joins: 2, Proposals: 5, Total: 5},
		Script: newcomersOfOneSide,
	}},
	{"two clusters meet", model.Config{
		Nodes: 4, Members: 4, Apart: 2, Panels: 2, Messages: 2, Takes: 3, Events: model.Events{Cuts: 1, Crashes: 1, Proposals: 6, Total: 2},
	}},
	{"one alone meets a cluster", model.Config{
		Nodes: 4, Members: 4, Apart: 1, Panels: 3, Messages: 2, Takes: 3, Events: model.Events{Cuts: 1, Leaves: 1, Proposals: 6, Total: 2},
	}},
	{"leaves", model.Config{
		Nodes: 4, Members: 3, Panels: 3, Messages: 2, Takes: 2, Events: model.Events{Leaves: 2, Joins: 1, Cuts: 1, Proposals: 6, Total: 4},
	}},
	{"goodbyes", model.Config{
		Nodes: 5, Members: 5, Panels: 5, Messages: 2, Events: model.Events{Closes: 2, Cuts: 1, Crashes: 1, Proposals: 6, Total: 4},
	}},
	{"everything", model.Config{
		Nodes: 4, Members: 3, Panels: 2, Messages: 2, Takes: 1,
		Events: model.Events{Crashes: 1, Pauses: 1, Cuts: 2, Joins: 1, Leaves: 1, Lapses: 1, Forgets: 1, Proposals: 6, Total: 5},
	}},
	{"learners", model.Config{
		Nodes: 4, Members: 4, Panels: 1, Messages: 2, Takes: 2, Events: model.Events{Crashes: 1, Cuts: 2, Leaves: 1, Proposals: 4, Total: 3},
	}},
}

// TestPanelWalks takes a fifteenth of the walks that the flags say for each cluster, and all of them with -model.long.
func TestPanelWalks(t *testing.T) {
	for _, c := range panelWalked {
		for _, muted := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, muted %t", c.name, muted), func(t *testing.T) {
				c.cluster.Rules = model.AllRules()
				w := someWalks(muted)
				w.LiveEvery = 100
				if !*long {
					w.Count = max(1, w.Count/15)
				}
				r := model.Walk(c.cluster, w)
				requireClean(t, r)
				t.Logf("%d steps, way back from %d, undecided %d", r.States, r.Live, r.CutOffs)
			})
		}
	}
}
