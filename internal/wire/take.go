package wire

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"time"
	"unsafe"

	"github.com/peerlimit/peerlimit/internal/limit"
)

// What nodes say to each other about takes. Package transport moves these messages and knows nothing of them; its
// handshake has agreed on a protocol version that both sides speak. Fields are only ever added at the end, and bytes that
// a version does not know are skipped, so version N works with N - 1. The bytes are pinned in testdata/wire/v1.
//
// Numbers are sent short because most are small and whole: limits, costs and durations take one to five bytes.
// There is no timestamp in any message: only levels, durations and what is opaque to all but its sender, so the clocks of
// two nodes need not agree.

// WireVersion is the version of the messages. It is the second byte of each.
const WireVersion = 1

// Lowest and highest protocol version this code speaks. Protocol 1 had majorities of the known members; beside one of agreed
// panels both sides of a cluster could decide, so there is no link to members that speak no other.
const (
	ProtocolMin = 2
	ProtocolMax = 2
)

// Kind is the first byte of a request.
type Kind uint8

const (
	KindTake Kind = 1 + iota
	KindPeek
	KindReserve
	KindCancel
	KindRefund
	KindReset
	KindReturn
	KindAwait
	KindLeaveTurn
	KindEnd
)

// Bits of a message's third byte.
const (
	flagHops      = 3
	flagToStandby = 4
	flagBorrows   = 8 // a take says and asks something about leases
	flagInFull    = 16
)

// Bits of the third byte of an answer that holds a decision.
const (
	flagAllowed = 1
	flagGrant   = 2 // it says something about leases, or for how long a denial stands
	flagFull    = 4 // too many wait already
)

// MaxHops is how often a request is sent on. One hop finds the holder when one node has given a partition to another; the
// others are for two changes at once.
const MaxHops = flagHops

// Message is a request about one key.
type Message struct {
	Kind Kind

	// Hops is how many nodes that do not hold the key have sent it on; see MaxHops.
	Hops uint8

	// ToStandby says that the owner cannot be reached from where the request comes, so its standby is asked.
	ToStandby bool

	// InFull says that only a holder's decision is of use: the node that asks was the last holder and lost its quorum, and gives
	// out the share of all in its reach itself. Members of earlier versions decide by a share all the same.
	InFull bool

	// Rule is the encoded name and limits; see AppendRule.
	Rule []byte

	Key      string
	Cost     float64       // take, reserve, refund, await
	Total    float64       // reserve, await
	MaxDelay time.Duration // reserve, await
	Undo     *limit.Undo   // cancel; not nil there
	Borrow   Borrowing     // take, return
	Turn     Turn          // await, leave
}

// status is the first byte of an answer.
type status uint8

const (
	StatusDecided   status = 1 + iota // a decision follows
	StatusDone                        // refunded, reset
	StatusRefused                     // this node cannot answer: it is closing, or the message made no sense to it
	StatusElsewhere                   // this node does not hold the key, and has not found the holder in time
	StatusNoQuorum                    // nor will it soon: most of the other members are out of its reach
	StatusQueued                      // it waits: a Wake says when its turn has come
	StatusUnmet                       // as StatusQueued, but there is no connection to its node, which cannot be told: it asks again soon
	statusEnd
)

// Response is the response to a message.
type Response struct {
	Status   status
	Decision limit.Decision
	Undo     *limit.Undo // reserve, when allowed and it can be undone
	Grant    Grant       // take

	QueueFull bool // await: the denial is for want of room in the queue
}

var ErrMalformed = errors.New("peerlimit: malformed message")

// MaxRuleLen bounds an encoded rule: a name, and limits of at most 29 bytes each.
const MaxRuleLen = 2 + MaxNameLen + 1 + limit.MaxCombined*29

