package store

import (
	"fmt"
	"math"
	"math/rand/v2"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/peerlimit/peerlimit/internal/holding"
	"github.com/peerlimit/peerlimit/internal/limit"
	"github.com/peerlimit/peerlimit/internal/rule"
	"github.com/peerlimit/peerlimit/internal/wire"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

// A holder and its standbys as plain tables, with a link between them that loses, delays, doubles and reorders messages.
// Time stands still, so a level is what was taken.

const rigPart = 7

type replicaRig struct {
	holder   *Table
	rules    *rule.Rules
	rule     *rule.Rule
	standbys map[string]*rigStandby

	taken map[string]float64            // by key
	then  map[uint64]map[string]float64 // taken, as of each seq
}

// rigStandby is a standby and the link to it.
type rigStandby struct {
	table *Table
	rules *rule.Rules
	wire  [][]byte // all that was ever sent: any of it may arrive, at any time and more than once

	// What the holder's sender to this standby remembers.
	flying *Shipment
	ack    *wire.ReplicaAck // the answer to flying, if it has not been lost
	rest   *Whole
}

func tableOfNode() *Table {
	t := New(Config{MaxKeys: 1 << 20, FullUntil: new(atomic.Int64), Replicates: true})
	t.fullUntil.Store(math.MaxInt64)
	return t
}

// holdIn makes a table's node the holder of the rig's partition.
func holdIn(t *Table, name string, number uint64) {
	p := &t.partitions[rigPart]
	p.Holding.Hold(wire.Version{Ballot: wire.Ballot{Number: number, By: name}, Holder: name, Seq: p.Holding.Copy.Seq})
	p.publish()
}

func newReplicaRig(t require.TestingT, standbys ...string) *replicaRig {
	r := &replicaRig{
		holder: tableOfNode(), rules: rule.New(1000), standbys: make(map[string]*rigStandby),
		taken: make(map[string]float64), then: make(map[uint64]map[string]float64),
	}
	r.rule = mustFind(t, r.rules, "api", []limit.Limit{perHour(1000)})
	holdIn(r.holder, "holder", 5)
	for _, name := range standbys {
		r.standbys[name] = &rigStandby{table: tableOfNode(), rules: rule.New(1000)}
	}
	return r
}

func (r *replicaRig) part() *Partition { return &r.holder.partitions[rigPart] }

// take takes a token and remembers the state of the partition after it.
func (r *replicaRig) take(t require.TestingT, key string) {
	d, ok := r.holder.decide(rigPart, r.rule.Bucket(key), &limit.Request{Set: r.rule.Set, Cost: 1}, 0)
	require.True(t, ok)
	require.True(t, d.Allowed)
	r.taken[key]++
}

// remember notes what was taken by the version that the holder has now.
func (r *replicaRig) remember() {
	state := make(map[string]float64, len(r.taken))
	for key, n := range r.taken {
		state[key] = n
	}
	r.then[r.part().Holding.Copy.Seq] = state
}

// send sends what a standby lacks, unless something is on its way to it. It reports whether there was something.
func (r *replicaRig) send(name string) bool {
	h := r.standbys[name]
	if h.flying != nil {
		return true
	}
	s := NewShipment()
	if h.rest != nil && !r.holder.PackNext(s, h.rest, name, 0) {
		h.rest = nil
	}
	if s.Empty() {
		if r.part().Holding.Replication.Standby != name { // as the survey of standbys would see
			r.holder.MarkChanged(rigPart)
		}
		r.holder.EachChanged(func(part uint16) { _, h.rest = r.holder.Pack(s, part, name, 0) })
	}
	r.remember()
	if s.Empty() {
		return false
	}
	h.flying, h.ack = s, nil
	h.wire = append(h.wire, wire.AppendReplicaRequest(nil, &s.Request))
	return true
}

// arrive has the i-th message arrive at a standby. The answer to the one that is under way waits to be heard.
func (r *replicaRig) arrive(t require.TestingT, name string, i int) wire.ReplicaAck {
	h := r.standbys[name]
	q, err := (&wire.ReplicaMemory{Message: h.wire[i]}).Decode(h.rules.PlainSet)
	require.NoError(t, err)
	ack, _ := h.table.AcceptReplica(&q.Parts[0], true, h.rules, 0)
	h.table.tidy(rigPart, 0)
	if h.flying != nil && i == len(h.wire)-1 {
		h.ack = &ack
	}
	return ack
}

// arriveTogether has two messages arrive at a standby at the same time, and stores them in steps, in some order.
func (r *replicaRig) arriveTogether(t require.TestingT, name string, first, second int, random *rand.Rand) {
	h := r.standbys[name]
	p := &h.table.partitions[rigPart]
	type arriving struct {
		storing
		message int
	}
	both := []*arriving{{message: first}, {message: second}}
	for _, m := range both {
		q, err := (&wire.ReplicaMemory{Message: h.wire[m.message]}).Decode(h.rules.PlainSet)
		require.NoError(t, err)
		m.storing = storing{table: h.table, part: &q.Parts[0], full: true, rules: h.rules}
		m.made = h.table.Build(rigPart, &m.part.Content, 0)
	}
	for len(both) > 0 {
		i := random.IntN(len(both))
		if both[i].step(p) {
			r.check(t)
			continue
		}
		if m := both[i]; h.flying != nil && m.message == len(h.wire)-1 {
			h.ack = &m.ack
		}
		both = append(both[:i], both[i+1:]...)
	}
	h.table.tidy(rigPart, 0)
	require.Nil(t, p.storesNext())
}

// answer has the holder hear the answer to what is under way, or hear that there is none.
func (r *replicaRig) answer(name string) {
	h := r.standbys[name]
	if h.flying == nil {
		return
	}
	ack := wire.ReplicaAck{Part: rigPart}
	if h.ack != nil {
		ack = *h.ack
	} else {
		h.rest = nil
	}
	r.holder.Delivered(h.flying, 0, name, ack, false, 0)
	h.flying, h.ack = nil, nil
}

// finish sends over a link without faults until nothing is left to send.
func (r *replicaRig) finish(t require.TestingT, name string) {
	for range 100 {
		if !r.send(name) {
			return
		}
		if len(r.standbys[name].wire) > 0 {
			r.arrive(t, name, len(r.standbys[name].wire)-1)
		}
		r.answer(name)
	}
	require.Fail(t, "it never ends")
}

// levels returns what a table has for each key of the rig's limiter.
func levels(t *Table, rules *rule.Rules) map[string]float64 {
	found := make(map[string]float64)
	for _, slot := range allIn(&t.partitions[rigPart].buckets) {
		if slot.bucket.Level(0) > 0 {
			found[slot.bucket.key()] = slot.bucket.Level(0)
		}
	}
	return found
}

// check fails when a standby's copy lacks something of what its version says it has, or the holder believes it has more.
func (r *replicaRig) check(t require.TestingT) {
	mine := r.part().Holding
	for name, h := range r.standbys {
		theirs := h.table.partitions[rigPart].Holding
		if theirs.Copy == (wire.Version{}) || !theirs.Copy.SameTerm(mine.Copy) {
			assert.False(t, mine.Replication.Standby == name && mine.Replication.Complete)
			continue
		}
		if mine.Replication.Standby == name && mine.Replication.Complete {
			require.LessOrEqual(t, mine.Replication.Acked, theirs.Copy.Seq)
		}
		have := levels(h.table, h.rules)
		state, known := r.then[theirs.Copy.Seq]
		require.True(t, known)
		for key, n := range state {
			require.GreaterOrEqual(t, have[key], n, "%s lacks a take of %.8s at %v", name, key, theirs.Copy)
		}
	}
}

// longKey makes few buckets fill a piece.
func longKey(i int) string { return fmt.Sprintf("%04d", i) + strings.Repeat("x", wire.MaxKeyLen-4) }

func TestReplicasLoseNothing(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		r := newReplicaRig(t, "a", "b")
		standby := "a"
		random := rand.New(rand.NewPCG(rapid.Uint64().Draw(t, "seed"), 0))
		term := uint64(5)
		for range rapid.IntRange(0, 150).Draw(t, "keys at first") {
			r.take(t, longKey(random.IntN(200)))
		}
		t.Repeat(map[string]func(*rapid.T){
			"take": func(t *rapid.T) {
				for range rapid.IntRange(1, 20).Draw(t, "takes") {
					r.take(t, longKey(random.IntN(200)))
				}
			},
			"many takes": func(t *rapid.T) {
				for i := range 100 {
					r.take(t, longKey(i))
				}
			},
			"send": func(t *rapid.T) { r.send(standby) },
			"nothing goes wrong for a while": func(t *rapid.T) {
				r.answer(standby)
				r.finish(t, standby)
			},
			"a message is lost": func(t *rapid.T) {
				r.answer(standby)
				r.take(t, longKey(random.IntN(200)))
				r.send(standby)
				r.answer(standby)
			},
			"an answer is lost": func(t *rapid.T) {
				r.answer(standby)
				if r.send(standby) {
					r.arrive(t, standby, len(r.standbys[standby].wire)-1)
				}
				r.standbys[standby].ack = nil
				r.answer(standby)
			},
			"arrive": func(t *rapid.T) {
				if n := len(r.standbys[standby].wire); n > 0 {
					r.arrive(t, standby, n-1)
				}
			},
			"arrive late, or again": func(t *rapid.T) {
				name := rapid.SampledFrom([]string{"a", "b"}).Draw(t, "at")
				if n := len(r.standbys[name].wire); n > 0 {
					r.arrive(t, name, rapid.IntRange(0, n-1).Draw(t, "message"))
				}
			},
			"takes of many keys": func(t *rapid.T) {
				for i := range 300 {
					r.take(t, fmt.Sprint("short-", i))
				}
			},
			"arrive at the same time": func(t *rapid.T) {
				name := rapid.SampledFrom([]string{"a", "b"}).Draw(t, "at")
				if n := len(r.standbys[name].wire); n > 1 {
					first, second := max(0, n-1-random.IntN(3)), max(0, n-1-random.IntN(3))
					r.arriveTogether(t, name, first, second, random)
				}
			},
			"answer": func(t *rapid.T) { r.answer(standby) },
			"answers to both": func(t *rapid.T) {
				r.answer("a")
				r.answer("b")
			},
			"give up the list of changes": func(t *rapid.T) {
				p := r.part()
				p.forgetChanges()
				p.Holding.Replication.ResendAll = true
				r.holder.MarkChanged(rigPart)
			},
			"change the standby": func(t *rapid.T) { standby = rapid.SampledFrom([]string{"a", "b"}).Draw(t, "standby") },
			"raise the term": func(t *rapid.T) {
				term++
				h := &r.part().Holding
				h.Renew(wire.Version{Ballot: wire.Ballot{Number: term, By: "holder"}, Holder: "holder", Seq: h.Copy.Seq})
				r.holder.MarkChanged(rigPart) // as takeOver does
				r.then = make(map[uint64]map[string]float64)
				r.remember()
			},
			"": func(t *rapid.T) { r.check(t) },
		})
		r.answer(standby)
		r.finish(t, standby)
		require.Equal(t, r.taken, levels(r.standbys[standby].table, r.standbys[standby].rules))
		require.Empty(t, r.part().dirty)
		require.True(t, r.part().Holding.SafeToDrop(r.part().Holding.Copy))
	})
}

