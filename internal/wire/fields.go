package wire

import (
	"encoding/binary"
	"fmt"
	"math"
	"slices"
	"unsafe"

	"github.com/peerlimit/peerlimit/internal/limit"
	"github.com/peerlimit/peerlimit/internal/ring"
)

// What control messages are made of. Each is
//
//	kind     1 byte; of an answer the status instead, and when that is not StatusDone the next byte is the last
//	version  1 byte
//	names    count, uvarint; each: length, uvarint; that many bytes
//	sets     count, uvarint; each a record: limiter, name; active, 1 byte; limits, 1 byte; of each limit its algorithm and
//	         ordinal, 1 byte each, tokens, period and burst
//	fields
//
// A name in a field is its number in names, from 1; 0 is the empty name. Names are few and partitions many. What a bucket
// is limited by is its number in sets in the same way. A list is its count and so many records, and a record is its
// length and its fields: a later version adds fields at the end of records too. Only names alone and partitions alone
// are listed without lengths. A partition is the signed difference to the one before in the message.

// Bounds of what a message may have in it. Lists of buckets are bounded by the size of a frame alone.
const (
	maxKnownNames = ring.MaxMembers // in a list of members, or marks of a partition
	maxDictionary = 1 << 16         // names, or sets, of one message
)

// PlainSet finds the set that this node uses for a limiter's limits when nothing else is remembered; see rules.PlainSet.
type plainSet func(limiter string, limits []limit.Limit) (*limit.Set, error)

// limiterSet is a set under a limiter: what the buckets of a message refer to. The set may be nil; see Image.
type limiterSet struct {
	limiter string
	set     *limit.Set
}

// controlWriter encodes one message. The dictionaries are known when all fields are written, and then go before them.
type controlWriter struct {
	b    []byte
	body int // where the fields begin, and the dictionaries are put

	names     []byte // encoded
	nameCount int
	fewNames  [4]string         // the first of them: pings and pongs have no more
	nameOf    map[string]uint64 // the others

	sets  []byte                // encoded
	setOf map[limiterSet]uint64 // those written so far, and equal ones
	equal map[string]uint64     // by their encoding
	last  limiterSet            // the one written last: the next bucket's, mostly
	index uint64                // of last

	part int // written last
}

// smallMessage is the room, in bytes, in which most pings and pongs fit with their names.
const smallMessage = 128

// beginControl begins a message after b.
func beginControl(b []byte, first byte) controlWriter {
	if cap(b) == 0 {
		b = make([]byte, 0, smallMessage)
	}
	b = append(b, first, WireVersion)
	return controlWriter{b: b, body: len(b)}
}

// end puts the dictionaries in and returns the message, after what was in front of it.
func (w *controlWriter) end() []byte {
	if w.nameCount == 0 && len(w.equal) == 0 {
		return slices.Insert(w.b, w.body, 0, 0)
	}
	head := make([]byte, 0, len(w.names)+len(w.sets)+2*binary.MaxVarintLen32)
	head = binary.AppendUvarint(head, uint64(w.nameCount))
	head = append(head, w.names...)
	head = binary.AppendUvarint(head, uint64(len(w.equal)))
	head = append(head, w.sets...)
	return slices.Insert(w.b, w.body, head...)
}

func (w *controlWriter) byte(v byte)      { w.b = append(w.b, v) }
func (w *controlWriter) uvarint(v uint64) { w.b = binary.AppendUvarint(w.b, v) }
func (w *controlWriter) count(n int)      { w.uvarint(uint64(n)) }
func (w *controlWriter) digest(v uint64)  { w.b = binary.BigEndian.AppendUint64(w.b, v) }
func (w *controlWriter) key(v string)     { w.count(len(v)); w.b = append(w.b, v...) }

func (w *controlWriter) name(v string) { w.uvarint(w.nameIndex(v)) }

func (w *controlWriter) nameIndex(v string) uint64 {
	if v == "" {
		return 0
	}
	for i := range min(w.nameCount, len(w.fewNames)) {
		if w.fewNames[i] == v {
			return uint64(i) + 1
		}
	}
	if index, ok := w.nameOf[v]; ok {
		return index
	}
	if w.nameCount < len(w.fewNames) {
		w.fewNames[w.nameCount] = v
	} else if w.nameOf == nil {
		w.nameOf = map[string]uint64{v: uint64(w.nameCount) + 1}
	} else {
		w.nameOf[v] = uint64(w.nameCount) + 1
	}
	w.nameCount++
	w.names = append(binary.AppendUvarint(slices.Grow(w.names, smallMessage/2), uint64(len(v))), v...)
	return uint64(w.nameCount)
}

