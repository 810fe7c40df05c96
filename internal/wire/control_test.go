package wire

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

func decodeNewQuestionAnswer(b []byte) (AcquireResponse, error) {
	return DecodeAcquireResponse(b, make(setsOf).plain)
}

func decodeNewReplicaRequest(b []byte) (ReplicaRequest, error) {
	return (&ReplicaMemory{Message: slices.Clone(b)}).Decode(make(setsOf).plain)
}

var controlRequests = map[Kind]controlCodec{
	KindPing:    codecOf(AppendPing, DecodePing),
	KindVerdict: codecOf(AppendVerdictRequest, DecodeVerdictRequest),
	KindAcquire: codecOf(AppendAcquireRequest, DecodeAcquireRequest),
	KindReplica: codecOf(AppendReplicaRequest, decodeNewReplicaRequest),
	KindSettle:  codecOf(AppendSettleRequest, DecodeSettleRequest),
	KindDebt:    codecOf(AppendDebt, DecodeDebt),
	KindRelay:   codecOf(AppendRelay, DecodeRelay),
	KindWake:    codecOf(AppendWake, DecodeWake),
	KindPanel:   codecOf(AppendPanelRequest, DecodePanelRequest),
}

// controlAnswers are by the kind of the request; a report has a plain answer, and a relay that of what was relayed.
var controlAnswers = map[Kind]controlCodec{
	KindPing:    codecOf(AppendPong, DecodePong),
	KindVerdict: codecOf(AppendVerdict, DecodeVerdict),
	KindAcquire: codecOf(AppendAcquireResponse, decodeNewQuestionAnswer),
	KindReplica: codecOf(AppendReplicaResponse, DecodeReplicaResponse),
	KindSettle:  codecOf(AppendSettleResponse, DecodeSettleResponse),
	KindPanel:   codecOf(AppendPanelAnswer, DecodePanelAnswer),
}

type controlGolden struct {
	name    string
	codec   controlCodec
	message any
}

