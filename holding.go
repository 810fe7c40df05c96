package peerlimit

import (
	"github.com/peerlimit/peerlimit/internal/wire"
	"math"
)

// Who decides about a partition. A node holds a partition while its copy is the authoritative one; at most one node
// decides in full at any moment, and a node that has lost touch with most of its witnesses is none (see reach). The
// only way to hold is to acquire, in a round: see acquire.go for the asking and handover.go for the answering side.
//
// This file has the rules for one partition at one node, as plain state: no locks, no clock, no I/O. Names in brackets
// are those of package internal/model, which checks the rules by search and shows what goes wrong without each.

// holding is what one node knows of one partition. It is guarded by the partition's mu. The zero value is that of a node
// that has never had to do with it.
type holding struct {
	// holds says that this node's copy is the authoritative one. It decides in full while its evidence is fresh as well;
	// when that lapses it holds no more [LapsedIsNotHolding].
	holds bool

	// lapsed says that this node was the last to hold, as far as it knows, and lost it only for want of evidence. Until
	// somebody else acquires, it decides for those in its reach by their share.
	lapsed bool

	// refused says that the standby refused a replica because of a higher promise or copy: the holder must acquire anew,
	// while it goes on deciding [RefusedHolderReacquires].
	refused bool

	// unreplicated says that replication is noStandby. It stands here because every take looks at it.
	unreplicated bool

	// unlisted says that changes are not noted for now: the standby gets everything, but not yet. See forgetChanges.
	unlisted bool

	// copy is the version of the buckets kept here, authoritative or not; zero when there is no copy.
	copy wire.Version

	// replication is what the standby has; of use while holds.
	replication replication

	// promised is the highest election that this node has answered with "not holding", or begun itself. It answers
	// "behind" to lower ones [Promise] and refuses their replicas [ReplicaPromise].
	promised wire.Ballot

	// gift is to whom the copy was given last, and in which of its rounds. It is sent again to a question of that round
	// only [GiftForOneRound], because the answer may have been lost.
	gift gift

	// attempt is this node's part of a round for the partition; nil when none is under way.
	attempt *attempt

	// taken counts the replicas that were taken: that one is here may be why another node has dropped its copy.
	taken uint64

	// marks are the reports that are charged in the copy: of each reporter the last. They travel with it.
	marks map[string]uint64
}

// gift says to whom a copy was given. The zero value stands for nobody.
type gift struct {
	to    string
	round wire.Ballot
}

// asked answers a question of a round, at once, in one of three ways. full says that this node's evidence is fresh.
//
// Whoever holds gives: it stops first [GivingStopsHolding], and the copy it sends has one more gift in its term
// [GiftRaisesTerm], so that the stale copy it keeps can never pass for it. Whoever does not hold promises the round,
// unless it has promised a higher one; that ends its own attempt and voids a gift [GiftVoidOnAnswer], of whose receiver
// it tells [AnswerNamesReceiver].
func (h *holding) asked(round wire.Ballot, full bool) wire.PartitionReply {
	if !full {
		h.lapse()
	}
	switch {
	case h.holds:
		h.stop()
		h.attempt = nil
		h.gift = gift{to: round.By, round: round}
		h.promise(round)
		return h.given()
	case h.gift.to != "" && h.gift.round == round:
		return h.given()
	case !round.Below(h.promised):
		h.promise(round)
		h.attempt, h.lapsed = nil, false
		a := wire.PartitionReply{Kind: wire.ReplyNotHolding, Version: h.copy, TransferredTo: h.gift.to}
		h.gift = gift{}
		return a
	}
	return wire.PartitionReply{Kind: wire.ReplyBehind, Promised: h.promised, TransferredTo: h.gift.to}
}

// given is the answer that gives the copy away.
func (h *holding) given() wire.PartitionReply {
	v := h.copy
	v.Transfers++
	v.Holder = h.gift.to
	return wire.PartitionReply{Kind: wire.ReplyTransferred, Version: v}
}

// promise remembers an election that was answered or begun.
func (h *holding) promise(e wire.Ballot) {
	if h.promised.Below(e) {
		h.promised = e
	}
}

// stop ends holding. The copy stays, as a replica.
func (h *holding) stop() {
	h.holds, h.lapsed, h.refused = false, false, false
	h.replicate(replication{})
}

// lapse is what missing evidence does: it ends holding [LapsedIsNotHolding], attempts [AcquireNeedsEvidence] and gifts
// [GiftVoidOnLapse]. It reports whether anything ended.
func (h *holding) lapse() (ended bool) {
	ended = h.holds || h.attempt != nil || h.gift.to != ""
	if h.holds {
		h.stop()
		h.lapsed = true
	}
	h.attempt, h.gift = nil, gift{}
	return ended
}

// begin starts an attempt in a round, whose election is above all this node has heard of. Its own gift is void from now
// on, and its receiver is to be asked like all others.
func (h *holding) begin(r *round) {
	h.refused = false
	h.attempt = &attempt{round: r}
	if h.gift.to != "" {
		r.index(h.gift.to)
		h.gift = gift{}
	}
	h.promise(r.election)
}

// hold makes this node the holder of the copy it has, under a version of its own. One that is worn it replaces soon.
func (h *holding) hold(v wire.Version) {
	h.holds, h.lapsed, h.refused = true, false, v.Worn()
	h.attempt, h.gift = nil, gift{}
	h.copy = v
	h.replicate(replication{})
	h.promise(v.Ballot)
}

// start is hold or, for a node that holds already, renew.
func (h *holding) start(v wire.Version) {
	if h.holds {
		h.renew(v)
	} else {
		h.hold(v)
	}
}

// renew ends the attempt of a node that held all the while: it raises its term, and its standby needs everything anew.
func (h *holding) renew(v wire.Version) {
	h.attempt, h.refused = nil, false
	h.copy = v
	h.replicate(replication{})
}

