package model_test

import (
	"slices"

	"github.com/peerlimit/peerlimit/internal/model"
)

// exhaustions are the clusters every test run sees every state of.
var exhaustions = []exhaustion{
	{
		name:    "three nodes, one crash",
		cluster: model.Config{Nodes: 3, Members: 3, Messages: 2, Takes: 1, Events: model.Events{Crashes: 1, Total: 1}},
		states:  141_674, slow: true,
	},
	{
		name:    "three nodes, one leave",
		cluster: model.Config{Nodes: 3, Members: 3, Messages: 2, Takes: 1, Events: model.Events{Leaves: 1, Total: 1}},
		states:  22_304,
	},
	{
		name:    "three nodes, two takes, one leave",
		cluster: model.Config{Nodes: 3, Members: 3, Messages: 2, Takes: 2, Events: model.Events{Leaves: 1, Total: 1}},
		states:  74_711, slow: true,
	},
	{
		name: "three nodes, one leave, copies in two pieces",
		cluster: model.Config{
			Nodes: 3, Members: 3, Messages: 2, Takes: 2, Pieces: true, Events: model.Events{Leaves: 1, Total: 1},
		},
		states: 78_719, slow: true,
	},
	{
		name:    "three nodes, one lost ping",
		cluster: model.Config{Nodes: 3, Members: 3, Messages: 2, Takes: 1, Events: model.Events{Lapses: 1, Total: 1}},
		states:  588,
	},
	{
		name: "three nodes, one crash, one forgets another",
		cluster: model.Config{
			Nodes: 3, Members: 3, Messages: 1, Events: model.Events{Crashes: 1, Forgets: 1, Total: 2},
		},
		states: 13_462,
	},
	{
		name: "three nodes that drop copies, one crash",
		cluster: model.Config{
			Nodes: 3, Members: 3, Messages: 1, Takes: 1, Tidy: true, Events: model.Events{Crashes: 1, Total: 1},
		},
		states: 19_190,
	},

	{
		name:    "two nodes that were alone meet",
		cluster: model.Config{Nodes: 2, Members: 2, Apart: 1, Messages: 1, Takes: 3},
		states:  29_104,
	},
	{
		name:    "two nodes that were alone meet, in the other ring",
		cluster: model.Config{Nodes: 2, Members: 2, Apart: 1, Messages: 1, Takes: 3, Ring: model.LowestFirst},
		states:  28_800,
	},
}

// removal is a search that notices that a rule is missing.
type removal struct {
	rule     string
	property error
	cluster  model.Config
	walks    model.Walks
	further  []string // steps after the cluster's script that the rule would forbid: taken without it only
	states   int      // breadth first over so many states instead of walks, when not 0
	live     int      // judge liveness for every live-th of them
}

func (r removal) search(c model.Config) model.Result {
	if r.states > 0 {
		return model.Explore(c, r.states, r.live)
	}
	return model.Walk(c, r.walks)
}

// without is the cluster without the rule.
func (r removal) without() model.Config {
	c := r.cluster
	c.Rules = model.AllRules().Without(r.rule)
	c.Script = append(slices.Clone(c.Script), r.further...)
	return c
}

