package peerlimit

import (
	"github.com/peerlimit/peerlimit/internal/limit"
	"github.com/peerlimit/peerlimit/internal/ring"
	"math"
	"slices"
)

// The messages of control.go as bytes; wirefields.go says what they are made of. Answers begin with statusDone, or are
// statusRefused and nothing more, which decodes to errRefused; any other error of a decoder matches errMalformed.
//
// What is decoded shares no memory with the bytes it was decoded from. Keys and charged rules of one message share memory
// with each other: who keeps one keeps a copy.

func appendPing(b []byte, p *ping) []byte {
	w := beginControl(b, byte(kindPing))
	w.uvarint(p.heard)
	w.digest(p.digest)
	return w.end()
}

func decodePing(b []byte) (ping, error) {
	r := readControl(b, kindPing, nil)
	p := ping{heard: r.uvarint(), digest: r.digest()}
	return decoded(&r, "ping", p)
}

func appendPong(b []byte, p *pong) []byte {
	w := beginControl(b, byte(statusDone))
	w.byte(boolByte(p.refused))
	w.uvarint(p.heard)
	w.digest(p.digest)
	w.nameList(p.known)
	w.nameList(p.silent)
	if p.full || len(p.hearsay) > 0 { // most have nothing more to say; a version with more fields writes these as well
		w.byte(boolByte(p.full))
		w.nameList(p.hearsay)
	}
	return w.end()
}

func decodePong(b []byte) (pong, error) {
	r := readControlAnswer(b, nil)
	p := pong{
		refused: r.byte()&1 != 0, heard: r.uvarint(), digest: r.digest(),
		known: r.nameList(), silent: r.nameList(),
	}
	if len(r.b) > 0 {
		p.full, p.hearsay = r.byte()&1 != 0, r.nameList()
	}
	return decoded(&r, "pong", p)
}

func appendVerdictRequest(b []byte, q *verdictRequest) []byte {
	w := beginControl(b, byte(kindVerdict))
	w.uvarint(q.heard)
	w.nameList(q.names)
	return w.end()
}

func decodeVerdictRequest(b []byte) (verdictRequest, error) {
	r := readControl(b, kindVerdict, nil)
	q := verdictRequest{heard: r.uvarint(), names: r.nameList()}
	return decoded(&r, "verdict request", q)
}

func appendVerdict(b []byte, v *verdict) []byte {
	w := beginControl(b, byte(statusDone))
	w.uvarint(v.heard)
	w.nameList(v.silent)
	return w.end()
}

func decodeVerdict(b []byte) (verdict, error) {
	r := readControlAnswer(b, nil)
	v := verdict{heard: r.uvarint(), silent: r.nameList()}
	return decoded(&r, "verdict", v)
}

func appendQuestion(b []byte, q *question) []byte {
	w := beginControl(b, byte(kindQuestion))
	w.election(q.round)
	w.nameList(q.known)
	w.count(len(q.parts))
	for i := range q.parts {
		p := &q.parts[i]
		begin := w.beginRecord()
		w.partition(p.part)
		w.version(p.have)
		w.uvarint(uint64(p.from))
		w.endRecord(begin)
	}
	w.lastNames(q.hearsay)
	return w.end()
}

func decodeQuestion(b []byte) (question, error) {
	r := readControl(b, kindQuestion, nil)
	q := question{round: r.election(), known: r.nameList()}
	q.parts = readList(&r, ring.Partitions, 3, func() askedPart {
		return askedPart{part: r.partition(), have: r.version(), from: r.uint32()}
	})
	q.hearsay = r.lastNames()
	return decoded(&r, "question", q)
}

func appendQuestionAnswer(b []byte, a *questionAnswer) []byte {
	w := beginControl(b, byte(statusDone))
	w.uvarint(a.heard)
	w.nameList(a.known)
	w.count(len(a.parts))
	for i := range a.parts {
		p := &a.parts[i]
		begin := w.beginRecord()
		w.partition(p.part)
		w.byte(byte(p.kind))
		w.version(p.version)
		w.name(p.givenTo)
		w.election(p.promised)
		w.content(&p.content)
		w.uvarint(uint64(p.next))
		w.reports(p.reports)
		w.endRecord(begin)
	}
	w.lastNames(a.hearsay)
	return w.end()
}

