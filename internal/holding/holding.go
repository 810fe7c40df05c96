package holding

import (
	"math"

	"github.com/peerlimit/peerlimit/internal/wire"
)

// A node holds a partition while its copy is the authoritative one; at most one node
// decides in full at any moment, and a node that has lost touch with most of its witnesses is none (see reach). The
// only way to hold is to acquire, in a round: see acquire.go for the asking and handover.go for the answering side.
//
// This file has the rules for one partition at one node, as plain state: no locks, no clock, no I/O. Names in brackets
// are those of package internal/model, which checks the rules by search and shows what goes wrong without each.

// Holding is what one node knows of one partition. It is guarded by the partition's mu. The zero value is that of a node
// that has never had to do with it.
type Holding struct {
	// Holds says that this node's copy is the authoritative one. It decides in full while its quorum is fresh as well;
	// when that lapses it holds no more [LapsedIsNotHolding].
	Holds bool

	// Lapsed says that this node was the last to hold, as far as it knows, and lost it only for want of quorum. Until
	// somebody else acquires, it decides for those in its reach by their share.
	Lapsed bool

	// Challenged says that the standby refused a replica because of a higher promise or copy: the holder must acquire anew,
	// while it goes on deciding [RefusedHolderReacquires].
	Challenged bool

	// Unreplicated says that replication is NoStandby. It stands here because every take looks at it.
	Unreplicated bool

	// Unlisted says that changes are not noted for now: the standby gets everything, but not yet. See forgetChanges.
	Unlisted bool

	// Copy is the version of the buckets kept here, authoritative or not; zero when there is no copy.
	Copy wire.Version

	// Replication is what the standby has; of use while holds.
	Replication Replication

	// Promised is the highest ballot that this node has answered with "not holding", or begun itself. It answers
	// "behind" to lower ones [Promise] and refuses their replicas [ReplicaPromise].
	Promised wire.Ballot

	// Transfer names the receiver of the last transfer, and its round. The copy is sent again to a request of that round
	// only [TransferForOneRound], because the answer may have been lost.
	Transfer Transfer

	// Attempt is this node's part of a round for the partition; nil when none is under way.
	Attempt *Attempt

	// ReplicasAccepted counts the replicas that were taken: that one is here may be why another node has dropped its copy.
	ReplicasAccepted uint64

	// DebtMarks are the reports that are charged in the copy: of each reporter the last. They travel with it.
	DebtMarks map[string]uint64
}

// Transfer names the receiver of a copy. The zero value names none.
type Transfer struct {
	To     string
	Ballot wire.Ballot
}

// Answer answers a request of a round, immediately, in one of three ways. full says that this node's quorum is fresh.
//
// A node that holds transfers: it stops first [GivingStopsHolding], and the copy it sends has one more transfer in its term
// [TransferRaisesTerm], so that the stale copy it keeps can never pass for it. A node that does not hold promises the round,
// unless it has promised a higher one; that ends its own attempt and voids a transfer [TransferVoidOnResponse], of whose receiver
// it tells [ResponseNamesReceiver].
func (h *Holding) Answer(round wire.Ballot, full bool) wire.PartitionReply {
	if !full {
		h.Lapse()
	}
	switch {
	case h.Holds:
		h.stop()
		h.Attempt = nil
		h.Transfer = Transfer{To: round.By, Ballot: round}
		h.Promise(round)
		return h.given()
	case h.Transfer.To != "" && h.Transfer.Ballot == round:
		return h.given()
	case !round.Below(h.Promised):
		h.Promise(round)
		h.Attempt, h.Lapsed = nil, false
		a := wire.PartitionReply{Kind: wire.ReplyNotHolding, Version: h.Copy, TransferredTo: h.Transfer.To}
		h.Transfer = Transfer{}
		return a
	}
	return wire.PartitionReply{Kind: wire.ReplyBehind, Promised: h.Promised, TransferredTo: h.Transfer.To}
}

// given is the answer that gives the copy away.
func (h *Holding) given() wire.PartitionReply {
	v := h.Copy
	v.Transfers++
	v.Holder = h.Transfer.To
	return wire.PartitionReply{Kind: wire.ReplyTransferred, Version: v}
}