// goldenControl are control messages as version 1 sends them. The bytes are a promise to every node of that version.
func goldenControl() []controlGolden {
	known := []string{"web-00000001", "web-00000002", "db-ffffffff"}
	round := Ballot{300, known[0]}
	copyOf := Version{1 << 33, Ballot{7, known[1]}, 2, known[2]}
	request, answer := controlRequests, controlAnswers
	origin := Origin{Era: 1, Founded: -1 << 60, Name: known[0]}
	panel := Panel{Origin: origin, Number: 1 << 40, Witnesses: known[:2], Members: 300}
	last := Panel{Origin: origin, Number: 1<<40 + 1, Witnesses: known[:2], Members: 300, Successor: Origin{Founded: 1, Name: known[2]}}
	id := PanelID{origin, panel.Number}
	lost := []LostName{{known[0], 0}, {known[1], 1234 * time.Millisecond}, {known[2], math.MaxUint32 * time.Millisecond}}
	return []controlGolden{
		{"ping-panel", request[KindPing], Ping{Heard: 300, Digest: 1, Panel: id}},
		{"pong-panel", answer[KindPing], Pong{Heard: 301, Digest: 1, Panel: PanelWord{ID: id}}},
		{"pong-panels-differ", answer[KindPing], Pong{Heard: 301, Digest: 1, Known: known, Lost: lost, Panel: PanelWord{
			ID: id, Panel: panel, Accepted: AcceptedPanel{round, last},
		}}},
		{"panel-promise", request[KindPanel], PanelRequest{ID: id, Ballot: round}},
		{"panel-accept", request[KindPanel], PanelRequest{ID: id, Ballot: round, Panel: last}},
		{"panel-yes", answer[KindPanel], PanelAnswer{Yes: true, Word: PanelWord{ID: id, Accepted: AcceptedPanel{round, last}}}},
		{"panel-no", answer[KindPanel], PanelAnswer{Promised: round, Word: PanelWord{ID: id, Panel: panel}}},
		{"ping", request[KindPing], Ping{Heard: 300, Digest: 0xfedcba9876543210}},
		{"pong", answer[KindPing], Pong{Heard: 301, Digest: 1}},
		{"pong-quorum", answer[KindPing], Pong{HasQuorum: true, Heard: 301, Digest: 1}},
		{"pong-refused", answer[KindPing], Pong{Refused: true, Heard: math.MaxUint64, Digest: 2, Known: known, Silent: known[1:2]}},
		{"verdict-request", request[KindVerdict], VerdictRequest{Heard: 1, Names: known[:2]}},
		{"verdict", answer[KindVerdict], Verdict{Heard: 2, Silent: known[1:]}},
		{"verdict-none", answer[KindVerdict], Verdict{}},
		{"question-lost", request[KindAcquire], AcquireRequest{Ballot: round, Known: known, Lost: lost}},
		{"question-answer-lost", answer[KindAcquire], AcquireResponse{Heard: 300, Known: known, Lost: lost}},
		{"question", request[KindAcquire], AcquireRequest{Ballot: round, Known: known, Parts: []AskedPartition{
			{Part: 7}, {Part: 8, Have: copyOf, From: 1000}, {Part: 4092, Have: Version{Holder: known[0]}}, {Part: 0},
		}}},
		{"question-answer", answer[KindAcquire], AcquireResponse{Heard: 300, Known: known, Parts: []PartitionReply{
			{Part: 7, Kind: ReplyNotHolding, Version: copyOf, TransferredTo: known[1]},
			{Part: 8, Kind: ReplyBehind, Promised: round},
			{Part: 9, Kind: ReplyTransferred, Version: copyOf, Content: goldenContent(), Next: 1 << 20},
		}}},
		{"replica", request[KindReplica], ReplicaRequest{[]ReplicaPart{
			{Part: 11, Version: copyOf, Since: 1<<33 - 1, Content: goldenContent()},
			{Part: 12, Version: copyOf, Full: true, Last: true},
			{Part: 13, Version: copyOf, Full: true, First: true},
		}}},
		{"replica-leases", request[KindReplica], ReplicaRequest{[]ReplicaPart{
			{Part: 11, Version: copyOf, Since: 7, Content: leasedContent()},
		}}},
		{"replica-answer", answer[KindReplica], ReplicaResponse{[]ReplicaAck{
			{Part: 11, Status: ReplicaTaken}, {Part: 12, Status: ReplicaRefused, Promised: round},
			{Part: 13, Status: ReplicaHeld, Promised: copyOf.Ballot}, {Part: 14, Status: ReplicaMissing},
		}}},
		{"settle", request[KindSettle], SettleRequest{known[1], []SettlePart{{4092, copyOf}, {4091, Version{}}}}},
		{"settle-answer", answer[KindSettle], SettleResponse{[]uint16{4092, 0, 17}}},
		{"report", request[KindDebt], Debt{Member: known[1], Part: 99, Seq: 3, Charges: goldenCharges()}},
		{"relay", request[KindRelay], Relay{To: known[0], From: known[2], Request: []byte{1, 2, 3}}},
		{"wake", request[KindWake], Wake{Turn: Turn{Node: known[0], Number: 300}, Granted: true, Decision: limit.Decision{
			Allowed: true, Limit: perSecond(100), Remaining: 99, ResetAfter: 10 * time.Millisecond,
		}}},
		{"wake-ask-again", request[KindWake], Wake{Turn: Turn{Node: known[2], Number: 1}}},
	}
}

// setsOf finds the set of a limiter's limits as a node does: the same one each time.
type setsOf map[string]*limit.Set

func (s setsOf) plain(limiter string, limits []limit.Limit) (*limit.Set, error) {
	rule := string(AppendRule(nil, limiter, limits))
	if s[rule] == nil {
		if _, _, err := DecodeRule([]byte(rule)); err != nil {
			return nil, err
		}
		s[rule] = limit.NewSet(limits)
	}
	return s[rule], nil
}