func (w *controlWriter) nameList(names []string) {
	w.count(len(names))
	for _, v := range names {
		w.name(v)
	}
}

func (w *controlWriter) partition(part uint16) {
	w.b = binary.AppendVarint(w.b, int64(int(part)-w.part))
	w.part = int(part)
}

func (w *controlWriter) ballot(e Ballot) {
	w.uvarint(e.Number)
	w.name(e.By)
}

func (w *controlWriter) version(v Version) {
	if v == (Version{}) {
		w.byte(0)
		return
	}
	w.byte(1)
	w.ballot(v.Ballot)
	w.uvarint(uint64(v.Transfers))
	w.name(v.Holder)
	w.uvarint(v.Seq)
}

// beginRecord returns where the record's fields begin, for endRecord.
func (w *controlWriter) beginRecord() int {
	w.byte(0)
	return len(w.b)
}

// endRecord fills in the length. Most records are short: only a long one must be moved to make room for it.
func (w *controlWriter) endRecord(begin int) {
	var length [binary.MaxVarintLen64]byte
	n := binary.PutUvarint(length[:], uint64(len(w.b)-begin))
	w.b[begin-1] = length[0]
	if n > 1 {
		w.b = slices.Insert(w.b, begin, length[1:n]...)
	}
}

func (w *controlWriter) content(c *Content) {
	w.count(len(c.Buckets))
	for i := range c.Buckets {
		w.bucket(&c.Buckets[i])
	}
	w.count(len(c.Marks))
	for _, mark := range c.Marks {
		begin := w.beginRecord()
		w.name(mark.Member)
		w.uvarint(mark.Seq)
		w.endRecord(begin)
	}
}

func (w *controlWriter) bucket(image *Image) {
	begin := w.beginRecord()
	w.uvarint(w.setIndex(limiterSet{image.Limiter, image.Set}))
	w.key(image.Key)
	for _, level := range image.Levels {
		w.b = appendNumber(w.b, level)
	}
	if len(image.Leases) > 0 { // most have none; a version with more fields writes 0 here
		w.count(len(image.Leases))
		for i := range image.Leases {
			w.lease(image.Limiter, &image.Leases[i])
		}
	}
	w.endRecord(begin)
}

func (w *controlWriter) lease(limiter string, l *limit.MovingLease) {
	begin := w.beginRecord()
	w.uvarint(w.setIndex(limiterSet{limiter, l.Set}))
	w.b = appendNumber(w.b, l.Tokens)
	w.b = appendDuration(w.b, l.Left)
	w.endRecord(begin)
}

// setIndex returns the number of a set. Equal ones have one number: where versions of the code mix, each bucket has a
// set of its own, and they are all alike.
func (w *controlWriter) setIndex(s limiterSet) uint64 {
	if w.index > 0 && s == w.last {
		return w.index
	}
	index, ok := w.setOf[s]
	if !ok {
		if w.setOf == nil {
			w.setOf, w.equal = make(map[limiterSet]uint64), make(map[string]uint64)
		}
		encoded := appendSet(binary.AppendUvarint(nil, w.nameIndex(s.limiter)), s.set)
		if index, ok = w.equal[string(encoded)]; !ok {
			index = uint64(len(w.equal)) + 1
			w.equal[string(encoded)] = index
			w.sets = appendBytes(w.sets, encoded)
		}
		w.setOf[s] = index
	}
	w.last, w.index = s, index
	return index
}

func appendSet(b []byte, set *limit.Set) []byte {
	if set == nil {
		return append(b, 0, 0)
	}
	b = append(b, byte(set.Active), byte(len(set.Limits)))
	for i, l := range set.Limits {
		b = append(b, byte(l.Algorithm), byte(set.IDs[i].Ordinal))
		b = appendNumber(b, l.Tokens)
		b = appendDuration(b, l.Period)
		b = appendNumber(b, l.Burst)
	}
	return b
}

// controlReader decodes one message. Like reader, it returns zeros after a failure.
type controlReader struct {
	reader
	names   []string
	sets    []limiterSet
	refused bool // an answer that is none; nothing follows

	part int // read last

	// Memory that levels and buckets get their place in: one allocation for those of many.
	levels []float64
	images []Image
}

