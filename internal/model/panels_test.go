package model_test

import "github.com/peerlimit/peerlimit/internal/model"

// adoptedByAAndB takes A, a panel alone, and then B, to the panel of both.
var adoptedByAAndB = []string{
	"A proposes to add B", "A promises A's ballot", "A accepts A's panel", "A hears A's panel", "B hears A's panel",
}

// panelRemovals are those of the rules of panels.
var panelRemovals = []removal{
	{ // five: a split {A} | {B,C}; D and E start and reach only A
		rule: "PanelDecides", property: model.ErrTwoDeciders,
		cluster: model.Config{
			Nodes: 5, Members: 3, Panels: 3, Messages: 1, Events: model.Events{Cuts: 2, Joins: 2, Proposals: 1, Total: 4},
			Script: []string{
				"EVENT B is cut off", "EVENT C is cut off", "the link B-C heals", "EVENT D joins through A", "EVENT E joins through A",
				"an answer of B to A grows old", "an answer of C to A grows old", "an answer of A to B grows old",
				"an answer of A to C grows old", "A answers a ping of E", `A says "no ping" of B`, `A says "no ping" of C`,
				`D says "no ping" of B`, `D says "no ping" of C`, `E says "no ping" of B`, `E says "no ping" of C`,
			},
		},
		further: []string{
			"D answers a ping of E", "E begins a round", "E asks A", "A receives E's request", "E receives A's not holding", "E asks D",
			"D receives E's request",
		},
		states: 5_000,
	},
	{
		rule: "NewerPanelRefuses", property: model.ErrFarApart,
		cluster: model.Config{
			Nodes: 3, Members: 3, Panels: 1, Messages: 1, Events: model.Events{Proposals: 2},
			Script: adoptedByAAndB,
		},
		further: []string{
			"A answers a ping of C", "A answers a ping of B", "B answers a ping of A",
			"an answer of A to A, from before its panel, grows old", "an answer of A to B, from before its panel, grows old",
			"A has had its panel for half a second", "B has had its panel for half a second", "A proposes to add C",
			"A promises A's ballot", "B promises A's ballot", "A accepts A's panel", "B accepts A's panel", "A hears A's panel",
		},
		states: 5_000,
	},
	{
		rule: "NextPanelWaits", property: model.ErrFarApart,
		cluster: model.Config{
			Nodes: 3, Members: 3, Panels: 1, Messages: 1, Events: model.Events{Proposals: 2},
			Script: append(adoptedByAAndB[:5:5], "B answers a ping of A", "A proposes to add C", "A promises A's ballot", "B promises A's ballot"),
		},
		further: []string{"A accepts A's panel", "B accepts A's panel", "A hears A's panel"},
		states:  5_000,
	},
	{
		rule: "OneWitnessAtATime", property: model.ErrTwoDeciders,
		cluster: model.Config{
			Nodes: 3, Members: 3, Panels: 1, Messages: 1, Events: model.Events{Proposals: 1, Cuts: 1, Total: 1},
			Script: []string{"EVENT the link B-C is cut", "B wrongly drops C from its ring"},
		},
		further: []string{
			"A proposes to put B into its own place", "A promises A's ballot", "A accepts A's panel", "A hears A's panel",
			"B hears A's panel", `B says "no ping" of C`, "B begins a round", "B asks A", "A receives B's request",
		},
		states: 5_000,
	},
	{
		rule: "AcceptedGoesOn", property: model.ErrTwoPanels,
		cluster: model.Config{
			Nodes: 5, Members: 5, Panels: 3, Messages: 1, Events: model.Events{Proposals: 2},
			Script: []string{
				"A proposes to add D", "A promises A's ballot", "B promises A's ballot", "A accepts A's panel", "B accepts A's panel",
				"A hears A's panel", "A hears B's panel", "C proposes to add E", "C promises C's ballot", "B promises C's ballot",
				"B accepts C's panel", "C accepts C's panel", "C hears B's panel",
			},
		},
		states: 5_000,
	},
	{
		rule: "AdoptedByHearing", property: model.ErrTwoPanels,
		cluster: model.Config{
			Nodes: 5, Members: 5, Panels: 3, Messages: 1, Events: model.Events{Proposals: 4},
			Script: []string{
				"A proposes to add D", "A promises A's ballot", "B promises A's ballot", "A accepts A's panel", "D hears A's panel",
				"C proposes to add E", "C promises C's ballot", "B promises C's ballot", "C accepts C's panel",
				"A proposes to add D", "A promises A's ballot",
				"B promises A's ballot", "B accepts A's panel", "D hears B's panel", "C proposes to add E",
				"C promises C's ballot", "A promises C's ballot", "C accepts C's panel", "A accepts C's panel", "C hears A's panel",
			},
		},
		states: 5_000,
	},
	{
		rule: "OldPanelCountsOn", property: model.ErrEvidenceEnded,
		cluster: model.Config{
			Nodes: 3, Members: 3, Panels: 1, Messages: 1, Events: model.Events{Proposals: 1},
			Script: adoptedByAAndB[:3],
		},
		states: 5_000,
	},
	{
		rule: "ProposedPanelAnswers", property: model.ErrDeadPanel,
		cluster: model.Config{
			Nodes: 3, Members: 3, Panels: 3, Messages: 1, Events: model.Events{Proposals: 1, Crashes: 1, Total: 1},
			Script: []string{"EVENT C crashes", "an answer of C to A grows old", "an answer of C to B grows old"},
		},
		states: 5_000,
	},
	{
		rule: "AcceptorsLook", property: model.ErrRemovedUnmissed,
		cluster: model.Config{
			Nodes: 3, Members: 3, Panels: 3, Messages: 1, Events: model.Events{Proposals: 1},
			Script: []string{"A proposes to remove C", "A promises A's ballot", "B promises A's ballot"},
		},
		states: 5_000,
	},
	{
		rule: "OriginsInOrder", property: model.ErrNoWayBack,
		cluster: model.Config{
			Nodes: 2, Members: 2, Apart: 1, Panels: 1, Messages: 1, Takes: 2, Events: model.Events{Proposals: 2},
			Script: []string{"B proposes to join A's cluster"},
		},
		further: []string{
			"A proposes to join B's cluster", "A promises A's ballot", "A accepts A's panel", "B promises B's ballot",
			"B accepts B's panel", "A hears A's panel", "B hears B's panel",
		},
		states: 5_000, live: 1,
	},
	{ // A is cut off, B and C agree on a panel without it, and B goes
		rule: "GoodbyeNamesPanel", property: model.ErrFarApart,
		cluster: model.Config{
			Nodes: 3, Members: 3, Panels: 2, Messages: 1, Events: model.Events{Proposals: 2, Cuts: 1, Closes: 1, Total: 2},
			Script: []string{
				"B proposes to add C", "B promises B's ballot", "A promises B's ballot", "B accepts B's panel", "A accepts B's panel",
				"B hears B's panel", "B hears A's panel", "C hears B's panel", "C hears A's panel", "EVENT A is cut off",
				"an answer of B to A grows old", `B says "no ping" of A`, `C says "no ping" of A`, "C answers a ping of B",
				"B answers a ping of C", "an answer of A to C, from before its panel, grows old",
				"an answer of A to B, from before its panel, grows old", "B has had its panel for half a second",
				"C has had its panel for half a second", "B proposes to remove A", "B promises B's ballot", "C promises B's ballot",
				"B accepts B's panel", "C accepts B's panel", "B hears B's panel", "B hears C's panel", "C hears B's panel",
				"C hears C's panel", "EVENT B closes", "an answer of B to C grows old",
				"an answer of B to C, from before its panel, grows old", "C sees the tombstone of B",
			},
		},
		states: 5_000,
	},
	{ // B and C promise E's ballot, in which B is removed, and go; A and D agree in a lower one that C is
		rule: "GoodbyeNamesPromise", property: model.ErrTwoPanels,
		cluster: model.Config{
			Nodes: 5, Members: 5, Panels: 5, Messages: 1, Events: model.Events{Proposals: 2, Closes: 2, Total: 2},
			Script: []string{
				"E proposes to remove B", "E promises E's ballot", "B promises E's ballot", "C promises E's ballot",
				"EVENT B closes", "EVENT C closes", "an answer of B to A grows old", "an answer of B to D grows old",
				"an answer of B to E grows old", "an answer of C to A grows old", "an answer of C to D grows old",
				"an answer of C to E grows old", "A sees the tombstone of B", "A sees the tombstone of C",
				"D sees the tombstone of B", "D sees the tombstone of C", "E sees the tombstone of B", "E sees the tombstone of C",
				"D proposes to remove C", "D promises D's ballot", "A promises D's ballot", "D accepts D's panel",
				"A accepts D's panel", "D hears D's panel", "D hears A's panel",
			},
		},
		further: []string{"A accepts E's panel", "E accepts E's panel", "E hears A's panel"},
		states:  5_000,
	},
	{ // D holds by what B and C have answered, which go; A counts both out at once
		rule: "GoodbyeAfterAnswers", property: model.ErrTwoDeciders,
		cluster: model.Config{
			Nodes: 4, Members: 4, Panels: 3, Messages: 1, Events: model.Events{Cuts: 1, Closes: 2, Total: 3},
			Script: []string{
				"EVENT the link A-D is cut", "an answer of A to D grows old", `A says "no ping" of D`, "EVENT B closes", "EVENT C closes",
				"A wrongly drops D from its ring", "A drops B from its ring", "A drops C from its ring",
			},
		},
		states: 5_000,
	},
	{ // of two, A leaves; they agree on B alone, and B never hears of it
		rule: "LeaverSeesAdoption", property: model.ErrNoWayBack,
		cluster: model.Config{
			Nodes: 2, Members: 2, Panels: 2, Messages: 1, Events: model.Events{Proposals: 1, Leaves: 1, Total: 1},
			Script: []string{
				"EVENT A begins to leave", "A proposes to remove A", "A promises A's ballot", "B promises A's ballot",
				"A accepts A's panel", "B accepts A's panel", "A hears A's panel", "A hears B's panel",
			},
		},
		further: []string{"A LEAVES"},
		states:  5_000, live: 1,
	},
}