func goldenContent() Content {
	api, login := limit.NewSet([]limit.Limit{perSecond(100)}), limit.NewSet([]limit.Limit{withBurst(perMinute(5), 2.5), leaky(per(0.1, time.Hour))})
	extended := api.WithOthers([]limit.Limit{withBurst(perSecond(1), 100)}, []limit.LevelID{{Period: time.Second, Ordinal: 2}})
	return Content{
		Buckets: []Image{
			{Limiter: "api", Key: "user-1234567890abcdef", Set: api, Levels: []float64{3}},
			{Limiter: "api", Key: "user-1234567890abcdeg", Set: api, Levels: []float64{0.1}},
			{Limiter: "login", Key: "\x00\xff", Set: login, Levels: []float64{2.5, 1e18}},
			{Limiter: "api", Key: "mixed", Set: extended, Levels: []float64{0, math.SmallestNonzeroFloat64}},
			{Limiter: "api", Key: "gone"},
		},
		Marks: []DebtMark{{"web-00000002", 12}, {"gone-12345678", math.MaxUint64}},
	}
}

func leasedContent() Content {
	api, tight := limit.NewSet([]limit.Limit{perSecond(100)}), limit.NewSet([]limit.Limit{perSecond(100), perHour(1000)})
	return Content{Buckets: []Image{{
		Limiter: "api", Key: "k", Set: api, Levels: []float64{3},
		Leases: []limit.MovingLease{{Set: api, Tokens: 500, Left: 20 * time.Millisecond}, {Set: tight, Tokens: 8}},
	}}}
}

func goldenCharges() []Charge {
	api, login := AppendRule(nil, "api", []limit.Limit{perSecond(100)}), AppendRule(nil, "login", []limit.Limit{perMinute(5)})
	return []Charge{{api, "k", 1}, {login, "\x00", 0.25}, {api, "l", 1 << 53}, {login, "m", 3}}
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
		case "ping":
			encoded = append(encoded, make([]byte, 11)...)
		case "pong", "pong-refused", "pong-quorum":
			encoded = append(encoded, make([]byte, 11+2+1)...)
		case "question", "question-answer", "pong-panel":
			encoded = append(encoded, 0)
		}
		decoded, err := g.codec.decode(append(encoded, 1, 2, 3))
		require.NoError(t, err, g.name)
		assert.Equal(t, g.message, decoded, g.name)
	}
	q := Relay{To: "a", From: "b", Request: []byte{7}}
	decoded, err := DecodeRelay(append(AppendRelay(nil, &q), 1, 2, 3))
	require.NoError(t, err)
	assert.Equal(t, q, decoded, "what is relayed has a length of its own")
}

// Later versions add fields to a bucket, to a mark, to a partition and to a set.
func TestControlSkipsUnknownFieldsOfRecords(t *testing.T) {
	set := limit.NewSet([]limit.Limit{perSecond(100)})
	w := beginControl(nil, byte(KindReplica))
	w.setIndex(limiterSet{"api", set})
	w.sets = appendBytes(nil, append(appendSet([]byte{1}, set), 9, 9, 9))
	w.count(1)
	part := w.beginRecord()
	w.partition(5)
	w.version(Version{Holder: "web-00000001"})
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
	assert.Equal(t, ReplicaRequest{[]ReplicaPart{{
		Part: 5, Version: Version{Holder: "web-00000001"}, Since: 4, Full: true, First: true, Last: true,
		Content: Content{
			Buckets: []Image{
				{Limiter: "api", Key: "a", Set: set, Levels: []float64{2}},
				{Limiter: "api", Key: "b", Set: set, Levels: []float64{2}},
			},
			Marks: []DebtMark{{"web-00000001", 12}},
		},
	}}}, decoded)
}

func TestControlRefusesWhatIsCutShort(t *testing.T) {
	for _, g := range goldenControl() {
		encoded := g.codec.encode(g.message)
		for n := range len(encoded) {
			decoded, err := g.codec.decode(encoded[:n])
			if err == nil && (strings.Contains(g.name, "-panel") || strings.Contains(g.name, "-lost")) { // as a version without the last fields sends it
				switch m := decoded.(type) {
				case Ping:
					assert.Zero(t, m.Panel)
				case Pong:
					assert.Empty(t, m.Lost)
				case AcquireRequest:
					assert.Empty(t, m.Lost)
				case AcquireResponse:
					assert.Empty(t, m.Lost)
				}
				continue
			}
			assert.ErrorIs(t, err, ErrMalformed, "%s cut at %d of %d", g.name, n, len(encoded))
		}
	}
}

