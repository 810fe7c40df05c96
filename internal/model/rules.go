package model

import (
	"fmt"
	"reflect"
)

// Rules are the rules of holding, each of which can be switched off to see what goes wrong without it. The zero value has
// all of them off; AllRules has all of them on. Each comment says what the rule is there to prevent. For which rules a
// search has shown it, and for which none has yet, is kept in the tests as removals and unmissed.
type Rules struct {
	// Promise: a node remembers the highest ballot it has answered and answers "behind" to a lower one, so of two rounds
	// at once only the later can collect every response. Without it two askers both hear "not holding" from everyone.
	Promise bool
	// ResponsesOfThisRoundOnly: an asker ignores answers to its earlier rounds. Without it a "not holding" said before the
	// answerer became the holder still counts.
	ResponsesOfThisRoundOnly bool
	// AcquireNeedsQuorum: a round begins only with fresh quorum and ends when the quorum lapses. Without it a node
	// that has slept goes on with verdicts that were true before its sleep.
	AcquireNeedsQuorum bool
	// LapsedIsNotHolding: a holder whose quorum has lapsed keeps its copy only as a replica and answers as such. Without
	// it a holder that others have replaced gives its old copy away as the authoritative one.
	LapsedIsNotHolding bool

	// GivingStopsHolding: a holder that is asked stops before it sends its copy. Without it giver and receiver both decide.
	GivingStopsHolding bool
	// TransferRaisesTerm: a given copy carries one more transfer in its term. Without it the giver's own stale copy can be taken
	// for the same version as the receiver's.
	TransferRaisesTerm bool
	// TransferForOneRound: a given copy is sent again only to a request of the same round. Without it a receiver that has
	// since held, and lapsed, gets the old copy again as the authoritative one.
	TransferForOneRound bool
	// TransferVoidOnLapse: a transfer is void once its giver's quorum lapses. Without it a giver that others count as lost, and
	// do without, still sends its copy to a receiver that asks again.
	TransferVoidOnLapse bool
	// TransferVoidOnResponse: having told a later round "not holding", a giver no longer sends the copy to the earlier receiver.
	TransferVoidOnResponse bool
	// PieceContinues: an asker keeps the pieces of each peer's copy apart, and takes one only where it continues them: asked
	// for where they end, of the same version. Without it a piece of the standby's replica takes the place of the holder's first
	// one, and the holder's last one passes for the whole copy.
	PieceContinues bool

	// ResponseNamesReceiver: "not holding" names the node the copy was given to, and the asker must hear from that one too.
	// Without it an asker that does not know the receiver starts beside it.
	ResponseNamesReceiver bool

	// GoneFixedForRound: a round decides at its beginning which nodes are gone, and starts again when that changes. Without it an
	// answerer's promise and the death of another are combined from different moments.
	GoneFixedForRound bool
	// StillLostAtStart: a node that was counted as lost when the round began must still be lost when it ends. Without it a
	// holder that has recovered in between is overlooked.
	StillLostAtStart bool
	// TombstoneFixedForRound: a node whose tombstone arrives during a round is not skipped: the round starts again.
	// Without it the leaver has handed over to somebody this round has asked too early.
	TombstoneFixedForRound bool
	// SilentAfterNoPing: a witness that has said "no ping" answers no ping of that node while its word counts. Without it
	// the same witness serves as quorum for the holder and as quorum against it.
	SilentAfterNoPing bool
	// WitnessSpeaksOfUnknown: a witness says "no ping" also of a name it has never heard of. Without it a joiner that
	// dies before gossip has spread it is never lost, and what it held is never acquired.
	WitnessSpeaksOfUnknown bool

	// NamesInRequests: requests and responses carry the sender's known set. Without it an asker does not ask a joiner that
	// only the answerers know.
	NamesInRequests bool
	// DoubtedAreAsked: a name that a request or a response tells a node of that has quorum without it does not count among
	// its witnesses until it has proved itself, by a ping, a request, a response or a link; but it must answer the node's
	// rounds like all others. Without it a joiner that only one other member knows holds beside the asker.
	DoubtedAreAsked bool
	// PingAddsToRoster: a node that answers another one's ping takes that one into known. Without it a node counts quorum from
	// witnesses that would not count it.
	PingAddsToRoster bool

	// ForgetOnlyWithMajority: a node forgets one that has been gone for long only while its quorum is fresh, and under
	// ForgetOnlyLost. Without it a node that is cut off forgets all others and is then a majority alone.
	ForgetOnlyWithMajority bool
	// ForgetOnlyLost: a node forgets only one that more than half of its witnesses miss at that moment. Without it one that
	// gossip has given up, and that still answers pings of others, decides beside a node that does without it.
	ForgetOnlyLost bool
	// ForgottenLearnedAgain: a forgotten node that pings or asks, or that a request or a response names as known, is known
	// again immediately, and not only when gossip says so. Without it one that has come back and acquired is overlooked by
	// those that have not heard of it yet, even by the one that gave it the copy.
	ForgottenLearnedAgain bool

	// ReplicaPromise: a replica below the receiver's promised ballot is refused, and a taken one is a promise. Without
	// it a take is acknowledged by a node that has already told the next holder what it has.
	ReplicaPromise bool
	// StaleReplicaRefused: a replica of a lower version than the receiver's copy is refused. Without it a message that
	// was overtaken rolls the standby back.
	StaleReplicaRefused bool
	// RefusedHolderReacquires: a holder whose replica was refused acquires anew while still holding. Without it its standby
	// refuses it forever and its takes are never safe.
	RefusedHolderReacquires bool

	// HolderYields: a holder whose replica is refused by a node that is holding itself, and that the holder's own ring
	// names as the owner, stops holding and keeps its copy as a replica. Without it two holders that have met go on
	// replacing each other, and a leaving one, which cannot, never goes.
	HolderYields bool
	// TransferTellsNotHolding: to a holder that acquires anew, a copy means no more than "not holding". Without it the holder
	// waits forever for another response of the node that has just stopped holding for it.
	TransferTellsNotHolding bool

	// UnnamedHolderRepeats: a holder that its own ring does not name as the owner replicates to the owner again, even when
	// everything was acknowledged. Without it one of two holders whose standby has acknowledged both, and then begun to hold
	// by the other's copy, never meets the new holder and so yields to nobody.
	UnnamedHolderRepeats bool
	// RefusedLeaverReplicates: a leaving holder goes on replicating after a refusal, which it cannot answer by acquiring.
	// Without it one whose standby of the moment refuses it never meets the other holder, yields to nobody and never goes.
	RefusedLeaverReplicates bool

	// GoodbyeAfterSilence: a leaver says goodbye only when it has answered no ping for as long as a response stays fresh.
	// Without it a holder still counts the response of a witness that the others no longer count as one, and when it has
	// not heard of a joiner either, they are a majority without it.
	GoodbyeAfterSilence bool
	// GoodbyeNamesRoster: a goodbye names the nodes that the leaver knew; with panels it need not. Without it a node that was cut off while others joined, and
	// hears only the goodbye of the last one it knew, is then a majority alone.
	GoodbyeNamesRoster bool
	// LeavingAcquiresNothing: a leaving node begins no round. Without it the copy comes back to the node that is going.
	LeavingAcquiresNothing bool
	// SettleByAsking: a node drops a copy for which it is neither the owner nor the standby only when the holder has said that
	// its standby has everything in it. Without it the only copy of what a dead holder had decided is dropped.
	SettleByAsking bool
	// SettleNamesVersion: it asks about one version, and drops no other. Without it a response frees it of a copy that it
	// got only later, or that the holder does not have.
	SettleNamesVersion bool
	// ReplicaVoidsSettling: a response to a request from before the last replica drops nothing. Without it one that has
	// become the standby meanwhile, and was sent the same version again, drops what the holder now counts on.
	ReplicaVoidsSettling bool
	// LeaveWaitsForStandby: a leaver goes only when the holder has said, for every copy it keeps, that the standby has
	// everything. Without it a crash right after a leave loses what only the leaver had kept.
	LeaveWaitsForStandby bool
	// LeaverKeepsReplicas: the same wait holds for replicas. Without it a leaving standby takes the only replica with it.
	LeaverKeepsReplicas bool
	// NewerCopyOffered: a holder that is asked about a copy newer than its own acquires anew. Without it a leaver waits
	// forever for a holder that cannot speak for so new a version.
	NewerCopyOffered bool

	// The rules of panels. What they say is in package panel, whose code is run here.

	// PanelDecides: a majority is of the witnesses of one's own panel. Without it, it is of all that one knows, as it was before
	// there were panels: members that start on the small side of a split outvote the large one there, which goes on deciding.
	PanelDecides bool
	// NewerPanelRefuses: a witness refuses the pings of members of earlier panels. Without it members that were cut off have a
	// majority by witnesses that have agreed on something else.
	NewerPanelRefuses bool
	// NextPanelWaits: a witness accepts the panel after its own only when its last answers from before it adopted that have
	// aged. Without it members two panels apart have evidence.
	NextPanelWaits bool
	// OneWitnessAtATime: a panel differs from the one before in one witness. Without it their majorities need not meet.
	OneWitnessAtATime bool
	// AcceptedGoesOn: a proposer goes on with what was accepted in the highest ballot it hears of. Without it two panels get one
	// number.
	AcceptedGoesOn bool
	// AdoptedByHearing: a panel is agreed on when a majority has accepted it in one ballot. Without it acceptances of
	// different ballots are counted together, and two panels get one number.
	AdoptedByHearing bool
	// OldPanelCountsOn: the evidence that there was under the panel before counts until it has aged. Without it every step that
	// adds a witness ends evidence until that one has answered.
	OldPanelCountsOn bool
	// ProposedPanelAnswers: more than half of the proposed witnesses answer the proposer. Without it a living witness is
	// removed while others are dead, and nobody can remove those any more.
	ProposedPanelAnswers bool
	// AcceptorsLook: a witness accepts only what it sees itself, or what another one has accepted. Without it one witness that
	// hears nobody removes members that are there.
	AcceptorsLook bool
	// OriginsInOrder: of two clusters that meet it is fixed which one ends. Without it each ends for the other.
	OriginsInOrder bool
	// GoodbyeNamesPanel: a goodbye names the highest panel that the leaver adopted or accepted, and is of use from that one on.
	// Without it a member that was cut off counts out whoever has agreed on a later panel with others.
	GoodbyeNamesPanel bool
	// GoodbyeNamesPromise: it names the highest ballot that the leaver promised, and agreement without the leaver is in a higher
	// one. Without it two that promise one proposer and go are its majority, and the rest agrees on something else.
	GoodbyeNamesPromise bool
	// GoodbyeAfterAnswers: a leaver is counted out when its last answers have aged. Without it one holds by these, and another
	// without the leaver.
	GoodbyeAfterAnswers bool
	// LeaverSeesAdoption: a leaver goes only when more than half of the witnesses of a panel without it have adopted that. Without it
	// the leaver takes with it what the others must hear to adopt.
	LeaverSeesAdoption bool
}

// AllRules returns the rules as they are: all on.
func AllRules() Rules {
	var r Rules
	v := reflect.ValueOf(&r).Elem()
	for i := range v.NumField() {
		v.Field(i).SetBool(true)
	}
	return r
}

// RuleNames returns the names of all rules, in the order of their declaration.
func RuleNames() []string {
	t := reflect.TypeFor[Rules]()
	names := make([]string, t.NumField())
	for i := range names {
		names[i] = t.Field(i).Name
	}
	return names
}

// Without returns the rules with the named one switched off. It panics when there is no rule of that name: names come
// from source text only.
func (r Rules) Without(name string) Rules {
	f := reflect.ValueOf(&r).Elem().FieldByName(name)
	if !f.IsValid() {
		panic(fmt.Sprintf("peerlimit/internal/model: no rule %q", name))
	}
	f.SetBool(false)
	return r
}
