package peerlimit

import (
	"context"
	"fmt"
	"math"
	"math/rand/v2"
	"runtime"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/peerlimit/peerlimit/internal/inspect"
	"github.com/peerlimit/peerlimit/internal/limit"
	"github.com/peerlimit/peerlimit/internal/quorum"
	"github.com/peerlimit/peerlimit/internal/ring"
	"github.com/peerlimit/peerlimit/internal/sim"
	"github.com/peerlimit/peerlimit/internal/store"
	"github.com/peerlimit/peerlimit/internal/wire"
	"github.com/peerlimit/peerlimit/transport"
)

// A member with a fault: it says what is well formed and cannot be, to each member of a live cluster. Whatever it was, the
// others decide in full within a second, acquire, hand over and admit as before.

// wildCluster is three nodes, keys that are exhausted, and a member that is a client and nothing else.
type wildCluster struct {
	t        *testing.T
	network  *sim.Network
	nodes    []*Node
	limiters []*Limiter
	keys     []string
	client   *transport.Client
	ctx      context.Context
}

const wildName = "wild-00000000"

// inWildCluster runs a test in a bubble with a cluster.
func inWildCluster(t *testing.T, test func(c *wildCluster)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		c := &wildCluster{t: t, network: sim.New(3), ctx: t.Context()}
		t.Cleanup(c.network.Close)
		c.nodes = startNodes(t, c.network, nil, 3)
		c.client = transport.NewClient(transport.ClientConfig{
			Network: c.network.Host("10.0.9.9"), Cluster: c.nodes[0].settings.Cluster, Self: wildName,
			MinVersion: wire.ProtocolMin, MaxVersion: wire.ProtocolMax,
		})
		t.Cleanup(func() { _ = c.client.Close() })
		for _, n := range c.nodes {
			c.client.Connect(transport.Peer{Name: n.identity, Addr: n.Self().RPCAddr})
			c.limiters = append(c.limiters, c.limiter(n))
		}
		for i := range 200 {
			c.keys = append(c.keys, fmt.Sprintf("key-%d", i))
		}
		for _, key := range c.keys {
			for range 3 {
				d, err := c.limiters[0].Take(c.ctx, key, 1)
				require.NoError(t, err)
				require.True(t, d.Allowed)
			}
		}
		c.requireExhausted()
		time.Sleep(100 * time.Millisecond) // it is with the standbys
		test(c)
	})
}

func (c *wildCluster) limiter(n *Node) *Limiter {
	l, err := n.Limiter("api", Per(3, 1000*time.Hour))
	require.NoError(c.t, err)
	return l
}

// tell sends each node a message as the wild member, and returns when all have answered or a moment has passed.
func (c *wildCluster) tell(message []byte) {
	for _, n := range c.nodes {
		peer := transport.Peer{Name: n.identity, Addr: n.Self().RPCAddr}
		_, err := c.client.Call(c.ctx, peer, message, 100*time.Millisecond)
		require.NotErrorIs(c.t, err, transport.ErrUnreachable)
	}
}

func (c *wildCluster) requireExhausted() {
	c.t.Helper()
	for i, key := range c.keys {
		d, err := c.limiters[i%len(c.limiters)].Take(c.ctx, key, 1)
		require.NoError(c.t, err)
		require.False(c.t, d.Allowed, "%s, decided by %v", key, d.Origin)
	}
}

// requireInFull fails unless all partitions are decided in full by exactly one node, in a moment.
func (c *wildCluster) requireInFull() {
	c.t.Helper()
	for began := time.Now(); ; time.Sleep(10 * time.Millisecond) {
		held, twice := 0, 0
		for part := range uint16(ring.Partitions) {
			deciders := 0
			for _, n := range c.nodes {
				if inspect.DecidesInFull(n, part) {
					deciders++
				}
			}
			held += min(deciders, 1)
			if deciders > 1 {
				twice++
			}
		}
		require.Zero(c.t, twice, "two nodes decide in full")
		if held == ring.Partitions {
			return
		}
		if time.Since(began) > 100*time.Millisecond {
			for _, n := range c.nodes {
				c.t.Log(acquiring(n))
			}
			require.Equal(c.t, ring.Partitions, held, "decided in full")
		}
	}
}

