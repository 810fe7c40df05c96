package debt

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/peerlimit/peerlimit/internal/holding"
	"github.com/peerlimit/peerlimit/internal/limit"
	"github.com/peerlimit/peerlimit/internal/rule"
	"github.com/peerlimit/peerlimit/internal/store"
	"github.com/peerlimit/peerlimit/internal/wire"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

// ledger returns a reporter of a node that decides about everything and whose clock stands still.
func ledger(known ...string) *Ledger {
	table := store.New(store.Config{MaxKeys: 1 << 20})
	return New("self", table, rule.New(1000), func(name string) bool { return slices.Contains(known, name) }, func() int64 { return 0 })
}

func levelOf(n *Ledger, part uint16, r *rule.Rule, key string) float64 {
	id := r.Bucket(key)
	p := n.table.Lock(part)
	defer p.Unlock()
	if state, there := p.StateOf(id, 0); there {
		return state.Level(0)
	}
	return 0
}

// Reports are lost, repeated and overtaken, and partitions move on with their marks; in the end each spending was charged
// once.
func TestReportsAreChargedOnce(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		const part = 7
		n := ledger("self", "other")
		r, err := n.rules.Find(wire.AppendRule(nil, "api", []limit.Limit{perHour(1e6)}))
		require.NoError(t, err)
		p := unlocked(n.table, part)
		from := New("other", n.table, n.rules, n.counts, n.now)
		spent := make(map[string]float64)
		var sent []wire.Debt // may arrive at any time, any number of times
		for range rapid.IntRange(1, 60).Draw(t, "steps") {
			switch rapid.IntRange(0, 4).Draw(t, "step") {
			case 0, 1:
				key := rapid.SampledFrom([]string{"a", "b", "c"}).Draw(t, "key")
				cost := float64(rapid.IntRange(1, 9).Draw(t, "cost"))
				from.Note(part, r, key, cost)
				spent[key] += cost
			case 2: // into a response to a node that acquires
				some, _ := from.Pending(part, 1<<20)
				sent = append(sent, some...)
			case 3:
				if q, _, ok := from.next(part); ok {
					sent = append(sent, q)
					if rapid.Bool().Draw(t, "arrives") {
						p.Charge(&q, n.rules, n.counts, 0)
						if rapid.Bool().Draw(t, "is answered") {
							from.confirm(part, q.Seq)
						}
					}
				}
			case 4: // an old message arrives, though not before those it follows were confirmed
				if len(sent) > 0 {
					q := rapid.SampledFrom(sent).Draw(t, "late")
					if first, _, ok := from.next(part); !ok || q.Seq <= first.Seq {
						p.Charge(&q, n.rules, n.counts, 0)
					}
				}
			}
		}
		for q, _, ok := from.next(part); ok; q, _, ok = from.next(part) {
			p.Charge(&q, n.rules, n.counts, 0)
			from.confirm(part, q.Seq)
		}
		for key, sum := range spent {
			require.Equal(t, sum, levelOf(n, part, r, key), key)
		}
		require.Zero(t, from.count.Load())
		require.Empty(t, from.parts)
	})
}

// Charges lift a level by no more than one burst above the burst, or above the turns that are queued, however many there are;
// they lower none.
func TestChargesAreBounded(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		set := limit.NewSet([]limit.Limit{perHour(10), perMinute(3)})
		s := limit.NewState(set, 0)
		before := []float64{float64(rapid.IntRange(0, 30).Draw(t, "first")), float64(rapid.IntRange(0, 30).Draw(t, "second"))}
		for i, level := range before {
			s.SetLevel(i, level)
		}
		sum := 0.0
		for range rapid.IntRange(1, 5).Draw(t, "charges") {
			cost := float64(rapid.IntRange(1, 30).Draw(t, "cost"))
			sum += cost
			s.Spend(set, cost, 0)
		}
		for i, burst := range []float64{10, 3} {
			require.Equal(t, min(before[i]+sum, max(before[i], burst)+burst), s.Level(i))
		}
	})
}

// The room that debts have comes back as they are paid, in a bucket with turns as in one without, and nothing stays behind.
func TestPaidDebtsMakeRoomForOthers(t *testing.T) {
	set := limit.NewSet([]limit.Limit{{Tokens: 10, Period: time.Second, Burst: 10}})
	for _, queued := range []float64{0, 100} {
		s := limit.NewState(set, 0)
		s.SetLevel(0, 10+queued)
		s.Spend(set, 50, 0)
		require.Equal(t, 20+queued, s.Level(0))
		now := int64(time.Second / 2)
		s.Spend(set, 50, now)
		require.Equal(t, 20+queued, s.Level(0), "five were paid, and five more are owed")
		require.True(t, s.HasMore())
		s.Expire(now + int64(time.Second) - 1)
		require.True(t, s.HasMore())
		s.Expire(now + int64(time.Second))
		require.False(t, s.HasMore())
	}
}