// readControl begins to read a message of that kind. The sets are read with plain; without, they are skipped.
func readControl(b []byte, kind Kind, plain plainSet) controlReader {
	r := controlReader{reader: reader{b: b}}
	if Kind(r.byte()) != kind || r.byte() == 0 {
		r.fail()
	}
	r.dictionaries(plain)
	return r
}

// readControlAnswer begins to read an answer.
func readControlAnswer(b []byte, plain plainSet) controlReader {
	r := controlReader{reader: reader{b: b}}
	first := status(r.byte())
	if version := r.byte(); version == 0 || r.failed {
		r.fail()
	} else if first == StatusRefused {
		r.refused = true
		r.fail()
	} else if first != StatusDone {
		r.fail()
	}
	r.dictionaries(plain)
	return r
}

// decoded returns what was read, or why it could not be.
func decoded[T any](r *controlReader, what string, message T) (T, error) {
	var none T
	if r.refused {
		return none, ErrRefused
	}
	if r.failed {
		return none, fmt.Errorf("%w: %s: another kind, cut short, or a field out of range", ErrMalformed, what)
	}
	return message, nil
}

func (r *controlReader) dictionaries(plain plainSet) {
	if count := r.listLen(maxDictionary, 2); count > 0 {
		r.names = make([]string, 0, count)
		for range count {
			name := r.bytes(MaxIdentityLen)
			if len(name) == 0 {
				r.fail()
				return
			}
			r.names = append(r.names, string(name))
		}
	}
	for range r.listLen(maxDictionary, 3) {
		r.record(func() {
			if plain != nil {
				r.sets = append(r.sets, r.limiterSet(plain))
			}
		})
	}
}

// listLen reads how long a list is. There must be room for that many elements of at least smallest bytes.
func (r *controlReader) listLen(limit, smallest int) int {
	n := r.uvarint()
	if n > uint64(limit) || n > uint64(len(r.b)/smallest) {
		r.fail()
		return 0
	}
	return int(n)
}

// record has read take the fields of a record that it knows, and skips the others.
func (r *controlReader) record(read func()) {
	fields := r.bytes(len(r.b))
	rest := r.b
	r.b = fields
	read()
	if r.failed {
		rest = nil
	}
	r.b = rest
}

// readList reads a list of records of at least smallest bytes of fields.
func readList[T any](r *controlReader, limit, smallest int, read func() T) []T {
	n := r.listLen(limit, smallest+1)
	if n == 0 {
		return nil
	}
	return fillList(r, make([]T, 0, n), n, read)
}

// fillList reads so many records of a list into one that is empty.
func fillList[T any](r *controlReader, list []T, n int, read func() T) []T {
	for range n {
		r.record(func() { list = append(list, read()) })
		if r.failed {
			return nil
		}
	}
	return list
}

// name reads a name that may be empty.
func (r *controlReader) name() string {
	index := r.uvarint()
	if index == 0 {
		return ""
	}
	if index > uint64(len(r.names)) {
		r.fail()
		return ""
	}
	return r.names[index-1]
}

// someName reads a name that may not be empty.
func (r *controlReader) someName() string {
	name := r.name()
	if name == "" {
		r.fail()
	}
	return name
}

func (r *controlReader) nameList() []string {
	n := r.listLen(maxKnownNames, 1)
	if n == 0 {
		return nil
	}
	list := make([]string, n)
	for i := range list {
		list[i] = r.someName()
	}
	return list
}

func (r *controlReader) partition() uint16 {
	part := int64(r.part) + r.varint()
	if part < 0 || part >= ring.Partitions {
		r.fail()
		return 0
	}
	r.part = int(part)
	return uint16(part)
}

func (r *controlReader) digest() uint64 {
	if len(r.b) < 8 {
		r.fail()
		return 0
	}
	v := binary.BigEndian.Uint64(r.b)
	r.b = r.b[8:]
	return v
}

func (r *controlReader) uint32() uint32 {
	v := r.uvarint()
	if v > math.MaxUint32 {
		r.fail()
		return 0
	}
	return uint32(v)
}

func (r *controlReader) ballot() Ballot { return Ballot{r.uvarint(), r.name()} }