// After everything, only what has changed is sent.
func TestChangesFollowTheWhole(t *testing.T) {
	r := newReplicaRig(t, "a")
	for i := range 20 {
		r.take(t, fmt.Sprint(i))
	}
	r.finish(t, "a")
	r.take(t, "3")
	require.True(t, r.send("a"))
	part := r.standbys["a"].flying.Request.Parts[0]
	require.False(t, part.Full)
	require.Len(t, part.Content.Buckets, 1)
	r.finish(t, "a")
	require.Equal(t, r.taken, levels(r.standbys["a"].table, r.rules))
	require.False(t, r.send("a"), "nothing is left to send")
}

// A lost answer costs a repetition of the changes, and not of everything.
func TestLostAnswerIsMadeUpFor(t *testing.T) {
	r := newReplicaRig(t, "a")
	r.take(t, "k")
	r.finish(t, "a")
	r.take(t, "k")
	r.send("a")
	require.Equal(t, wire.ReplicaTaken, r.arrive(t, "a", 1).Status)
	r.standbys["a"].ack = nil
	r.answer("a")
	r.take(t, "l")
	r.send("a")
	part := r.standbys["a"].flying.Request.Parts[0]
	require.False(t, part.Full)
	require.Len(t, part.Content.Buckets, 2)
	require.Equal(t, wire.ReplicaTaken, r.arrive(t, "a", 2).Status)
	require.Equal(t, wire.ReplicaMissing, r.arrive(t, "a", 1).Status, "overtaken")
	require.Equal(t, r.taken, levels(r.standbys["a"].table, r.rules))
}

