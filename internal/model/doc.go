// Package model is an explicit-state model of how one partition is held: nodes that join, leave, crash and pause, a
// network that loses and reorders messages and whose links are cut, and the rules by which nodes acquire, give, replicate
// and leave. It exists to check the rules, not the code: it is searched breadth first to exhaustion for small clusters,
// and by seeded random walks for larger ones. The rules carry names ([Rules]) and can be switched off one by one.
//
// # Properties
//
//   - S1: never do two nodes decide in full. A paused node counts: a take may already be past the check.
//   - S2: a node that starts as holder while no node is missing has every take that was decided; nodes that left in peace
//     excuse nothing.
//   - S3: while one node is missing, it has every take that was acknowledged by a standby.
//   - Liveness: from every state in which more than half of the known nodes live, a good state can be reached without
//     further faults: one ring, its owner alone holding and deciding in full, its standby up to date, no leaver left behind.
//     This is "can always be reached", not "will be reached": it finds deadlocks, and no endless races.
//   - With panels: never two panels of one number and origin, and never evidence by panels two numbers apart; adopting a panel
//     ends no evidence; no panel is proposed of which half is dead, and nobody is removed, to an even number, whom no witness
//     misses. A good state has one panel, of members that live, and everybody has evidence by it. It is promised while more than
//     half of the witnesses live of the latest panel that anybody alive has, and of what may be agreed on as the next.
//
// A search may also begin with two clusters that have not met, such as two nodes that were each alone, or two halves that
// forgot each other. Each decides in full, and they may go on doing so for a while after they have met: nothing is
// promised until they are one. They are one when all alive know each other, exactly one holds, no copy is on its way to
// another that would hold by it, and no copy is of a higher version than the holder's. From then on S1, S2 and S3 hold as
// ever, except that takes decided before are excused, but for those the one holder has. (Before the last condition is met
// even a take of the only holder can be lost: a node that yields keeps its copy, and the next one that acquires starts on the highest.)
// That they become one is liveness, and needs a consistent ring ([LowestFirst]).
//
// # Abstractions
//
// The partition's state is the set of takes decided. Time is only order: a response to a ping is fresh or not; a witness
// says "no ping" only when its own answers are no longer fresh at the node it speaks of, which is what half a second each
// stands for. A ring view and a known set change by gossip in any order. Ballots are renumbered in every state, since
// only their order matters. The messages in flight are bounded, and equal ones are one.
//
// With [Config].Panels majorities are of numbered panels, as in the code; without, of the known sets, as the code once had it. The state machine is that of package
// panel: each step of a panel is a call of it. Half a second after an adoption is when no answer from before counts any more. A
// proposal is any change of one witness by any witness, as often as [Events].Proposals says; a search for a way back proposes what
// package panel would ([panel.State.Wish]), with everything having been so for long. A request and its answer are one step; an
// acceptance is heard by anybody at any later time. Names are asked, and make no majority: whatever is told is known.
//
// # Not covered
//
// More than one partition, real time and its jitter, more than five nodes and so any choice of witnesses, more than two
// joins or leaves at the same time in the searches made here, more than two pieces of a copy, what happens to a copy between
// two pieces that does not change its version, replicas in pieces, a close without leaving (which says goodbye immediately), shares,
// fallback buckets and reports. A forgotten name is learned again whenever a member tells of it or, without ForgottenLearnedAgain,
// never: for how long a name has been lost, which members tell as well so that it does not go from node to node forever, is not modelled. A joiner
// learns the highest ballot from its seed, as a promise or ([Config].Bare) as a mere number; only walks were made of the
// latter. That an acknowledgement counts only while quorum is fresh cannot be switched off: a lapsed node is not holding,
// and so counts none.
//
// # Searches
//
//	go test ./internal/model                                       exhaustive small clusters, short walks, removals
//	go test ./internal/model -model.long                           also longer walks without each unmissed rule
//	go test ./internal/model -run Walks -model.walks=N -model.seed=S
//	go test ./internal/model -run Panel -model.long -timeout 0     panels: larger clusters exhausted, all the walks
//
// About half of the removals are found by random walks, with the seed in the table; a change of the rules or of the steps
// makes other walks of the same seeds, and so may need other seeds. The others are found from a scripted beginning: a few
// legal steps, then every continuation, which with all rules on is seen to be harmless as far as the search goes.
//
// Removing one of these rules is not noticed by any search made so far: TransferVoidOnLapse, TransferVoidOnResponse,
// ResponseNamesReceiver, LeavingAcquiresNothing. Of the first three it can be argued that others imply them: a transfer is for one
// round, and a node that a later round does without has none under way; the receiver of a transfer is known to its giver by its
// request. Without the last a copy comes back to the leaver: an endless race, which no search here sees. Scripted
// beginnings for them were thought about and not found, which is no proof.
//
// # Where the code differs
//
// With panels, as in the code, GoodbyeAfterAnswers takes the place of GoodbyeAfterSilence.
//
// GoodbyeAfterSilence, RefusedLeaverReplicates, UnnamedHolderRepeats, ForgottenLearnedAgain, ReplicaVoidsSettling and
// GoodbyeNamesRoster came out of searches of this model. The code lets a refused leaver acquire again, repeats an unnamed
// holder's replica, and answers no ping once it says goodbye, but does not wait half a second before that;
// docs/internals/architecture.md says why. GoodbyeAfterSilence stands for half a second in which a leaver answers no ping: its last
// step takes away all its responses.
//
// The code forgets a name when the witnesses have missed it for 8 s. It takes a forgotten name from its bearer, and from others
// that name it, but not in the last second of those 8: what others say of a name has its age, or they would keep a dead name
// alive between them. Its goodbyes name nobody else, and it has no doubts.
//
// Gossip alone makes no node known in the code; "learns by gossip" stands for the link that comes up then. A joiner of the
// model knows the nodes that its seed knows; the code counts them by gossip's word, but only until it has met a member or has quorum.
//
// In an arbitrary ring, as opposed to a consistent one, two clusters that met have no way back in some states.
package model
