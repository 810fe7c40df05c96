package wire

import (
	"math"
	"slices"
	"time"

	"github.com/peerlimit/peerlimit/internal/limit"
	"github.com/peerlimit/peerlimit/internal/ring"
)

// The messages of control.go as bytes; wirefields.go says what they are made of. Answers begin with StatusDone, or are
// StatusRefused and nothing more, which decodes to ErrRefused; any other error of a decoder matches ErrMalformed.
//
// What is decoded shares no memory with the bytes it was decoded from. Keys and charged rules of one message share memory
// with each other: a caller that keeps one keeps a copy.

func AppendPing(b []byte, p *Ping) []byte {
	w := beginControl(b, byte(KindPing))
	w.uvarint(p.Heard)
	w.digest(p.Digest)
	if p.Panel.Number != 0 {
		w.panelID(p.Panel)
	}
	return w.end()
}

func DecodePing(b []byte) (Ping, error) {
	r := readControl(b, KindPing, nil)
	p := Ping{Heard: r.uvarint(), Digest: r.digest()}
	if len(r.b) > 0 {
		p.Panel = r.panelID()
	}
	return decoded(&r, "ping", p)
}

// The flags of a pong.
const (
	pongRefused = 1 << iota
	pongHasQuorum
)

func AppendPong(b []byte, p *Pong) []byte {
	w := beginControl(b, byte(StatusDone))
	w.byte(pongRefused*BoolByte(p.Refused) | pongHasQuorum*BoolByte(p.HasQuorum))
	w.uvarint(p.Heard)
	w.digest(p.Digest)
	w.nameList(p.Known)
	w.nameList(p.Silent)
	if p.Panel.ID.Number != 0 || len(p.Lost) > 0 {
		w.panelWord(&p.Panel)
		w.lostNames(p.Lost)
	}
	return w.end()
}

func DecodePong(b []byte) (Pong, error) {
	r := readControlAnswer(b, nil)
	flags := r.byte()
	p := Pong{
		Refused: flags&pongRefused != 0, HasQuorum: flags&pongHasQuorum != 0, Heard: r.uvarint(), Digest: r.digest(),
		Known: r.nameList(), Silent: r.nameList(),
	}
	if len(r.b) > 0 {
		p.Panel = r.panelWord()
	}
	p.Lost = r.lostNames()
	return decoded(&r, "pong", p)
}

func AppendVerdictRequest(b []byte, q *VerdictRequest) []byte {
	w := beginControl(b, byte(KindVerdict))
	w.uvarint(q.Heard)
	w.nameList(q.Names)
	return w.end()
}

func DecodeVerdictRequest(b []byte) (VerdictRequest, error) {
	r := readControl(b, KindVerdict, nil)
	q := VerdictRequest{Heard: r.uvarint(), Names: r.nameList()}
	return decoded(&r, "verdict request", q)
}

func AppendVerdict(b []byte, v *Verdict) []byte {
	w := beginControl(b, byte(StatusDone))
	w.uvarint(v.Heard)
	w.nameList(v.Silent)
	return w.end()
}

func DecodeVerdict(b []byte) (Verdict, error) {
	r := readControlAnswer(b, nil)
	v := Verdict{Heard: r.uvarint(), Silent: r.nameList()}
	return decoded(&r, "verdict", v)
}

func AppendAcquireRequest(b []byte, q *AcquireRequest) []byte {
	w := beginControl(b, byte(KindAcquire))
	w.ballot(q.Ballot)
	w.nameList(q.Known)
	w.count(len(q.Parts))
	for i := range q.Parts {
		p := &q.Parts[i]
		begin := w.beginRecord()
		w.partition(p.Part)
		w.version(p.Have)
		w.uvarint(uint64(p.From))
		w.endRecord(begin)
	}
	w.lostNames(q.Lost)
	return w.end()
}

func DecodeAcquireRequest(b []byte) (AcquireRequest, error) {
	r := readControl(b, KindAcquire, nil)
	q := AcquireRequest{Ballot: r.ballot(), Known: r.nameList()}
	q.Parts = readList(&r, ring.Partitions, 3, func() AskedPartition {
		return AskedPartition{Part: r.partition(), Have: r.version(), From: r.uint32()}
	})
	q.Lost = r.lostNames()
	return decoded(&r, "acquire request", q)
}

func AppendAcquireResponse(b []byte, a *AcquireResponse) []byte {
	w := beginControl(b, byte(StatusDone))
	w.uvarint(a.Heard)
	w.nameList(a.Known)
	w.count(len(a.Parts))
	for i := range a.Parts {
		p := &a.Parts[i]
		begin := w.beginRecord()
		w.partition(p.Part)
		w.byte(byte(p.Kind))
		w.version(p.Version)
		w.name(p.TransferredTo)
		w.ballot(p.Promised)
		w.content(&p.Content)
		w.uvarint(uint64(p.Next))
		w.reports(p.Debts)
		w.endRecord(begin)
	}
	w.lostNames(a.Lost)
	return w.end()
}

