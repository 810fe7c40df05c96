package peerlimit

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
func goldenMessages() map[string]message {
	one := appendRule(nil, "api", []limit.Limit{perSecond(100)})
	two := appendRule(nil, "login", []limit.Limit{withBurst(perMinute(5), 2.5), leaky(per(0.1, time.Hour))})
	return map[string]message{
		"take":           {kind: kindTake, rule: one, key: "user-1234567890abcdef", cost: 1},
		"take-passed-on": {kind: kindTake, hops: 1, rule: one, key: "\x00\xff", cost: 0.25},
		"take-two":       {kind: kindTake, rule: two, key: "k", cost: 1 << 53},
		"peek":           {kind: kindPeek, rule: one, key: "k"},
		"reserve":        {kind: kindReserve, rule: one, key: "k", cost: 3, total: 250, maxDelay: time.Minute},
		"refund":         {kind: kindRefund, rule: one, key: "k", cost: 7},
		"reset":          {kind: kindReset, rule: one, key: "k"},
		"take-lease":     {kind: kindTake, rule: one, key: "k", cost: 1, borrow: borrowing{want: 1000}},
		"take-return": {kind: kindTake, rule: one, key: "k", cost: 1, borrow: borrowing{want: 0.5, returned: []leaseReturn{
			{id: math.MaxUint64, unused: 12}, {id: 1, unused: 0.25},
		}}},
		"return": {kind: kindReturn, rule: one, key: "k", borrow: borrowing{returned: []leaseReturn{{id: 7, unused: 0}}}},
		"cancel": {kind: kindCancel, rule: two, key: "k", undo: goldenUndo()},
	}
}

func goldenAnswers() map[string]answer {
	allowed := limit.Decision{Allowed: true, Limit: perSecond(100), Remaining: 99, ResetAfter: 10 * time.Millisecond}
	denied := limit.Decision{
		Limit: leaky(withBurst(per(0.1, time.Hour), 3)), Remaining: 0.125, Origin: limit.OriginStandby,
		RetryAfter: time.Hour, ResetAfter: math.MaxInt64, Delay: 1,
	}
	return map[string]answer{
		"allowed":  {status: statusDecided, decision: allowed},
		"denied":   {status: statusDecided, decision: denied},
		"lease":    {status: statusDecided, decision: allowed, grant: grant{id: math.MaxUint64, tokens: 100}},
		"stands":   {status: statusDecided, decision: denied, grant: grant{stands: 250 * time.Millisecond}},
		"reserved": {status: statusDecided, decision: allowed, undo: goldenUndo()},
		"done":     {status: statusDone},
		"refused":  {status: statusRefused},
	}
}

func goldenUndo() *limit.Undo {
	u := &limit.Undo{Before: limit.Snapshot{At: -1, Count: 2}, After: limit.Snapshot{At: 1 << 40, Count: 2}}
	u.Before.Levels[0], u.After.Levels[0], u.After.Levels[1] = 0.5, 3, 1e18
	return u
}

func TestWireGolden(t *testing.T) {
	for name, m := range goldenMessages() {
		encoded := appendMessage(nil, &m)
		checkGolden(t, "request-"+name, encoded)
		decoded, err := decodeMessage(encoded)
		require.NoError(t, err, name)
		assert.Equal(t, m, decoded, name)
	}
	for name, a := range goldenAnswers() {
		encoded := appendAnswer(nil, &a)
		checkGolden(t, "answer-"+name, encoded)
		decoded, err := decodeAnswer(encoded)
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
		decoded, err := decodeMessage(append(appendMessage(nil, &m), 1, 2, 3))
		require.NoError(t, err, name)
		assert.Equal(t, m, decoded, name)
	}
	for name, a := range goldenAnswers() {
		decoded, err := decodeAnswer(append(appendAnswer(nil, &a), 1, 2, 3))
		require.NoError(t, err, name)
		assert.Equal(t, a, decoded, name)
	}
	name, limits, err := decodeRule(append(appendRule(nil, "api", []limit.Limit{perSecond(5)}), 9, 9))
	require.NoError(t, err)
	assert.Equal(t, "api", name)
	assert.Equal(t, []limit.Limit{perSecond(5)}, limits)
}

func TestWireRefusesWhatIsCutShort(t *testing.T) {
	for name, m := range goldenMessages() {
		encoded := appendMessage(nil, &m)
		for n := range len(encoded) {
			_, err := decodeMessage(encoded[:n])
			assert.ErrorIs(t, err, errMalformed, "%s cut at %d of %d", name, n, len(encoded))
		}
	}
	for name, a := range goldenAnswers() {
		encoded := appendAnswer(nil, &a)
		for n := range len(encoded) {
			_, err := decodeAnswer(encoded[:n])
			assert.ErrorIs(t, err, errMalformed, "%s cut at %d of %d", name, n, len(encoded))
		}
	}
}