// A standby that has lost its copy asks for everything.
func TestStandbyThatMissesSomethingGetsEverything(t *testing.T) {
	r := newReplicaRig(t, "a")
	r.take(t, "k")
	r.finish(t, "a")
	standby := r.standbys["a"].table
	idle, _ := standby.IdleCopy(rigPart)
	require.True(t, standby.DropCopy(idle))
	r.take(t, "l")
	r.send("a")
	require.Equal(t, wire.ReplicaMissing, r.arrive(t, "a", 1).Status)
	older := wire.Version{Ballot: wire.Ballot{Number: 4, By: "z"}, Holder: "z", Seq: 99}
	require.True(t, r.part().Holding.SafeToDrop(older))
	r.answer("a")
	require.False(t, r.part().Holding.SafeToDrop(older), "nobody may drop a copy that the standby is known not to have")
	r.finish(t, "a")
	require.True(t, r.part().Holding.SafeToDrop(older))
	require.Equal(t, r.taken, levels(standby, r.rules))
}

// What the holder has dropped or reset, the standby drops; also when the change was to a bucket that is gone by now.
func TestDroppedBucketsAreDroppedAtTheStandby(t *testing.T) {
	r := newReplicaRig(t, "a")
	for _, key := range []string{"kept", "reset", "evicted"} {
		r.take(t, key)
	}
	r.finish(t, "a")
	r.holder.Reset(rigPart, r.rule.Bucket("reset"), 0)
	r.take(t, "evicted")
	removeIf(&r.part().buckets, func(b *bucket) bool {
		if b.key() != "evicted" {
			return false
		}
		r.holder.discount(b)
		return true
	})
	r.finish(t, "a")
	require.Equal(t, map[string]float64{"kept": 1}, levels(r.standbys["a"].table, r.rules))
}