// A node that cannot answer says so in two bytes, whatever it was asked.
func TestControlAnswersCanBeRefusals(t *testing.T) {
	refusal := AppendResponse(nil, &Response{Status: StatusRefused})
	for kind, codec := range controlAnswers {
		_, err := codec.decode(refusal)
		assert.ErrorIs(t, err, ErrRefused, "%d", kind)
		assert.NotErrorIs(t, err, ErrMalformed, "%d", kind)
		_, err = codec.decode(AppendResponse(nil, &Response{Status: StatusDecided, Decision: limit.Decision{Limit: perSecond(1)}}))
		assert.ErrorIs(t, err, ErrMalformed, "%d: an answer to something else", kind)
	}
	for _, g := range goldenControl() {
		encoded := g.codec.encode(g.message)
		encoded[1] = 0
		_, err := g.codec.decode(encoded)
		assert.ErrorIs(t, err, ErrMalformed, "%s of no version", g.name)
	}
	for kind, codec := range controlRequests {
		_, err := codec.decode(refusal)
		assert.ErrorIs(t, err, ErrMalformed, "%d", kind)
	}
}

func TestControlRefusesWhatCannotBe(t *testing.T) {
	one := limit.NewSet([]limit.Limit{perSecond(5)})
	levels := func(levels ...float64) any {
		return replicaOf(Image{Limiter: "api", Key: "k", Set: one, Levels: levels})
	}
	limited := func(set *limit.Set) any {
		return replicaOf(Image{Limiter: "api", Key: "k", Set: set, Levels: make([]float64, len(set.Limits))})
	}
	ids := func(active int, ids ...limit.LevelID) any {
		set := &limit.Set{Active: active, IDs: ids}
		for _, id := range ids {
			set.Limits = append(set.Limits, per(5, id.Period))
		}
		return limited(set)
	}
	second := func(ordinal int) limit.LevelID { return limit.LevelID{Period: time.Second, Ordinal: ordinal} }
	charged := func(c Charge) any { return Debt{Member: "a", Part: 1, Seq: 1, Charges: []Charge{c}} }
	rule := goldenCharges()[0].Rule
	var many []limit.LevelID
	for i := range limit.MaxLevels + 1 {
		many = append(many, limit.LevelID{Period: time.Second + time.Duration(i)})
	}
	request, answer := controlRequests, controlAnswers
	for name, c := range map[string]struct {
		codec   controlCodec
		message any
	}{
		"a level that is no number":  {request[KindReplica], levels(math.NaN())},
		"a level below zero":         {request[KindReplica], levels(-0.5)},
		"an infinite level":          {request[KindReplica], levels(math.Inf(1))},
		"a level too few":            {request[KindReplica], levels()},
		"an empty key":               {request[KindReplica], replicaOf(Image{Limiter: "api", Set: one, Levels: []float64{1}})},
		"no limiter":                 {request[KindReplica], replicaOf(Image{Key: "k", Set: one, Levels: []float64{1}})},
		"a limit without tokens":     {request[KindReplica], limited(&limit.Set{Active: 1, Limits: []limit.Limit{perSecond(0)}, IDs: []limit.LevelID{second(0)}})},
		"another algorithm":          {request[KindReplica], limited(&limit.Set{Active: 1, Limits: []limit.Limit{{Tokens: 1, Period: 1, Burst: 1, Algorithm: 2}}, IDs: []limit.LevelID{second(0)}})},
		"nothing active":             {request[KindReplica], ids(0, second(0))},
		"more active than there are": {request[KindReplica], ids(2, second(0))},
		"too many active":            {request[KindReplica], ids(limit.MaxCombined+1, many[:limit.MaxCombined+1]...)},
		"too many levels":            {request[KindReplica], ids(1, many...)},
		"a level twice":              {request[KindReplica], ids(1, second(0), second(0))},
		"active out of order":        {request[KindReplica], ids(2, second(1), second(0))},
		"an ordinal too high":        {request[KindReplica], ids(1, second(0), second(limit.MaxCombined))},
		"a long key":                 {request[KindReplica], replicaOf(Image{Limiter: "api", Key: strings.Repeat("k", MaxKeyLen+1)})},
		"no such partition":          {request[KindSettle], SettleRequest{"a", []SettlePart{{Part: ring.Partitions}}}},
		"too many partitions":        {request[KindSettle], SettleRequest{"a", make([]SettlePart, ring.Partitions+1)}},
		"too many settled":           {answer[KindSettle], SettleResponse{make([]uint16, ring.Partitions+1)}},
		"too many members":           {request[KindVerdict], VerdictRequest{Names: slices.Repeat([]string{"a"}, maxKnownNames+1)}},
		"a long name":                {request[KindVerdict], VerdictRequest{Names: []string{strings.Repeat("a", MaxIdentityLen+1)}}},
		"an empty name":              {answer[KindPing], Pong{Known: []string{""}}},
		"no kind of answer":          {answer[KindAcquire], AcquireResponse{Parts: []PartitionReply{{}}}},
		"an unknown kind of answer":  {answer[KindAcquire], AcquireResponse{Parts: []PartitionReply{{Kind: replyKindEnd}}}},
		"no status":                  {answer[KindReplica], ReplicaResponse{[]ReplicaAck{{}}}},
		"an unknown status":          {answer[KindReplica], ReplicaResponse{[]ReplicaAck{{Status: replicaStatusEnd}}}},
		"no cost":                    {request[KindDebt], charged(Charge{Rule: rule, Key: "k"})},
		"no charged key":             {request[KindDebt], charged(Charge{Rule: rule, Cost: 1})},
		"no rule":                    {request[KindDebt], charged(Charge{Key: "k", Cost: 1})},
		"no reporter":                {request[KindDebt], Debt{Part: 1, Seq: 1}},
		"to nobody":                  {request[KindRelay], Relay{From: "a", Request: []byte{1}}},
		"from nobody":                {request[KindRelay], Relay{To: "a", Request: []byte{1}}},
		"nothing relayed":            {request[KindRelay], Relay{To: "a", From: "b"}},
	} {
		_, err := c.codec.decode(c.codec.encode(c.message))
		assert.ErrorIs(t, err, ErrMalformed, name)
	}
	_, err := decodeNewReplicaRequest(controlRequests[KindReplica].encode(levels(1)))
	assert.NoError(t, err, "what is varied above is well-formed")
}