// requireReady waits until every node holds what is its own.
func (c *wildCluster) requireReady(within time.Duration) {
	c.t.Helper()
	ctx, cancel := context.WithTimeout(c.ctx, within)
	defer cancel()
	for _, n := range c.nodes {
		if err := n.WaitReady(ctx, len(c.nodes)); err != nil {
			c.t.Log(acquiring(n))
			require.NoError(c.t, err)
		}
	}
}

// requireAsBefore fails unless the cluster decides in full within a second, acquires what is free, hands over to a node
// that joins, and back from one that leaves, and still knows which keys are exhausted.
func (c *wildCluster) requireAsBefore() {
	c.t.Helper()
	time.Sleep(time.Second)
	c.requireInFull()
	c.requireExhausted()

	for i := range 500 {
		key := fmt.Sprint("fresh-", i)
		d, err := c.limiters[i%3].Take(c.ctx, key, 1)
		require.NoError(c.t, err)
		require.True(c.t, d.Allowed, "%s: %v", key, d)
	}
	time.Sleep(300 * time.Millisecond)
	for _, n := range c.nodes {
		require.Less(c.t, n.Stats().ReplicaLag, 200*time.Millisecond, "what is decided is replicated")
		for part := range uint16(ring.Partitions) {
			if n.table.Holds(part) {
				p := n.table.Lock(part)
				require.True(c.t, p.Holding.Replication.Complete && !p.Holding.Replication.ResendAll, "the standby has all of partition %d", part)
				require.False(c.t, p.Holding.Copy.Worn())
				p.Unlock()
			}
		}
	}

	n := c.nodes[1]
	for part := range uint16(ring.Partitions) {
		if part%8 == 0 && n.table.Holds(part) {
			p := n.table.Lock(part)
			p.Holding.Lapse()
			p.Unlock()
		}
	}
	n.keeper.Wake()
	c.requireReady(2 * time.Second)
	c.requireExhausted()

	c.nodes = startNodes(c.t, c.network, c.nodes, 1)
	c.limiters = append(c.limiters, c.limiter(c.nodes[3]))
	c.requireExhausted()
	ctx, cancel := context.WithTimeout(c.ctx, 10*time.Second)
	defer cancel()
	require.NoError(c.t, c.nodes[0].Leave(ctx))
	c.nodes, c.limiters = c.nodes[1:], c.limiters[1:]
	c.requireReady(2 * time.Second)
	c.requireExhausted()
	d, err := c.limiters[0].Take(c.ctx, "reserved", 1)
	require.NoError(c.t, err)
	require.True(c.t, d.Allowed || d.RetryAfter <= 334*time.Hour, "the next token is nobody's: %v", d)
	for _, l := range c.limiters { // and a new key is admitted as ever
		d, err := l.Take(c.ctx, "new", 1)
		require.NoError(c.t, err)
		require.True(c.t, d.Allowed)
		require.NotEqual(c.t, OriginFallback, d.Origin)
	}
}

// everyPart returns a list with something for each partition.
func everyPart[T any](make func(part uint16) T) []T {
	list := []T{}
	for part := range uint16(ring.Partitions) {
		list = append(list, make(part))
	}
	return list
}

func inventedNames(count int) []string {
	names := make([]string, count)
	for i := range names {
		names[i] = fmt.Sprintf("invented-%08x", i)
	}
	return names
}

