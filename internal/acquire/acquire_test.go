package acquire

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/peerlimit/peerlimit/internal/debt"
	"github.com/peerlimit/peerlimit/internal/holding"
	"github.com/peerlimit/peerlimit/internal/limit"
	"github.com/peerlimit/peerlimit/internal/quorum"
	"github.com/peerlimit/peerlimit/internal/ring"
	"github.com/peerlimit/peerlimit/internal/rule"
	"github.com/peerlimit/peerlimit/internal/store"
	"github.com/peerlimit/peerlimit/internal/wire"
)

// names is a roster that never changes.
type names []string

func (n names) Generation() uint64       { return 1 }
func (n names) Asked() []string          { return n }
func (n names) IsAsked(name string) bool { return slices.Contains(n, name) }

// pair is two nodes as far as acquiring goes, of which one at a time owns everything.
type pair struct {
	nodes map[string]*node
	owner atomic.Pointer[string]
	asked atomic.Int64 // requests that were sent
}

// node is one of the pair.
type node struct {
	*pair
	name   string
	keeper *Keeper
	table  *store.Table
	rules  *rule.Rules
	gained [3]int
}

func newPair() *pair {
	p := &pair{nodes: make(map[string]*node)}
	for _, name := range []string{"a", "b"} {
		n := &node{pair: p, name: name, rules: rule.New(1000)}
		reach := quorum.New(name, func() { n.table.LapseAll() })
		reach.FullUntil.Store(1 << 62)
		n.table = store.New(store.Config{MaxKeys: 10_000, FullUntil: &reach.FullUntil})
		n.keeper = New(Config{
			Self: name, Log: slog.New(slog.DiscardHandler), Table: n.table, Reach: reach, Rules: n.rules, Others: n,
			Debts: debt.New(name, n.table, n.rules, func(string) bool { return true }, n.now),
			Now:   n.now, AnswerBytes: 1000, // a partition comes in many pieces
		})
		p.nodes[name] = n
	}
	return p
}

func (n *node) now() int64                                   { return 0 }
func (n *node) Owns(uint16) bool                             { return *n.owner.Load() == n.name }
func (n *node) PreviousOwner(uint16) string                  { return "" }
func (n *node) Acquired(uint16)                              {}
func (n *node) Roster() holding.Roster                       { return names{"a", "b"} }
func (n *node) Told() ([]string, []wire.LostName)            { return []string{"a", "b"}, nil }
func (n *node) Departed() map[string]bool                    { return map[string]bool{} }
func (n *node) Met(string)                                   {}
func (n *node) MergeNames(string, []string, []wire.LostName) {}
func (n *node) HasQuorum()                                   {}
func (n *node) HoldingChanged()                              {}
func (n *node) Gained(byTransfer, fromReplica, empty int) {
	n.gained[0] += byTransfer
	n.gained[1] += fromReplica
	n.gained[2] += empty
}

// Tell has the other node answer.
func (n *node) Tell(_ context.Context, to string, request []byte, _ time.Duration, _ int) ([]byte, error) {
	n.asked.Add(1)
	q, err := wire.DecodeAcquireRequest(request)
	if err != nil {
		return nil, err
	}
	response, err := n.nodes[to].keeper.Answer(n.name, &q)
	if err != nil {
		return nil, err
	}
	return wire.AppendAcquireResponse(nil, response), nil
}

// acquire has a node own everything, and steps until it holds it.
func (p *pair) acquire(t *testing.T, name string) {
	p.owner.Store(&name)
	n := p.nodes[name]
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	for n.table.HeldCount() < ring.Partitions {
		changed := n.keeper.Changed()
		n.keeper.Step(ctx)
		if n.table.HeldCount() == ring.Partitions {
			break
		}
		select {
		case <-changed:
		case <-time.After(10 * time.Millisecond): // what was postponed is due
		case <-ctx.Done():
			require.Fail(t, "it never holds everything", n.keeper.Describe(0, 0))
		}
	}
	n.keeper.asking.Wait()
}

// A node that owns everything holds it once the other has promised or transferred it, with all that was taken; and the
// other holds nothing any more.
func TestOwnershipMovesWithWhatWasTaken(t *testing.T) {
	p := newPair()
	p.acquire(t, "a")
	a, b := p.nodes["a"], p.nodes["b"]
	require.Equal(t, [3]int{0, 0, ring.Partitions}, a.gained)

	rules := func(n *node) *rule.Rule {
		r, err := n.rules.Find(wire.AppendRule(nil, "api", []limit.Limit{perHour(1)}))
		require.NoError(t, err)
		return r
	}
	take := func(n *node, i int) bool {
		r := rules(n)
		var d limit.Decision
		held := n.table.Decide(&d, 7, r.Bucket(fmt.Sprint("user-", i)), &limit.Request{Set: r.Set, Cost: 1}, 0)
		require.True(t, held)
		return d.Allowed
	}
	const keys = 500
	for i := range keys {
		require.True(t, take(a, i))
	}
	p.asked.Store(0)
	p.acquire(t, "b")
	require.Equal(t, [3]int{ring.Partitions, 0, 0}, b.gained)
	require.Zero(t, a.table.HeldCount())
	require.Greater(t, p.asked.Load(), int64(10), "it has come in pieces")
	for i := range keys {
		require.False(t, take(b, i), "key %d was forgotten", i)
	}
}

// A request of a ballot that nobody can have counted to is refused, and promised nothing.
func TestBallotsBeyondCountingAreRefused(t *testing.T) {
	p := newPair()
	p.acquire(t, "a")
	for _, ballot := range []wire.Ballot{{Number: 1 << 63, By: "b"}, {Number: 1}} {
		_, err := p.nodes["a"].keeper.Answer("b", &wire.AcquireRequest{Ballot: ballot, Parts: []wire.AskedPartition{{Part: 7}}})
		require.Error(t, err)
	}
	require.True(t, p.nodes["a"].table.Holds(7))
}

func perHour(tokens float64) limit.Limit { return limit.Limit{Tokens: tokens, Period: time.Hour} }
