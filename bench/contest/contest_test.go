package contest

import (
	"bytes"
	"encoding/json"
	"errors"
	"math/rand/v2"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// exact admits so many of each key, and then no more. It owns keys that end in an even digit.
type exact struct {
	most   int64
	counts map[string]*atomic.Int64
	closed bool
}

func (e *exact) Start(Setup) (string, error) { return "here", nil }
func (e *exact) Meet(addresses []string) error {
	if len(addresses) != 1 {
		return errors.New("one address is expected")
	}
	return nil
}
func (e *exact) Owns(_ *Scenario, key string) bool { return (key[len(key)-1]-'0')%2 == 0 }
func (e *exact) Fill(*Scenario) (Take, error)      { return nil, nil }
func (e *exact) Close() error                      { e.closed = true; return nil }
func (e *exact) Take(*Scenario) (Take, error) {
	e.counts = make(map[string]*atomic.Int64)
	for i := range 1000 {
		e.counts[key(i)] = new(atomic.Int64)
	}
	return func(key string) (bool, error) { return e.counts[key].Add(1) <= e.most, nil }, nil
}

func example() Scenario {
	return Scenario{
		Name: "example", Keys: KeysLocal, KeyCount: 10, Choice: ChoiceUniform, Callers: 4, Lasts: 20 * time.Millisecond,
		Limits: []Limit{{Tokens: 1, Period: time.Hour, Burst: 100}}, TimeEvery: 3, Judge: true,
	}
}

// serve has a contestant do commands, and returns its answers.
func serve(t *testing.T, c Contestant, commands ...Command) (answers []Answer) {
	t.Helper()
	var in, out bytes.Buffer
	for _, command := range commands {
		require.NoError(t, json.NewEncoder(&in).Encode(command))
	}
	require.NoError(t, Serve(c, &in, &out))
	for lines := json.NewDecoder(&out); lines.More(); {
		var answer Answer
		require.NoError(t, lines.Decode(&answer))
		answers = append(answers, answer)
	}
	require.Len(t, answers, len(commands))
	return answers
}

func TestServe(t *testing.T) {
	s, c := example(), &exact{most: 5}
	answers := serve(t, c,
		Command{Op: OpStart, Setup: Setup{Nodes: 1}}, Command{Op: OpMeet, Addresses: []string{"here"}}, Command{Op: OpFind, Scenario: &s},
		Command{Op: OpRun, Scenario: &s}, Command{Op: OpUsage}, Command{Op: "dance"}, Command{Op: OpRun}, Command{Op: OpMeet})
	assert.True(t, c.closed)
	assert.Equal(t, "here", answers[0].Address)
	assert.GreaterOrEqual(t, answers[2].Seen, 10)
	r := answers[3].Result
	require.NotNil(t, r, "%+v", answers[3])
	assert.Equal(t, 4, r.Callers)
	assert.EqualValues(t, 10*5, r.Admitted)
	assert.Equal(t, r.Takes, r.Admitted+r.Denied)
	assert.Zero(t, r.Failed)
	assert.Positive(t, r.Seconds)
	assert.Positive(t, r.P50)
	assert.LessOrEqual(t, r.P50, r.P999)
	assert.EqualValues(t, 50, r.Judged.Admitted)
	assert.InDelta(t, 0.05, r.Judged.Worst, 0.001)
	var all int64
	for _, asked := range c.counts {
		all += asked.Load()
	}
	assert.Equal(t, all, r.Takes)
	assert.Positive(t, answers[4].Usage.CPUSeconds)
	assert.Contains(t, answers[5].Error, "dance")
	assert.Contains(t, answers[6].Error, "Scenario")
	assert.Contains(t, answers[7].Error, "one address")
}

func TestWhatIsNotExpectedHasFailed(t *testing.T) {
	s := example()
	s.Expect, s.Judge = ExpectAllowed, false
	r := serve(t, &exact{most: 0}, Command{Op: OpRun, Scenario: &s})[0].Result
	assert.Equal(t, r.Takes, r.Failed)
	assert.Contains(t, r.FirstFailure, "allowed")
	assert.Zero(t, r.PerSecond())
}

// What many callers count in common is counted once.
func TestManyKeysAreJudgedTogether(t *testing.T) {
	s := example()
	s.KeyCount, s.Keys = ownTally+1, KeysAny
	l := load{scenario: &s, order: []uint32{0, 1, 2, 3}, take: func(string) (bool, error) { return true, nil }}
	l.keys, _, _ = chooseKeys(&exact{}, &s)
	r := l.run()
	assert.Equal(t, r.Takes, r.Judged.Admitted)
}

func TestScenariosThatMakeNoSenseAreRefused(t *testing.T) {
	for says, change := range map[string]func(*Scenario){
		"Name": func(s *Scenario) { s.Name = "" }, `Keys is "x"`: func(s *Scenario) { s.Keys = "x" },
		"KeyCount is 0": func(s *Scenario) { s.KeyCount = 0 }, `Choice is "x"`: func(s *Scenario) { s.Choice = "x" },
		"Callers is -1": func(s *Scenario) { s.Callers = -1 }, "Lasts is 0s": func(s *Scenario) { s.Lasts = 0 },
		"Limits": func(s *Scenario) { s.Limits = nil }, "TimeEvery is 0": func(s *Scenario) { s.TimeEvery = 0 },
	} {
		s := example()
		change(&s)
		assert.Contains(t, serve(t, &exact{}, Command{Op: OpRun, Scenario: &s})[0].Error, says)
	}
}

func TestKeys(t *testing.T) {
	seen := make(map[string]bool)
	for i := range 10_000 {
		k := key(i)
		assert.Len(t, k, 20)
		seen[k] = true
	}
	assert.Len(t, seen, 10_000)
	for _, which := range []string{KeysLocal, KeysRemote} {
		s := example()
		s.Keys = which
		keys, looked, err := chooseKeys(&exact{}, &s)
		require.NoError(t, err)
		assert.Len(t, keys, s.KeyCount)
		assert.GreaterOrEqual(t, looked, len(keys))
		for _, k := range keys {
			assert.Equal(t, which == KeysLocal, strings.ContainsAny(k[len(k)-1:], "02468"))
		}
	}
}

// With Zipf and s = 1.1 the second key comes 2^1.1 times less often than the first one.
func TestOrder(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	count := func(choice string) (counts [100]float64) {
		for _, i := range chooseOrder(choice, 100, random) {
			counts[i]++
		}
		return counts
	}
	for _, n := range count(ChoiceUniform) {
		assert.InEpsilon(t, orderLength/100.0, n, 0.1)
	}
	zipf := count(ChoiceZipf)
	assert.InEpsilon(t, 2.144, zipf[0]/zipf[1], 0.05)
	assert.Greater(t, zipf[1], zipf[10])
	assert.Greater(t, zipf[10], zipf[99])
}

func TestMemory(t *testing.T) {
	s := example()
	s.Callers = 3
	c := &exact{most: 1}
	m := serve(t, c, Command{Op: OpMemory, Scenario: &s})[0].Memory
	assert.Equal(t, 10, m.Keys)
	made := 0
	for _, asked := range c.counts {
		made += int(asked.Load())
	}
	assert.Equal(t, 10, made)
}