// replicaOf is a message with one bucket.
func replicaOf(image Image) ReplicaRequest {
	return ReplicaRequest{[]ReplicaPart{{Part: 1, Content: Content{Buckets: []Image{image}}}}}
}

// References to what is not there, and lists longer than the message, are refused before memory is set aside.
func TestControlRefusesReferencesToNothing(t *testing.T) {
	header := []byte{byte(KindReplica), WireVersion}
	for name, body := range map[string][]byte{
		"a name that is not there": {0, 0, 1, 5, 2, 1, 0, 1, 0},
		"a set that is not there":  {0, 0, 1, 11, 2, 0, 0, 0, 1, 5, 1, 1, 'k', 0, 0, 0},
		"a million names":          {0xc0, 0x84, 0x3d},
		"a million sets":           {0, 0xc0, 0x84, 0x3d},
		"a million partitions":     {0, 0, 0xc0, 0x84, 0x3d},
		"a long record":            {0, 0, 1, 0xc0, 0x84, 0x3d},
	} {
		_, err := decodeNewReplicaRequest(append(slices.Clone(header), body...))
		assert.ErrorIs(t, err, ErrMalformed, name)
	}
}

// Buckets of one limiter share a set, so that the first take need not compare; and the set is the one that takes use.
func TestDecodedSetsAreShared(t *testing.T) {
	known := make(setsOf)
	content := goldenContent()
	encoded := AppendReplicaRequest(nil, &ReplicaRequest{[]ReplicaPart{{Part: 1, Content: content}}})
	decoded, err := (&ReplicaMemory{Message: encoded}).Decode(known.plain)
	require.NoError(t, err)
	used, err := known.plain("api", []limit.Limit{perSecond(100)})
	require.NoError(t, err)
	buckets := decoded.Parts[0].Content.Buckets
	assert.Same(t, used, buckets[0].Set)
	assert.Same(t, used, buckets[1].Set)
	assert.Same(t, used, buckets[3].Set.Base, "what is remembered besides is forgotten once it has drained")
}