func decodeQuestionAnswer(b []byte, plain plainSet) (questionAnswer, error) {
	r := readControlAnswer(slices.Clone(b), plain)
	a := questionAnswer{heard: r.uvarint(), known: r.nameList()}
	a.parts = readList(&r, ring.Partitions, 9, func() partAnswer {
		p := partAnswer{
			part: r.partition(), kind: answerKind(r.byte()), version: r.version(), givenTo: r.name(),
			promised: r.election(), content: r.content(), next: r.uint32(),
		}
		p.reports = r.reports(p.part)
		if p.kind == 0 || p.kind >= answerKindEnd {
			r.fail()
		}
		return p
	})
	a.hearsay = r.lastNames()
	return decoded(&r, "answer to a question", a)
}

// lastNames puts a list at the end of a message, where there is none when there is nothing to say.
func (w *controlWriter) lastNames(names []string) {
	if len(names) > 0 {
		w.nameList(names)
	}
}

// lastNames reads a list that lastNames has written.
func (r *controlReader) lastNames() []string {
	if len(r.b) == 0 {
		return nil
	}
	return r.nameList()
}

// What a replicaPart says yes to, as bits of one byte.
const (
	replicaFull = 1 << iota
	replicaFirst
	replicaLast
)

func appendReplicaRequest(b []byte, q *replicaRequest) []byte {
	w := beginControl(b, byte(kindReplica))
	w.count(len(q.parts))
	for i := range q.parts {
		p := &q.parts[i]
		begin := w.beginRecord()
		w.partition(p.part)
		w.version(p.version)
		w.uvarint(p.since)
		w.byte(replicaFull*boolByte(p.full) | replicaFirst*boolByte(p.first) | replicaLast*boolByte(p.last))
		w.content(&p.content)
		w.endRecord(begin)
	}
	return w.end()
}

func decodeReplicaRequest(b []byte, plain plainSet) (replicaRequest, error) {
	return (&replicaMemory{message: slices.Clone(b)}).decode(plain)
}

// replicaMemory is what a replica is read into that a standby gets fifty times a second: the message, and all that is decoded
// from it, which is worthless when the memory is used again.
type replicaMemory struct {
	message []byte
	parts   []replicaPart
	images  []bucketImage
	levels  []float64
}

// decode decodes the message in m. Who keeps anything of it keeps m from being used again.
func (m *replicaMemory) decode(plain plainSet) (replicaRequest, error) {
	r := readControl(m.message, kindReplica, plain)
	r.images, r.levels = m.images[:0], m.levels[:0]
	if n := r.listLen(ring.Partitions, 7); n > 0 {
		m.parts = fillList(&r, slices.Grow(m.parts[:0], n), n, func() replicaPart {
			p := replicaPart{part: r.partition(), version: r.version(), since: r.uvarint()}
			flags := r.byte()
			p.full, p.first, p.last = flags&replicaFull != 0, flags&replicaFirst != 0, flags&replicaLast != 0
			p.content = r.content()
			return p
		})
	} else {
		m.parts = nil
	}
	m.images, m.levels = r.images, r.levels
	return decoded(&r, "replica", replicaRequest{m.parts})
}

func appendReplicaAnswer(b []byte, a *replicaAnswer) []byte {
	w := beginControl(b, byte(statusDone))
	w.count(len(a.parts))
	for _, p := range a.parts {
		begin := w.beginRecord()
		w.partition(p.part)
		w.byte(byte(p.status))
		w.election(p.promised)
		w.endRecord(begin)
	}
	return w.end()
}

func decodeReplicaAnswer(b []byte) (replicaAnswer, error) {
	r := readControlAnswer(b, nil)
	parts := readList(&r, ring.Partitions, 4, func() replicaAck {
		p := replicaAck{part: r.partition(), status: replicaStatus(r.byte()), promised: r.election()}
		if p.status == 0 || p.status >= replicaStatusEnd {
			r.fail()
		}
		return p
	})
	return decoded(&r, "answer to a replica", replicaAnswer{parts})
}

func appendSettleRequest(b []byte, q *settleRequest) []byte {
	w := beginControl(b, byte(kindSettle))
	w.name(q.by)
	w.count(len(q.parts))
	for i := range q.parts {
		begin := w.beginRecord()
		w.partition(q.parts[i].part)
		w.version(q.parts[i].version)
		w.endRecord(begin)
	}
	return w.end()
}

