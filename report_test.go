package peerlimit

import (
	"fmt"
	"slices"
	"testing"

	"github.com/peerlimit/peerlimit/internal/limit"
	"github.com/peerlimit/peerlimit/internal/rule"
	"github.com/peerlimit/peerlimit/internal/store"
	"github.com/peerlimit/peerlimit/internal/wire"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

// reportNode is as much of a node as charging needs: it holds everything and its clock is never read.
func reportNode(known ...string) *Node {
	return &Node{
		identity: "self", table: store.New(store.Config{MaxKeys: 1 << 20}), rules: rule.New(), reporter: newReporter("self"),
		counts: func(name string) bool { return slices.Contains(known, name) },
	}
}

func (n *Node) levelOf(part uint16, r *rule.Rule, key string) float64 {
	id := rule.BucketKey{Key: key, Limiter: r.ID}
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
		n := reportNode("self", "other")
		r, err := n.rules.Find(wire.AppendRule(nil, "api", []limit.Limit{perHour(1e6)}))
		require.NoError(t, err)
		p := unlocked(n.table, part)
		from := newReporter("other")
		spent := make(map[string]float64)
		var sent []wire.Debt // may arrive at any time, any number of times
		for range rapid.IntRange(1, 60).Draw(t, "steps") {
			switch rapid.IntRange(0, 4).Draw(t, "step") {
			case 0, 1:
				key := rapid.SampledFrom([]string{"a", "b", "c"}).Draw(t, "key")
				cost := float64(rapid.IntRange(1, 9).Draw(t, "cost"))
				from.note(part, r, key, cost)
				spent[key] += cost
			case 2: // into an answer to whoever acquires
				some, _ := from.reports(part, 1<<20)
				sent = append(sent, some...)
			case 3:
				if q, _, ok := from.next(part); ok {
					sent = append(sent, q)
					if rapid.Bool().Draw(t, "arrives") {
						p.Charge(&q, n.rules, n.counts, 0)
						if rapid.Bool().Draw(t, "is answered") {
							from.confirmed(part, q.Seq)
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
			from.confirmed(part, q.Seq)
		}
		for key, sum := range spent {
			require.Equal(t, sum, n.levelOf(part, r, key), key)
		}
		require.Zero(t, from.count.Load())
		require.Empty(t, from.parts)
	})
}

// A charge lifts no level above twice the burst, and lowers none.
func TestChargesAreBounded(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		set := limit.NewSet([]limit.Limit{perHour(10), perMinute(3)})
		s := limit.NewState(set, 0)
		before := []float64{float64(rapid.IntRange(0, 30).Draw(t, "first")), float64(rapid.IntRange(0, 30).Draw(t, "second"))}
		for i, level := range before {
			s.SetLevel(i, level)
		}
		cost := float64(rapid.IntRange(1, 100).Draw(t, "cost"))
		s.Spend(set, cost, 0)
		for i, burst := range []float64{10, 3} {
			require.Equal(t, max(before[i], min(before[i]+cost, 2*burst)), s.Level(i))
		}
	})
}

func TestUnreportedIsBounded(t *testing.T) {
	n := reportNode("self")
	r, err := n.rules.Find(wire.AppendRule(nil, "api", []limit.Limit{perHour(10)}))
	require.NoError(t, err)
	for i := range maxUnreported + 100 {
		n.reporter.note(uint16(i/10), r, fmt.Sprint("user-", i), 1)
		n.reporter.note(uint16(i/10), r, fmt.Sprint("user-", i), 1)
	}
	assert.EqualValues(t, maxUnreported, n.reporter.count.Load())
	assert.EqualValues(t, 100, n.reporter.lost.Load())
	assert.NotContains(t, n.reporter.parts, uint16(0), "the oldest")
	some, _ := n.reporter.reports(20, 1<<20)
	require.Len(t, some, 1)
	require.Len(t, some[0].Charges, 10)
	assert.Equal(t, 2.0, some[0].Charges[0].Cost, "one charge a key")
}

// A reservation that was taken back is not reported, unless it may have been already.
func TestTakenBackIsNotReported(t *testing.T) {
	n := reportNode("self")
	r, err := n.rules.Find(wire.AppendRule(nil, "api", []limit.Limit{perHour(10)}))
	require.NoError(t, err)
	n.reporter.note(1, r, "a", 3)
	n.reporter.takeBack(1, r, "a", 3)
	assert.Zero(t, n.reporter.count.Load())
	assert.Empty(t, n.reporter.parts)

	n.reporter.note(1, r, "a", 3)
	n.reporter.note(1, r, "a", 2)
	n.reporter.takeBack(1, r, "a", 3)
	some, _ := n.reporter.reports(1, 1<<20)
	require.Len(t, some, 1)
	assert.Equal(t, 2.0, some[0].Charges[0].Cost)
	n.reporter.takeBack(1, r, "a", 2)
	again, _ := n.reporter.reports(1, 1<<20)
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
	decoded, err := wire.DecodeAcquireResponse(wire.AppendAcquireResponse(nil, &q), rule.New().PlainSet)
	require.NoError(t, err)
	assert.Equal(t, q, decoded)
}

// unlocked returns a partition of a table that only the test uses.
func unlocked(t *store.Table, part uint16) *store.Partition {
	p := t.Lock(part)
	p.Unlock()
	return p
}
