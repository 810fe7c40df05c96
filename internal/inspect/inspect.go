// Package inspect shows tests of whole clusters what a user of a node does not see. Package peerlimit sets these functions
// when it is initialized. It cannot be imported here, so a node is passed as any and must be a *peerlimit.Node; what is no
// such node panics.
package inspect

import (
	"time"

	"github.com/peerlimit/peerlimit/internal/panel"
	"github.com/peerlimit/peerlimit/internal/wire"
)

var (
	// FullDeciders returns the partitions of which a take made on the node now would be decided there, by the whole limit, a
	// bit each: that of partition p is bit p%64 of word p/64. A node that is closed decides nothing. It is cheap enough to be
	// called every few milliseconds of controlled time.
	FullDeciders func(node any) [64]uint64

	// HasCopy reports whether a node has a copy of a partition, whether or not it holds it.
	HasCopy func(node any, partition uint16) bool

	// Levels returns what a node's copy of a partition is: its version, and the levels that its buckets will have in a time,
	// by limiter and key with a zero byte in between.
	Levels func(node any, partition uint16, later time.Duration) (wire.Version, map[string][]float64)

	// Unreported returns of how many keys a node has not been able to report yet what it spent by shares.
	Unreported func(node any) int

	// Panel returns the panel that a node has adopted last, and whether more than half of its witnesses answer the node.
	Panel func(node any) (p panel.Panel, hasQuorum bool)

	// Acquiring describes what keeps a node from holding what is its own: a few lines for people.
	Acquiring func(node any) string

	// MoveInPieces has the node of a configuration, a *peerlimit.Config, move partitions in pieces of so many bytes of
	// buckets: in answers to a node that acquires, and in replicas.
	MoveInPieces func(config any, answer, replica int)
)

// DecidesInFull reports whether FullDeciders has one partition.
func DecidesInFull(node any, partition uint16) bool {
	return FullDeciders(node)[partition/64]>>(partition%64)&1 == 1
}