// abandon ends an attempt. A holder that was acquiring anew still has to.
func (h *holding) abandon() {
	h.attempt = nil
	h.refused = h.holds
}

// replica says whether a replica is taken, or why not: a node that holds takes none; nor does one that has promised a
// higher election to somebody else [ReplicaPromise], or has a version of a higher term [StaleReplicaRefused]. since is
// what the content builds on, when it is not all. To have more than that in the same term is as good, because the content
// has everything that has changed after it; but a message that was overtaken is no use, and then everything is asked for.
func (h *holding) replica(v wire.Version, full bool, since uint64) wire.ReplicaStatus {
	sameTerm := h.copy.SameTerm(v)
	switch {
	case h.holds:
		return wire.ReplicaHeld
	case v.Ballot.Below(h.promised) && h.promised.By != v.Holder, !sameTerm && v.Below(h.copy):
		return wire.ReplicaRefused
	case sameTerm && v.Seq < h.copy.Seq && h.copy.Seq-v.Seq > wire.SeqLeap:
		return wire.ReplicaRefused // the copy here is wrong, and only another term replaces it
	case v.Below(h.copy), !full && !(sameTerm && h.copy.Seq >= since):
		return wire.ReplicaMissing
	}
	return wire.ReplicaTaken
}

// takeReplica notes that a whole replica of that version is kept now.
func (h *holding) takeReplica(v wire.Version) {
	h.promise(v.Ballot)
	if h.attempt != nil && !v.Ballot.Below(h.attempt.round.election) {
		h.attempt = nil
	}
	h.copy, h.gift, h.lapsed = v, gift{}, false
	h.taken++
}

// replication is what a holder knows of its standby's replica. The zero value knows nothing: the standby needs everything.
type replication struct {
	acked    uint64            // the standby has everything up to this seq
	marks    map[string]uint64 // and these marks; never changed, so that it can be a copy's
	standby  string            // whom it is sent to; none when there is no other node, and nothing is
	complete bool              // it has had all of the partition in this term

	// again says that the standby needs everything, although it has had it: it has lost it, or is too far behind.
	again bool

	// pieces says that everything is on its way to the standby, in pieces.
	pieces bool
}

// needsAll reports whether everything is to be sent, and not just what has changed.
func (r *replication) needsAll() bool { return !r.complete || r.again }

// replicate begins replication anew, from what the standby is known to have.
func (h *holding) replicate(from replication) {
	h.replication, h.unreplicated = from, from.acked == noStandby.acked
}

// noStandby is what is known when there is no standby: whatever will be decided is as safe as it can be, and changes need not be
// noted.
var noStandby = replication{complete: true, acked: math.MaxUint64}

// outdo has a holder acquire anew, with an election above one that another node has promised or has a copy of
// [RefusedHolderReacquires].
func (h *holding) outdo(e wire.Ballot) {
	h.promise(e)
	h.refused = true
}

// setMarks makes these the marks of the copy.
func (h *holding) setMarks(marks []wire.DebtMark) {
	h.marks = nil
	if len(marks) > 0 {
		h.marks = make(map[string]uint64, len(marks))
		for _, mark := range marks {
			if mark.Seq <= wire.MaxDebtSeq { // a higher one would hide all reports to come
				h.marks[mark.Member] = mark.Seq
			}
		}
	}
}

// yield ends holding in favour of another holder. The copy stays, as a replica [HolderYields].
func (h *holding) yield() {
	h.stop()
	h.attempt = nil
}

// drop forgets the copy, which is safe with others. To whom it was given is remembered, to be named in answers
// [AnswerNamesReceiver], but it cannot be given again.
func (h *holding) drop() {
	h.copy, h.marks, h.lapsed = wire.Version{}, nil, false
	h.gift.round = wire.Ballot{}
}

// settled reports whether the standby has all that a copy of that version has, so that the copy can be dropped. What the
// holder has decided since is not in the copy, and does not matter for it.
func (h *holding) settled(v wire.Version) bool {
	if !h.holds || h.copy.Below(v) || !h.replication.complete {
		return false
	}
	return !v.SameTerm(h.copy) || v.Seq <= h.replication.acked
}

// repliesTo reports whether a standby's answer about a version is one to this holder as it is now.
func (h *holding) repliesTo(v wire.Version, standby string) bool {
	return h.holds && h.copy.SameTerm(v) && h.replication.standby == standby
}

// taken notes that the standby has taken a part, and with it these marks.
func (r *replication) taken(part *wire.ReplicaPart, marks map[string]uint64) {
	if part.Full && !part.Last {
		return
	}
	if part.Full {
		r.pieces = false
	}
	r.complete, r.acked, r.marks = true, max(r.acked, part.Version.Seq), marks
}

// maxMarks bounds the reporters that a partition remembers.
const maxMarks = 256

// mark notes a report as charged and reports whether it was not. When there are too many reporters, those that are not
// known any more are forgotten, and else whoever's report is oldest: it may be charged twice, which is the safe side.
func (h *holding) mark(reporter string, seq uint64, known func(string) bool) bool {
	old, ok := h.marks[reporter]
	if ok && old >= seq {
		return false
	}
	if h.marks == nil {
		h.marks = make(map[string]uint64)
	}
	h.marks[reporter] = seq
	if len(h.marks) <= maxMarks {
		return true
	}
	oldest := ""
	for name, mark := range h.marks {
		switch {
		case name == reporter:
		case !known(name):
			delete(h.marks, name)
		case oldest == "" || mark < h.marks[oldest]:
			oldest = name
		}
	}
	if len(h.marks) > maxMarks {
		delete(h.marks, oldest)
	}
	return true
}