func AppendMessage(b []byte, m *Message) []byte {
	flags := m.Hops&flagHops | BoolByte(m.ToStandby)*flagToStandby | BoolByte(m.InFull)*flagInFull
	if m.Borrow.Want > 0 || len(m.Borrow.Returned) > 0 {
		flags |= flagBorrows
	}
	b = append(b, byte(m.Kind), WireVersion, flags)
	b = appendBytes(b, m.Rule)
	b = append(binary.AppendUvarint(b, uint64(len(m.Key))), m.Key...)
	switch m.Kind {
	case KindTake:
		b = appendNumber(b, m.Cost)
		if flags&flagBorrows != 0 {
			b = appendNumber(b, m.Borrow.Want)
			b = appendReturned(b, m.Borrow.Returned)
		}
	case KindReturn:
		b = appendReturned(b, m.Borrow.Returned)
	case KindRefund:
		b = appendNumber(b, m.Cost)
	case KindReserve:
		b = appendNumber(b, m.Cost)
		b = appendNumber(b, m.Total)
		b = appendDuration(b, m.MaxDelay)
	case KindAwait:
		b = appendNumber(b, m.Cost)
		b = appendNumber(b, m.Total)
		b = appendDuration(b, m.MaxDelay)
		b = appendDuration(appendTurn(b, &m.Turn), m.Turn.Late)
	case KindLeaveTurn:
		b = appendTurn(b, &m.Turn)
	case KindCancel:
		b = appendUndo(b, m.Undo)
	}
	return b
}

// DecodeMessage decodes b. The rule and the key share b's memory: they are valid for as long as b is, and a caller that keeps
// one keeps a copy.
func DecodeMessage(b []byte) (m Message, err error) {
	r := reader{b: b}
	m.Kind = Kind(r.byte())
	if version := r.byte(); version == 0 || m.Kind == 0 || m.Kind >= KindEnd {
		return Message{}, fmt.Errorf("%w: kind %d, version %d", ErrMalformed, m.Kind, version)
	}
	flags := r.byte()
	m.Hops, m.ToStandby, m.InFull = flags&flagHops, flags&flagToStandby != 0, flags&flagInFull != 0
	m.Rule = r.bytes(MaxRuleLen)
	key := r.bytes(MaxKeyLen)
	m.Key = unsafe.String(unsafe.SliceData(key), len(key)) // #nosec G103 -- nobody writes into a request
	r.fields(&m, flags&flagBorrows != 0)
	if r.failed || m.Kind == KindCancel && m.Undo == nil {
		return Message{}, fmt.Errorf("%w: cut short, or a field is too long", ErrMalformed)
	}
	if err := m.check(); err != nil {
		return Message{}, err
	}
	return m, nil
}

// fields reads what follows the key: it depends on the kind.
func (r *reader) fields(m *Message, borrows bool) {
	switch m.Kind {
	case KindTake:
		m.Cost = r.number()
		if borrows {
			m.Borrow = Borrowing{Want: r.number(), Returned: r.returned()}
		}
	case KindReturn:
		m.Borrow.Returned = r.returned()
	case KindRefund:
		m.Cost = r.number()
	case KindReserve:
		m.Cost = r.number()
		m.Total = r.number()
		m.MaxDelay = r.duration()
	case KindAwait:
		m.Cost = r.number()
		m.Total = r.number()
		m.MaxDelay = r.duration()
		m.Turn = r.turn()
		m.Turn.Late = r.duration()
	case KindLeaveTurn:
		m.Turn = r.turn()
	case KindCancel:
		m.Undo = r.undo()
	}
}

// check refuses what no node of this version sends.
func (m *Message) check() error {
	if len(m.Key) == 0 {
		return fmt.Errorf("%w: empty key", ErrMalformed)
	}
	switch m.Kind {
	case KindTake, KindRefund, KindReserve, KindAwait:
		if !limit.ValidCost(m.Cost) {
			return fmt.Errorf("%w: a cost of %v", ErrMalformed, m.Cost)
		}
	}
	if want := m.Borrow.Want; !(want >= 0) || math.IsInf(want, 1) {
		return fmt.Errorf("%w: a lease of %v tokens", ErrMalformed, want)
	}
	if m.Kind == KindReserve || m.Kind == KindAwait {
		if !limit.ValidCost(m.Total) {
			return fmt.Errorf("%w: a total of %v", ErrMalformed, m.Total)
		}
	}
	return nil
}

