package peerlimit

import (
	"bytes"
	"fmt"
	"math"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/peerlimit/peerlimit/internal/limit"
	"github.com/peerlimit/peerlimit/internal/ring"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// controlCodec encodes and decodes one kind of control message, whatever its type.
type controlCodec struct {
	encode func(message any) []byte
	decode func(b []byte) (any, error)
}

func codecOf[T any](encode func([]byte, *T) []byte, decode func([]byte) (T, error)) controlCodec {
	return controlCodec{
		encode: func(message any) []byte { m := message.(T); return encode(nil, &m) },
		decode: func(b []byte) (any, error) { m, err := decode(b); return m, err },
	}
}

func decodeNewQuestionAnswer(b []byte) (questionAnswer, error) {
	return decodeQuestionAnswer(b, make(setsOf).plain)
}

func decodeNewReplicaRequest(b []byte) (replicaRequest, error) {
	return decodeReplicaRequest(b, make(setsOf).plain)
}

var controlRequests = map[messageKind]controlCodec{
	kindPing:     codecOf(appendPing, decodePing),
	kindVerdict:  codecOf(appendVerdictRequest, decodeVerdictRequest),
	kindQuestion: codecOf(appendQuestion, decodeQuestion),
	kindReplica:  codecOf(appendReplicaRequest, decodeNewReplicaRequest),
	kindSettle:   codecOf(appendSettleRequest, decodeSettleRequest),
	kindReport:   codecOf(appendReport, decodeReport),
	kindRelay:    codecOf(appendRelay, decodeRelay),
}

// controlAnswers are by the kind of the request; a report has a plain answer, and a relay that of what was relayed.
var controlAnswers = map[messageKind]controlCodec{
	kindPing:     codecOf(appendPong, decodePong),
	kindVerdict:  codecOf(appendVerdict, decodeVerdict),
	kindQuestion: codecOf(appendQuestionAnswer, decodeNewQuestionAnswer),
	kindReplica:  codecOf(appendReplicaAnswer, decodeReplicaAnswer),
	kindSettle:   codecOf(appendSettleAnswer, decodeSettleAnswer),
}

type controlGolden struct {
	name    string
	codec   controlCodec
	message any
}

// goldenControl are control messages as version 1 sends them. The bytes are a promise to every node of that version.
func goldenControl() []controlGolden {
	known := []string{"web-00000001", "web-00000002", "db-ffffffff"}
	round := election{300, known[0]}
	copyOf := version{1 << 33, election{7, known[1]}, 2, known[2]}
	request, answer := controlRequests, controlAnswers
	return []controlGolden{
		{"ping", request[kindPing], ping{heard: 300, digest: 0xfedcba9876543210}},
		{"pong", answer[kindPing], pong{heard: 301, digest: 1}},
		{"pong-refused", answer[kindPing], pong{refused: true, heard: math.MaxUint64, digest: 2, known: known, silent: known[1:2]}},
		{"verdict-request", request[kindVerdict], verdictRequest{heard: 1, names: known[:2]}},
		{"verdict", answer[kindVerdict], verdict{heard: 2, silent: known[1:]}},
		{"verdict-none", answer[kindVerdict], verdict{}},
		{"question", request[kindQuestion], question{round: round, known: known, parts: []askedPart{
			{part: 7}, {part: 8, have: copyOf, from: 1000}, {part: 4092, have: version{holder: known[0]}}, {part: 0},
		}}},
		{"question-answer", answer[kindQuestion], questionAnswer{heard: 300, known: known, parts: []partAnswer{
			{part: 7, kind: answerNotHolding, version: copyOf, givenTo: known[1]},
			{part: 8, kind: answerBehind, promised: round},
			{part: 9, kind: answerGiven, version: copyOf, content: goldenContent(), next: 1 << 20},
		}}},
		{"replica", request[kindReplica], replicaRequest{[]replicaPart{
			{part: 11, version: copyOf, since: 1<<33 - 1, content: goldenContent()},
			{part: 12, version: copyOf, full: true, last: true},
			{part: 13, version: copyOf, full: true, first: true},
		}}},
		{"replica-leases", request[kindReplica], replicaRequest{[]replicaPart{
			{part: 11, version: copyOf, since: 7, content: leasedContent()},
		}}},
		{"replica-answer", answer[kindReplica], replicaAnswer{[]replicaAck{
			{part: 11, status: replicaTaken}, {part: 12, status: replicaRefused, promised: round},
			{part: 13, status: replicaHeld, promised: copyOf.election}, {part: 14, status: replicaMissing},
		}}},
		{"settle", request[kindSettle], settleRequest{known[1], []settlePart{{4092, copyOf}, {4091, version{}}}}},
		{"settle-answer", answer[kindSettle], settleAnswer{[]uint16{4092, 0, 17}}},
		{"report", request[kindReport], report{reporter: known[1], part: 99, seq: 3, charges: goldenCharges()}},
		{"relay", request[kindRelay], relay{to: known[0], from: known[2], request: []byte{1, 2, 3}}},
	}
}

// setsOf finds the set of a limiter's limits as a node does: the same one each time.
type setsOf map[string]*limit.Set

func (s setsOf) plain(limiter string, limits []limit.Limit) (*limit.Set, error) {
	rule := string(appendRule(nil, limiter, limits))
	if s[rule] == nil {
		if _, _, err := decodeRule([]byte(rule)); err != nil {
			return nil, err
		}
		s[rule] = limit.NewSet(limits)
	}
	return s[rule], nil
}

func goldenContent() partContent {
	api, login := limit.NewSet([]limit.Limit{perSecond(100)}), limit.NewSet([]limit.Limit{withBurst(perMinute(5), 2.5), leaky(per(0.1, time.Hour))})
	extended := api.WithOthers([]limit.Limit{withBurst(perSecond(1), 100)}, []limit.LevelID{{Period: time.Second, Ordinal: 2}})
	return partContent{
		buckets: []bucketImage{
			{limiter: "api", key: "user-1234567890abcdef", set: api, levels: []float64{3}},
			{limiter: "api", key: "user-1234567890abcdeg", set: api, levels: []float64{0.1}},
			{limiter: "login", key: "\x00\xff", set: login, levels: []float64{2.5, 1e18}},
			{limiter: "api", key: "mixed", set: extended, levels: []float64{0, math.SmallestNonzeroFloat64}},
			{limiter: "api", key: "gone"},
		},
		marks: []reportMark{{"web-00000002", 12}, {"gone-12345678", math.MaxUint64}},
	}
}

func leasedContent() partContent {
	api, tight := limit.NewSet([]limit.Limit{perSecond(100)}), limit.NewSet([]limit.Limit{perSecond(100), perHour(1000)})
	return partContent{buckets: []bucketImage{{
		limiter: "api", key: "k", set: api, levels: []float64{3},
		leases: []limit.MovingLease{{Set: api, Tokens: 500, Left: 20 * time.Millisecond}, {Set: tight, Tokens: 8}},
	}}}
}

func goldenCharges() []charge {
	api, login := appendRule(nil, "api", []limit.Limit{perSecond(100)}), appendRule(nil, "login", []limit.Limit{perMinute(5)})
	return []charge{{api, "k", 1}, {login, "\x00", 0.25}, {api, "l", 1 << 53}, {login, "m", 3}}
}

func TestControlGolden(t *testing.T) {
	for _, g := range goldenControl() {
		encoded := g.codec.encode(g.message)
		checkGolden(t, "control-"+g.name, encoded)
		decoded, err := g.codec.decode(encoded)
		require.NoError(t, err, g.name)
		assert.Equal(t, g.message, decoded, g.name)
	}
}

// What is decoded is kept by goroutines that outlive the connection's buffer.
func TestControlDecodesIntoItsOwnMemory(t *testing.T) {
	for _, g := range goldenControl() {
		encoded := g.codec.encode(g.message)
		decoded, err := g.codec.decode(encoded)
		require.NoError(t, err, g.name)
		for i := range encoded {
			encoded[i] = 0xaa
		}
		assert.Equal(t, g.message, decoded, g.name)
	}
}

func TestControlSkipsWhatItDoesNotKnow(t *testing.T) {
	for _, g := range goldenControl() {
		if g.name == "relay" {
			continue // see below
		}
		encoded := g.codec.encode(g.message)
		switch g.name { // a version with more fields writes these as well
		case "pong", "pong-refused":
			encoded = append(encoded, 0, 0)
		case "question", "question-answer":
			encoded = append(encoded, 0)
		}
		decoded, err := g.codec.decode(append(encoded, 1, 2, 3))
		require.NoError(t, err, g.name)
		assert.Equal(t, g.message, decoded, g.name)
	}
	q := relay{to: "a", from: "b", request: []byte{7}}
	decoded, err := decodeRelay(append(appendRelay(nil, &q), 1, 2, 3))
	require.NoError(t, err)
	assert.Equal(t, q, decoded, "what is relayed has a length of its own")
}

// Later versions add fields to a bucket, to a mark, to a partition and to a set.
func TestControlSkipsUnknownFieldsOfRecords(t *testing.T) {
	set := limit.NewSet([]limit.Limit{perSecond(100)})
	w := beginControl(nil, byte(kindReplica))
	w.setIndex(limiterSet{"api", set})
	w.sets = appendBytes(nil, append(appendSet([]byte{1}, set), 9, 9, 9))
	w.count(1)
	part := w.beginRecord()
	w.partition(5)
	w.version(version{holder: "web-00000001"})
	w.uvarint(4)
	w.byte(0xff)
	w.count(2)
	for _, key := range []string{"a", "b"} {
		bucket := w.beginRecord()
		w.uvarint(1)
		w.key(key)
		w.b = append(appendNumber(w.b, 2), 0) // no leases
		w.b = append(w.b, bytes.Repeat([]byte{9}, 200)...)
		w.endRecord(bucket)
	}
	w.count(1)
	mark := w.beginRecord()
	w.name("web-00000001")
	w.uvarint(12)
	w.b = append(w.b, 9)
	w.endRecord(mark)
	w.b = append(w.b, 9)
	w.endRecord(part)

	decoded, err := decodeNewReplicaRequest(w.end())
	require.NoError(t, err)
	assert.Equal(t, replicaRequest{[]replicaPart{{
		part: 5, version: version{holder: "web-00000001"}, since: 4, full: true, first: true, last: true,
		content: partContent{
			buckets: []bucketImage{
				{limiter: "api", key: "a", set: set, levels: []float64{2}},
				{limiter: "api", key: "b", set: set, levels: []float64{2}},
			},
			marks: []reportMark{{"web-00000001", 12}},
		},
	}}}, decoded)
}

func TestControlRefusesWhatIsCutShort(t *testing.T) {
	for _, g := range goldenControl() {
		encoded := g.codec.encode(g.message)
		for n := range len(encoded) {
			_, err := g.codec.decode(encoded[:n])
			assert.ErrorIs(t, err, errMalformed, "%s cut at %d of %d", g.name, n, len(encoded))
		}
	}
}

// A node that cannot answer says so in two bytes, whatever it was asked.
func TestControlAnswersCanBeRefusals(t *testing.T) {
	refusal := appendAnswer(nil, &answer{status: statusRefused})
	for kind, codec := range controlAnswers {
		_, err := codec.decode(refusal)
		assert.ErrorIs(t, err, errRefused, "%d", kind)
		assert.NotErrorIs(t, err, errMalformed, "%d", kind)
		_, err = codec.decode(appendAnswer(nil, &answer{status: statusDecided, decision: limit.Decision{Limit: perSecond(1)}}))
		assert.ErrorIs(t, err, errMalformed, "%d: an answer to something else", kind)
	}
	for _, g := range goldenControl() {
		encoded := g.codec.encode(g.message)
		encoded[1] = 0
		_, err := g.codec.decode(encoded)
		assert.ErrorIs(t, err, errMalformed, "%s of no version", g.name)
	}
	for kind, codec := range controlRequests {
		_, err := codec.decode(refusal)
		assert.ErrorIs(t, err, errMalformed, "%d", kind)
	}
}

func TestControlRefusesWhatCannotBe(t *testing.T) {
	one := limit.NewSet([]limit.Limit{perSecond(5)})
	levels := func(levels ...float64) any {
		return replicaOf(bucketImage{limiter: "api", key: "k", set: one, levels: levels})
	}
	limited := func(set *limit.Set) any {
		return replicaOf(bucketImage{limiter: "api", key: "k", set: set, levels: make([]float64, len(set.Limits))})
	}
	ids := func(active int, ids ...limit.LevelID) any {
		set := &limit.Set{Active: active, IDs: ids}
		for _, id := range ids {
			set.Limits = append(set.Limits, per(5, id.Period))
		}
		return limited(set)
	}
	second := func(ordinal int) limit.LevelID { return limit.LevelID{Period: time.Second, Ordinal: ordinal} }
	charged := func(c charge) any { return report{reporter: "a", part: 1, seq: 1, charges: []charge{c}} }
	rule := goldenCharges()[0].rule
	var many []limit.LevelID
	for i := range limit.MaxLevels + 1 {
		many = append(many, limit.LevelID{Period: time.Second + time.Duration(i)})
	}
	request, answer := controlRequests, controlAnswers
	for name, c := range map[string]struct {
		codec   controlCodec
		message any
	}{
		"a level that is no number":  {request[kindReplica], levels(math.NaN())},
		"a level below zero":         {request[kindReplica], levels(-0.5)},
		"an infinite level":          {request[kindReplica], levels(math.Inf(1))},
		"a level too few":            {request[kindReplica], levels()},
		"an empty key":               {request[kindReplica], replicaOf(bucketImage{limiter: "api", set: one, levels: []float64{1}})},
		"no limiter":                 {request[kindReplica], replicaOf(bucketImage{key: "k", set: one, levels: []float64{1}})},
		"a limit without tokens":     {request[kindReplica], limited(&limit.Set{Active: 1, Limits: []limit.Limit{perSecond(0)}, IDs: []limit.LevelID{second(0)}})},
		"another algorithm":          {request[kindReplica], limited(&limit.Set{Active: 1, Limits: []limit.Limit{{Tokens: 1, Period: 1, Burst: 1, Algorithm: 2}}, IDs: []limit.LevelID{second(0)}})},
		"nothing active":             {request[kindReplica], ids(0, second(0))},
		"more active than there are": {request[kindReplica], ids(2, second(0))},
		"too many active":            {request[kindReplica], ids(limit.MaxCombined+1, many[:limit.MaxCombined+1]...)},
		"too many levels":            {request[kindReplica], ids(1, many...)},
		"a level twice":              {request[kindReplica], ids(1, second(0), second(0))},
		"active out of order":        {request[kindReplica], ids(2, second(1), second(0))},
		"an ordinal too high":        {request[kindReplica], ids(1, second(0), second(limit.MaxCombined))},
		"a long key":                 {request[kindReplica], replicaOf(bucketImage{limiter: "api", key: strings.Repeat("k", maxKeyLen+1)})},
		"no such partition":          {request[kindSettle], settleRequest{"a", []settlePart{{part: ring.Partitions}}}},
		"too many partitions":        {request[kindSettle], settleRequest{"a", make([]settlePart, ring.Partitions+1)}},
		"too many settled":           {answer[kindSettle], settleAnswer{make([]uint16, ring.Partitions+1)}},
		"too many members":           {request[kindVerdict], verdictRequest{names: slices.Repeat([]string{"a"}, maxKnownNames+1)}},
		"a long name":                {request[kindVerdict], verdictRequest{names: []string{strings.Repeat("a", maxIdentityLen+1)}}},
		"an empty name":              {answer[kindPing], pong{known: []string{""}}},
		"no kind of answer":          {answer[kindQuestion], questionAnswer{parts: []partAnswer{{}}}},
		"an unknown kind of answer":  {answer[kindQuestion], questionAnswer{parts: []partAnswer{{kind: answerKindEnd}}}},
		"no status":                  {answer[kindReplica], replicaAnswer{[]replicaAck{{}}}},
		"an unknown status":          {answer[kindReplica], replicaAnswer{[]replicaAck{{status: replicaStatusEnd}}}},
		"no cost":                    {request[kindReport], charged(charge{rule: rule, key: "k"})},
		"no charged key":             {request[kindReport], charged(charge{rule: rule, cost: 1})},
		"no rule":                    {request[kindReport], charged(charge{key: "k", cost: 1})},
		"no reporter":                {request[kindReport], report{part: 1, seq: 1}},
		"to nobody":                  {request[kindRelay], relay{from: "a", request: []byte{1}}},
		"from nobody":                {request[kindRelay], relay{to: "a", request: []byte{1}}},
		"nothing relayed":            {request[kindRelay], relay{to: "a", from: "b"}},
	} {
		_, err := c.codec.decode(c.codec.encode(c.message))
		assert.ErrorIs(t, err, errMalformed, name)
	}
	_, err := decodeNewReplicaRequest(controlRequests[kindReplica].encode(levels(1)))
	assert.NoError(t, err, "what is varied above is well-formed")
}

// replicaOf is a message with one bucket.
func replicaOf(image bucketImage) replicaRequest {
	return replicaRequest{[]replicaPart{{part: 1, content: partContent{buckets: []bucketImage{image}}}}}
}

// References to what is not there, and lists longer than the message, are refused before memory is set aside.
func TestControlRefusesReferencesToNothing(t *testing.T) {
	header := []byte{byte(kindReplica), wireVersion}
	for name, body := range map[string][]byte{
		"a name that is not there": {0, 0, 1, 5, 2, 1, 0, 1, 0},
		"a set that is not there":  {0, 0, 1, 11, 2, 0, 0, 0, 1, 5, 1, 1, 'k', 0, 0, 0},
		"a million names":          {0xc0, 0x84, 0x3d},
		"a million sets":           {0, 0xc0, 0x84, 0x3d},
		"a million partitions":     {0, 0, 0xc0, 0x84, 0x3d},
		"a long record":            {0, 0, 1, 0xc0, 0x84, 0x3d},
	} {
		_, err := decodeNewReplicaRequest(append(slices.Clone(header), body...))
		assert.ErrorIs(t, err, errMalformed, name)
	}
}

// Buckets of one limiter share a set, so that the first take need not compare; and the set is the one that takes use.
func TestDecodedSetsAreShared(t *testing.T) {
	known := make(setsOf)
	content := goldenContent()
	encoded := appendReplicaRequest(nil, &replicaRequest{[]replicaPart{{part: 1, content: content}}})
	decoded, err := decodeReplicaRequest(encoded, known.plain)
	require.NoError(t, err)
	used, err := known.plain("api", []limit.Limit{perSecond(100)})
	require.NoError(t, err)
	buckets := decoded.parts[0].content.buckets
	assert.Same(t, used, buckets[0].set)
	assert.Same(t, used, buckets[1].set)
	assert.Same(t, used, buckets[3].set.Base, "what is remembered besides is forgotten once it has drained")
}

// Where versions of the code mix, each bucket remembers by a set of its own; they are sent once.
func TestEqualSetsAreSentOnce(t *testing.T) {
	plain := limit.NewSet([]limit.Limit{perSecond(100)})
	var images []bucketImage
	for i := range 100 {
		set := plain.WithOthers([]limit.Limit{perHour(1000)}, []limit.LevelID{{Period: time.Hour}})
		images = append(images, bucketImage{limiter: "api", key: fmt.Sprintf("%03d", i), set: set, levels: []float64{1, 2}})
	}
	encoded := appendReplicaRequest(nil, &replicaRequest{[]replicaPart{{content: partContent{buckets: images}}}})
	assert.Less(t, len(encoded), 100*10)
	decoded, err := decodeNewReplicaRequest(encoded)
	require.NoError(t, err)
	assert.Equal(t, images, decoded.parts[0].content.buckets)
	assert.Same(t, decoded.parts[0].content.buckets[0].set, decoded.parts[0].content.buckets[99].set)
}

// A ping goes to every witness ten times a second.
func TestControlPingIsSmallAndAllocatesNothing(t *testing.T) {
	p := ping{heard: math.MaxUint64, digest: math.MaxUint64}
	q := pong{refused: true, heard: math.MaxUint64, digest: math.MaxUint64}
	there, back := appendPing(nil, &p), appendPong(nil, &q)
	assert.LessOrEqual(t, len(there), 30)
	assert.LessOrEqual(t, len(back), 30)
	buffer := make([]byte, 0, 64)
	assert.Zero(t, testing.AllocsPerRun(100, func() {
		appendPing(buffer, &p)
		appendPong(buffer, &q)
		if _, err := decodePing(there); err != nil {
			t.Error(err)
		}
		if _, err := decodePong(back); err != nil {
			t.Error(err)
		}
	}))
}

// A node that joins asks for thousands of partitions at once.
func TestControlQuestionIsSmall(t *testing.T) {
	q := question{round: election{1000, "peerlimit-00000000"}}
	for i := range 100 {
		q.known = append(q.known, fmt.Sprintf("peerlimit-%08x", i))
	}
	for part := range uint16(ring.Partitions) {
		q.parts = append(q.parts, askedPart{part: part})
	}
	assert.Less(t, len(appendQuestion(nil, &q)), 25_000)
	for i := range q.parts {
		by := q.known[i%len(q.known)]
		q.parts[i].have = version{uint64(i) << 24, election{uint64(1000 + i*i), by}, uint32(i), q.known[(i+1)%len(q.known)]}
		q.parts[i].from = uint32(i) << 8
	}
	encoded := appendQuestion(nil, &q)
	assert.Less(t, len(encoded), 120_000)
	decoded, err := decodeQuestion(encoded)
	require.NoError(t, err)
	assert.Equal(t, q, decoded)
}

// Whatever comes is refused or means one thing: what is decoded and encoded again means the same, in the same bytes from
// then on.
func FuzzDecodeControl(f *testing.F) {
	for _, g := range goldenControl() {
		f.Add(false, byte(0), g.codec.encode(g.message))
	}
	for kind := range controlAnswers {
		for _, g := range goldenControl() {
			f.Add(true, byte(kind), g.codec.encode(g.message))
		}
	}
	f.Fuzz(func(t *testing.T, isAnswer bool, asked byte, b []byte) {
		codec, ok := controlAnswers[messageKind(asked)]
		if !isAnswer {
			if len(b) == 0 {
				return
			}
			codec, ok = controlRequests[messageKind(b[0])]
		}
		if !ok {
			return
		}
		first, err := codec.decode(b)
		if err != nil {
			if !isAnswer || len(b) < 2 || status(b[0]) != statusRefused {
				require.ErrorIs(t, err, errMalformed)
			}
			return
		}
		encoded := codec.encode(first)
		second, err := codec.decode(encoded)
		require.NoError(t, err)
		require.Equal(t, first, second)
		require.Equal(t, encoded, codec.encode(second))
	})
}
