// Package acquire is how a node comes to hold partitions, and how it gives them: both ends of one protocol. keeper.go decides
// what is to be acquired and looks after the rounds, ask.go asks the others and begins to hold, give.go answers requests.
// The rules for one partition are in package holding.
package acquire