// wildest are messages with the most that their fields can say.
var wildest = map[string]func(c *wildCluster) [][]byte{
	"a ping that has heard of the last ballot": func(*wildCluster) [][]byte {
		return [][]byte{wire.AppendPing(nil, &wire.Ping{Heard: math.MaxUint64})}
	},
	"a ping that has heard of one less": func(*wildCluster) [][]byte {
		return [][]byte{wire.AppendPing(nil, &wire.Ping{Heard: math.MaxUint64 - 1}), wire.AppendPing(nil, &wire.Ping{Heard: quorum.CountableBallots})}
	},
	"a verdict request of the last ballot": func(*wildCluster) [][]byte {
		return [][]byte{wire.AppendVerdictRequest(nil, &wire.VerdictRequest{Heard: math.MaxUint64, Names: inventedNames(ring.MaxMembers)})}
	},
	"an acquire request of the last ballot": func(*wildCluster) [][]byte {
		q := wire.AcquireRequest{Ballot: wire.Ballot{Number: math.MaxUint64, By: wildName}, Parts: everyPart(func(part uint16) wire.AskedPartition { return wire.AskedPartition{Part: part} })}
		return [][]byte{wire.AppendAcquireRequest(nil, &q)}
	},
	"nine thousand invented names": func(*wildCluster) [][]byte {
		return [][]byte{wire.AppendAcquireRequest(nil, &wire.AcquireRequest{Ballot: wire.Ballot{Number: 5, By: wildName}, Known: inventedNames(9000)})}
	},
	"sixty invented names, again and again": func(*wildCluster) (messages [][]byte) {
		for i := range 50 {
			messages = append(messages, wire.AppendAcquireRequest(nil, &wire.AcquireRequest{Ballot: wire.Ballot{Number: 5, By: wildName}, Known: inventedNames(3000)[60*i:][:60]}))
		}
		return messages
	},
	"an acquire request of a ballot of no member": func(*wildCluster) [][]byte {
		q := wire.AcquireRequest{Ballot: wire.Ballot{Number: 1000}, Parts: everyPart(func(part uint16) wire.AskedPartition { return wire.AskedPartition{Part: part} })}
		return [][]byte{wire.AppendAcquireRequest(nil, &q)}
	},
	"an acquire request about everything, from the end on": func(*wildCluster) [][]byte {
		q := wire.AcquireRequest{Ballot: wire.Ballot{Number: 1 << 47, By: wildName}, Parts: everyPart(func(part uint16) wire.AskedPartition {
			return wire.AskedPartition{Part: part, From: math.MaxUint32, Have: wire.Version{Seq: math.MaxUint64, Ballot: wire.Ballot{Number: math.MaxUint64, By: wildName}, Transfers: math.MaxUint32, Holder: wildName}}
		})}
		return [][]byte{wire.AppendAcquireRequest(nil, &q)}
	},
	"replicas of the highest versions": func(c *wildCluster) [][]byte {
		var messages [][]byte
		for _, v := range []wire.Version{
			{Seq: math.MaxUint64, Ballot: wire.Ballot{Number: math.MaxUint64, By: wildName}, Transfers: math.MaxUint32, Holder: wildName},
			{Seq: 1, Ballot: wire.Ballot{Number: math.MaxUint64, By: wildName}, Holder: wildName},
			{Seq: math.MaxUint64, Ballot: wire.Ballot{Number: 2, By: wildName}, Transfers: math.MaxUint32, Holder: wildName},
		} {
			messages = append(messages, wire.AppendReplicaRequest(nil, &wire.ReplicaRequest{Parts: everyPart(func(part uint16) wire.ReplicaPart {
				return wire.ReplicaPart{Part: part, Version: v, Since: math.MaxUint64}
			})}))
		}
		return messages
	},
	"replicas beyond the holder's own": func(c *wildCluster) [][]byte {
		var parts []wire.ReplicaPart
		for _, n := range c.nodes {
			for part := range uint16(ring.Partitions) {
				if n.table.Holds(part) {
					p := n.table.Lock(part)
					v := p.Holding.Copy
					p.Unlock()
					v.Seq = wire.MaxSeq
					parts = append(parts, wire.ReplicaPart{Part: part, Version: v})
				}
			}
		}
		return [][]byte{wire.AppendReplicaRequest(nil, &wire.ReplicaRequest{Parts: parts})}
	},
	"settling versions that nobody has": func(*wildCluster) [][]byte {
		return [][]byte{wire.AppendSettleRequest(nil, &wire.SettleRequest{By: wildName, Parts: everyPart(func(part uint16) wire.SettlePart {
			return wire.SettlePart{Part: part, Version: wire.Version{Seq: math.MaxUint64, Ballot: wire.Ballot{Number: math.MaxUint64, By: wildName}, Transfers: math.MaxUint32, Holder: wildName}}
		})})}
	},
	"reports of the last number": func(c *wildCluster) [][]byte {
		var messages [][]byte
		for _, n := range c.nodes {
			messages = append(messages, wire.AppendDebt(nil, &wire.Debt{Member: n.identity, Part: ring.PartitionOf("api", "wild"), Seq: math.MaxUint64}))
		}
		return messages
	},
	"waits of callers that there are not": func(c *wildCluster) (messages [][]byte) {
		for i := range 2000 {
			m := wire.Message{
				Kind: wire.KindAwait, Rule: c.limiters[0].rule.Encoded, Key: "reserved", Cost: 1, Total: 1, MaxDelay: math.MaxInt64,
				Turn: wire.Turn{Node: c.nodes[i%3].identity, Number: math.MaxUint64 - uint64(i), Waited: math.MaxInt64},
			}
			messages = append(messages, wire.AppendMessage(nil, &m))
		}
		return messages
	},
	"waits of nobody, of this member, and of one that is invented": func(c *wildCluster) (messages [][]byte) {
		for _, node := range []string{"", wildName, "invented-00000000"} {
			m := wire.Message{
				Kind: wire.KindAwait, Rule: c.limiters[0].rule.Encoded, Key: "reserved", Cost: 1, Total: math.MaxFloat64, MaxDelay: math.MaxInt64,
				Turn: wire.Turn{Node: node, Number: 1, Waited: math.MaxInt64},
			}
			messages = append(messages, wire.AppendMessage(nil, &m))
		}
		return messages
	},
	"leaving the turns of others": func(c *wildCluster) (messages [][]byte) {
		for i := range 300 {
			m := wire.Message{
				Kind: wire.KindLeaveTurn, Rule: c.limiters[0].rule.Encoded, Key: c.keys[i%len(c.keys)],
				Turn: wire.Turn{Node: c.nodes[i%3].identity, Number: uint64(i / 3), Waited: math.MaxInt64},
			}
			messages = append(messages, wire.AppendMessage(nil, &m))
		}
		return messages
	},
	"turns that have come to those that do not wait, and to those of others": func(c *wildCluster) (messages [][]byte) {
		for i := range uint64(100) {
			for _, n := range c.nodes {
				w := wire.Wake{Turn: wire.Turn{Node: n.identity, Number: i}, Granted: i%2 == 0, Decision: limit.Decision{Allowed: true, Limit: perSecond(1)}}
				messages = append(messages, wire.AppendWake(nil, &w))
			}
		}
		return messages
	},
	"a reservation for the end of time": func(c *wildCluster) [][]byte {
		m := wire.Message{Kind: wire.KindReserve, Rule: c.limiters[0].rule.Encoded, Key: "reserved", Cost: 1, Total: 3, MaxDelay: math.MaxInt64}
		var messages [][]byte
		for range 10 {
			messages = append(messages, wire.AppendMessage(nil, &m))
		}
		return messages
	},
}

