package store

import (
	"maps"

	"github.com/peerlimit/peerlimit/internal/holding"
	"github.com/peerlimit/peerlimit/internal/limit"
	"github.com/peerlimit/peerlimit/internal/wire"
)

// What a holder sends its standby, as plain state of the table: no I/O. A shipment is filled with what the standby lacks of one
// partition after another, and what it says to that is worked in afterwards. Nothing is lost when a shipment is:
// whatever was in it is to be sent again, as changes or as a whole.

const (
	// ShipmentBudget bounds the buckets in one message, in bytes. Together with the rest it is less than what a link's buffers
	// hold in any case.
	ShipmentBudget = 60 << 10

	// PieceBudget bounds what is taken from one partition for one message, in bytes, and pieceBuckets how many buckets.
	PieceBudget  = 48 << 10
	pieceBuckets = 1024

	// replicaOverhead is about what a partition costs in a message besides its buckets, and markSize what a mark does.
	replicaOverhead = 32
	markSize        = 16
)

// Shipment is one message to a standby, being filled or under way.
type Shipment struct {
	Request wire.ReplicaRequest
	sent    []sentPart // one for each part of the request
	room    int        // bytes left
	Changed int        // buckets in it because they have changed
	sets    map[*limit.Set]bool

	// Memory for what follows, used again by the next shipment.
	images  []wire.Image
	levels  []float64
	Message []byte
}

// sentPart is what is remembered of a part of a shipment until the standby has answered.
type sentPart struct {
	changed []*bucket         // what it was made from, if it has changes only
	marks   map[string]uint64 // what the standby has as marks if it has taken this
}

// Whole is a partition that is sent in pieces, in the order of its buckets. What is inserted meanwhile is sent as a
// change, and maybe with a piece as well.
type Whole struct {
	part    uint16
	version wire.Version
	begun   bool
	from    uint32 // where to go on; 0 again when all is sent
	sent    uint64 // how many buckets were

	// marks are those of the beginning. They go with the last piece: a report that comes meanwhile has marked them before
	// its charges are all with the standby, and is better charged twice than not at all.
	marks map[string]uint64
}

func NewShipment() *Shipment {
	return &Shipment{room: ShipmentBudget, sets: make(map[*limit.Set]bool)}
}

// Reset makes an empty shipment of one that was answered, or given up. It refers to no bucket any more.
func (s *Shipment) Reset() {
	clear(s.Request.Parts)
	clear(s.sent)
	clear(s.images)
	clear(s.sets)
	*s = Shipment{
		Request: wire.ReplicaRequest{Parts: s.Request.Parts[:0]}, sent: s.sent[:0], room: ShipmentBudget, sets: s.sets,
		images: s.images[:0], levels: s.levels[:0], Message: s.Message[:0],
	}
}

func (s *Shipment) Empty() bool { return len(s.sent) == 0 }

// size returns what a bucket takes in this message, at most.
func (s *Shipment) size(b *bucket) int { return s.sizeAfter(b, nil) }

// sizeAfter is size for a bucket that comes after one of a set.
func (s *Shipment) sizeAfter(b *bucket, last *limit.Set) int {
	size := imageOverhead + len(b.key()) + levelSize*b.Levels() + b.LeasesSize()
	if b.Set != last && !s.sets[b.Set] {
		size += imageOverhead + wire.MaxNameLen + limitSize*b.Levels()
	}
	return size
}

// add adds a part.
func (s *Shipment) add(part wire.ReplicaPart, sent sentPart) {
	s.Request.Parts, s.sent = append(s.Request.Parts, part), append(s.sent, sent)
	s.room -= replicaOverhead + markSize*len(part.Content.Marks)
}

// packed says what became of an attempt to put what a standby lacks into a shipment.
type packed uint8

const (
	packedAll   packed = iota // it is in there, or there was nothing to send
	packedPiece               // the first piece of it is, and the message is full
	PackedSome                // some of what has changed is, and the message is full: another one has the rest
	PackedLater               // nothing is, for want of room: another message has it
)

