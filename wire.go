package peerlimit

import (
	"encoding/binary"
	"errors"
	"fmt"
	"github.com/peerlimit/peerlimit/internal/limit"
	"math"
	"time"
	"unsafe"
)

// What nodes say to each other about takes. Package transport moves these messages and knows nothing of them; its
// handshake has agreed on a protocol version that both sides speak. Fields are only ever added at the end, and bytes that
// a version does not know are skipped, so version N works with N - 1. The bytes are pinned in testdata/wire/v1.
//
// Numbers are sent short because most are small and whole: limits, costs and durations take one to five bytes.
// There is no timestamp in any message: only levels, durations and what is opaque to all but its sender, so the clocks of
// two nodes need not agree.

// wireVersion is the version of the messages. It is the second byte of each.
const wireVersion = 1

// Lowest and highest protocol version this code speaks.
const (
	protocolMin = 1
	protocolMax = 1
)

// messageKind is the first byte of a request.
type messageKind uint8

const (
	kindTake messageKind = 1 + iota
	kindPeek
	kindReserve
	kindCancel
	kindRefund
	kindReset
	kindReturn
	kindEnd
)

// Bits of a message's third byte.
const (
	flagHops      = 3
	flagToStandby = 4
	flagBorrows   = 8 // a take says and asks something about leases
)

// Bits of the third byte of an answer that holds a decision.
const (
	flagAllowed = 1
	flagGrant   = 2 // it says something about leases, or for how long a denial stands
)

// maxHops is how often a question is sent on. One hop finds the holder when one node has given a partition to another; the
// others are for two changes at once.
const maxHops = flagHops

// message is a request about one key.
type message struct {
	kind messageKind

	// hops is how many nodes that do not hold the key have sent it on; see maxHops.
	hops uint8

	// toStandby says that the owner cannot be reached from where the question comes, so its standby is asked.
	toStandby bool

	// rule is the encoded name and limits; see appendRule.
	rule []byte

	key      string
	cost     float64       // take, reserve, refund
	total    float64       // reserve
	maxDelay time.Duration // reserve
	undo     *limit.Undo   // cancel; not nil there
	borrow   borrowing     // take, return
}

// status is the first byte of an answer.
type status uint8

const (
	statusDecided    status = 1 + iota // a decision follows
	statusDone                         // refunded, reset
	statusRefused                      // this node cannot answer: it is closing, or the message made no sense to it
	statusElsewhere                    // this node does not hold the key, and has not found out in time who does
	statusNoEvidence                   // nor will it soon: most of the other members are out of its reach
	statusEnd
)

// answer is the response to a message.
type answer struct {
	status   status
	decision limit.Decision
	undo     *limit.Undo // reserve, when allowed and it can be undone
	grant    grant       // take
}

var errMalformed = errors.New("peerlimit: malformed message")

// maxRuleLen bounds an encoded rule: a name, and limits of at most 29 bytes each.
const maxRuleLen = 2 + maxNameLen + 1 + limit.MaxCombined*29

func appendMessage(b []byte, m *message) []byte {
	flags := m.hops&flagHops | boolByte(m.toStandby)*flagToStandby
	if m.borrow.want > 0 || len(m.borrow.returned) > 0 {
		flags |= flagBorrows
	}
	b = append(b, byte(m.kind), wireVersion, flags)
	b = appendBytes(b, m.rule)
	b = append(binary.AppendUvarint(b, uint64(len(m.key))), m.key...)
	switch m.kind {
	case kindTake:
		b = appendNumber(b, m.cost)
		if flags&flagBorrows != 0 {
			b = appendNumber(b, m.borrow.want)
			b = appendReturned(b, m.borrow.returned)
		}
	case kindReturn:
		b = appendReturned(b, m.borrow.returned)
	case kindRefund:
		b = appendNumber(b, m.cost)
	case kindReserve:
		b = appendNumber(b, m.cost)
		b = appendNumber(b, m.total)
		b = appendDuration(b, m.maxDelay)
	case kindCancel:
		b = appendUndo(b, m.undo)
	}
	return b
}