func DecodeAcquireResponse(b []byte, plain plainSet) (AcquireResponse, error) {
	r := readControlAnswer(slices.Clone(b), plain)
	a := AcquireResponse{Heard: r.uvarint(), Known: r.nameList()}
	a.Parts = readList(&r, ring.Partitions, 9, func() PartitionReply {
		p := PartitionReply{
			Part: r.partition(), Kind: ReplyKind(r.byte()), Version: r.version(), TransferredTo: r.name(),
			Promised: r.ballot(), Content: r.content(), Next: r.uint32(),
		}
		p.Debts = r.reports(p.Part)
		if p.Kind == 0 || p.Kind >= replyKindEnd {
			r.fail()
		}
		return p
	})
	a.Lost = r.lostNames()
	return decoded(&r, "response to an acquire request", a)
}

// lostNames puts a list at the end of a message, where there is none when there is nothing to say.
func (w *controlWriter) lostNames(lost []LostName) {
	if len(lost) == 0 {
		return
	}
	w.count(len(lost))
	for _, l := range lost {
		begin := w.beginRecord()
		w.name(l.Name)
		w.uvarint(uint64(min(max(0, l.For.Milliseconds()), math.MaxUint32)))
		w.endRecord(begin)
	}
}

// lostNames reads a list that lostNames has written.
func (r *controlReader) lostNames() []LostName {
	if len(r.b) == 0 {
		return nil
	}
	return readList(r, ring.MaxMembers, 2, func() LostName {
		return LostName{Name: r.someName(), For: time.Duration(r.uint32()) * time.Millisecond}
	})
}

// What a ReplicaPart says yes to, as bits of one byte.
const (
	replicaFull = 1 << iota
	replicaFirst
	replicaLast
)

func AppendReplicaRequest(b []byte, q *ReplicaRequest) []byte {
	w := beginControl(b, byte(KindReplica))
	w.count(len(q.Parts))
	for i := range q.Parts {
		p := &q.Parts[i]
		begin := w.beginRecord()
		w.partition(p.Part)
		w.version(p.Version)
		w.uvarint(p.Since)
		w.byte(replicaFull*BoolByte(p.Full) | replicaFirst*BoolByte(p.First) | replicaLast*BoolByte(p.Last))
		w.content(&p.Content)
		w.endRecord(begin)
	}
	return w.end()
}

// ReplicaMemory is what a replica is read into that a standby gets fifty times a second: the message, and all that is decoded
// from it, which is worthless when the memory is used again.
type ReplicaMemory struct {
	Message []byte
	Parts   []ReplicaPart
	images  []Image
	levels  []float64
}

// Decode decodes the message in m. A caller that keeps anything of it keeps m from being used again.
func (m *ReplicaMemory) Decode(plain plainSet) (ReplicaRequest, error) {
	r := readControl(m.Message, KindReplica, plain)
	r.images, r.levels = m.images[:0], m.levels[:0]
	if n := r.listLen(ring.Partitions, 7); n > 0 {
		m.Parts = fillList(&r, slices.Grow(m.Parts[:0], n), n, func() ReplicaPart {
			p := ReplicaPart{Part: r.partition(), Version: r.version(), Since: r.uvarint()}
			flags := r.byte()
			p.Full, p.First, p.Last = flags&replicaFull != 0, flags&replicaFirst != 0, flags&replicaLast != 0
			p.Content = r.content()
			return p
		})
	} else {
		m.Parts = nil
	}
	m.images, m.levels = r.images, r.levels
	return decoded(&r, "replica", ReplicaRequest{m.Parts})
}

func AppendReplicaResponse(b []byte, a *ReplicaResponse) []byte {
	w := beginControl(b, byte(StatusDone))
	w.count(len(a.Parts))
	for _, p := range a.Parts {
		begin := w.beginRecord()
		w.partition(p.Part)
		w.byte(byte(p.Status))
		w.ballot(p.Promised)
		w.endRecord(begin)
	}
	return w.end()
}

func DecodeReplicaResponse(b []byte) (ReplicaResponse, error) {
	r := readControlAnswer(b, nil)
	parts := readList(&r, ring.Partitions, 4, func() ReplicaAck {
		p := ReplicaAck{Part: r.partition(), Status: ReplicaStatus(r.byte()), Promised: r.ballot()}
		if p.Status == 0 || p.Status >= replicaStatusEnd {
			r.fail()
		}
		return p
	})
	return decoded(&r, "answer to a replica", ReplicaResponse{parts})
}

func AppendSettleRequest(b []byte, q *SettleRequest) []byte {
	w := beginControl(b, byte(KindSettle))
	w.name(q.By)
	w.count(len(q.Parts))
	for i := range q.Parts {
		begin := w.beginRecord()
		w.partition(q.Parts[i].Part)
		w.version(q.Parts[i].Version)
		w.endRecord(begin)
	}
	return w.end()
}

