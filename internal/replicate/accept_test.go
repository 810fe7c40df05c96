package replicate

import (
	"context"
	"math"
	"slices"
	"testing"
	"time"

	"github.com/peerlimit/peerlimit/internal/holding"
	"github.com/peerlimit/peerlimit/internal/quorum"
	"github.com/peerlimit/peerlimit/internal/wire"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// roster is a set of members that are all to be asked.
type roster []string

func (r roster) Generation() uint64         { return 1 }
func (r roster) Asked() []string            { return r }
func (r roster) IsAsked(member string) bool { return slices.Contains(r, member) }

// image is a bucket of which so many tokens are taken, as it travels.
func (m *member) image(key string, taken float64) wire.Image {
	return wire.Image{Limiter: "api", Key: key, Set: m.rule.Set, Levels: []float64{taken}}
}

// all is a message with all of a partition in it.
func all(part uint16, v wire.Version, buckets ...wire.Image) *wire.ReplicaRequest {
	return &wire.ReplicaRequest{Parts: []wire.ReplicaPart{{
		Part: part, Version: v, Full: true, First: true, Last: true, Content: wire.Content{Buckets: buckets},
	}}}
}

// since is a message with what has changed since a seq.
func since(part uint16, v wire.Version, seq uint64, buckets ...wire.Image) *wire.ReplicaRequest {
	return &wire.ReplicaRequest{Parts: []wire.ReplicaPart{{Part: part, Version: v, Since: seq, Content: wire.Content{Buckets: buckets}}}}
}

// A standby that has seq 5 of ballot 7 takes what is newer and what it can build on. It refuses what is older, says what the
// sender has to outbid, and its copy stays as it was.
func TestVersionsAreAcceptedInOrder(t *testing.T) {
	const part = 9
	transferred := version(7, "a", 1)
	transferred.Transfers = 1
	for name, c := range map[string]struct {
		sent     func(image wire.Image) *wire.ReplicaRequest
		status   wire.ReplicaStatus
		promised wire.Ballot
	}{
		"the same again":               {func(i wire.Image) *wire.ReplicaRequest { return all(part, version(7, "a", 5), i) }, wire.ReplicaTaken, wire.Ballot{}},
		"more of the same term":        {func(i wire.Image) *wire.ReplicaRequest { return all(part, version(7, "a", 6), i) }, wire.ReplicaTaken, wire.Ballot{}},
		"changes since what it has":    {func(i wire.Image) *wire.ReplicaRequest { return since(part, version(7, "a", 6), 5, i) }, wire.ReplicaTaken, wire.Ballot{}},
		"changes since less":           {func(i wire.Image) *wire.ReplicaRequest { return since(part, version(7, "a", 6), 3, i) }, wire.ReplicaTaken, wire.Ballot{}},
		"changes since more":           {func(i wire.Image) *wire.ReplicaRequest { return since(part, version(7, "a", 8), 6, i) }, wire.ReplicaMissing, wire.Ballot{}},
		"overtaken, changes":           {func(i wire.Image) *wire.ReplicaRequest { return since(part, version(7, "a", 4), 3, i) }, wire.ReplicaMissing, wire.Ballot{}},
		"overtaken, everything":        {func(i wire.Image) *wire.ReplicaRequest { return all(part, version(7, "a", 4), i) }, wire.ReplicaMissing, wire.Ballot{}},
		"a higher ballot":              {func(i wire.Image) *wire.ReplicaRequest { return all(part, version(8, "c", 1), i) }, wire.ReplicaTaken, wire.Ballot{}},
		"a higher ballot, changes":     {func(i wire.Image) *wire.ReplicaRequest { return since(part, version(8, "c", 6), 5, i) }, wire.ReplicaMissing, wire.Ballot{}},
		"one more transfer":            {func(i wire.Image) *wire.ReplicaRequest { return all(part, transferred, i) }, wire.ReplicaTaken, wire.Ballot{}},
		"a lower ballot":               {func(i wire.Image) *wire.ReplicaRequest { return all(part, version(6, "c", 9), i) }, wire.ReplicaRefused, ballot(7, "a")},
		"a lower ballot of the holder": {func(i wire.Image) *wire.ReplicaRequest { return all(part, version(6, "a", 9), i) }, wire.ReplicaRefused, ballot(7, "a")},
	} {
		t.Run(name, func(t *testing.T) {
			inCluster(t, func(t *testing.T, c2 *cluster) {
				b := c2.members["b"]
				require.Equal(t, wire.ReplicaTaken, b.accept(all(part, version(7, "a", 5), b.image("key", 5))).Parts[0].Status)
				ans := b.accept(c.sent(b.image("key", 300)))
				require.Equal(t, []wire.ReplicaAck{{Part: part, Status: c.status, Promised: c.promised}}, ans.Parts)
				if c.status == wire.ReplicaTaken {
					assert.Equal(t, 300, b.taken(part, "key"))
					assert.False(t, b.copyOf(part).Below(version(7, "a", 5)))
				} else {
					assert.Equal(t, 5, b.taken(part, "key"), "the copy is as before")
					assert.Equal(t, version(7, "a", 5), b.copyOf(part))
				}
			}, "a", "b")
		})
	}
}

// A standby that has promised a ballot to another node refuses the replicas of lower ones, also the ones of the holder so far.
func TestAPromiseRefusesReplicas(t *testing.T) {
	const part = 9
	inCluster(t, func(t *testing.T, c *cluster) {
		b := c.members["b"]
		b.accept(all(part, version(7, "a", 5)))
		p := b.table.Lock(part)
		p.Holding.Answer(ballot(8, "c"), true)
		p.Unlock()
		ack := b.accept(since(part, version(7, "a", 6), 5, b.image("key", 1))).Parts[0]
		assert.Equal(t, wire.ReplicaAck{Part: part, Status: wire.ReplicaRefused, Promised: ballot(8, "c")}, ack)
		assert.Zero(t, b.taken(part, "key"))
		assert.Equal(t, wire.ReplicaTaken, b.accept(all(part, version(8, "c", 1))).Parts[0].Status)
	}, "a", "b", "c")
}

// A replica that was taken is a promise: its ballot is heard of, and a round below it is answered with "behind".
func TestAReplicaIsAPromise(t *testing.T) {
	const part = 9
	inCluster(t, func(t *testing.T, c *cluster) {
		b := c.members["b"]
		b.accept(all(part, version(7, "a", 5)))
		assert.EqualValues(t, 7, b.reach.Heard.Load())
		p := b.table.Lock(part)
		defer p.Unlock()
		assert.Equal(t, wire.ReplyBehind, p.Holding.Answer(ballot(6, "c"), true).Kind)
	}, "a", "b", "c")
}

// A ballot that nobody can have come to by counting is refused, asks the sender to outbid nothing, and is not passed on.
func TestAnIncredibleBallotIsNotHeardOf(t *testing.T) {
	const part, other = 9, 10
	inCluster(t, func(t *testing.T, c *cluster) {
		b := c.members["b"]
		q := all(part, version(math.MaxUint64, "a", 5), b.image("key", 1))
		q.Parts = append(q.Parts, all(other, version(7, "a", 5), b.image("key", 2)).Parts...)
		assert.Equal(t, []wire.ReplicaAck{{Part: part, Status: wire.ReplicaRefused}, {Part: other, Status: wire.ReplicaTaken}}, b.accept(q).Parts)
		assert.Equal(t, wire.Version{}, b.copyOf(part))
		assert.Equal(t, 2, b.taken(other, "key"), "the rest of the message counts")
		assert.LessOrEqual(t, b.reach.Heard.Load(), uint64(quorum.CountableBallots))
	}, "a", "b")
}

// A node that holds takes no replica and says so. When its quorum has lapsed it does not hold, even if nothing has told it yet.
func TestOnlyAHolderWithQuorumAnswersThatItHolds(t *testing.T) {
	const part = 9
	inCluster(t, func(t *testing.T, c *cluster) {
		b := c.members["b"]
		b.hold(part, 7)
		b.take(part, "key")
		require.Equal(t, wire.ReplicaAck{Part: part, Status: wire.ReplicaHeld, Promised: ballot(7, "b")}, b.accept(all(part, version(9, "a", 5))).Parts[0])
		require.Equal(t, 1, b.taken(part, "key"))
		b.loseQuorum()
		require.True(t, b.table.Holds(part), "nobody has noticed")
		require.Equal(t, wire.ReplicaTaken, b.accept(all(part, version(9, "a", 5))).Parts[0].Status)
		require.False(t, b.table.Holds(part))
		require.EqualValues(t, 1, b.reach.Lapses.Load())
	}, "a", "b")
}

// A replica that ends an attempt to acquire the partition lets the node look again what there is to acquire; others do not.
func TestAReplicaThatEndsAnAttemptIsTold(t *testing.T) {
	const part = 9
	inCluster(t, func(t *testing.T, c *cluster) {
		b := c.members["b"]
		p := b.table.Lock(part)
		p.Holding.Begin(holding.NewRound(context.Background(), ballot(6, "b"), roster{"a", "b"}, nil, func(string) bool { return false }))
		p.Unlock()
		b.accept(all(part, version(5, "a", 1)))
		challenged, _ := b.counts()
		assert.Zero(t, challenged, "it was refused")
		b.accept(all(part, version(7, "a", 1)))
		challenged, _ = b.counts()
		assert.Equal(t, 1, challenged)
		b.accept(all(part, version(7, "a", 2)))
		challenged, _ = b.counts()
		assert.Equal(t, 1, challenged, "there was no attempt any more")
	}, "a", "b")
}

// What a standby keeps of a message, a piece of a partition among it, does not change when the memory of the message is used for others.
func TestWhatIsKeptDoesNotLieInMessages(t *testing.T) {
	const part, other = 9, 10
	fail := func(err error) []byte { require.NoError(t, err); return nil }
	inCluster(t, func(t *testing.T, c *cluster) {
		b := c.members["b"]
		piece := func(from uint64, key string, last bool) []byte {
			return wire.AppendReplicaRequest(nil, &wire.ReplicaRequest{Parts: []wire.ReplicaPart{{
				Part: part, Version: version(7, "a", 5), Since: from, Full: true, First: from == 0, Last: last,
				Content: wire.Content{Buckets: []wire.Image{b.image(key, 7)}},
			}}})
		}
		request := piece(0, "first", false)
		later := b.Later(request, fail)
		clear(request) // it was the connection's
		later()
		for range 100 { // messages of the same length, in which the key of the piece would be another one
			b.Later(wire.AppendReplicaRequest(nil, all(other, version(7, "a", 5), b.image("other", 3))), fail)()
			b.Later(wire.AppendReplicaRequest(nil, since(other, version(7, "a", 5), 5, b.image("xxxxx", 3))), fail)()
		}
		b.Later(piece(1, "second", true), fail)()
		assert.Equal(t, version(7, "a", 5), b.copyOf(part))
		assert.Equal(t, 7, b.taken(part, "first"))
		assert.Equal(t, 7, b.taken(part, "second"))
		assert.Equal(t, 3, b.taken(other, "xxxxx"))
	}, "a", "b")
}

// A message that cannot be read is refused with its reason, and the next one is read.
func TestAMalformedReplicaIsRefused(t *testing.T) {
	inCluster(t, func(t *testing.T, c *cluster) {
		b := c.members["b"]
		good := wire.AppendReplicaRequest(nil, all(9, version(7, "a", 5), b.image("key", 3)))
		var reason error
		refused := b.Later(good[:len(good)-1], func(err error) []byte { reason = err; return []byte("refused") })()
		assert.Equal(t, "refused", string(refused))
		assert.ErrorIs(t, reason, wire.ErrMalformed)
		assert.Zero(t, b.taken(9, "key"))
		b.hear(good)
		assert.Equal(t, 3, b.taken(9, "key"))
	}, "a", "b")
}

// Pieces of a replica of which no more come are forgotten after a while, and not before.
func TestPiecesWithoutAnEndAreForgotten(t *testing.T) {
	const part = 9
	inCluster(t, func(t *testing.T, c *cluster) {
		b := c.members["b"]
		piece := func(from uint64, key string, last bool) wire.ReplicaStatus {
			return b.accept(&wire.ReplicaRequest{Parts: []wire.ReplicaPart{{
				Part: part, Version: version(7, "a", 5), Since: from, Full: true, First: from == 0, Last: last,
				Content: wire.Content{Buckets: []wire.Image{b.image(key, 7)}},
			}}}).Parts[0].Status
		}
		c.run("b")
		require.Equal(t, wire.ReplicaTaken, piece(0, "first", false))
		time.Sleep(9 * time.Second)
		require.Equal(t, wire.ReplicaTaken, piece(1, "second", false), "within 10 s of the last one")
		time.Sleep(12 * time.Second)
		require.Equal(t, wire.ReplicaMissing, piece(2, "third", true))
		require.Equal(t, wire.Version{}, b.copyOf(part))
	}, "a", "b")
}
