package wire

import (
	"time"

	"github.com/peerlimit/peerlimit/internal/limit"
)

// What nodes say to each other about holding, apart from takes: which members are there (ping, verdict), which one holds (acquire),
// what the holder has (replica, settle), and what was spent elsewhere (report). Their bytes are in wirecontrol.go.

// Kinds of control messages follow those of takes; see Kind.
const (
	KindPing Kind = 32 + iota
	KindVerdict
	KindAcquire
	KindReplica
	KindSettle
	KindDebt
	KindRelay
	KindWake
	KindPanel
)

// Ping asks a witness for quorum that its sender is there.
type Ping struct {
	Heard  uint64 // the highest ballot number that the sender has heard of
	Digest uint64 // of the sender's known set

	Panel PanelID // the sender's; zero in a version without panels
}

// Pong answers a ping.
type Pong struct {
	Refused bool // the witness has told somebody that it hears no pings of the sender: this is no quorum
	Heard   uint64
	Digest  uint64
	Known   []string // the witness's known set, when the digests differ
	Silent  []string // members of it from which the witness has heard nothing for a while: worth a verdict, but not one

	Panel PanelWord
	Lost  []LostName // those of Known that are lost

	HasQuorum bool // the witness has a quorum itself; a version that does not know this field never says so
}

// LostName is a member that the witnesses of the one that tells do not hear, and for how long it has been so.
type LostName struct {
	Name string
	For  time.Duration // as it travels, in whole milliseconds
}

// VerdictRequest asks a witness of which of the members it has heard no ping.
type VerdictRequest struct {
	Heard uint64
	Names []string
}

// Verdict answers it.
type Verdict struct {
	Heard  uint64
	Silent []string // those of names from which there was no ping for lostAfter
}

// AcquireRequest asks one peer for many partitions in one round.
type AcquireRequest struct {
	Ballot Ballot
	Known  []string
	Parts  []AskedPartition

	Lost []LostName // as in a pong
}

// AskedPartition is one partition in an acquire request.
type AskedPartition struct {
	Part uint16
	Have Version // of the asker's best copy: an older one need not be sent
	From uint32  // where in the copy to go on: next of the answer before in this round, 0 to begin
}

// ReplyKind is what a node says of one partition.
type ReplyKind uint8

const (
	ReplyTransferred ReplyKind = 1 + iota // it was holding, and gives its copy to the asker
	ReplyNotHolding                       // it is not; it has promised the round
	ReplyBehind                           // it has promised a higher ballot
	replyKindEnd
)

// PartitionReply is the answer for one partition.
type PartitionReply struct {
	Part          uint16
	Kind          ReplyKind
	Version       Version // given: what the asker holds from now on; not holding: of the copy kept, zero for none
	TransferredTo string  // not holding: the receiver of the last transfer, if there was one
	Promised      Ballot  // behind

	Content Content // buckets: none when the asker's version is not lower
	Next    uint32  // there are more buckets than fit: where to go on, see AskedPartition; 0 when these were the last

	Debts []Debt // not holding: what the answerer has spent by a share, to be charged by the node that begins to hold
}

// AcquireResponse answers an acquire request, for as many of the partitions, in order, as fit into a message. The others are to
// be asked for again.
type AcquireResponse struct {
	Heard uint64
	Known []string
	Parts []PartitionReply

	Lost []LostName // as in a pong
}

// Content is what a copy of a partition has in it, or a part of that.
type Content struct {
	Buckets []Image
	Marks   []DebtMark
}

// Image is a bucket as it travels: levels as of the moment of sending, and no timestamp.
type Image struct {
	Limiter string
	Key     string

	// Set has the limits, of which the first active ones are charged, and the levels' identities as they are stored:
	// never computed anew. It may be nil when there is nothing to say but that the bucket is full of tokens.
	Set *limit.Set

	Levels []float64 // one for each of the set; all zero, or none, says that the bucket is full of tokens

	Leases []limit.MovingLease // out at that moment: one for each set of limits
}

// DebtMark says which reports of a reporter have been charged to a partition.
type DebtMark struct {
	Member string
	Seq    uint64
}

// ReplicaPart is what a holder sends its standby of one partition.
type ReplicaPart struct {
	Part    uint16
	Version Version // of the holder, with everything up to this message in it
	Since   uint64  // the seq that the receiver must have; the content is what has changed since

	// Full says that the content is all of the partition, or the first, a further, or the last piece of all of it. since is
	// how many buckets the pieces before had then, so that none is missed or counted twice. The version, which is that
	// of this one attempt to send everything, counts with the last piece.
	Full        bool
	First, Last bool

	Content Content
}

type ReplicaRequest struct{ Parts []ReplicaPart }

// ReplicaStatus is what the standby says of one partition.
type ReplicaStatus uint8

const (
	ReplicaTaken   ReplicaStatus = 1 + iota // and is kept
	ReplicaRefused                          // a higher ballot was promised, or a higher version is there
	ReplicaHeld                             // the receiver itself is holding
	ReplicaMissing                          // it has not what the content builds on: send everything
	replicaStatusEnd
)

type ReplicaAck struct {
	Part     uint16
	Status   ReplicaStatus
	Promised Ballot // refused, held: at least this must be exceeded
}

type ReplicaResponse struct{ Parts []ReplicaAck }

// SettleRequest asks a holder whether copies are still needed.
type SettleRequest struct {
	By    string // the asker: the request may have been relayed
	Parts []SettlePart
}

type SettlePart struct {
	Part    uint16
	Version Version
}

// SettleResponse names the partitions whose holder's present standby, another node than the asker, has everything.
type SettleResponse struct{ Settled []uint16 }

// Debt charges a holder's buckets with what was spent elsewhere while it could not be asked.
type Debt struct {
	Member  string
	Part    uint16
	Seq     uint64 // higher than that of the reporter's last; the next one is sent when this one was answered
	Charges []Charge
}

type Charge struct {
	Rule []byte // encoded; see AppendRule
	Key  string
	Cost float64
}

// Relay asks a node to send a request on to another one, which the sender does not reach.
type Relay struct {
	To      string
	From    string // the asker; the receiver answers as if it had been asked directly
	Request []byte
}

// Full reports whether the image says that its bucket is full of tokens.
func (image *Image) Full() bool {
	if len(image.Leases) > 0 {
		return false
	}
	for _, level := range image.Levels {
		if level > 0 {
			return false
		}
	}
	return true
}

// State returns what the image says as the state of now. The set may not be nil.
func (image *Image) State(now int64) limit.State {
	s := limit.NewState(image.Set, now)
	for i, level := range image.Levels {
		s.SetLevel(i, level)
	}
	return s
}

// Size is about how much a charge takes when encoded.
func (c *Charge) Size() int { return len(c.Rule) + len(c.Key) + 16 }