func (r *controlReader) version() Version {
	switch r.byte() {
	case 0:
	case 1:
		v := Version{Ballot: r.ballot(), Transfers: r.uint32(), Holder: r.name(), Seq: r.uvarint()}
		if v.Transfers > maxTransfers || v.Seq > MaxSeq {
			r.fail()
		}
		return v
	default:
		r.fail()
	}
	return Version{}
}

// key reads a bucket's key. It shares the memory of the message.
func (r *controlReader) key() string {
	key := r.bytes(MaxKeyLen)
	if len(key) == 0 {
		r.fail()
	}
	return unsafe.String(unsafe.SliceData(key), len(key)) // #nosec G103 -- nobody writes into key; see the comment above
}

func (r *controlReader) content() Content {
	return Content{
		Buckets: r.bucketList(),
		Marks: readList(r, maxKnownNames, 2, func() DebtMark {
			return DebtMark{Member: r.someName(), Seq: r.uvarint()}
		}),
	}
}

// maxImages bounds the buckets of one partition in one message. Nobody sends as many: a bucket takes more than 16 bytes of
// what is the most there may be of them, AcquireBudget.
const maxImages = AcquireBudget / 16

// bucketList reads buckets. Most partitions that are sent have few, so their memory is that of many partitions' buckets.
func (r *controlReader) bucketList() []Image {
	n := r.listLen(maxImages, 4)
	if n == 0 {
		return nil
	}
	return fillList(r, RoomIn(&r.images, n), n, r.bucket)
}

func (r *controlReader) bucket() Image {
	index := r.uvarint()
	if index == 0 || index > uint64(len(r.sets)) {
		r.fail()
		return Image{}
	}
	s := r.sets[index-1]
	image := Image{Limiter: s.limiter, Key: r.key(), Set: s.set}
	if s.set != nil {
		image.Levels = r.levelList(s.set.Levels())
	}
	if len(r.b) > 0 {
		image.Leases = readList(r, limit.MaxLevels, 3, r.lease)
	}
	return image
}

func (r *controlReader) lease() limit.MovingLease {
	index := r.uvarint()
	if index == 0 || index > uint64(len(r.sets)) || r.sets[index-1].set == nil {
		r.fail()
		return limit.MovingLease{}
	}
	l := limit.MovingLease{Set: r.sets[index-1].set.Base, Tokens: r.number(), Left: r.duration()}
	if !(l.Tokens >= 0) || math.IsInf(l.Tokens, 1) {
		r.fail()
	}
	return l
}

func (r *controlReader) levelList(count int) []float64 {
	levels := RoomIn(&r.levels, count)[:count]
	for i := range levels {
		level := r.number()
		if !(level >= 0) || math.IsInf(level, 1) {
			r.fail()
		}
		levels[i] = level
	}
	return levels
}

// limiterSet reads a set of the dictionary: the interned one, or one that extends it. Its identities are those that were
// sent. An ordinal says what a level was counted among when it was stored; computed anew among what is remembered
// now it would make one level pass for another, and the take that was charged to it would be forgotten.
func (r *controlReader) limiterSet(plain plainSet) limiterSet {
	s := limiterSet{limiter: r.someName()}
	active, count := int(r.byte()), int(r.byte())
	if count == 0 && active == 0 {
		return s
	}
	if active == 0 || active > min(count, limit.MaxCombined) || count > limit.MaxLevels {
		r.fail()
		return s
	}
	limits, ids := make([]limit.Limit, count), make([]limit.LevelID, count)
	for i := range limits {
		limits[i], ids[i] = r.limit()
		if r.failed || slices.Contains(ids[:i], ids[i]) || i < active && ids[i] != limit.Identify(limits, i) {
			r.fail()
			return s
		}
	}
	base, err := plain(s.limiter, limits[:active])
	if err != nil {
		r.fail()
		return s
	}
	s.set = base
	if count > active {
		s.set = base.WithOthers(limits[active:], ids[active:])
	}
	return s
}

func (r *controlReader) limit() (limit.Limit, limit.LevelID) {
	var l limit.Limit
	l.Algorithm = limit.Algorithm(r.byte())
	id := limit.LevelID{Algorithm: l.Algorithm, Ordinal: int(r.byte())}
	l.Tokens = r.number()
	l.Period = r.duration()
	l.Burst = r.number()
	if id.Period = l.Period; l.Problem() != "" || id.Ordinal >= limit.MaxCombined {
		r.fail()
	}
	return l, id
}