func AppendResponse(b []byte, a *Response) []byte {
	b = append(b, byte(a.Status), WireVersion)
	if a.Status != StatusDecided {
		return b
	}
	d, g := &a.Decision, &a.Grant
	flags := BoolByte(d.Allowed)*flagAllowed | BoolByte(a.QueueFull)*flagFull
	if g.Tokens > 0 || g.Stands > 0 {
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
	b = appendUndo(b, a.Undo)
	if flags&flagGrant != 0 {
		b = appendNumber(b, g.Tokens)
		b = binary.AppendUvarint(b, g.ID)
		b = appendDuration(b, g.Stands)
	}
	return b
}

func DecodeResponse(b []byte) (a Response, err error) {
	r := reader{b: b}
	a.Status = status(r.byte())
	if version := r.byte(); version == 0 || a.Status == 0 || a.Status >= statusEnd {
		return Response{}, fmt.Errorf("%w: status %d, version %d", ErrMalformed, a.Status, version)
	}
	if a.Status != StatusDecided {
		return a, nil
	}
	d := &a.Decision
	flags := r.byte()
	d.Allowed, a.QueueFull = flags&flagAllowed != 0, flags&flagFull != 0
	d.Origin = limit.Origin(r.byte())
	d.Limit.Algorithm = limit.Algorithm(r.byte())
	d.Limit.Tokens = r.number()
	d.Limit.Period = r.duration()
	d.Limit.Burst = r.number()
	d.Remaining = r.number()
	d.RetryAfter = r.duration()
	d.ResetAfter = r.duration()
	d.Delay = r.duration()
	a.Undo = r.undo()
	if flags&flagGrant != 0 {
		a.Grant = Grant{Tokens: r.number(), ID: r.uvarint(), Stands: r.duration()}
	}
	if r.failed {
		return Response{}, fmt.Errorf("%w: cut short", ErrMalformed)
	}
	if tokens := a.Grant.Tokens; !(tokens >= 0) || math.IsInf(tokens, 1) {
		return Response{}, fmt.Errorf("%w: a lease of %v tokens", ErrMalformed, tokens)
	} else if tokens == 0 {
		a.Grant.ID = 0 // it names nothing
	}
	if d.Origin >= limit.OriginCount || d.Limit.Problem() != "" || !(d.Remaining >= 0) || math.IsInf(d.Remaining, 1) {
		return Response{}, fmt.Errorf("%w: a decision that cannot be", ErrMalformed)
	}
	return a, nil
}

// AppendRule encodes a limiter's name and limits: what every request about it begins with, and by what the receiver
// finds again what it has already decoded once.
func AppendRule(b []byte, name string, limits []limit.Limit) []byte {
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

// DecodeRule decodes and validates what AppendRule encoded.
func DecodeRule(b []byte) (name string, limits []limit.Limit, err error) {
	r := reader{b: b}
	name = string(r.bytes(MaxNameLen))
	count := int(r.byte())
	if count > limit.MaxCombined {
		return "", nil, fmt.Errorf("%w: %d limits", ErrMalformed, count)
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
		return "", nil, fmt.Errorf("%w: a rule that is cut short", ErrMalformed)
	}
	if problem := NameProblem(name); problem != "" {
		return "", nil, fmt.Errorf("%w: a limiter's name: %s", ErrMalformed, problem)
	}
	if problem := limit.ProblemOf(limits); problem != "" {
		return "", nil, fmt.Errorf("%w: %s", ErrMalformed, problem)
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

func appendReturned(b []byte, returned []LeaseReturn) []byte {
	b = append(b, byte(len(returned)))
	for _, back := range returned {
		b = binary.AppendUvarint(b, back.ID)
		b = appendNumber(b, back.Unused)
	}
	return b
}

func (r *reader) returned() []LeaseReturn {
	count := int(r.byte())
	if count > MaxReturns {
		r.fail()
	}
	if count == 0 || r.failed {
		return nil
	}
	returned := make([]LeaseReturn, count)
	for i := range returned {
		returned[i] = LeaseReturn{ID: r.uvarint(), Unused: r.number()}
		if !(returned[i].Unused >= 0) {
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

func BoolByte(v bool) byte {
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