// removals are found in under three seconds each.
var removals = []removal{
	{
		rule: "Promise", property: model.ErrTakeLost,
		cluster: model.Config{Nodes: 4, Members: 3, Messages: 2, Takes: 2, Events: model.Events{Cuts: 2, Leaves: 1, Total: 3}},
		walks:   model.Walks{Seed: 14, Count: 3000, Length: 100, LiveEvery: 40, Muted: true},
	},
	{
		rule: "LapsedIsNotHolding", property: model.ErrNoWayBack,
		cluster: model.Config{
			Nodes: 4, Members: 3, Messages: 3, Takes: 2, Ring: 1,
			Events: model.Events{Joins: 1, Leaves: 1, Pauses: 1, Total: 3},
		},
		walks: model.Walks{Seed: 2, Count: 600, Length: 100, LiveEvery: 40, Muted: true},
	},
	{
		rule: "GivingStopsHolding", property: model.ErrTwoDeciders,
		cluster: model.Config{
			Nodes: 3, Members: 3, Messages: 2, Takes: 2,
			Events: model.Events{Crashes: 1, Pauses: 1, Leaves: 1, Total: 2},
		},
		walks: model.Walks{Seed: 1, Count: 200, Length: 100, Muted: true},
	},
	{
		rule: "TransferRaisesTerm", property: model.ErrTakeLost,
		cluster: model.Config{Nodes: 3, Members: 3, Messages: 3, Takes: 2, Ring: 1, Events: model.Events{Cuts: 2, Total: 2}},
		walks:   model.Walks{Seed: 2, Count: 400, Length: 100, LiveEvery: 40},
	},
	{
		rule: "TransferForOneRound", property: model.ErrTakeLost,
		cluster: model.Config{Nodes: 3, Members: 2, Messages: 2, Takes: 2, Events: anything},
		walks:   model.Walks{Seed: 1, Count: 3000, Length: 100, LiveEvery: 40, Muted: true},
	},
	{
		rule: "PieceContinues", property: model.ErrTakeLost,
		cluster: model.Config{
			Nodes: 3, Members: 2, Messages: 2, Takes: 2, Pieces: true, Events: model.Events{Joins: 1, Total: 1},
			Script: []string{
				"B decides a TAKE", "B decides a TAKE", "B replicates to A", "A receives B's replica", "B receives A's acknowledgement",
				"EVENT C joins through A", "B answers a ping of C", "C begins a round", "C asks B", "B receives C's request",
			},
		},
		states: 100_000,
	},
	{
		rule: "GoneFixedForRound", property: model.ErrTwoDeciders,
		cluster: model.Config{
			Nodes: 3, Members: 3, Messages: 1, Events: model.Events{Cuts: 1, Pauses: 1, Crashes: 1, Total: 3},
			Script: []string{
				"EVENT the link A-B is cut", "A wrongly drops B from its ring", "the link A-B heals",
				"EVENT C pauses", "A wrongly drops C from its ring", "B wrongly drops C from its ring", "C resumes",
				"A begins a round", "A asks B", "B receives A's request", "A receives B's not holding",
				"B begins a round", "B asks C", "C receives B's request", "B receives C's copy",
			},
		},
		states: 100_000,
	},
	{
		rule: "SilentAfterNoPing", property: model.ErrTwoDeciders,
		cluster: model.Config{Nodes: 3, Members: 2, Messages: 3, Events: model.Events{Joins: 1, Cuts: 1, Total: 2}},
		walks:   model.Walks{Seed: 2, Count: 300, Length: 90, Muted: true},
	},
	{
		rule: "WitnessSpeaksOfUnknown", property: model.ErrNoWayBack,
		cluster: model.Config{
			Nodes: 4, Members: 3, Messages: 1, Events: model.Events{Joins: 1, Crashes: 1, Cuts: 1, Pauses: 1, Total: 4},
			Script: []string{
				"EVENT the link A-B is cut", "B wrongly drops A from its ring", "the link A-B heals", "EVENT C pauses",
				"B wrongly drops C from its ring", "C resumes", "B begins a round", "C replicates to B",
				"B receives C's replica", "C receives B's refusal", "B adds A to its ring", "B adds C to its ring",
				"B stops acquiring", "C begins a round", "C asks A", "A receives C's request",
				"C receives A's not holding", "EVENT D joins through C", "EVENT D crashes", "C drops D from its ring",
			},
		},
		states: 2_000, live: 1,
	},
	{
		rule: "RefusedHolderReacquires", property: model.ErrNoWayBack,
		cluster: model.Config{Nodes: 3, Members: 2, Messages: 2, Takes: 2, Events: anything},
		walks:   model.Walks{Seed: 1, Count: 400, Length: 100, LiveEvery: 40},
	},
	{
		rule: "LeaveWaitsForStandby", property: model.ErrTakeLost,
		cluster: model.Config{Nodes: 3, Members: 2, Messages: 2, Takes: 2, Events: anything},
		walks:   model.Walks{Seed: 1, Count: 400, Length: 100, LiveEvery: 40},
	},
	{
		rule: "ResponsesOfThisRoundOnly", property: model.ErrTwoDeciders,
		cluster: model.Config{
			Nodes: 3, Members: 2, Messages: 2, Takes: 1, Ring: 1,
			Events: model.Events{Joins: 1, Pauses: 1, Total: 2},
		},
		walks: model.Walks{Seed: 11, Count: 600, Length: 90, Muted: true},
	},
	{
		rule: "NamesInRequests", property: model.ErrTwoDeciders,
		cluster: model.Config{
			Nodes: 4, Members: 2, Messages: 1, Silence: true, Events: model.Events{Joins: 2, Total: 2},
			Script: []string{
				"EVENT C joins through A", "EVENT D joins through B", "A answers a ping of C", "B answers a ping of D",
				"D begins a round", "D asks B", "B receives D's request", "D receives B's copy",
				"D replicates to B", "B receives D's replica", "D receives B's acknowledgement",
				"C begins a round", "C asks B", "B receives C's request", "C receives B's behind",
			},
		},
		states: 100_000,
	},
	{
		rule: "DoubtedAreAsked", property: model.ErrTwoDeciders,
		cluster: model.Config{
			Nodes: 4, Members: 2, Messages: 1, Silence: true, Events: model.Events{Joins: 2, Total: 2},
			Script: []string{
				"EVENT C joins through A", "EVENT D joins through B", "A answers a ping of C", "B answers a ping of D",
				"D begins a round", "D asks B", "B receives D's request", "D receives B's copy",
				"D replicates to B", "B receives D's replica", "D receives B's acknowledgement",
				"C begins a round", "C asks B", "B receives C's request", "C receives B's behind",
			},
		},
		states: 100_000,
	},
	{
		rule: "ForgetOnlyWithMajority", property: model.ErrTwoDeciders,
		cluster: model.Config{
			Nodes: 3, Members: 3, Messages: 1, Events: model.Events{Cuts: 1, Forgets: 2, Total: 3},
			Script: []string{
				"EVENT B is cut off", "an answer of A to B grows old", "an answer of C to B grows old",
				"an answer of B to A grows old", "an answer of B to C grows old", `B says "no ping" of A`,
				`B says "no ping" of C`, "B wrongly drops A from its ring", "B wrongly drops C from its ring",
			},
		},
		states: 20_000,
	},
	{
		rule: "ForgetOnlyLost", property: model.ErrTwoDeciders,
		cluster: model.Config{
			Nodes: 3, Members: 3, Messages: 1, Events: model.Events{Cuts: 1, Forgets: 2, Total: 3},
			Script: []string{
				"EVENT the link B-C is cut", "an answer of B to C grows old", "an answer of C to B grows old",
				`B says "no ping" of C`, "B wrongly drops C from its ring", "B begins a round", "B asks A",
				"A receives B's request", "B receives A's not holding",
			},
		},
		states: 20_000,
	},
	{
		rule: "ForgottenLearnedAgain", property: model.ErrTwoDeciders,
		cluster: model.Config{
			Nodes: 3, Members: 3, Messages: 1, Events: model.Events{Cuts: 1, Forgets: 1, Total: 2},
			Script: []string{
				"EVENT C is cut off", "an answer of A to C grows old", "an answer of B to C grows old",
				"an answer of C to A grows old", "an answer of C to B grows old", `A says "no ping" of C`, `B says "no ping" of C`,
				"A wrongly drops C from its ring", "B wrongly drops C from its ring",
				"B begins a round", "B asks A", "A receives B's request", "B receives A's not holding",
				"B STARTS: all others are not holding, or gone", "EVENT B forgets C", "the link A-C heals", "the link B-C heals",
				`A no longer says "no ping" of C`, "A answers a ping of C",
				"C begins a round", "C asks B", "B receives C's request", "C receives B's copy",
			},
		},
		states: 100_000,
	},
	{
		rule: "LeaverKeepsReplicas", property: model.ErrAckedTakeLost,
		cluster: model.Config{
			Nodes: 4, Members: 4, Messages: 1, Takes: 1, Events: model.Events{Crashes: 1, Leaves: 1, Total: 2},
			Script: []string{
				"D decides a TAKE", "D replicates to C", "C receives D's replica", "D receives C's acknowledgement",
				"EVENT C begins to leave", "B drops C from its ring", "EVENT D crashes", "B drops D from its ring",
				`A says "no ping" of D`, `B says "no ping" of D`,
			},
		},
		states: 20_000,
	},
	{
		rule: "SettleByAsking", property: model.ErrAckedTakeLost,
		cluster: model.Config{
			Nodes: 4, Members: 3, Messages: 1, Takes: 1, Tidy: true, Events: model.Events{Crashes: 1, Joins: 1, Total: 2},
			Script: []string{
				"C decides a TAKE", "C replicates to B", "B receives C's replica", "C receives B's acknowledgement",
				"EVENT D joins through A", "A answers a ping of D", "B answers a ping of D", "B adds D to its ring",
				"EVENT C crashes", `A says "no ping" of C`, `B says "no ping" of C`, `D says "no ping" of C`,
				"D begins a round", "D asks A", "A receives D's request", "D receives A's not holding",
			},
		},
		states: 20_000,
	},
	{
		rule: "SettleNamesVersion", property: model.ErrTakeLost,
		cluster: model.Config{
			Nodes: 4, Members: 3, Messages: 2, Takes: 1, Tidy: true, Events: model.Events{Cuts: 2, Joins: 1, Total: 3},
			Script: []string{
				"C replicates to B", "B receives C's replica", "C receives B's acknowledgement", "EVENT D joins through C",
				"A answers a ping of D", "B answers a ping of D", "C answers a ping of D", "D begins a round", "D asks C",
				"C receives D's request", "D receives C's copy", "D replicates to C", "C receives D's replica",
				"D receives C's acknowledgement", "B adds D to its ring", "B asks D about its copy",
				"D receives B's request about its copy", "EVENT B is cut off", "B wrongly drops C from its ring",
				"B wrongly drops D from its ring", "the link A-B heals", "the link B-C heals", "the link B-D heals",
				"B begins a round", "B asks D", "D receives B's request", "B receives D's copy", "B decides a TAKE",
				"EVENT B is cut off", "an answer of A to B grows old", "an answer of C to B grows old", "the link A-B heals",
				"the link B-C heals", "the link B-D heals", "D begins a round", "D asks A", "A receives D's request",
				"D receives A's not holding", "D asks C", "C receives D's request", "D receives C's not holding",
			},
		},
		states: 20_000,
	},
	{
		rule: "ReplicaVoidsSettling", property: model.ErrAckedTakeLost,
		cluster: model.Config{
			Nodes: 4, Members: 4, Messages: 2, Takes: 1, Tidy: true, Events: model.Events{Cuts: 1, Leaves: 1, Crashes: 1, Total: 3},
			Script: []string{
				"D decides a TAKE", "EVENT the link C-D is cut", "D wrongly drops C from its ring", "D replicates to B",
				"B receives D's replica", "D receives B's acknowledgement", "the link C-D heals", "D adds C to its ring",
				"D replicates to C", "C receives D's replica", "D receives C's acknowledgement", "B asks D about its copy",
				"D receives B's request about its copy", "EVENT C begins to leave", "D drops C from its ring",
				"D replicates to B", "B receives D's replica", "D receives B's acknowledgement", "C drops C from its ring",
				"C asks D about its copy", "D receives C's request about its copy", "C receives D's all clear",
				"C LEAVES", "EVENT D crashes", "A sees the tombstone of C", "B sees the tombstone of C",
				"B receives D's all clear",
			},
		},
		states: 50_000,
	},
	{
		rule: "GoodbyeNamesRoster", property: model.ErrTwoDeciders,
		cluster: model.Config{
			Nodes: 4, Members: 2, Messages: 1, Events: model.Events{Cuts: 1, Leaves: 1, Joins: 2, Total: 4},
			Script: []string{
				"EVENT C joins through B", "C answers a ping of B", "EVENT D joins through B", "D answers a ping of B",
				"EVENT A is cut off", "an answer of B to A grows old", "A wrongly drops B from its ring",
				"B wrongly drops A from its ring", "D wrongly drops A from its ring", "C learns of D by gossip",
				"C answers a ping of D", "B answers a ping of D", "D begins a round", "D asks B", "B receives D's request",
				"D receives B's copy", "EVENT B begins to leave", "D drops B from its ring", "D replicates to C",
				"C receives D's replica", "D receives C's acknowledgement", "B drops B from its ring", "the link A-B heals",
				"B asks D about its copy", "D receives B's request about its copy", "B receives D's all clear",
				"B LEAVES", "D sees the tombstone of B", `C says "no ping" of A`, `D says "no ping" of A`,
				"D begins a round", "D asks C", "C receives D's request", "D receives C's not holding",
				"D STARTS: all others are not holding, or gone",
			},
		},
		states: 20_000,
	},
	{
		rule: "TransferTellsNotHolding", property: model.ErrNoWayBack,
		cluster: model.Config{Nodes: 4, Members: 4, Apart: 2, Messages: 3, Takes: 4},
		walks:   model.Walks{Seed: 1, Count: 400, Length: 120, LiveEvery: 20, Muted: true},
	},
	{
		rule: "NewerCopyOffered", property: model.ErrNoWayBack,
		cluster: model.Config{
			Nodes: 4, Members: 4, Apart: 2, Messages: 3, Takes: 4,
			Events: model.Events{Leaves: 1, Lapses: 1, Crashes: 1, Total: 2},
		},
		walks: model.Walks{Seed: 5, Count: 600, Length: 120, LiveEvery: 20, Muted: true},
	},
	{
		rule: "UnnamedHolderRepeats", property: model.ErrNoWayBack,
		cluster: model.Config{Nodes: 4, Members: 4, Apart: 2, Messages: 3, Takes: 4, Events: anything},
		walks:   model.Walks{Seed: 106, Count: 500, Length: 150, LiveEvery: 30, Muted: true},
	},
	{
		rule: "HolderYields", property: model.ErrNoWayBack,
		cluster: model.Config{
			Nodes: 4, Members: 4, Apart: 2, Messages: 3, Takes: 4, Ring: model.LowestFirst,
			Events: model.Events{Leaves: 1, Total: 1},
		},
		walks: model.Walks{Seed: 2, Count: 400, Length: 150, LiveEvery: 20, Muted: true},
	},
	{
		rule: "RefusedLeaverReplicates", property: model.ErrNoWayBack,
		cluster: model.Config{
			Nodes: 4, Members: 4, Apart: 2, Messages: 2, Takes: 2, Ring: model.LowestFirst,
			Events: model.Events{Leaves: 1, Total: 1},
			Script: []string{
				"C replicates to D", "D receives C's replica", "C receives D's acknowledgement",
				"EVENT C begins to leave", "A adds D to its ring", "D answers a ping of A",
				"C drops C from its ring", "C adds B to its ring", "B answers a ping of C",
				"C replicates to B", "B receives C's replica", "C receives B's refusal",
			},
		},
		states: 5_000, live: 1,
	},
	{
		rule: "TombstoneFixedForRound", property: model.ErrTwoDeciders,
		cluster: model.Config{
			Nodes: 3, Members: 3, Messages: 1, Events: model.Events{Cuts: 1, Leaves: 1, Total: 2},
			Script: []string{
				"EVENT the link A-B is cut", "A wrongly drops B from its ring", "B wrongly drops A from its ring",
				"the link A-B heals", "EVENT C begins to leave", "A drops C from its ring", "B drops C from its ring",
				"A begins a round", "A asks B", "B receives A's request", "A receives B's not holding",
				"B begins a round", "B asks C", "C receives B's request", "B receives C's copy",
			},
		},
		states: 50_000,
	},
	{
		rule: "GoodbyeAfterSilence", property: model.ErrTwoDeciders,
		cluster: model.Config{
			Nodes: 4, Members: 3, Messages: 1, Events: model.Events{Joins: 1, Leaves: 1, Cuts: 1, Total: 3},
			Ring: 1,
			Script: []string{
				"EVENT C is cut off", "the link B-C heals", "an answer of C to A grows old", "an answer of A to C grows old",
				`A says "no ping" of C`, "EVENT D joins through A", "A answers a ping of D", "D answers a ping of A",
				"EVENT B begins to leave", "B LEAVES", "A sees the tombstone of B", "D sees the tombstone of B",
			},
		},
		states: 100_000,
	},
	{
		rule: "AcquireNeedsQuorum", property: model.ErrTwoDeciders,
		cluster: model.Config{
			Nodes: 3, Members: 3, Messages: 1, Events: model.Events{Cuts: 2, Total: 2},
			Script: []string{
				"EVENT C is cut off", "an answer of A to C grows old", "an answer of B to C grows old",
				"B wrongly drops C from its ring", "the link A-C heals", "the link B-C heals", "B begins a round",
				"B asks A", "A receives B's request", "B receives A's not holding", "B asks C", "C receives B's request",
				"EVENT B is cut off", "an answer of A to B grows old", "an answer of C to B grows old",
				"A answers a ping of C", `A says "no ping" of B`, `C says "no ping" of B`, "the link B-C heals",
				"B receives C's not holding", "C begins a round", "C asks A", "A receives C's request",
				"C receives A's not holding", "C STARTS: all others are not holding, or gone",
			},
		},
		states: 20_000,
	},
	{
		rule: "StillLostAtStart", property: model.ErrTwoDeciders,
		cluster: model.Config{
			Nodes: 3, Members: 3, Messages: 2, Events: model.Events{Cuts: 2, Total: 2},
			Script: []string{
				"EVENT the link B-C is cut", "B wrongly drops C from its ring", "the link B-C heals", "B begins a round",
				"EVENT A is cut off", "B asks A", "an answer of B to A grows old", "an answer of C to A grows old",
				"A wrongly drops B from its ring", "A wrongly drops C from its ring", `B says "no ping" of A`,
				`C says "no ping" of A`, "B starts its round again: which nodes are gone has changed", "B begins a round",
				"the link A-C heals", `C no longer says "no ping" of A`, "C answers a ping of A", "A begins a round",
				"A asks C", "C receives A's request", "A receives C's copy",
			},
		},
		states: 20_000,
	},
	{
		rule: "PingAddsToRoster", property: model.ErrTwoDeciders,
		cluster: model.Config{
			Nodes: 4, Members: 3, Messages: 1, Events: model.Events{Joins: 1, Crashes: 1, Total: 2},
			Script: []string{
				"EVENT D joins through C", "A answers a ping of D", "B answers a ping of D", "D begins a round", "D asks C",
				"C receives D's request", "D receives C's copy", "EVENT C crashes", `A says "no ping" of C`,
				`B says "no ping" of C`, "B drops C from its ring", "B begins a round",
			},
		},
		states: 20_000,
	},
	{
		rule: "ReplicaPromise", property: model.ErrAckedTakeLost,
		cluster: model.Config{
			Nodes: 3, Members: 3, Messages: 2, Takes: 1, Events: model.Events{Cuts: 2, Crashes: 1, Total: 3},
			Script: []string{
				"EVENT the link B-C is cut", "B wrongly drops C from its ring", "the link B-C heals", "B begins a round",
				"EVENT A is cut off", "B asks A", "an answer of B to A grows old", "an answer of C to A grows old",
				"A wrongly drops B from its ring", "A wrongly drops C from its ring", `B says "no ping" of A`,
				`C says "no ping" of A`, "B starts its round again: which nodes are gone has changed", "B begins a round",
				"the link A-C heals", `C no longer says "no ping" of A`, "C answers a ping of A", "A begins a round",
				"A asks C", "C receives A's request", "A receives C's copy", "B asks C", "C receives B's request",
				"B receives C's not holding", "A adds C to its ring", "A decides a TAKE", "A replicates to C",
			},
		},
		states: 20_000,
	},
	{
		rule: "StaleReplicaRefused", property: model.ErrAckedTakeLost,
		cluster: model.Config{
			Nodes: 4, Members: 3, Messages: 2, Takes: 1, Events: model.Events{Joins: 1, Cuts: 1, Crashes: 1, Total: 3},
			Script: []string{
				"C replicates to B", "EVENT D joins through C", "A answers a ping of D", "B answers a ping of D",
				"D begins a round", "D asks C", "C receives D's request", "D receives C's copy",
				"EVENT the link C-D is cut", "D wrongly drops C from its ring", "D decides a TAKE", "D replicates to B",
				"B receives D's replica", "D receives B's acknowledgement", "EVENT D crashes", `A says "no ping" of D`,
				`B says "no ping" of D`, `C says "no ping" of D`, "C drops D from its ring",
			},
		},
		states: 20_000,
	},
}

// unmissed are the rules whose removal no search here has noticed, in a few seconds of walks each at most, unless a line says
// more. -model.long walks on without them.
var unmissed = []string{
	"TransferVoidOnLapse",    // a transfer is for one round, and a node that is lost to another round is in none
	"TransferVoidOnResponse", // the same
	"ResponseNamesReceiver",  // the giver has learned the receiver from its request, and so names it in known as well
	"LeavingAcquiresNothing", // the copy would come back to the leaver again and again: an endless race
}
