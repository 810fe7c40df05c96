package model

import (
	"fmt"
	"strings"
)

// action is what happens in one step.
type action uint8

const (
	resume action = iota
	healLink
	ringDrops
	ringAdds
	ringWronglyDrops
	seesTombstone
	gossipKnows
	stopsAccusing
	answersPing
	evidenceLapses
	accuses
	deliverMessage
	loseMessage
	restartsRound
	startsHolding
	stopsAcquiring
	leavesForGood
	asksMember
	beginsRound
	sendsReplica
	asksToSettle
	decidesTake
	eventLapse
	eventCrash
	eventPause
	eventLeave
	eventJoin
	eventCut
	eventIsolate
	eventForget
	dropsCopy
	proposesMore
	proposesLess
	proposesSwap
	proposesEnd
	promises
	accepts
	hearsOfPanel
	jumps
	adoptionAges
	keptLapses
	eventClose
	actionCount
)

// The first %s is the step's first node, the second its second.
var actionTexts = [actionCount]string{
	resume:           "%s resumes",
	healLink:         "the link %s-%s heals",
	ringDrops:        "%s drops %s from its ring",
	ringAdds:         "%s adds %s to its ring",
	ringWronglyDrops: "%s wrongly drops %s from its ring",
	seesTombstone:    "%s sees the tombstone of %s",
	gossipKnows:      "%s learns of %s by gossip",
	stopsAccusing:    "%s no longer says \"no ping\" of %s",
	answersPing:      "%s answers a ping of %s",
	evidenceLapses:   "an answer of %s to %s grows old",
	accuses:          "%s says \"no ping\" of %s",
	restartsRound:    "%s starts its round again: which nodes are gone has changed",
	startsHolding:    "%s STARTS: all others are not holding, or gone",
	stopsAcquiring:   "%s stops acquiring",
	leavesForGood:    "%s LEAVES",
	asksMember:       "%s asks %s",
	beginsRound:      "%s begins a round",
	sendsReplica:     "%s replicates to %s",
	asksToSettle:     "%s asks %s about its copy",
	decidesTake:      "%s decides a TAKE",
	eventLapse:       "EVENT pings lost: an answer of %s to %s grows old",
	eventCrash:       "EVENT %s crashes",
	eventPause:       "EVENT %s pauses",
	eventLeave:       "EVENT %s begins to leave",
	eventJoin:        "EVENT %s joins through %s",
	eventCut:         "EVENT the link %s-%s is cut",
	eventIsolate:     "EVENT %s is cut off",
	eventForget:      "EVENT %s forgets %s",
	dropsCopy:        "%s drops its copy",
	proposesMore:     "%s proposes to add %s",
	proposesLess:     "%s proposes to remove %s",
	proposesSwap:     "%s proposes to put %s into its own place",
	proposesEnd:      "%s proposes to join %s's cluster",
	promises:         "%s promises %s's ballot",
	accepts:          "%s accepts %s's panel",
	hearsOfPanel:     "%s hears %s's panel",
	jumps:            "%s jumps to %s's panel",
	adoptionAges:     "%s has had its panel for half a second",
	keptLapses:       "an answer of %s to %s, from before its panel, grows old",
	eventClose:       "EVENT %s closes",
}

// Step is one step of a trace.
type Step struct {
	action action
	a, b   node
	kind   kind // of the message delivered or lost
}

// String says the step in words; nodes are A, B, C, D.
func (t Step) String() string {
	switch t.action {
	case deliverMessage:
		return fmt.Sprintf("%s receives %s's %s", t.b, t.a, kindNames[t.kind])
	case loseMessage:
		return fmt.Sprintf("%s's %s to %s is lost", t.a, kindNames[t.kind], t.b)
	}
	text := actionTexts[t.action]
	if strings.Count(text, "%s") == 1 {
		return fmt.Sprintf(text, t.a)
	}
	return fmt.Sprintf(text, t.a, t.b)
}

// String returns the node's letter.
func (n node) String() string { return string(rune('A' + n)) }

// explorer lists the steps that can follow a state.
type explorer struct {
	*machine
	s     *State
	calm  bool // only steps that need no further fault, take or loss
	quiet bool // also without messages and rounds
	next  State
	visit func(Step, *State, error)
}

// successors calls visit with every step that changes s, the state after it, and the property it violates or nil. The
// state is valid during the call only. In calm no faults, losses, takes or mistaken suspicions happen.
func (m *machine) successors(s *State, calm bool, visit func(Step, *State, error)) {
	x := explorer{machine: m, s: s, calm: calm, visit: visit}
	x.steps()
}

func (x *explorer) steps() {
	x.healing()
	if x.Panels > 0 && x.Rules.PanelDecides {
		x.panels() // first, because a search for a way back is depth first: rounds among members that differ in panels lead nowhere
	}
	x.membership()
	x.pings()
	x.accusations()
	if x.quiet {
		return
	}
	x.delivery()
	x.rounds()
	x.holders()
	if !x.calm && x.s.events.Total > 0 {
		x.events()
	}
}

// judge tries a step whose change may violate a property by itself.
func (x *explorer) judge(t Step, change func(*State) error) {
	x.next = *x.s
	err := change(&x.next)
	if settled := x.settle(&x.next); err == nil {
		err = settled
	}
	if x.next != *x.s || err != nil {
		x.visit(t, &x.next, err)
	}
}

// do tries a step.
func (x *explorer) do(a action, first, second node, change func(*State)) {
	x.judge(Step{action: a, a: first, b: second}, func(t *State) error {
		change(t)
		return nil
	})
}

// pairs calls f for every pair of different nodes.
func (x *explorer) pairs(f func(a, b node)) {
	for a := range node(x.Nodes) {
		for b := range node(x.Nodes) {
			if a != b {
				f(a, b)
			}
		}
	}
}
