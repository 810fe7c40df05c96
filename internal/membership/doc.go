// Package membership is this node's part in gossip: it makes the node known, keeps it in touch with all others, and says which
// members there are and by how many of them a limit is divided. It knows nothing of takes and partitions, and of the quorum only
// what Fate says; the root tells it what members have proved and heard, and is told of every View.
//
// Read it in this order:
//
//   - config.go, info.go and view.go: what it is made of, and what it says: members, the Roster, and both at one moment, a View.
//   - roster.go: the rules by which a name counts, fails, leaves and is forgotten, as plain state without a clock.
//   - membership.go: what makes a View of gossip and the roster, and how a node announces that it leaves.
//   - goodbye.go: how it says that it has left, and who must have confirmed that.
//   - joiner.go: what joins seeds and members that have failed, for as long as the node runs.
//   - note.go and metadata.go: the bytes that gossip carries for us.
//   - gossipdelegate.go and the other gossip files: hashicorp/memberlist, what it is told and what it calls, its transport, its
//     log and its end, and gossipgate.go with gossipmessage.go, which judge everything that comes in before memberlist sees it.
package membership