// Promise remembers a ballot that was answered or begun.
func (h *Holding) Promise(e wire.Ballot) {
	if h.Promised.Below(e) {
		h.Promised = e
	}
}

// stop ends holding. The copy stays, as a replica.
func (h *Holding) stop() {
	h.Holds, h.Lapsed, h.Challenged = false, false, false
	h.Replicate(Replication{})
}

// Lapse is what missing quorum does: it ends holding [LapsedIsNotHolding], attempts [AcquireNeedsQuorum] and transfers
// [TransferVoidOnLapse]. It reports whether anything ended.
func (h *Holding) Lapse() (ended bool) {
	ended = h.Holds || h.Attempt != nil || h.Transfer.To != ""
	if h.Holds {
		h.stop()
		h.Lapsed = true
	}
	h.Attempt, h.Transfer = nil, Transfer{}
	return ended
}

// Begin starts an attempt in a round, whose ballot is above all this node has heard of. Its own transfer is void from now
// on, and its receiver is to be asked like all others.
func (h *Holding) Begin(r *Round) {
	h.Challenged = false
	h.Attempt = &Attempt{Round: r}
	if h.Transfer.To != "" {
		r.Index(h.Transfer.To)
		h.Transfer = Transfer{}
	}
	h.Promise(r.Ballot)
}

// Hold makes this node the holder of the copy it has, under a version of its own. One that is worn it replaces soon.
func (h *Holding) Hold(v wire.Version) {
	h.Holds, h.Lapsed, h.Challenged = true, false, v.Worn()
	h.Attempt, h.Transfer = nil, Transfer{}
	h.Copy = v
	h.Replicate(Replication{})
	h.Promise(v.Ballot)
}

// Start is hold or, for a node that holds already, renew.
func (h *Holding) Start(v wire.Version) {
	if h.Holds {
		h.Renew(v)
	} else {
		h.Hold(v)
	}
}

// Renew ends the attempt of a node that held all the while: it raises its term, and its standby needs everything anew.
func (h *Holding) Renew(v wire.Version) {
	h.Attempt, h.Challenged = nil, false
	h.Copy = v
	h.Replicate(Replication{})
}

// Abandon ends an attempt. A holder that was acquiring anew still has to.
func (h *Holding) Abandon() {
	h.Attempt = nil
	h.Challenged = h.Holds
}

// CheckReplica says whether a replica is taken, or why not: a node that holds takes none; nor does one that has promised a
// higher ballot to somebody else [ReplicaPromise], or has a version of a higher term [StaleReplicaRefused]. since is
// what the content builds on, when it is not all. To have more than that in the same term is as good, because the content
// has everything that has changed after it; but a message that was overtaken is no use, and then everything is asked for.
func (h *Holding) CheckReplica(v wire.Version, full bool, since uint64) wire.ReplicaStatus {
	sameTerm := h.Copy.SameTerm(v)
	switch {
	case h.Holds:
		return wire.ReplicaHeld
	case v.Ballot.Below(h.Promised) && h.Promised.By != v.Holder, !sameTerm && v.Below(h.Copy):
		return wire.ReplicaRefused
	case sameTerm && v.Seq < h.Copy.Seq && h.Copy.Seq-v.Seq > wire.SeqLeap:
		return wire.ReplicaRefused // the copy here is wrong, and only another term replaces it
	case v.Below(h.Copy), !full && !(sameTerm && h.Copy.Seq >= since):
		return wire.ReplicaMissing
	}
	return wire.ReplicaTaken
}

// AcceptReplica notes that a whole replica of that version is kept now.
func (h *Holding) AcceptReplica(v wire.Version) {
	h.Promise(v.Ballot)
	if h.Attempt != nil && !v.Ballot.Below(h.Attempt.Round.Ballot) {
		h.Attempt = nil
	}
	h.Copy, h.Transfer, h.Lapsed = v, Transfer{}, false
	h.ReplicasAccepted++
}