// Pack puts what the standby lacks of a partition into a shipment. A partition whose holder is going to acquire anew is put
// off: the standby would refuse it. The transfer is for the pieces that follow the first.
func (t *Table) Pack(s *Shipment, part uint16, standby string, now int64) (result packed, tr *Whole) {
	t.InSteps(part, func(p *Partition) (more bool) {
		if p.listAgain() {
			return true
		}
		result, tr = t.packChanged(s, part, p, standby, now)
		return tr != nil && p.Holding.Unlisted // the list was long: nothing can be sent yet
	})
	if tr == nil {
		return result, nil
	}
	if !t.PackNext(s, tr, standby, now) {
		tr = nil
	}
	return result, tr
}

// packChanged puts what has changed into a shipment, or begins a transfer of everything. The caller holds p.mu.
func (t *Table) packChanged(s *Shipment, part uint16, p *Partition, standby string, now int64) (packed, *Whole) {
	h := &p.Holding
	if !h.Holds {
		return packedAll, nil
	}
	if h.Challenged || h.Attempt != nil {
		t.MarkChanged(part)
		return packedAll, nil
	}
	r := &h.Replication
	if r.Standby != standby {
		h.Replicate(holding.Replication{Standby: standby})
	}
	if r.NeedsAll() {
		return t.beginAll(s, part, p)
	}
	if len(p.dirty) == 0 && maps.Equal(r.DebtMarks, h.DebtMarks) {
		return packedAll, nil
	}
	size, count := 0, 0
	var last *limit.Set
	for _, b := range p.dirty {
		more := s.sizeAfter(b, last)
		if count > 0 && (size+more > t.piece || count == pieceBuckets) {
			break
		}
		size, count, last = size+more, count+1, b.Set
	}
	switch {
	case size > s.room && !s.Empty():
		return PackedLater, nil
	case count < len(p.dirty):
		t.packSome(s, part, p, count, now)
		return PackedSome, nil
	}
	t.packChanges(s, part, p, now)
	return packedAll, nil
}

// packChanges puts all changes of a partition into a shipment. The caller holds p.mu.
func (t *Table) packChanges(s *Shipment, part uint16, p *Partition, now int64) {
	h := &p.Holding
	sent := sentPart{changed: p.dirty, marks: h.Replication.DebtMarks}
	var content wire.Content
	if !maps.Equal(sent.marks, h.DebtMarks) {
		sent.marks, content.Marks = maps.Clone(h.DebtMarks), markList(h.DebtMarks)
	}
	content.Buckets = t.packBuckets(s, p, p.dirty, now)
	p.dirty, p.spare = p.spare, nil
	s.add(wire.ReplicaPart{Part: part, Version: h.Copy, Since: h.Replication.Acked, Content: content}, sent)
}

// packSome puts the first changes of a partition into a shipment, where all are too many. They have the version that the
// standby has acknowledged: its copy then contains more than that, and those that follow, the last of them with the holder's
// version, build on the same. The caller holds p.mu.
func (t *Table) packSome(s *Shipment, part uint16, p *Partition, count int, now int64) {
	h := &p.Holding
	v := h.Copy
	v.Seq = h.Replication.Acked
	sent := sentPart{changed: p.dirty[:count:count], marks: h.Replication.DebtMarks}
	content := wire.Content{Buckets: t.packBuckets(s, p, sent.changed, now)}
	p.dirty = p.dirty[count:]
	s.add(wire.ReplicaPart{Part: part, Version: v, Since: v.Seq, Content: content}, sent)
	t.MarkChanged(part)
}

// packBuckets packs buckets that are listed as changed, and are not any more. The caller holds p.mu.
func (t *Table) packBuckets(s *Shipment, p *Partition, changed []*bucket, now int64) []wire.Image {
	Probe.touch(len(changed))
	images := wire.RoomIn(&s.images, len(changed))
	for _, b := range changed {
		b.dirty = false
		images = append(images, t.packBucket(s, p, b, now))
	}
	s.Changed += len(changed)
	return images
}

