package replicate

import (
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/peerlimit/peerlimit/internal/ring"
	"github.com/peerlimit/peerlimit/internal/wire"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// A node that is neither owner nor standby drops its copy once the standby has everything in it, and keeps it as long as not.
func TestACopyIsDroppedWhenTheStandbyHasIt(t *testing.T) {
	inCluster(t, func(t *testing.T, c *cluster) {
		a, b, third := c.members["a"], c.members["b"], c.members["c"]
		part := c.partOf("a", "b")
		a.hold(part, 2)
		third.accept(all(part, version(1, "c", 5), third.image("key", 3)))
		b.set(func() { b.silent = true })
		a.take(part, "key")
		c.run()
		time.Sleep(5 * time.Second)
		require.GreaterOrEqual(t, len(third.requests("a", wire.KindSettle)), 4, "it asks each second")
		require.Equal(t, version(1, "c", 5), third.copyOf(part), "the standby does not have it")
		require.Equal(t, 3, third.taken(part, "key"))

		b.set(func() { b.silent = false })
		time.Sleep(2 * time.Second)
		require.Equal(t, 1, b.taken(part, "key"))
		require.Equal(t, wire.Version{}, third.copyOf(part))
		require.Zero(t, third.taken(part, "key"))
		require.NotEqual(t, wire.Version{}, b.copyOf(part), "the standby keeps its copy")
		require.Empty(t, b.requests("a", wire.KindSettle))

		asked := len(third.requests("a", wire.KindSettle))
		time.Sleep(5 * time.Second)
		require.Len(t, third.requests("a", wire.KindSettle), asked, "a node that keeps nothing asks nothing")
	}, "a", "b", "c")
}

// A holder frees another node of a copy when its present standby, a third node, has acknowledged all that is in it.
func TestACopyIsSettledByVersion(t *testing.T) {
	for name, each := range map[string]struct {
		by         string
		asked      func(held wire.Version) wire.Version
		settled    bool
		challenged int
	}{
		"of an earlier term":      {by: "c", asked: func(wire.Version) wire.Version { return version(1, "c", 99) }, settled: true},
		"what the standby has":    {by: "c", asked: func(held wire.Version) wire.Version { held.Seq--; return held }, settled: true},
		"what only this node has": {by: "c", asked: func(held wire.Version) wire.Version { return held }},
		"the standby's own copy":  {by: "b", asked: func(wire.Version) wire.Version { return version(1, "c", 99) }},
		"newer in the same term":  {by: "c", asked: func(held wire.Version) wire.Version { held.Seq++; return held }, challenged: 1},
		"newer by its ballot":     {by: "c", asked: func(wire.Version) wire.Version { return version(5, "c", 1) }, challenged: 1},
		"beyond all counting":     {by: "c", asked: func(wire.Version) wire.Version { return version(math.MaxUint64, "c", 1) }},
	} {
		t.Run(name, func(t *testing.T) {
			inCluster(t, func(t *testing.T, c *cluster) {
				a, b := c.members["a"], c.members["b"]
				part := c.partOf("a", "b")
				a.hold(part, 2)
				c.run("a")
				a.take(part, "key")
				time.Sleep(2 * interval)
				require.Equal(t, a.copyOf(part), b.copyOf(part))
				b.set(func() { b.silent = true })
				a.take(part, "key")
				time.Sleep(2 * interval)
				asked := each.asked(a.copyOf(part))
				answer := a.AnswerSettle(&wire.SettleRequest{By: each.by, Parts: []wire.SettlePart{{Part: part, Version: asked}}})
				require.Equal(t, each.settled, slices.Contains(answer.Settled, part))
				challenged, _ := a.counts()
				require.Equal(t, each.challenged, challenged)
				require.Equal(t, each.challenged == 1, a.table.IsChallenged(part))
			}, "a", "b", "c")
		})
	}
}

// Only a holder settles: not a node that has a copy, nor one that has held until its quorum lapsed, nor one whose standby has not
// had everything since the ring has named it.
func TestOnlyAHolderWithACompleteStandbySettles(t *testing.T) {
	inCluster(t, func(t *testing.T, c *cluster) {
		a, b := c.members["a"], c.members["b"]
		part := c.partOf("a", "b")
		ask := func(m *member) []uint16 {
			return m.AnswerSettle(&wire.SettleRequest{By: "d", Parts: []wire.SettlePart{{Part: part, Version: version(1, "d", 1)}}}).Settled
		}
		a.hold(part, 2)
		require.Empty(t, ask(a), "the standby has had nothing")
		c.run("a")
		time.Sleep(2 * interval)
		require.Equal(t, []uint16{part}, ask(a))
		require.Empty(t, ask(b), "it has a copy only")

		next := c.members[ring.New([]string{"a", "c", "d"}).OwnerWithout(part, "a")]
		next.set(func() { next.silent = true })
		c.ring.Store(ring.New([]string{"a", "c", "d"}))
		require.Empty(t, ask(a), "another standby")
		time.Sleep(time.Second)
		require.Empty(t, ask(a))

		c.ring.Store(ring.New([]string{"a", "b", "c", "d"}))
		time.Sleep(time.Second)
		require.Equal(t, []uint16{part}, ask(a))
		a.loseQuorum()
		require.Empty(t, ask(a))
		require.False(t, a.table.Holds(part))
	}, "a", "b", "c", "d")
}

// A leaver asks about each copy it keeps, replicas as well, and is told how many it still has to keep. An owner that does not answer
// is asked a second time by another way. What this node itself would own it keeps: there is nobody to ask.
func TestALeaverIsToldHowManyCopiesItKeeps(t *testing.T) {
	inCluster(t, func(t *testing.T, c *cluster) {
		a, d := c.members["a"], c.members["d"]
		settled, needed, own, unheard := c.partOf("a", "b"), c.partOf("a", "d"), c.partOf("d", "a"), c.partOf("b", "c")
		a.hold(settled, 2)
		a.hold(needed, 2)
		c.run("a")
		for _, part := range []uint16{settled, needed, own, unheard} {
			d.keep(part, version(1, "d", 1))
		}
		time.Sleep(2 * interval) // needed is replicated to the leaver itself
		var tries []int
		a.set(func() {
			a.instead = func(_ []byte, try int, answer func() []byte) ([]byte, error) {
				if tries = append(tries, try); try == 0 {
					return nil, errors.New("not this way")
				}
				return answer(), nil
			}
		})
		c.members["b"].set(func() { c.members["b"].silent = true })
		began := c.now()
		require.Equal(t, 3, d.ReleaseCopies(context.Background()))
		require.EqualValues(t, 2*settleTimeout, c.now()-began, "as long as b's two tries")
		require.Equal(t, []int{0, 1}, tries)
		require.Equal(t, wire.Version{}, d.copyOf(settled))
		for _, part := range []uint16{needed, own, unheard} {
			require.NotEqual(t, wire.Version{}, d.copyOf(part))
		}
		require.Equal(t, 3, d.ReleaseCopies(context.Background()), "it was not told anything new")
		require.Empty(t, d.requests("d", wire.KindSettle))
	}, "a", "b", "c", "d")
}

// A response that a copy is safe frees the node of that copy, not of one that came while it was asking, and not of a partition that
// it was not asked about.
func TestAResponseFreesOnlyOfWhatWasAskedAbout(t *testing.T) {
	inCluster(t, func(t *testing.T, c *cluster) {
		a, third := c.members["a"], c.members["c"]
		part, held := c.partOf("a", "b"), c.partOf("c", "a")
		third.hold(held, 1)
		third.keep(part, version(1, "c", 1))
		a.set(func() {
			a.instead = func([]byte, int, func() []byte) ([]byte, error) {
				third.accept(all(part, version(1, "c", 1), third.image("key", 3))) // the same version again
				return wire.AppendSettleResponse(nil, &wire.SettleResponse{Settled: []uint16{part, held}}), nil
			}
		})
		require.Equal(t, 1, third.ReleaseCopies(context.Background()))
		require.Equal(t, version(1, "c", 1), third.copyOf(part))
		require.Equal(t, 3, third.taken(part, "key"))
		require.True(t, third.table.Holds(held))

		a.set(func() {
			a.instead = func([]byte, int, func() []byte) ([]byte, error) { return []byte{1, 2, 3}, nil }
		})
		asked := len(third.requests("a", wire.KindSettle))
		require.Equal(t, 1, third.ReleaseCopies(context.Background()), "malformed")
		require.Len(t, third.requests("a", wire.KindSettle), asked+1, "there was a response")
		a.set(func() {
			a.instead = func([]byte, int, func() []byte) ([]byte, error) {
				return wire.AppendSettleResponse(nil, &wire.SettleResponse{Settled: []uint16{part}}), nil
			}
		})
		require.Zero(t, third.ReleaseCopies(context.Background()))
		require.Equal(t, wire.Version{}, third.copyOf(part))
	}, "a", "b", "c")
}

// Many copies are asked about in requests of at most 1,024 partitions, at most 16 of which are under way at once.
func TestManyCopiesAreAskedAboutInPieces(t *testing.T) {
	var names []string
	for i := range 40 {
		names = append(names, fmt.Sprintf("owner-%02d", i))
	}
	for name, each := range map[string]struct {
		owners []string
		atOnce int64
		most   int
	}{
		"one owner":   {[]string{"owner"}, 4, settlePiece},
		"many owners": {names, settleAtOnce, 200},
	} {
		t.Run(name, func(t *testing.T) {
			inCluster(t, func(t *testing.T, c *cluster) {
				leaver := c.add("leaver", interval) // which is not on the ring any more
				for part := range uint16(ring.Partitions) {
					leaver.keep(part, version(1, "leaver", 1))
				}
				var now, most atomic.Int64
				seen, largest := make([]atomic.Int32, ring.Partitions), atomic.Int64{}
				for _, owner := range each.owners {
					c.members[owner].instead = func(request []byte, _ int, _ func() []byte) ([]byte, error) {
						most.Store(max(most.Load(), now.Add(1)))
						time.Sleep(time.Millisecond)
						now.Add(-1)
						q, err := wire.DecodeSettleRequest(request)
						assert.NoError(t, err)
						assert.Equal(t, "leaver", q.By)
						largest.Store(max(largest.Load(), int64(len(q.Parts))))
						response := &wire.SettleResponse{}
						for _, part := range q.Parts {
							seen[part.Part].Add(1)
							assert.Equal(t, owner, c.ring.Load().Owner(part.Part))
							response.Settled = append(response.Settled, part.Part)
						}
						return wire.AppendSettleResponse(nil, response), nil
					}
				}
				require.Zero(t, leaver.ReleaseCopies(context.Background()))
				synctest.Wait()
				require.Equal(t, each.atOnce, most.Load())
				require.LessOrEqual(t, largest.Load(), int64(each.most))
				for part := range seen {
					require.EqualValues(t, 1, seen[part].Load())
				}
			}, each.owners...)
		})
	}
}
