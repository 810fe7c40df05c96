package model

import "math/bits"

// Arrays of fixed size make a State comparable and its copies cheap; no configuration searched here needs more.
const (
	maxNodes    = 5
	maxMessages = 5
)

// node is the number of a node, from 0.
type node uint8

// nobody is the owner of a ring without members.
const nobody node = 255

// nodes is a set of nodes.
type nodes uint8

func only(n node) nodes              { return 1 << n }
func (s nodes) has(n node) bool      { return s>>n&1 == 1 }
func (s *nodes) add(n node)          { *s |= only(n) }
func (s *nodes) remove(n node)       { *s &^= only(n) }
func (s nodes) size() int            { return bits.OnesCount8(uint8(s)) }
func (s nodes) without(n node) nodes { return s &^ only(n) }

// majority tells whether s contains more than half of the members of all.
func (s nodes) majority(all nodes) bool { return (s&all).size()*2 > all.size() }

// takes is a set of takes: the state of the partition. Takes are numbered in the order they were decided, by anyone.
type takes uint8

// ballot numbers a round. Zero is none.
type ballot uint8

// version orders copies; a higher one replaces a lower one. Its zero value is that of a node without a copy.
type version struct {
	ballot    ballot
	transfers uint8
	holder    node
	takes     takes // stands for the sequence number
}

func (v version) exists() bool { return v.ballot != 0 }

func (v version) less(o version) bool {
	switch {
	case v.ballot != o.ballot:
		return v.ballot < o.ballot
	case v.transfers != o.transfers:
		return v.transfers < o.transfers
	case v.holder != o.holder:
		return v.holder < o.holder
	}
	return v.takes < o.takes
}

// promise is the highest ballot a node has answered, and the node that asked with it.
type promise struct {
	ballot ballot
	to     node
}

func (p *promise) raise(o promise) {
	if o.ballot > p.ballot {
		*p = o
	}
}

// transfer remembers the node that a copy was given to, and in which of its rounds. The zero value is no transfer.
type transfer struct {
	to    node
	round ballot
	spent bool // the copy has been dropped: the receiver is named, and given nothing more
}

// round is one attempt to acquire. A zero ballot is none.
type round struct {
	ballot   ballot
	must     nodes   // known at the beginning, or named by a response
	answered nodes   // said "not holding"
	gone     nodes   // lost or tombstoned when the round began
	best     version // highest copy in the responses
	staged   [maxNodes]stage
}

func (r round) running() bool { return r.ballot != 0 }

type life uint8

const (
	outside life = iota // has not joined
	up
	paused
	crashed
	left
	closed // like crashed, but it has said goodbye
)

// member is one node and all it knows.
type member struct {
	life    life
	leaving bool

	holding bool
	lapsed  bool // holds with lapsed quorum; never true under LapsedIsNotHolding
	refused bool // its replica was refused: acquire again
	owes    bool // keeps a copy with which it does not leave
	renewed bool // has taken a replica since it asked about its copy

	ring       nodes // its view of the members
	known      nodes
	tombstones nodes
	doubted    nodes // one member alone has told of it, while this node had quorum without it
	forgotten  nodes // was known and is no more, because it had been gone for long
	fresh      nodes // witnesses whose responses to its pings are fresh
	silent     nodes // nodes of which it says "no ping", and whose pings it does not answer

	copy     version
	promise  promise
	heard    ballot // the highest ballot a joiner was told of when it joined, which is no promise
	transfer transfer
	round    round

	ackedBy nodes // the standby that acknowledged, or none
	acked   takes // what it acknowledged

	p agreement // of no use without Config.Panels
}

func (m *member) alive() bool { return m.life == up || m.life == paused }

// State is one state of the whole cluster, of the network, and of what an onlooker remembers.
type State struct {
	members  [maxNodes]member
	messages [maxMessages]message // sorted, empty ones last
	cuts     [maxNodes]nodes      // cuts[a] has b: the link between a and b is cut

	events Events // still allowed

	// What an onlooker remembers, for the safety properties only.
	taken   uint8 // number of takes decided
	acked   takes // acknowledged by a standby while the holder decided in full
	excused takes // lost with a cause that permits the loss
	missed  nodes // were forgotten by somebody
	apart   bool  // two clusters that began without knowing of each other have not yet become one
}

// Events bounds what may happen to a cluster. Zero means never.
type Events struct {
	Crashes, Pauses, Cuts, Joins, Leaves, Lapses, Forgets uint8
	Total                                                 uint8 // of all kinds together

	Closes    uint8 // crashes after a goodbye
	Proposals uint8 // of any next panel, by any witness; not counted in Total
}