func decodeSettleRequest(b []byte) (settleRequest, error) {
	r := readControl(b, kindSettle, nil)
	q := settleRequest{by: r.someName()}
	q.parts = readList(&r, ring.Partitions, 2, func() settlePart {
		return settlePart{part: r.partition(), version: r.version()}
	})
	return decoded(&r, "settle request", q)
}

func appendSettleAnswer(b []byte, a *settleAnswer) []byte {
	w := beginControl(b, byte(statusDone))
	w.count(len(a.settled))
	for _, part := range a.settled {
		w.partition(part)
	}
	return w.end()
}

func decodeSettleAnswer(b []byte) (settleAnswer, error) {
	r := readControlAnswer(b, nil)
	var a settleAnswer
	if n := r.listLen(ring.Partitions, 1); n > 0 {
		a.settled = make([]uint16, n)
	}
	for i := range a.settled {
		a.settled[i] = r.partition()
	}
	return decoded(&r, "answer to a settle request", a)
}

// appendReport encodes a report. A charge's rule is 0 and its bytes the first time, and after that its number among
// the rules so far, from 1. A report is answered with statusDone or statusRefused by appendAnswer.
func appendReport(b []byte, q *report) []byte {
	w := beginControl(b, byte(kindReport))
	w.name(q.reporter)
	w.partition(q.part)
	w.uvarint(q.seq)
	w.charges(q.charges)
	return w.end()
}

// reports puts a list at the end of a record, where there is none when there is nothing to say.
func (w *controlWriter) reports(reports []report) {
	if len(reports) == 0 {
		return
	}
	w.count(len(reports))
	for i := range reports {
		begin := w.beginRecord()
		w.name(reports[i].reporter)
		w.uvarint(reports[i].seq)
		w.charges(reports[i].charges)
		w.endRecord(begin)
	}
}

func (w *controlWriter) charges(charges []charge) {
	w.count(len(charges))
	rules := make(map[string]uint64)
	for i := range charges {
		c := &charges[i]
		begin := w.beginRecord()
		index := rules[string(c.rule)]
		w.uvarint(index)
		if index == 0 {
			rules[string(c.rule)] = uint64(len(rules)) + 1
			w.b = appendBytes(w.b, c.rule)
		}
		w.key(c.key)
		w.b = appendNumber(w.b, c.cost)
		w.endRecord(begin)
	}
}

func decodeReport(b []byte) (report, error) {
	r := readControl(slices.Clone(b), kindReport, nil)
	q := report{reporter: r.someName(), part: r.partition(), seq: r.reportSeq(), charges: r.charges()}
	return decoded(&r, "report", q)
}

// reports reads what is at the end of a record about a partition.
func (r *controlReader) reports(part uint16) []report {
	if len(r.b) == 0 {
		return nil
	}
	return readList(r, math.MaxInt, 3, func() report {
		return report{reporter: r.someName(), part: part, seq: r.reportSeq(), charges: r.charges()}
	})
}

// maxReportSeq is more reports than a process can send: a million a second for eight years.
const maxReportSeq = 1 << 48

// reportSeq reads the number of a report. A mark that is too high would hide all reports that come after it.
func (r *controlReader) reportSeq() uint64 {
	seq := r.uvarint()
	if seq > maxReportSeq {
		r.fail()
	}
	return seq
}

func (r *controlReader) charges() []charge {
	var rules [][]byte
	return readList(r, math.MaxInt, 4, func() charge {
		index := r.uvarint()
		if index == 0 {
			rule := r.bytes(maxRuleLen)
			if _, _, err := decodeRule(rule); err != nil {
				r.fail()
			}
			rules = append(rules, rule)
			index = uint64(len(rules))
		}
		if index > uint64(len(rules)) {
			r.fail()
			return charge{}
		}
		c := charge{rule: rules[index-1], key: r.key(), cost: r.number()}
		if !limit.ValidCost(c.cost) {
			r.fail()
		}
		return c
	})
}

func appendRelay(b []byte, q *relay) []byte {
	w := beginControl(b, byte(kindRelay))
	w.name(q.to)
	w.name(q.from)
	w.b = appendBytes(w.b, q.request)
	return w.end()
}

func decodeRelay(b []byte) (relay, error) {
	r := readControl(b, kindRelay, nil)
	q := relay{to: r.someName(), from: r.someName(), request: slices.Clone(r.bytes(len(r.b)))}
	if len(q.request) == 0 {
		r.fail()
	}
	return decoded(&r, "relay", q)
}
