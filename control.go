package peerlimit

import "github.com/peerlimit/peerlimit/internal/limit"

// What nodes say to each other about who decides, apart from takes: who is there (ping, verdict), who holds (question),
// what the holder has (replica, settle), and what was spent elsewhere (report). Their bytes are in wirecontrol.go.

// Kinds of control messages follow those of takes; see messageKind.
const (
	kindPing messageKind = 32 + iota
	kindVerdict
	kindQuestion
	kindReplica
	kindSettle
	kindReport
	kindRelay
	kindControlEnd
)

// ping asks a witness for evidence that its sender is there.
type ping struct {
	heard  uint64 // the highest election number that the sender has heard of
	digest uint64 // of the sender's known set
}

// pong answers a ping.
type pong struct {
	refused bool // the witness has told somebody that it hears no pings of the sender: this is no evidence
	heard   uint64
	digest  uint64
	known   []string // the witness's known set, when the digests differ
	silent  []string // members of it from which the witness has heard nothing for a while: worth a verdict, but not one

	full    bool     // known is there, and the witness has evidence
	hearsay []string // those of known that have not proved themselves to the witness, sorted
}

// verdictRequest asks a witness of which of the members it has heard no ping.
type verdictRequest struct {
	heard uint64
	names []string
}

// verdict answers it.
type verdict struct {
	heard  uint64
	silent []string // those of names from which there was no ping for lostAfter
}

// question asks one peer for many partitions in one round.
type question struct {
	round election
	known []string
	parts []askedPart

	hearsay []string // as in a pong
}

// askedPart is one partition in a question.
type askedPart struct {
	part uint16
	have version // of the asker's best copy: an older one need not be sent
	from uint32  // where in the copy to go on: next of the answer before in this round, 0 to begin
}

// answerKind is what a node says of one partition.
type answerKind uint8

const (
	answerGiven      answerKind = 1 + iota // it was holding, and gives its copy to the asker
	answerNotHolding                       // it is not; it has promised the round
	answerBehind                           // it has promised a higher election
	answerKindEnd
)

// partAnswer is the answer for one partition.
type partAnswer struct {
	part     uint16
	kind     answerKind
	version  version  // given: what the asker holds from now on; not holding: of the copy kept, zero for none
	givenTo  string   // not holding: to whom the copy was given last, if it was
	promised election // behind

	content partContent // buckets: none when the asker's version is not lower
	next    uint32      // there are more buckets than fit: where to go on, see askedPart; 0 when these were the last

	reports []report // not holding: what the answerer has spent by a share, to be charged by whoever begins to hold
}

// questionAnswer answers a question, for as many of the partitions, in order, as fit into a message. The others are to
// be asked for again.
type questionAnswer struct {
	heard uint64
	known []string
	parts []partAnswer

	hearsay []string // as in a pong
}

// partContent is what a copy of a partition has in it, or a part of that.
type partContent struct {
	buckets []bucketImage
	marks   []reportMark
}

// bucketImage is a bucket as it travels: levels as of the moment of sending, and no timestamp.
type bucketImage struct {
	limiter string
	key     string

	// set has the limits, of which the first active ones are charged, and the levels' identities as they are stored:
	// never computed anew. It may be nil when there is nothing to say but that the bucket is full of tokens.
	set *limit.Set

	levels []float64 // one for each of the set; all zero, or none, says that the bucket is full of tokens

	leases []limit.MovingLease // out at that moment: one for each set of limits
}

// reportMark says which reports of a reporter have been charged to a partition.
type reportMark struct {
	reporter string
	seq      uint64
}

// replicaPart is what a holder sends its standby of one partition.
type replicaPart struct {
	part    uint16
	version version // of the holder, with everything up to this message in it
	since   uint64  // the seq that the receiver must have; the content is what has changed since

	// full says that the content is all of the partition, or the first, a further, or the last piece of all of it. since is
	// how many buckets the pieces before had then, so that none is missed or counted twice. The version, which is that
	// of this one attempt to send everything, counts with the last piece.
	full        bool
	first, last bool

	content partContent
}

type replicaRequest struct{ parts []replicaPart }

// replicaStatus is what the standby says of one partition.
type replicaStatus uint8

const (
	replicaTaken   replicaStatus = 1 + iota // and is kept
	replicaRefused                          // a higher election was promised, or a higher version is there
	replicaHeld                             // the receiver itself is holding
	replicaMissing                          // it has not what the content builds on: send everything
	replicaStatusEnd
)

type replicaAck struct {
	part     uint16
	status   replicaStatus
	promised election // refused, held: at least this must be exceeded
}

type replicaAnswer struct{ parts []replicaAck }

// settleRequest asks a holder whether copies are still needed.
type settleRequest struct {
	by    string // who asks: the request may have been relayed
	parts []settlePart
}

type settlePart struct {
	part    uint16
	version version
}

// settleAnswer names the partitions whose holder's present standby, another node than the asker, has everything.
type settleAnswer struct{ settled []uint16 }

// report charges a holder's buckets with what was spent elsewhere while it could not be asked.
type report struct {
	reporter string
	part     uint16
	seq      uint64 // higher than that of the reporter's last; the next one is sent when this one was answered
	charges  []charge
}

type charge struct {
	rule []byte // encoded; see appendRule
	key  string
	cost float64
}

// relay asks a node to send a request on to another one, which the sender does not reach.
type relay struct {
	to      string
	from    string // who asks; the receiver answers as if it had been asked directly
	request []byte
}

// full reports whether the image says that its bucket is full of tokens.
func (image *bucketImage) full() bool {
	if len(image.leases) > 0 {
		return false
	}
	for _, level := range image.levels {
		if level > 0 {
			return false
		}
	}
	return true
}

// state returns what the image says as the state of now. The set may not be nil.
func (image *bucketImage) state(now int64) limit.State {
	s := limit.NewState(image.set, now)
	for i, level := range image.levels {
		s.SetLevel(i, level)
	}
	return s
}

// size is about how much a charge takes when encoded.
func (c *charge) size() int { return len(c.rule) + len(c.key) + 16 }
