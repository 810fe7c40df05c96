// Package model is an explicit-state model of how one partition is held: nodes that join, leave, crash and pause, a
// network that loses and reorders messages and whose links are cut, and the rules by which nodes acquire, give, replicate
// and leave. It exists to check the rules, not the code: it is searched breadth first to exhaustion for small clusters,
// and by seeded random walks for larger ones. The rules carry names ([Rules]) and can be switched off one by one.
//
// # Properties
//
//   - S1: never do two nodes decide in full. A paused node counts: a take may already be past the check.
//   - S2: a node that starts as holder while nobody is missing has every take that was decided; nodes that left in peace
//     excuse nothing.
//   - S3: while one node is missing, it has every take that was acknowledged by an heir.
//   - Liveness: from every state in which more than half of the known nodes live, a good state can be reached without
//     further faults: one ring, its owner alone holding and deciding in full, its heir up to date, no leaver left behind.
//     This is "can always be reached", not "will be reached": it finds deadlocks, and no endless races.
//
// # Abstractions
//
// The partition's state is the set of takes decided. Time is only order: an answer to a ping is fresh or not; a witness
// says "no ping" only when its own answers are no longer fresh at the node it speaks of, which is what half a second each
// stands for. A ring view and a known set change by gossip in any order. Elections are renumbered in every state, since
// only their order matters. The messages in flight are bounded, and equal ones are one.
//
// # Not covered
//
// More than one partition, real time and its jitter, more than four nodes and so any choice of witnesses, more than one
// join or leave at the same time in the searches made here, forming the first cluster, a known set that shrinks by
// anything but a tombstone, names that come back, dropping copies that are safe elsewhere, shares, fallback buckets and
// reports. A joiner is assumed to learn the highest election from its seed. That an acknowledgement counts only while
// evidence is fresh cannot be switched off: a lapsed node is not holding, and so counts none.
//
// # Searches
//
//	go test ./internal/model                                       exhaustive small clusters, short walks, removals
//	go test ./internal/model -model.long                           also longer walks without each unmissed rule
//	go test ./internal/model -run Walks -model.walks=N -model.seed=S
//
// Removing one of these rules is not noticed by any search made so far: AcquireNeedsEvidence, GiftVoidOnLapse,
// GiftVoidOnAnswer, AnswerNamesReceiver, StillLostAtStart, TombstoneFixedForRound, PingMakesKnown, ReplicaPromise,
// StaleReplicaRefused, LeavingAcquiresNothing, NewerCopyOffered. They are unneeded, implied by others, or need longer
// searches; the searches were short, so this says little about which.
package model
