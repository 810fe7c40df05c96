package wire

import (
	"encoding/hex"
	"flag"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/peerlimit/peerlimit/internal/limit"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

var update = flag.Bool("update", false, "rewrite the golden files")

// goldenMessages are requests as version 1 sends them. The bytes are a promise to every node of that version: a new
// version may add a file, and never changes one.
func goldenMessages() map[string]Message {
	one := AppendRule(nil, "api", []limit.Limit{perSecond(100)})
	two := AppendRule(nil, "login", []limit.Limit{withBurst(perMinute(5), 2.5), leaky(per(0.1, time.Hour))})
	return map[string]Message{
		"take":           {Kind: KindTake, Rule: one, Key: "user-1234567890abcdef", Cost: 1},
		"take-passed-on": {Kind: KindTake, Hops: 1, Rule: one, Key: "\x00\xff", Cost: 0.25},
		"take-two":       {Kind: KindTake, Rule: two, Key: "k", Cost: 1 << 53},
		"take-in-full":   {Kind: KindTake, ToStandby: true, InFull: true, Rule: one, Key: "k", Cost: 1},
		"peek":           {Kind: KindPeek, Rule: one, Key: "k"},
		"reserve":        {Kind: KindReserve, Rule: one, Key: "k", Cost: 3, Total: 250, MaxDelay: time.Minute},
		"refund":         {Kind: KindRefund, Rule: one, Key: "k", Cost: 7},
		"reset":          {Kind: KindReset, Rule: one, Key: "k"},
		"take-lease":     {Kind: KindTake, Rule: one, Key: "k", Cost: 1, Borrow: Borrowing{Want: 1000}},
		"take-return": {Kind: KindTake, Rule: one, Key: "k", Cost: 1, Borrow: Borrowing{Want: 0.5, Returned: []LeaseReturn{
			{ID: math.MaxUint64, Unused: 12}, {ID: 1, Unused: 0.25},
		}}},
		"return": {Kind: KindReturn, Rule: one, Key: "k", Borrow: Borrowing{Returned: []LeaseReturn{{ID: 7, Unused: 0}}}},
		"cancel": {Kind: KindCancel, Rule: two, Key: "k", Undo: goldenUndo()},
		"await": {
			Kind: KindAwait, Rule: one, Key: "k", Cost: 3, Total: 250, MaxDelay: time.Minute,
			Turn: Turn{Node: "web-00000001", Number: 300, Waited: time.Second},
		},
		"leave-turn": {Kind: KindLeaveTurn, Rule: one, Key: "k", Turn: Turn{Node: "web-00000001", Number: math.MaxUint64}},
		"leave-turn-waited": {
			Kind: KindLeaveTurn, Rule: one, Key: "k", Turn: Turn{Node: "web-00000001", Number: 300, Waited: time.Second + 1},
		},
	}
}

func goldenAnswers() map[string]Response {
	allowed := limit.Decision{Allowed: true, Limit: perSecond(100), Remaining: 99, ResetAfter: 10 * time.Millisecond}
	denied := limit.Decision{
		Limit: leaky(withBurst(per(0.1, time.Hour), 3)), Remaining: 0.125, Origin: limit.OriginStandby,
		RetryAfter: time.Hour, ResetAfter: math.MaxInt64, Delay: 1,
	}
	return map[string]Response{
		"allowed":    {Status: StatusDecided, Decision: allowed},
		"denied":     {Status: StatusDecided, Decision: denied},
		"lease":      {Status: StatusDecided, Decision: allowed, Grant: Grant{ID: math.MaxUint64, Tokens: 100}},
		"stands":     {Status: StatusDecided, Decision: denied, Grant: Grant{Stands: 250 * time.Millisecond}},
		"reserved":   {Status: StatusDecided, Decision: allowed, Undo: goldenUndo()},
		"done":       {Status: StatusDone},
		"refused":    {Status: StatusRefused},
		"queued":     {Status: StatusQueued},
		"unmet":      {Status: StatusUnmet},
		"queue-full": {Status: StatusDecided, Decision: denied, QueueFull: true},
	}
}

func goldenUndo() *limit.Undo {
	u := &limit.Undo{Before: limit.Snapshot{At: -1, Count: 2}, After: limit.Snapshot{At: 1 << 40, Count: 2}}
	u.Before.Levels[0], u.After.Levels[0], u.After.Levels[1] = 0.5, 3, 1e18
	return u
}

func TestWireGolden(t *testing.T) {
	for name, m := range goldenMessages() {
		encoded := AppendMessage(nil, &m)
		checkGolden(t, "request-"+name, encoded)
		decoded, err := DecodeMessage(encoded)
		require.NoError(t, err, name)
		assert.Equal(t, m, decoded, name)
	}
	for name, a := range goldenAnswers() {
		encoded := AppendResponse(nil, &a)
		checkGolden(t, "answer-"+name, encoded)
		decoded, err := DecodeResponse(encoded)
		require.NoError(t, err, name)
		assert.Equal(t, a, decoded, name)
	}
}

func checkGolden(t *testing.T, name string, encoded []byte) {
	t.Helper()
	file := filepath.Join("testdata", "wire", "v1", name+".hex")
	text := hex.EncodeToString(encoded) + "\n"
	if *update {
		require.NoError(t, os.MkdirAll(filepath.Dir(file), 0o755))
		require.NoError(t, os.WriteFile(file, []byte(text), 0o644))
		return
	}
	want, err := os.ReadFile(file)
	require.NoError(t, err)
	assert.Equal(t, string(want), text, "%s: the bytes of a published version never change", file)
}

// A newer version adds fields at the end: this one skips them.
func TestWireSkipsWhatItDoesNotKnow(t *testing.T) {
	for name, m := range goldenMessages() {
		decoded, err := DecodeMessage(append(AppendMessage(nil, &m), 1, 2, 3))
		require.NoError(t, err, name)
		assert.Equal(t, m, decoded, name)
	}
	for name, a := range goldenAnswers() {
		decoded, err := DecodeResponse(append(AppendResponse(nil, &a), 1, 2, 3))
		require.NoError(t, err, name)
		assert.Equal(t, a, decoded, name)
	}
	name, limits, err := DecodeRule(append(AppendRule(nil, "api", []limit.Limit{perSecond(5)}), 9, 9))
	require.NoError(t, err)
	assert.Equal(t, "api", name)
	assert.Equal(t, []limit.Limit{perSecond(5)}, limits)
}

func TestWireRefusesWhatIsCutShort(t *testing.T) {
	for name, m := range goldenMessages() {
		encoded := AppendMessage(nil, &m)
		for n := range len(encoded) {
			_, err := DecodeMessage(encoded[:n])
			assert.ErrorIs(t, err, ErrMalformed, "%s cut at %d of %d", name, n, len(encoded))
		}
	}
	for name, a := range goldenAnswers() {
		encoded := AppendResponse(nil, &a)
		for n := range len(encoded) {
			_, err := DecodeResponse(encoded[:n])
			assert.ErrorIs(t, err, ErrMalformed, "%s cut at %d of %d", name, n, len(encoded))
		}
	}
}

func TestWireRefusesWhatCannotBe(t *testing.T) {
	rule := AppendRule(nil, "api", []limit.Limit{perSecond(5)})
	for name, m := range map[string]Message{
		"empty key":     {Kind: KindTake, Rule: rule, Key: "", Cost: 1},
		"long key":      {Kind: KindTake, Rule: rule, Key: strings.Repeat("k", MaxKeyLen+1), Cost: 1},
		"zero cost":     {Kind: KindTake, Rule: rule, Key: "k"},
		"negative cost": {Kind: KindRefund, Rule: rule, Key: "k", Cost: -1},
		"NaN cost":      {Kind: KindTake, Rule: rule, Key: "k", Cost: math.NaN()},
		"infinite cost": {Kind: KindReserve, Rule: rule, Key: "k", Cost: math.Inf(1), Total: 1},
		"no total":      {Kind: KindReserve, Rule: rule, Key: "k", Cost: 1},
		"no undo":       {Kind: KindCancel, Rule: rule, Key: "k"},
		"unknown kind":  {Kind: KindEnd, Rule: rule, Key: "k"},
		"no kind":       {Rule: rule, Key: "k"},
	} {
		_, err := DecodeMessage(AppendMessage(nil, &m))
		assert.ErrorIs(t, err, ErrMalformed, name)
	}
	for name, encoded := range map[string][]byte{
		"no name":       AppendRule(nil, "", []limit.Limit{perSecond(5)}),
		"long name":     AppendRule(nil, strings.Repeat("n", MaxNameLen+1), []limit.Limit{perSecond(5)}),
		"no limits":     AppendRule(nil, "api", nil),
		"nine limits":   AppendRule(nil, "api", make([]limit.Limit, limit.MaxCombined+1)),
		"invalid limit": AppendRule(nil, "api", []limit.Limit{{Tokens: math.Inf(1), Period: time.Second}}),
	} {
		_, _, err := DecodeRule(encoded)
		assert.ErrorIs(t, err, ErrMalformed, name)
	}
	for _, tokens := range []float64{-1, math.NaN(), math.Inf(1)} {
		m := goldenMessages()["take-lease"]
		m.Borrow = Borrowing{Want: tokens, Returned: goldenMessages()["return"].Borrow.Returned}
		_, err := DecodeMessage(AppendMessage(nil, &m))
		assert.ErrorIs(t, err, ErrMalformed, "a lease of %v is asked for", tokens)
		a := goldenAnswers()["lease"]
		a.Grant = Grant{ID: 1, Tokens: tokens, Stands: time.Second}
		_, err = DecodeResponse(AppendResponse(nil, &a))
		assert.ErrorIs(t, err, ErrMalformed, "a lease of %v is given", tokens)
	}
	broken := goldenAnswers()["allowed"]
	broken.Decision.Remaining = math.NaN()
	_, err := DecodeResponse(AppendResponse(nil, &broken))
	assert.ErrorIs(t, err, ErrMalformed)
}

// An unusual key or name costs what it must, and the usual take stays small.
func TestWireTakeIsSmall(t *testing.T) {
	m := Message{Kind: KindTake, Rule: AppendRule(nil, "api", []limit.Limit{perSecond(100)}), Key: "user-1234567890abcde", Cost: 1}
	assert.LessOrEqual(t, len(AppendMessage(nil, &m)), 48, "a 20-byte key and one limit")
	a := Response{Status: StatusDecided, Decision: limit.Decision{Allowed: true, Limit: perSecond(100), Remaining: 12.3, ResetAfter: time.Second}}
	assert.LessOrEqual(t, len(AppendResponse(nil, &a)), 48)
}

func TestWireNumbers(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		v := rapid.OneOf(
			rapid.Float64(), rapid.Just(math.Inf(-1)),
			rapid.Map(rapid.Int64Range(-1<<60, 1<<60), func(n int64) float64 { return float64(n) }),
		).Draw(t, "v")
		r := reader{b: appendNumber(nil, v)}
		assert.Equal(t, math.Float64bits(v+0), math.Float64bits(r.number()+0), "%v", v)
		assert.False(t, r.failed)
		assert.Empty(t, r.b)
	})
}

func FuzzDecodeMessage(f *testing.F) {
	for _, m := range goldenMessages() {
		f.Add(AppendMessage(nil, &m))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		m, err := DecodeMessage(b)
		if err != nil {
			require.ErrorIs(t, err, ErrMalformed)
			return
		}
		again, err := DecodeMessage(AppendMessage(nil, &m))
		require.NoError(t, err)
		require.Equal(t, m, again)
		if name, limits, err := DecodeRule(m.Rule); err == nil {
			require.Empty(t, limit.ProblemOf(limits))
			require.Empty(t, NameProblem(name))
		}
	})
}

func FuzzDecodeAnswer(f *testing.F) {
	for _, a := range goldenAnswers() {
		f.Add(AppendResponse(nil, &a))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		a, err := DecodeResponse(b)
		if err != nil {
			require.ErrorIs(t, err, ErrMalformed)
			return
		}
		again, err := DecodeResponse(AppendResponse(nil, &a))
		require.NoError(t, err)
		require.Equal(t, a, again)
	})
}