// Where versions of the code mix, each bucket remembers by a set of its own; they are sent once.
func TestEqualSetsAreSentOnce(t *testing.T) {
	plain := limit.NewSet([]limit.Limit{perSecond(100)})
	var images []Image
	for i := range 100 {
		set := plain.WithOthers([]limit.Limit{perHour(1000)}, []limit.LevelID{{Period: time.Hour}})
		images = append(images, Image{Limiter: "api", Key: fmt.Sprintf("%03d", i), Set: set, Levels: []float64{1, 2}})
	}
	encoded := AppendReplicaRequest(nil, &ReplicaRequest{[]ReplicaPart{{Content: Content{Buckets: images}}}})
	assert.Less(t, len(encoded), 100*10)
	decoded, err := decodeNewReplicaRequest(encoded)
	require.NoError(t, err)
	assert.Equal(t, images, decoded.Parts[0].Content.Buckets)
	assert.Same(t, decoded.Parts[0].Content.Buckets[0].Set, decoded.Parts[0].Content.Buckets[99].Set)
}

// As pings and pongs are while nothing changes: they name one panel.
func TestControlPingThatNamesAPanelIsSmall(t *testing.T) {
	id := PanelID{Origin{Founded: math.MaxInt64, Name: "web-00000001"}, 1 << 20}
	p, q := Ping{Heard: 1 << 20, Digest: math.MaxUint64, Panel: id}, Pong{Heard: 1 << 20, Digest: math.MaxUint64, Panel: PanelWord{ID: id}}
	there, back := AppendPing(nil, &p), AppendPong(nil, &q)
	assert.LessOrEqual(t, len(there), 50)
	assert.LessOrEqual(t, len(back), 50)
	buffer := make([]byte, 0, smallMessage)
	assert.LessOrEqual(t, testing.AllocsPerRun(100, func() {
		AppendPing(buffer, &p)
		AppendPong(buffer, &q)
		_, _ = DecodePing(there)
		_, _ = DecodePong(back)
	}), 8.0, "names, and where they are gathered")
}

// A ping goes to every witness ten times a second.
func TestControlPingIsSmallAndAllocatesNothing(t *testing.T) {
	p := Ping{Heard: math.MaxUint64, Digest: math.MaxUint64}
	q := Pong{Refused: true, Heard: math.MaxUint64, Digest: math.MaxUint64}
	there, back := AppendPing(nil, &p), AppendPong(nil, &q)
	assert.LessOrEqual(t, len(there), 30)
	assert.LessOrEqual(t, len(back), 30)
	buffer := make([]byte, 0, 64)
	assert.Zero(t, testing.AllocsPerRun(100, func() {
		AppendPing(buffer, &p)
		AppendPong(buffer, &q)
		if _, err := DecodePing(there); err != nil {
			t.Error(err)
		}
		if _, err := DecodePong(back); err != nil {
			t.Error(err)
		}
	}))
}

// A node that joins asks for thousands of partitions at once.
func TestControlQuestionIsSmall(t *testing.T) {
	q := AcquireRequest{Ballot: Ballot{1000, "peerlimit-00000000"}}
	for i := range 100 {
		q.Known = append(q.Known, fmt.Sprintf("peerlimit-%08x", i))
	}
	for part := range uint16(ring.Partitions) {
		q.Parts = append(q.Parts, AskedPartition{Part: part})
	}
	assert.Less(t, len(AppendAcquireRequest(nil, &q)), 25_000)
	for i := range q.Parts {
		by := q.Known[i%len(q.Known)]
		q.Parts[i].Have = Version{uint64(i) << 24, Ballot{uint64(1000 + i*i), by}, uint32(i), q.Known[(i+1)%len(q.Known)]}
		q.Parts[i].From = uint32(i) << 8
	}
	encoded := AppendAcquireRequest(nil, &q)
	assert.Less(t, len(encoded), 120_000)
	decoded, err := DecodeAcquireRequest(encoded)
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
		codec, ok := controlAnswers[Kind(asked)]
		if !isAnswer {
			if len(b) == 0 {
				return
			}
			codec, ok = controlRequests[Kind(b[0])]
		}
		if !ok {
			return
		}
		first, err := codec.decode(b)
		if err != nil {
			if !isAnswer || len(b) < 2 || status(b[0]) != StatusRefused {
				require.ErrorIs(t, err, ErrMalformed)
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
