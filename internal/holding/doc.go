// Package holding has the rules of which node decides about one partition, at one node: plain state, without locks, clock or I/O.
// Package model checks the same rules by search; the names in brackets are those it gives them.
//
// [Holding] is what a node knows of one partition. [Round] is one try to acquire some partitions, under a ballot of its own,
// and [Attempt] its part in one of them. The vocabulary of rounds, ballots and promises is that of Paxos.
package holding