// Replication is what a holder knows of its standby's replica. The zero value knows nothing: the standby needs everything.
type Replication struct {
	Acked     uint64            // the standby has everything up to this seq
	DebtMarks map[string]uint64 // and these marks; never changed, so that it can be a copy's
	Standby   string            // the member it is sent to; none when there is no other node, and nothing is sent
	Complete  bool              // it has had all of the partition in this term

	// ResendAll says that the standby needs everything, although it has had it: it has lost it, or is too far behind.
	ResendAll bool

	// InPieces says that everything is on its way to the standby, in pieces.
	InPieces bool
}

// NeedsAll reports whether everything is to be sent, and not just what has changed.
func (r *Replication) NeedsAll() bool { return !r.Complete || r.ResendAll }

// Replicate begins replication anew, from what the standby is known to have.
func (h *Holding) Replicate(from Replication) {
	h.Replication, h.Unreplicated = from, from.Acked == NoStandby.Acked
}

// NoStandby is what is known when there is no standby: whatever will be decided is as safe as it can be, and changes need not be
// noted.
var NoStandby = Replication{Complete: true, Acked: math.MaxUint64}

// ReacquireAbove has a holder acquire anew, with a ballot above one that another node has promised or has a copy of
// [RefusedHolderReacquires].
func (h *Holding) ReacquireAbove(e wire.Ballot) {
	h.Promise(e)
	h.Challenged = true
}

// SetMarks makes these the marks of the copy.
func (h *Holding) SetMarks(marks []wire.DebtMark) {
	h.DebtMarks = nil
	if len(marks) > 0 {
		h.DebtMarks = make(map[string]uint64, len(marks))
		for _, mark := range marks {
			if mark.Seq <= wire.MaxDebtSeq { // a higher one would hide all reports to come
				h.DebtMarks[mark.Member] = mark.Seq
			}
		}
	}
}

// Yield ends holding in favour of another holder. The copy stays, as a replica [HolderYields].
func (h *Holding) Yield() {
	h.stop()
	h.Attempt = nil
}

// Drop forgets the copy, which is safe with others. The receiver is remembered, to be named in responses
// [ResponseNamesReceiver], but it cannot be given again.
func (h *Holding) Drop() {
	h.Copy, h.DebtMarks, h.Lapsed = wire.Version{}, nil, false
	h.Transfer.Ballot = wire.Ballot{}
}

// SafeToDrop reports whether the standby has all that a copy of that version has, so that the copy can be dropped. What the
// holder has decided since is not in the copy, and does not matter for it.
func (h *Holding) SafeToDrop(v wire.Version) bool {
	if !h.Holds || h.Copy.Below(v) || !h.Replication.Complete {
		return false
	}
	return !v.SameTerm(h.Copy) || v.Seq <= h.Replication.Acked
}

// RepliesTo reports whether a standby's answer about a version is one to this holder as it is now.
func (h *Holding) RepliesTo(v wire.Version, standby string) bool {
	return h.Holds && h.Copy.SameTerm(v) && h.Replication.Standby == standby
}

// Acknowledged notes that the standby has taken a part, and with it these marks.
func (r *Replication) Acknowledged(part *wire.ReplicaPart, marks map[string]uint64) {
	if part.Full && !part.Last {
		return
	}
	if part.Full {
		r.InPieces = false
	}
	r.Complete, r.Acked, r.DebtMarks = true, max(r.Acked, part.Version.Seq), marks
}

// maxMarks bounds the reporters that a partition remembers.
const maxMarks = 256

// MarkDebt notes a report as charged and reports whether it was not. When there are too many reporters, those that are not
// known any more are forgotten, and else the one with the oldest debt: it may be charged twice, which is the safe side.
func (h *Holding) MarkDebt(reporter string, seq uint64, known func(string) bool) bool {
	old, ok := h.DebtMarks[reporter]
	if ok && old >= seq {
		return false
	}
	if h.DebtMarks == nil {
		h.DebtMarks = make(map[string]uint64)
	}
	h.DebtMarks[reporter] = seq
	if len(h.DebtMarks) <= maxMarks {
		return true
	}
	oldest := ""
	for name, mark := range h.DebtMarks {
		switch {
		case name == reporter:
		case !known(name):
			delete(h.DebtMarks, name)
		case oldest == "" || mark < h.DebtMarks[oldest]:
			oldest = name
		}
	}
	if len(h.DebtMarks) > maxMarks {
		delete(h.DebtMarks, oldest)
	}
	return true
}