// decodeMessage decodes b. The rule and the key share b's memory: they are valid for as long as b is, and whoever keeps
// one keeps a copy.
func decodeMessage(b []byte) (m message, err error) {
	r := reader{b: b}
	m.kind = messageKind(r.byte())
	if version := r.byte(); version == 0 || m.kind == 0 || m.kind >= kindEnd {
		return message{}, fmt.Errorf("%w: kind %d, version %d", errMalformed, m.kind, version)
	}
	flags := r.byte()
	m.hops, m.toStandby = flags&flagHops, flags&flagToStandby != 0
	m.rule = r.bytes(maxRuleLen)
	key := r.bytes(maxKeyLen)
	m.key = unsafe.String(unsafe.SliceData(key), len(key)) // #nosec G103 -- nobody writes into a request
	switch m.kind {
	case kindTake:
		m.cost = r.number()
		if flags&flagBorrows != 0 {
			m.borrow = borrowing{want: r.number(), returned: r.returned()}
		}
	case kindReturn:
		m.borrow.returned = r.returned()
	case kindRefund:
		m.cost = r.number()
	case kindReserve:
		m.cost = r.number()
		m.total = r.number()
		m.maxDelay = r.duration()
	case kindCancel:
		m.undo = r.undo()
	}
	if r.failed || m.kind == kindCancel && m.undo == nil {
		return message{}, fmt.Errorf("%w: cut short, or a field is too long", errMalformed)
	}
	if len(m.key) == 0 {
		return message{}, fmt.Errorf("%w: empty key", errMalformed)
	}
	switch m.kind {
	case kindTake, kindRefund, kindReserve:
		if !limit.ValidCost(m.cost) {
			return message{}, fmt.Errorf("%w: a cost of %v", errMalformed, m.cost)
		}
	}
	if want := m.borrow.want; !(want >= 0) || math.IsInf(want, 1) {
		return message{}, fmt.Errorf("%w: a lease of %v tokens", errMalformed, want)
	}
	if m.kind == kindReserve {
		if !limit.ValidCost(m.total) {
			return message{}, fmt.Errorf("%w: a total of %v", errMalformed, m.total)
		}
	}
	return m, nil
}

func appendAnswer(b []byte, a *answer) []byte {
	b = append(b, byte(a.status), wireVersion)
	if a.status != statusDecided {
		return b
	}
	d, g := &a.decision, &a.grant
	flags := boolByte(d.Allowed) * flagAllowed
	if g.tokens > 0 || g.stands > 0 {
		flags |= flagGrant
	}
	b = append(b, flags, byte(d.Origin), byte(d.Limit.Algorithm))
	b = appendNumber(b, d.Limit.Tokens)
	b = appendDuration(b, d.Limit.Period)
	b = appendNumber(b, d.Limit.Burst)
	b = appendNumber(b, d.Remaining)
	b = appendDuration(b, d.RetryAfter)
	b = appendDuration(b, d.ResetAfter)
	b = appendDuration(b, d.Delay)
	b = appendUndo(b, a.undo)
	if flags&flagGrant != 0 {
		b = appendNumber(b, g.tokens)
		b = binary.AppendUvarint(b, g.id)
		b = appendDuration(b, g.stands)
	}
	return b
}

func decodeAnswer(b []byte) (a answer, err error) {
	r := reader{b: b}
	a.status = status(r.byte())
	if version := r.byte(); version == 0 || a.status == 0 || a.status >= statusEnd {
		return answer{}, fmt.Errorf("%w: status %d, version %d", errMalformed, a.status, version)
	}
	if a.status != statusDecided {
		return a, nil
	}
	d := &a.decision
	flags := r.byte()
	d.Allowed = flags&flagAllowed != 0
	d.Origin = limit.Origin(r.byte())
	d.Limit.Algorithm = limit.Algorithm(r.byte())
	d.Limit.Tokens = r.number()
	d.Limit.Period = r.duration()
	d.Limit.Burst = r.number()
	d.Remaining = r.number()
	d.RetryAfter = r.duration()
	d.ResetAfter = r.duration()
	d.Delay = r.duration()
	a.undo = r.undo()
	if flags&flagGrant != 0 {
		a.grant = grant{tokens: r.number(), id: r.uvarint(), stands: r.duration()}
	}
	if r.failed {
		return answer{}, fmt.Errorf("%w: cut short", errMalformed)
	}
	if tokens := a.grant.tokens; !(tokens >= 0) || math.IsInf(tokens, 1) {
		return answer{}, fmt.Errorf("%w: a lease of %v tokens", errMalformed, tokens)
	} else if tokens == 0 {
		a.grant.id = 0 // it names nothing
	}
	if d.Origin >= limit.OriginCount || d.Limit.Problem() != "" || !(d.Remaining >= 0) || math.IsInf(d.Remaining, 1) {
		return answer{}, fmt.Errorf("%w: a decision that cannot be", errMalformed)
	}
	return a, nil
}

// appendRule encodes a limiter's name and limits: what every request about it begins with, and by what the receiver
// finds again what it has already decoded once.
func appendRule(b []byte, name string, limits []limit.Limit) []byte {
	b = binary.AppendUvarint(b, uint64(len(name)))
	b = append(b, name...)
	b = append(b, byte(len(limits)))
	for _, l := range limits {
		b = append(b, byte(l.Algorithm))
		b = appendNumber(b, l.Tokens)
		b = appendDuration(b, l.Period)
		b = appendNumber(b, l.Burst)
	}
	return b
}