func TestWireRefusesWhatCannotBe(t *testing.T) {
	rule := appendRule(nil, "api", []limit.Limit{perSecond(5)})
	for name, m := range map[string]message{
		"empty key":     {kind: kindTake, rule: rule, key: "", cost: 1},
		"long key":      {kind: kindTake, rule: rule, key: strings.Repeat("k", maxKeyLen+1), cost: 1},
		"zero cost":     {kind: kindTake, rule: rule, key: "k"},
		"negative cost": {kind: kindRefund, rule: rule, key: "k", cost: -1},
		"NaN cost":      {kind: kindTake, rule: rule, key: "k", cost: math.NaN()},
		"infinite cost": {kind: kindReserve, rule: rule, key: "k", cost: math.Inf(1), total: 1},
		"no total":      {kind: kindReserve, rule: rule, key: "k", cost: 1},
		"no undo":       {kind: kindCancel, rule: rule, key: "k"},
		"unknown kind":  {kind: kindEnd, rule: rule, key: "k"},
		"no kind":       {rule: rule, key: "k"},
	} {
		_, err := decodeMessage(appendMessage(nil, &m))
		assert.ErrorIs(t, err, errMalformed, name)
	}
	for name, encoded := range map[string][]byte{
		"no name":       appendRule(nil, "", []limit.Limit{perSecond(5)}),
		"long name":     appendRule(nil, strings.Repeat("n", maxNameLen+1), []limit.Limit{perSecond(5)}),
		"no limits":     appendRule(nil, "api", nil),
		"nine limits":   appendRule(nil, "api", make([]limit.Limit, limit.MaxCombined+1)),
		"invalid limit": appendRule(nil, "api", []limit.Limit{{Tokens: math.Inf(1), Period: time.Second}}),
	} {
		_, _, err := decodeRule(encoded)
		assert.ErrorIs(t, err, errMalformed, name)
	}
	for _, tokens := range []float64{-1, math.NaN(), math.Inf(1)} {
		m := goldenMessages()["take-lease"]
		m.borrow = borrowing{want: tokens, returned: goldenMessages()["return"].borrow.returned}
		_, err := decodeMessage(appendMessage(nil, &m))
		assert.ErrorIs(t, err, errMalformed, "a lease of %v is asked for", tokens)
		a := goldenAnswers()["lease"]
		a.grant = grant{id: 1, tokens: tokens, stands: time.Second}
		_, err = decodeAnswer(appendAnswer(nil, &a))
		assert.ErrorIs(t, err, errMalformed, "a lease of %v is given", tokens)
	}
	broken := goldenAnswers()["allowed"]
	broken.decision.Remaining = math.NaN()
	_, err := decodeAnswer(appendAnswer(nil, &broken))
	assert.ErrorIs(t, err, errMalformed)
}

// An unusual key or name costs what it must, and the usual take stays small.
func TestWireTakeIsSmall(t *testing.T) {
	m := message{kind: kindTake, rule: appendRule(nil, "api", []limit.Limit{perSecond(100)}), key: "user-1234567890abcde", cost: 1}
	assert.LessOrEqual(t, len(appendMessage(nil, &m)), 48, "a 20-byte key and one limit")
	a := answer{status: statusDecided, decision: limit.Decision{Allowed: true, Limit: perSecond(100), Remaining: 12.3, ResetAfter: time.Second}}
	assert.LessOrEqual(t, len(appendAnswer(nil, &a)), 48)
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
		f.Add(appendMessage(nil, &m))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		m, err := decodeMessage(b)
		if err != nil {
			require.ErrorIs(t, err, errMalformed)
			return
		}
		again, err := decodeMessage(appendMessage(nil, &m))
		require.NoError(t, err)
		require.Equal(t, m, again)
		if name, limits, err := decodeRule(m.rule); err == nil {
			require.Empty(t, limit.ProblemOf(limits))
			require.Empty(t, nameProblem(name))
		}
	})
}

func FuzzDecodeAnswer(f *testing.F) {
	for _, a := range goldenAnswers() {
		f.Add(appendAnswer(nil, &a))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		a, err := decodeAnswer(b)
		if err != nil {
			require.ErrorIs(t, err, errMalformed)
			return
		}
		again, err := decodeAnswer(appendAnswer(nil, &a))
		require.NoError(t, err)
		require.Equal(t, a, again)
	})
}