func TestAMemberThatSaysTheMostDisturbsNobody(t *testing.T) {
	for name, messages := range wildest {
		t.Run(name, func(t *testing.T) {
			inWildCluster(t, func(c *wildCluster) {
				for _, m := range messages(c) {
					c.tell(m)
				}
				c.requireAsBefore()
				for _, n := range c.nodes {
					require.LessOrEqual(t, n.reach.Heard.Load(), uint64(2*quorum.CountableBallots), "it is not passed on")
				}
			})
		})
	}
}

// wildSpeaker makes messages that are well formed, of fields that are mostly as much, or as little, as fits.
type wildSpeaker struct {
	*rand.Rand
	c *wildCluster
}

func (s *wildSpeaker) uint() uint64 {
	some := [...]uint64{0, 1, 2, 1 << 31, 1 << 32, 1 << 47, quorum.CountableBallots, quorum.CountableBallots + 1,
		quorum.CountableBallots + quorum.BallotLeap + 1, 1 << 62, 1 << 63, math.MaxUint64 - 1, math.MaxUint64}
	return some[s.IntN(len(some))]
}

// uncountable is a ballot that nobody has counted to, or none.
func (s *wildSpeaker) uncountable() uint64 {
	return [...]uint64{0, 1 << 50, 1 << 63, math.MaxUint64 - 1, math.MaxUint64}[s.IntN(5)]
}