// packBucket returns what there is now under the name of a bucket, and counts its size. That can be another bucket, or
// none: the one that has changed may have been dropped since.
func (t *Table) packBucket(s *Shipment, p *Partition, b *bucket, now int64) wire.Image {
	current := b
	if b.home == nowhere {
		name := b.name()
		current = p.buckets.find(name.Hash(t.seed), name)
	}
	if current == nil {
		s.room -= imageOverhead + len(b.key())
		return wire.Image{Limiter: b.Set.Name.Text, Key: b.key()}
	}
	t.leased(current, now)
	s.room -= s.size(current)
	s.sets[current.Set] = true
	count := current.Levels()
	return current.image(wire.RoomIn(&s.levels, count)[:count], now)
}

// beginAll begins to put all of a partition into a shipment that has room for the first piece. What changes from now on
// follows as changes. The caller holds p.mu.
//
// The seq is raised, so that no message of an earlier attempt can pass for one of this. All pieces have that version, and
// may contain more than that: a bucket that changes before its piece is sent. It is sent again, as a change.
func (t *Table) beginAll(s *Shipment, part uint16, p *Partition) (packed, *Whole) {
	if s.room < t.piece && !s.Empty() {
		return PackedLater, nil
	}
	h := &p.Holding
	h.Replication.ResendAll, h.Replication.InPieces = false, true
	h.Copy.Seq++
	p.forgetChanges()
	return packedPiece, &Whole{part: part, version: h.Copy, marks: maps.Clone(h.DebtMarks)}
}

// PackNext puts the next piece of a transfer into a shipment that has room for it. It reports whether there are more; when
// it has put nothing in, the transfer has come to an end before its time.
func (t *Table) PackNext(s *Shipment, tr *Whole, standby string, now int64) (more bool) {
	piece := wire.ReplicaPart{Part: tr.part, Version: tr.version, Since: tr.sent, Full: true, First: !tr.begun}
	size, whole := 0, false // whole says that the piece is
	t.InSteps(tr.part, func(p *Partition) (more bool) {
		if h := &p.Holding; !h.RepliesTo(tr.version, standby) || h.Challenged || h.Replication.ResendAll {
			h.Replication.InPieces = false
			t.MarkChanged(tr.part)
			whole = false
			return false
		}
		looks := 0
		tr.from = p.buckets.inOrder(tr.from, func(_ uint64, b *bucket) bool {
			if looks++; looks > stepLooks {
				return false
			}
			if t.leased(b, now); b.Drained(now) {
				return true
			}
			n := len(piece.Content.Buckets)
			if size += s.size(b); n > 0 && (size > t.piece || n == pieceBuckets) {
				whole = true
				return false
			}
			piece.Content.Buckets = append(piece.Content.Buckets, t.packBucket(s, p, b, now))
			return true
		})
		whole = whole || tr.from == 0
		return !whole
	})
	if !whole {
		return false
	}
	tr.begun, tr.sent = true, tr.sent+uint64(len(piece.Content.Buckets))
	if piece.Last = tr.from == 0; piece.Last {
		piece.Content.Marks = markList(tr.marks)
	}
	s.add(piece, sentPart{marks: tr.marks})
	return !piece.Last
}

