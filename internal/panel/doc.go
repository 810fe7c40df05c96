// Package panel has the rules by which the members of a cluster agree who its witnesses are, as pure state: no clock, no locks,
// no I/O. internal/quorum judges quorum and loss by it, and internal/model searches it; docs/internals/panels.md has the reasons.
//
// A [Panel] is a numbered set of at most 31 witnesses. A quorum is more than half of the witnesses of one's own panel, and of
// nothing else. The panel with the next number is agreed on by more than half of the witnesses of the panel before, and differs
// from it in at most one witness. Members that are no witnesses (learners) acquire, hold and decide like all others, on the
// answers of the witnesses.
//
// Agreement is one Paxos decree for each number: proposers, acceptors, ballots and promises are meant as there. The acceptors of
// number n+1 are the witnesses of panel n. A process keeps no disk, and a restarted one has another name. So a witness never
// forgets what it has promised: it ends for good.
//
// Names in brackets are those of internal/model, which shows what goes wrong without each rule.
package panel