func (s *wildSpeaker) number() float64 {
	return [...]float64{1, 0.5, math.SmallestNonzeroFloat64, 1e18, 1e300, math.MaxFloat64}[s.IntN(6)]
}

func (s *wildSpeaker) name() string {
	switch s.IntN(3) {
	case 0:
		return wildName
	case 1:
		return s.c.nodes[s.IntN(len(s.c.nodes))].identity
	}
	return fmt.Sprintf("invented-%08x", s.IntN(1<<20))
}

func (s *wildSpeaker) names() []string {
	names := make([]string, [...]int{0, 1, 3, 100, ring.MaxMembers}[s.IntN(5)])
	for i := range names {
		names[i] = s.name()
	}
	return names
}

func (s *wildSpeaker) lostNames() (lost []wire.LostName) {
	for _, name := range s.names() {
		lost = append(lost, wire.LostName{Name: name, For: time.Duration(s.uint()%math.MaxUint32) * time.Millisecond})
	}
	return lost
}

func (s *wildSpeaker) version() wire.Version {
	return wire.Version{Seq: s.uint(), Ballot: wire.Ballot{Number: s.uncountable(), By: s.name()}, Transfers: uint32(s.uint()), Holder: s.name()}
}

func (s *wildSpeaker) parts() []uint16 {
	return everyPart(func(part uint16) uint16 { return part })[:[...]int{0, 1, 100, ring.Partitions}[s.IntN(4)]]
}

func (s *wildSpeaker) content() wire.Content {
	content := wire.Content{Marks: []wire.DebtMark{{Member: s.name(), Seq: s.uint()}}}
	set := limit.NewSet([]limit.Limit{per(s.number(), time.Hour), perSecond(1)})
	for i := range s.IntN(20) {
		content.Buckets = append(content.Buckets, wire.Image{
			Limiter: fmt.Sprint("wild-", s.IntN(1000)), Key: fmt.Sprint("wild-", i), Set: set,
			Levels: []float64{s.number(), s.number()}, Leases: []limit.MovingLease{{Set: set, Tokens: s.number(), Left: math.MaxInt64}},
		})
	}
	return content
}

func (s *wildSpeaker) turn() wire.Turn {
	return wire.Turn{Node: s.name(), Number: s.uint(), Waited: time.Duration(s.uint() >> 1)}
}