// A list of changes never outgrows what there is to change, however long the standby is away.
func TestChangesAreBounded(t *testing.T) {
	r := newReplicaRig(t, "a")
	r.finish(t, "a")
	for i := range 10000 {
		r.take(t, fmt.Sprint(i))
		clearPart(r.holder, rigPart)
		r.holder.BoundChanges(rigPart)
		require.LessOrEqual(t, len(r.part().dirty), reusable)
	}
	r.taken = map[string]float64{}
	r.take(t, "k")
	r.finish(t, "a")
	require.Equal(t, r.taken, levels(r.standbys["a"].table, r.rules))
}

// An answer that comes when quorum has lapsed makes nothing safe.
func TestAnswersCountOnlyWhileEvidenceIsFresh(t *testing.T) {
	r := newReplicaRig(t, "a")
	r.take(t, "k")
	r.send("a")
	r.arrive(t, "a", 0)
	r.holder.fullUntil.Store(0)
	r.answer("a")
	require.False(t, r.part().Holding.Replication.Complete)
}

// Refusals: a higher promise to somebody else, a higher version, and a standby that holds.
func TestRefusedHoldersAcquireAnewAndYieldToTheOwner(t *testing.T) {
	for name, c := range map[string]struct {
		prepare         func(*holding.Holding)
		isOwner         bool
		status          wire.ReplicaStatus
		refused, yields bool
	}{
		"promise": {func(h *holding.Holding) { h.Promise(wire.Ballot{Number: 9, By: "x"}) }, true, wire.ReplicaRefused, true, false},
		"copy": {
			func(h *holding.Holding) { h.Copy = wire.Version{Ballot: wire.Ballot{Number: 9, By: "x"}, Holder: "x"} }, true, wire.ReplicaRefused, true, false,
		},
		"promise to this holder":     {func(h *holding.Holding) { h.Promise(wire.Ballot{Number: 9, By: "holder"}) }, true, wire.ReplicaTaken, false, false},
		"holds":                      {func(h *holding.Holding) { h.Hold(wire.Version{Ballot: wire.Ballot{Number: 9, By: "a"}, Holder: "a"}) }, false, wire.ReplicaHeld, true, false},
		"holds, and is the owner":    {func(h *holding.Holding) { h.Hold(wire.Version{Ballot: wire.Ballot{Number: 9, By: "a"}, Holder: "a"}) }, true, wire.ReplicaHeld, false, true},
		"holds by a lower one, ours": {func(h *holding.Holding) { h.Hold(wire.Version{Ballot: wire.Ballot{Number: 1, By: "a"}, Holder: "a"}) }, true, wire.ReplicaHeld, false, true},
	} {
		t.Run(name, func(t *testing.T) {
			r := newReplicaRig(t, "a")
			r.take(t, "k")
			c.prepare(&r.standbys["a"].table.partitions[rigPart].Holding)
			r.send("a")
			ack := r.arrive(t, "a", 0)
			require.Equal(t, c.status, ack.Status)
			h := r.standbys["a"]
			refused, yielded := r.holder.Delivered(h.flying, 0, "a", ack, c.isOwner, 0)
			require.Equal(t, c.refused, refused)
			require.Equal(t, c.yields, yielded)
			mine := &r.part().Holding
			require.Equal(t, c.refused, mine.Challenged)
			require.Equal(t, !c.yields, mine.Holds)
			require.Equal(t, !c.yields, r.holder.Holds(rigPart))
			if c.refused {
				require.False(t, mine.Promised.Below(wire.Ballot{Number: 9, By: "a"}), "it acquires above what the standby has")
			}
		})
	}
}

