package model_test

import "github.com/peerlimit/peerlimit/internal/model"

// exhaustions are the clusters every test run sees every state of.
var exhaustions = []exhaustion{
	{
		name:    "three nodes, one crash",
		cluster: model.Config{Nodes: 3, Members: 3, Messages: 2, Takes: 1, Events: model.Events{Crashes: 1, Total: 1}},
		states:  140_042, slow: true,
	},
	{
		name:    "three nodes, one leave",
		cluster: model.Config{Nodes: 3, Members: 3, Messages: 2, Takes: 1, Events: model.Events{Leaves: 1, Total: 1}},
		states:  29_922,
	},
	{
		name:    "three nodes, two takes, one leave",
		cluster: model.Config{Nodes: 3, Members: 3, Messages: 2, Takes: 2, Events: model.Events{Leaves: 1, Total: 1}},
		states:  102_863, slow: true,
	},
	{
		name:    "three nodes, one lost ping",
		cluster: model.Config{Nodes: 3, Members: 3, Messages: 2, Takes: 1, Events: model.Events{Lapses: 1, Total: 1}},
		states:  588,
	},
}

// removal is a search that notices that a rule is missing.
type removal struct {
	rule     string
	property error
	cluster  model.Config
	walks    model.Walks
	states   int // breadth first over so many states instead of walks, when not 0
}

func (r removal) search() model.Result {
	if r.states > 0 {
		return model.Explore(r.cluster, r.states, 0)
	}
	return model.Walk(r.cluster, r.walks)
}

// removals are found in under three seconds each.
var removals = []removal{
	{
		rule: "Promise", property: model.ErrTwoDeciders,
		cluster: model.Config{Nodes: 4, Members: 3, Messages: 2, Takes: 2, Events: model.Events{Cuts: 2, Leaves: 1, Total: 3}},
		walks:   model.Walks{Seed: 1, Count: 400, Length: 100, LiveEvery: 40},
	},
	{
		rule: "LapsedIsNotHolding", property: model.ErrNoWayBack,
		cluster: model.Config{
			Nodes: 4, Members: 3, Messages: 3, Takes: 2, Ring: 1,
			Events: model.Events{Joins: 1, Leaves: 1, Pauses: 1, Total: 3},
		},
		walks: model.Walks{Seed: 2, Count: 400, Length: 100, LiveEvery: 40},
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
		rule: "GiftRaisesTerm", property: model.ErrTakeLost,
		cluster: model.Config{Nodes: 3, Members: 3, Messages: 3, Takes: 2, Ring: 1, Events: model.Events{Cuts: 2, Total: 2}},
		walks:   model.Walks{Seed: 2, Count: 400, Length: 100, LiveEvery: 40},
	},
	{
		rule: "GiftForOneRound", property: model.ErrNoWayBack,
		cluster: model.Config{Nodes: 3, Members: 2, Messages: 2, Takes: 2, Events: anything},
		walks:   model.Walks{Seed: 1, Count: 400, Length: 100, LiveEvery: 40},
	},
	{
		rule: "GoneFixedForRound", property: model.ErrTwoDeciders,
		cluster: model.Config{
			Nodes: 4, Members: 3, Messages: 3, Takes: 2, Ring: 1,
			Events: model.Events{Joins: 1, Leaves: 1, Pauses: 1, Total: 3},
		},
		walks: model.Walks{Seed: 2, Count: 400, Length: 100, LiveEvery: 40},
	},
	{
		rule: "SilentAfterNoPing", property: model.ErrTwoDeciders,
		cluster: model.Config{Nodes: 3, Members: 2, Messages: 3, Events: model.Events{Joins: 1, Cuts: 1, Total: 2}},
		walks:   model.Walks{Seed: 2, Count: 300, Length: 90, Muted: true},
	},
	{
		rule: "WitnessSpeaksOfStrangers", property: model.ErrNoWayBack,
		cluster: model.Config{
			Nodes: 4, Members: 3, Messages: 3, Takes: 2, Ring: 1,
			Events: model.Events{Joins: 1, Crashes: 1, Cuts: 1, Total: 3},
		},
		walks: model.Walks{Seed: 2, Count: 400, Length: 100, LiveEvery: 40},
	},
	{
		rule: "RefusedHolderReacquires", property: model.ErrNoWayBack,
		cluster: model.Config{Nodes: 3, Members: 2, Messages: 2, Takes: 2, Events: anything},
		walks:   model.Walks{Seed: 1, Count: 400, Length: 100, LiveEvery: 40},
	},
	{
		rule: "LeaveWaitsForHeir", property: model.ErrTakeLost,
		cluster: model.Config{Nodes: 3, Members: 2, Messages: 2, Takes: 2, Events: anything},
		walks:   model.Walks{Seed: 1, Count: 400, Length: 100, LiveEvery: 40},
	},
	{
		rule: "AnswersOfThisRoundOnly", property: model.ErrTwoDeciders,
		cluster: model.Config{
			Nodes: 3, Members: 2, Messages: 2, Takes: 1, Ring: 1,
			Events: model.Events{Joins: 1, Pauses: 1, Total: 2},
		},
		walks: model.Walks{Seed: 3, Count: 300, Length: 90, Muted: true},
	},
	{
		rule: "KnownInQuestions", property: model.ErrTwoDeciders,
		cluster: model.Config{Nodes: 3, Members: 2, Messages: 1, Events: model.Events{Joins: 1, Lapses: 1, Total: 2}},
		states:  400_000,
	},
	{
		rule: "LeaverKeepsReplicas", property: model.ErrAckedTakeLost,
		cluster: model.Config{
			Nodes: 4, Members: 4, Messages: 4, Takes: 1, Ring: 1,
			Events: model.Events{Crashes: 1, Leaves: 2, Total: 3},
		},
		walks: model.Walks{Seed: 3, Count: 200, Length: 120, Muted: true},
	},
}

// unmissed are the rules whose removal no search here has noticed, in about ten seconds of walks each, unless a line says
// more. -model.long walks on without them.
var unmissed = []string{
	"AcquireNeedsEvidence",
	"GiftVoidOnLapse",
	"GiftVoidOnAnswer",
	"AnswerNamesReceiver", // the giver has learned the receiver from its question, and so names it in known as well
	"StillLostAtStart",
	"TombstoneFixedForRound",
	"PingMakesKnown", // to hold, a node must have asked all it knows and reaches, and those know it by its question
	"ReplicaPromise",
	"StaleReplicaRefused", // nor by seeing all states of three nodes, two takes and one leave
	"LeavingAcquiresNothing",
	"NewerCopyOffered",
}