// decodeRule decodes and validates what appendRule encoded.
func decodeRule(b []byte) (name string, limits []limit.Limit, err error) {
	r := reader{b: b}
	name = string(r.bytes(maxNameLen))
	count := int(r.byte())
	if count > limit.MaxCombined {
		return "", nil, fmt.Errorf("%w: %d limits", errMalformed, count)
	}
	for range count {
		var l limit.Limit
		l.Algorithm = limit.Algorithm(r.byte())
		l.Tokens = r.number()
		l.Period = r.duration()
		l.Burst = r.number()
		limits = append(limits, l)
	}
	if r.failed {
		return "", nil, fmt.Errorf("%w: a rule that is cut short", errMalformed)
	}
	if problem := nameProblem(name); problem != "" {
		return "", nil, fmt.Errorf("%w: a limiter's name: %s", errMalformed, problem)
	}
	if problem := limit.ProblemOf(limits); problem != "" {
		return "", nil, fmt.Errorf("%w: %s", errMalformed, problem)
	}
	return name, limits, nil
}

// appendUndo encodes how to undo a reservation; one byte when there is nothing to undo. Its instants are on the clock of
// the node that wrote them, and only that node reads them.
func appendUndo(b []byte, u *limit.Undo) []byte {
	if u == nil {
		return append(b, 0)
	}
	b = append(b, byte(u.After.Count))
	for _, shot := range [...]*limit.Snapshot{&u.Before, &u.After} {
		b = binary.AppendVarint(b, shot.At)
		for _, level := range shot.Levels[:u.After.Count] {
			b = appendNumber(b, level)
		}
	}
	return b
}

func appendReturned(b []byte, returned []leaseReturn) []byte {
	b = append(b, byte(len(returned)))
	for _, back := range returned {
		b = binary.AppendUvarint(b, back.id)
		b = appendNumber(b, back.unused)
	}
	return b
}

func (r *reader) returned() []leaseReturn {
	count := int(r.byte())
	if count > maxReturns {
		r.fail()
	}
	if count == 0 || r.failed {
		return nil
	}
	returned := make([]leaseReturn, count)
	for i := range returned {
		returned[i] = leaseReturn{id: r.uvarint(), unused: r.number()}
		if !(returned[i].unused >= 0) {
			r.fail()
		}
	}
	return returned
}

// The primitives. A number is a float64: a whole one below 2^52 as twice itself in a uvarint, any other as the
// uvarint 1 and its eight bytes.

func appendNumber(b []byte, v float64) []byte {
	if v >= 0 && v < 1<<52 && v == math.Trunc(v) {
		return binary.AppendUvarint(b, uint64(v)<<1)
	}
	return binary.BigEndian.AppendUint64(append(b, 1), math.Float64bits(v))
}

// appendDuration encodes nanoseconds; no duration in a message is negative.
func appendDuration(b []byte, d time.Duration) []byte {
	return binary.AppendUvarint(b, uint64(max(d, 0)))
}

func appendBytes(b, field []byte) []byte {
	return append(binary.AppendUvarint(b, uint64(len(field))), field...)
}

func boolByte(v bool) byte {
	if v {
		return 1
	}
	return 0
}

// reader takes fields off the front of b. After a failure every field is zero, so that only the end need be checked.
type reader struct {
	b      []byte
	failed bool
}

func (r *reader) fail() {
	r.b, r.failed = nil, true
}

func (r *reader) byte() byte {
	if len(r.b) == 0 {
		r.fail()
		return 0
	}
	v := r.b[0]
	r.b = r.b[1:]
	return v
}

func (r *reader) uvarint() uint64 {
	v, n := binary.Uvarint(r.b)
	if n <= 0 {
		r.fail()
		return 0
	}
	r.b = r.b[n:]
	return v
}

func (r *reader) varint() int64 {
	v, n := binary.Varint(r.b)
	if n <= 0 {
		r.fail()
		return 0
	}
	r.b = r.b[n:]
	return v
}

func (r *reader) bytes(limit int) []byte {
	n := r.uvarint()
	if n > uint64(limit) || n > uint64(len(r.b)) {
		r.fail()
		return nil
	}
	v := r.b[:n:n]
	r.b = r.b[n:]
	return v
}

func (r *reader) number() float64 {
	v := r.uvarint()
	if v&1 == 0 {
		return float64(v >> 1)
	}
	if v != 1 || len(r.b) < 8 {
		r.fail()
		return 0
	}
	bits := binary.BigEndian.Uint64(r.b)
	r.b = r.b[8:]
	return math.Float64frombits(bits)
}

func (r *reader) duration() time.Duration {
	v := r.uvarint()
	if v > math.MaxInt64 {
		r.fail()
		return 0
	}
	return time.Duration(v)
}

func (r *reader) undo() *limit.Undo {
	count := int(r.byte())
	if count > limit.MaxCombined {
		r.fail()
	}
	if count == 0 || r.failed {
		return nil
	}
	u := new(limit.Undo)
	for _, shot := range [...]*limit.Snapshot{&u.Before, &u.After} {
		shot.At, shot.Count = r.varint(), count
		for i := range count {
			level := r.number()
			if !(level >= 0) || math.IsInf(level, 1) {
				r.fail()
			}
			shot.Levels[i] = level
		}
	}
	return u
}