// The marks of reports are with the standby as well, and changed ones follow.
func TestMarksTravelWithReplicas(t *testing.T) {
	r := newReplicaRig(t, "a")
	mine, theirs := &r.part().Holding, &r.standbys["a"].table.partitions[rigPart].Holding
	mine.DebtMarks = map[string]uint64{"x": 1}
	r.take(t, "k")
	r.finish(t, "a")
	require.Equal(t, mine.DebtMarks, theirs.DebtMarks)
	mine.DebtMarks["y"] = 7
	r.take(t, "k")
	r.finish(t, "a")
	require.Equal(t, mine.DebtMarks, theirs.DebtMarks)
}

// Of a copy, what was given cannot be given again once it is dropped; but the node that it was given to is still named.
func TestDroppedCopyStillNamesItsReceiver(t *testing.T) {
	table := tableOfNode()
	holdIn(table, "holder", 5)
	h := &table.partitions[rigPart].Holding
	round := wire.Ballot{Number: 9, By: "x"}
	require.Equal(t, wire.ReplyTransferred, h.Answer(round, true).Kind)
	table.partitions[rigPart].publish()
	idle, _ := table.IdleCopy(rigPart)
	require.True(t, table.DropCopy(idle))
	a := h.Answer(round, true)
	require.Equal(t, wire.ReplyNotHolding, a.Kind)
	require.Equal(t, "x", a.TransferredTo)
	require.Zero(t, a.Version)
}

// "It is safe" may come late: the one that had it may have gone, and this node be the standby again, of the same version.
func TestACopyThatWasSentAgainIsNotDropped(t *testing.T) {
	r := newReplicaRig(t, "a")
	r.take(t, "k")
	r.finish(t, "a")
	standby := r.standbys["a"].table
	idle, any := standby.IdleCopy(rigPart)
	require.True(t, any)
	h := &standby.partitions[rigPart].Holding
	h.AcceptReplica(h.Copy)
	require.False(t, standby.DropCopy(idle))
	idle, _ = standby.IdleCopy(rigPart)
	require.True(t, standby.DropCopy(idle), "asked about since")
	_, any = standby.IdleCopy(rigPart)
	require.False(t, any)
}

func TestSettledNeedsTheStandby(t *testing.T) {
	r := newReplicaRig(t, "a")
	r.take(t, "k")
	h := &r.part().Holding
	older := wire.Version{Ballot: wire.Ballot{Number: 4, By: "z"}, Holder: "z", Seq: 99}
	require.False(t, h.SafeToDrop(older), "the standby has nothing")
	r.finish(t, "a")
	require.True(t, h.SafeToDrop(older))
	require.True(t, h.SafeToDrop(h.Copy))
	r.take(t, "k")
	require.False(t, h.SafeToDrop(h.Copy), "the standby has not had the last take")
	require.True(t, h.SafeToDrop(older))
	require.False(t, h.SafeToDrop(wire.Version{Ballot: wire.Ballot{Number: 6, By: "z"}, Holder: "z"}), "a newer one")
	r.holder.NobodyToSendTo(rigPart)
	require.True(t, h.SafeToDrop(h.Copy), "there is no standby")
}