// Delivered works in what a standby has said to the i-th part of a shipment; a status of 0 stands for no answer. isOwner
// says that this node's ring names the standby as the owner. refused reports that the partition must be acquired anew, and
// yielded that this node holds it no longer.
func (t *Table) Delivered(s *Shipment, i int, standby string, ack wire.ReplicaAck, isOwner bool, now int64) (refused, yielded bool) {
	part, sent := &s.Request.Parts[i], &s.sent[i]
	p := t.Lock(part.Part)
	defer p.Unlock()
	h := &p.Holding
	if !h.RepliesTo(part.Version, standby) {
		return false, false
	}
	status := ack.Status
	if status == wire.ReplicaTaken && !p.Decides(now) {
		status = 0 // it counts only while quorum is fresh
	}
	switch {
	case status == wire.ReplicaTaken:
		h.Replication.Acknowledged(part, sent.marks)
		p.reuse(sent.changed)
		return false, false
	case status == wire.ReplicaHeld && isOwner:
		h.Yield()
		return false, true
	case status == wire.ReplicaHeld, status == wire.ReplicaRefused:
		h.ReacquireAbove(ack.Promised)
		refused = true
	case status == wire.ReplicaMissing:
		h.Replication.Complete = false // until the standby has taken everything anew, nobody drops a copy on its account
	}
	t.sendAgain(part.Part, p, sent.changed, part.Full || status == wire.ReplicaMissing)
	return refused, false
}

// sendAgain has changes sent again that the standby may not have, or all of the partition. The caller holds p.mu.
func (t *Table) sendAgain(part uint16, p *Partition, changed []*bucket, all bool) {
	r := &p.Holding.Replication
	if all {
		r.ResendAll, r.InPieces = true, false
	}
	for _, b := range changed {
		if !b.dirty && !p.Holding.Unlisted {
			b.dirty = true
			p.dirty = append(p.dirty, b)
		}
	}
	t.MarkChanged(part)
}

// reusable is how long a list of changes may be to be kept for the next ones: no take allocates, and no partition keeps
// much memory. It is what append makes of one for 128.
const reusable = 144

// reuse keeps a list's memory. The caller holds p.mu.
func (p *Partition) reuse(changed []*bucket) {
	if cap(changed) > cap(p.spare) && cap(changed) <= reusable {
		clear(changed)
		p.spare = changed[:0]
	}
}

// BoundChanges gives up the list of a partition's changes when it has become longer than what there is to change: those
// that were dropped meanwhile are in it, too. Everything is sent when the standby takes something again.
func (t *Table) BoundChanges(part uint16) {
	p := t.Lock(part)
	defer p.Unlock()
	if len(p.dirty) > 2*int(p.buckets.used)+reusable {
		p.forgetChanges()
		p.Holding.Replication.ResendAll = true
	}
}

// NobodyToSendTo notes that a partition has no standby.
func (t *Table) NobodyToSendTo(part uint16) {
	if !t.Holds(part) {
		return
	}
	p := t.Lock(part)
	defer p.Unlock()
	if p.Holding.Holds {
		p.Holding.Replicate(holding.NoStandby)
		p.forgetChanges()
	}
}

// Lacks reports whether a standby has not had all of a partition that this node holds.
func (t *Table) Lacks(part uint16, standby string) bool {
	if !t.Holds(part) {
		return false
	}
	p := t.Lock(part)
	defer p.Unlock()
	h := &p.Holding
	return h.Holds && (h.Replication.Standby != standby || h.Replication.NeedsAll())
}

// markList returns marks as they travel.
func markList(marks map[string]uint64) []wire.DebtMark {
	list := make([]wire.DebtMark, 0, len(marks))
	for reporter, seq := range marks {
		list = append(list, wire.DebtMark{Member: reporter, Seq: seq})
	}
	return list
}

// RepeatReplica has all of a partition sent to its standby again. A holder that its ring does not name does so from time to time:
// the standby is then the owner, which should have acquired. If it holds as well, because two clusters have met, that is how
// they find out [UnnamedHolderRepeats].
func (t *Table) RepeatReplica(part uint16) {
	p := t.Lock(part)
	defer p.Unlock()
	if r := &p.Holding.Replication; !r.InPieces { // or what takes longer than that would never be all sent
		r.ResendAll = true
		t.MarkChanged(part)
	}
}

// StandbySoFar returns the standby that has had something of a partition in this term, or "".
func (t *Table) StandbySoFar(part uint16) string {
	p := t.Lock(part)
	defer p.Unlock()
	return p.Holding.Replication.Standby
}