func DecodeSettleRequest(b []byte) (SettleRequest, error) {
	r := readControl(b, KindSettle, nil)
	q := SettleRequest{By: r.someName()}
	q.Parts = readList(&r, ring.Partitions, 2, func() SettlePart {
		return SettlePart{Part: r.partition(), Version: r.version()}
	})
	return decoded(&r, "settle request", q)
}

func AppendSettleResponse(b []byte, a *SettleResponse) []byte {
	w := beginControl(b, byte(StatusDone))
	w.count(len(a.Settled))
	for _, part := range a.Settled {
		w.partition(part)
	}
	return w.end()
}

func DecodeSettleResponse(b []byte) (SettleResponse, error) {
	r := readControlAnswer(b, nil)
	var a SettleResponse
	if n := r.listLen(ring.Partitions, 1); n > 0 {
		a.Settled = make([]uint16, n)
	}
	for i := range a.Settled {
		a.Settled[i] = r.partition()
	}
	return decoded(&r, "answer to a settle request", a)
}

// AppendDebt encodes a report. A charge's rule is 0 and its bytes the first time, and after that its number among
// the rules so far, from 1. A report is answered with StatusDone or StatusRefused by AppendResponse.
func AppendDebt(b []byte, q *Debt) []byte {
	w := beginControl(b, byte(KindDebt))
	w.name(q.Member)
	w.partition(q.Part)
	w.uvarint(q.Seq)
	w.charges(q.Charges)
	return w.end()
}

// reports puts a list at the end of a record, where there is none when there is nothing to say.
func (w *controlWriter) reports(reports []Debt) {
	if len(reports) == 0 {
		return
	}
	w.count(len(reports))
	for i := range reports {
		begin := w.beginRecord()
		w.name(reports[i].Member)
		w.uvarint(reports[i].Seq)
		w.charges(reports[i].Charges)
		w.endRecord(begin)
	}
}

func (w *controlWriter) charges(charges []Charge) {
	w.count(len(charges))
	rules := make(map[string]uint64)
	for i := range charges {
		c := &charges[i]
		begin := w.beginRecord()
		index := rules[string(c.Rule)]
		w.uvarint(index)
		if index == 0 {
			rules[string(c.Rule)] = uint64(len(rules)) + 1
			w.b = appendBytes(w.b, c.Rule)
		}
		w.key(c.Key)
		w.b = appendNumber(w.b, c.Cost)
		w.endRecord(begin)
	}
}

func DecodeDebt(b []byte) (Debt, error) {
	r := readControl(slices.Clone(b), KindDebt, nil)
	q := Debt{Member: r.someName(), Part: r.partition(), Seq: r.reportSeq(), Charges: r.charges()}
	return decoded(&r, "report", q)
}

// reports reads what is at the end of a record about a partition.
func (r *controlReader) reports(part uint16) []Debt {
	if len(r.b) == 0 {
		return nil
	}
	return readList(r, math.MaxInt, 3, func() Debt {
		return Debt{Member: r.someName(), Part: part, Seq: r.reportSeq(), Charges: r.charges()}
	})
}

// MaxDebtSeq is more reports than a process can send: a million a second for eight years.
const MaxDebtSeq = 1 << 48

// reportSeq reads the number of a report. A mark that is too high would hide all reports that come after it.
func (r *controlReader) reportSeq() uint64 {
	seq := r.uvarint()
	if seq > MaxDebtSeq {
		r.fail()
	}
	return seq
}

func (r *controlReader) charges() []Charge {
	var rules [][]byte
	return readList(r, math.MaxInt, 4, func() Charge {
		index := r.uvarint()
		if index == 0 {
			rule := r.bytes(MaxRuleLen)
			if _, _, err := DecodeRule(rule); err != nil {
				r.fail()
			}
			rules = append(rules, rule)
			index = uint64(len(rules))
		}
		if index > uint64(len(rules)) {
			r.fail()
			return Charge{}
		}
		c := Charge{Rule: rules[index-1], Key: r.key(), Cost: r.number()}
		if !limit.ValidCost(c.Cost) {
			r.fail()
		}
		return c
	})
}

func AppendRelay(b []byte, q *Relay) []byte {
	w := beginControl(b, byte(KindRelay))
	w.name(q.To)
	w.name(q.From)
	w.b = appendBytes(w.b, q.Request)
	return w.end()
}

func DecodeRelay(b []byte) (Relay, error) {
	r := readControl(b, KindRelay, nil)
	q := Relay{To: r.someName(), From: r.someName(), Request: slices.Clone(r.bytes(len(r.b)))}
	if len(q.Request) == 0 {
		r.fail()
	}
	return decoded(&r, "relay", q)
}