func (s *wildSpeaker) message() []byte {
	switch s.IntN(9) {
	case 0:
		return wire.AppendPing(nil, &wire.Ping{Heard: s.uint(), Digest: s.uint()})
	case 1:
		return wire.AppendVerdictRequest(nil, &wire.VerdictRequest{Heard: s.uint(), Names: s.names()})
	case 2:
		q := wire.AcquireRequest{Ballot: wire.Ballot{Number: s.uint(), By: s.name()}, Known: s.names(), Lost: s.lostNames()}
		for _, part := range s.parts() {
			q.Parts = append(q.Parts, wire.AskedPartition{Part: part, Have: s.version(), From: uint32(s.uint())})
		}
		return wire.AppendAcquireRequest(nil, &q)
	case 3:
		var q wire.ReplicaRequest
		for _, part := range s.parts() {
			flags := s.IntN(8)
			q.Parts = append(q.Parts, wire.ReplicaPart{
				Part: part, Version: s.version(), Since: s.uint(), Content: s.content(), Full: flags&1 != 0, First: flags&2 != 0, Last: flags&4 != 0,
			})
		}
		return wire.AppendReplicaRequest(nil, &q)
	case 4:
		q := wire.SettleRequest{By: s.name()}
		for _, part := range s.parts() {
			q.Parts = append(q.Parts, wire.SettlePart{Part: part, Version: s.version()})
		}
		return wire.AppendSettleRequest(nil, &q)
	case 5:
		rule := wire.AppendRule(nil, "wild", []limit.Limit{per(s.number(), time.Hour)})
		return wire.AppendDebt(nil, &wire.Debt{Member: s.name(), Part: uint16(s.IntN(ring.Partitions)), Seq: s.uint(),
			Charges: []wire.Charge{{Rule: rule, Key: "wild", Cost: s.number()}}})
	case 6:
		return wire.AppendRelay(nil, &wire.Relay{To: s.name(), From: s.name(), Request: s.message()})
	case 7:
		return wire.AppendWake(nil, &wire.Wake{Turn: s.turn(), Granted: s.IntN(2) == 0, Decision: limit.Decision{
			Allowed: s.IntN(2) == 0, Limit: per(s.number(), time.Hour), Remaining: s.number(), Delay: time.Duration(s.uint() >> 1),
		}})
	}
	m := wire.Message{
		Kind: wire.Kind(1 + s.IntN(int(wire.KindEnd)-1)), Rule: wire.AppendRule(nil, fmt.Sprint("wild-", s.IntN(100)), []limit.Limit{per(s.number(), time.Hour)}),
		Key: "wild", Cost: s.number(), Total: s.number(), MaxDelay: time.Duration(s.uint() >> 1), Hops: uint8(s.IntN(4)),
		Turn: s.turn(), Undo: &limit.Undo{}, Borrow: wire.Borrowing{Want: s.number(), Returned: []wire.LeaseReturn{{ID: s.uint(), Unused: s.number()}}},
	}
	return wire.AppendMessage(nil, &m)
}

// FuzzAMemberThatSaysAnything has a member say what comes into its head to each of three others, ten times.
func FuzzAMemberThatSaysAnything(f *testing.F) {
	for seed := range uint64(8) {
		f.Add(seed)
	}
	f.Add(uint64(268))
	f.Add(uint64(248)) // one member believed a ballot that the others did not
	f.Fuzz(func(t *testing.T, seed uint64) {
		inWildCluster(t, func(c *wildCluster) {
			goroutines := runtime.NumGoroutine()
			s := &wildSpeaker{rand.New(rand.NewPCG(seed, 0)), c}
			for range 10 {
				c.tell(s.message())
			}
			c.requireAsBefore()
			for _, n := range c.nodes {
				require.LessOrEqual(c.t, n.reach.Heard.Load(), uint64(2*quorum.CountableBallots), "it is not passed on")
			}
			time.Sleep(2 * store.ArrivalTime)
			for _, n := range c.nodes {
				require.Zero(c.t, n.table.Counts().ArrivingBytes)
				require.Zero(c.t, n.table.Counts().QueuedTurns, "nobody asks again for turns of invented callers")
			}
			leaked := func() bool { return runtime.NumGoroutine() > goroutines+20 }
			for range 10 { // what goes on at one moment, such as pings that are under way, is no leak
				if leaked() {
					time.Sleep(33 * time.Millisecond)
				}
			}
			require.False(c.t, leaked(), "%d goroutines, and %d before", runtime.NumGoroutine(), goroutines)
		})
	})
}