func TestUnreportedIsBounded(t *testing.T) {
	n := ledger("self")
	r, err := n.rules.Find(wire.AppendRule(nil, "api", []limit.Limit{perHour(10)}))
	require.NoError(t, err)
	for i := range maxUnreported + 100 {
		n.Note(uint16(i/10), r, fmt.Sprint("user-", i), 1)
		n.Note(uint16(i/10), r, fmt.Sprint("user-", i), 1)
	}
	assert.EqualValues(t, maxUnreported, n.count.Load())
	assert.EqualValues(t, 100, n.lost.Load())
	assert.NotContains(t, n.parts, uint16(0), "the oldest")
	some, _ := n.Pending(20, 1<<20)
	require.Len(t, some, 1)
	require.Len(t, some[0].Charges, 10)
	assert.Equal(t, 2.0, some[0].Charges[0].Cost, "one charge a key")
}

// A reservation that was taken back is not reported, unless it may have been already.
func TestTakenBackIsNotReported(t *testing.T) {
	n := ledger("self")
	r, err := n.rules.Find(wire.AppendRule(nil, "api", []limit.Limit{perHour(10)}))
	require.NoError(t, err)
	n.Note(1, r, "a", 3)
	n.Unrecord(1, r, "a", 3)
	assert.Zero(t, n.count.Load())
	assert.Empty(t, n.parts)

	n.Note(1, r, "a", 3)
	n.Note(1, r, "a", 2)
	n.Unrecord(1, r, "a", 3)
	some, _ := n.Pending(1, 1<<20)
	require.Len(t, some, 1)
	assert.Equal(t, 2.0, some[0].Charges[0].Cost)
	n.Unrecord(1, r, "a", 2)
	again, _ := n.Pending(1, 1<<20)
	assert.Equal(t, some, again, "it may be on its way")
}

func TestAnswersCarryReports(t *testing.T) {
	found := wire.AppendRule(nil, "api", []limit.Limit{perHour(10)})
	q := wire.AcquireResponse{Heard: 3, Parts: []wire.PartitionReply{
		{Part: 5, Kind: wire.ReplyNotHolding, Debts: []wire.Debt{
			{Member: "a", Part: 5, Seq: 2, Charges: []wire.Charge{{Rule: found, Key: "k", Cost: 1}, {Rule: found, Key: "l", Cost: 2.5}}},
			{Member: "a", Part: 5, Seq: 4, Charges: []wire.Charge{{Rule: found, Key: "k", Cost: 9}}},
		}},
		{Part: 6, Kind: wire.ReplyNotHolding},
	}}
	decoded, err := wire.DecodeAcquireResponse(wire.AppendAcquireResponse(nil, &q), rule.New(1000).PlainSet)
	require.NoError(t, err)
	assert.Equal(t, q, decoded)
}

// unlocked returns a partition of a table that only the test uses.
func unlocked(t *store.Table, part uint16) *store.Partition {
	p := t.Lock(part)
	p.Unlock()
	return p
}

// What has to be charged before a node begins to hold is charged in steps, and each spending once, also when the copy is
// replaced half-way. As long as the node does not hold, its copy seems to be no newer than it is.
func TestManyReportsAreChargedInSteps(t *testing.T) {
	store.Probe.Start()
	defer store.Probe.End()
	n := ledger("self")
	r, err := n.rules.Find(wire.AppendRule(nil, "api", []limit.Limit{perHour(1e6)}))
	require.NoError(t, err)
	const part, reporters, reports, charges = 7, 3, 100, 30
	p := unlocked(n.table, part)
	p.Holding.Copy = wire.Version{Seq: 5}
	p.Holding.Attempt = &holding.Attempt{}
	for reporter := range reporters {
		for seq := range reports {
			q := wire.Debt{Member: fmt.Sprint("other-", reporter), Part: part, Seq: uint64(seq + 1)}
			for i := range charges {
				q.Charges = append(q.Charges, wire.Charge{Rule: r.Encoded, Key: fmt.Sprint("key-", (seq*charges+i)%1000), Cost: 1})
			}
			p.Holding.Attempt.KeepDebts([]wire.Debt{q})
		}
	}
	for i := range 2000 {
		n.Note(part, r, fmt.Sprint("key-", i), 1)
	}
	steps := 0
	for n.ChargeSome(part, p, 0) {
		store.Probe.Released()
		if steps++; steps == 10 { // another copy has come
			p.Adopt(new(store.Arrival), p.Holding.Copy)
		}
	}
	require.Greater(t, steps, 50)
	require.EqualValues(t, 5, p.Holding.Copy.Seq)
	require.EqualValues(t, 2000, n.count.Load(), "it may have been for nothing")
	store.Probe.Released()
	p.Holding.Hold(wire.Version{Seq: 5})
	n.ChargeAll(part, p, 0)
	store.Probe.Released()
	require.LessOrEqual(t, store.Probe.Most(), int64(1000), "charges under one hold of the lock: as many as are in a few reports")
	require.Zero(t, n.count.Load())
	for i := range 2000 {
		want := 1.0
		if i < 1000 {
			want += reporters * reports * charges / 1000
		}
		require.Equal(t, want, levelOf(n, part, r, fmt.Sprint("key-", i)), "%d", i)
	}
}
