package peerlimit

import (
	"fmt"
	"math"
	"math/rand/v2"
	"runtime"
	"testing"
	"time"

	"github.com/peerlimit/peerlimit/internal/limit"
	"github.com/peerlimit/peerlimit/internal/quorum"
	"github.com/peerlimit/peerlimit/internal/ring"
	"github.com/peerlimit/peerlimit/internal/wire"
	"github.com/stretchr/testify/require"
)

// wildSpeaker makes messages that are well formed, of fields that are mostly as much, or as little, as fits.
type wildSpeaker struct {
	*rand.Rand
	c *wildCluster
}

func (s *wildSpeaker) uint() uint64 {
	some := [...]uint64{0, 1, 2, 1 << 31, 1 << 32, 1 << 47, quorum.CountableElections, quorum.CountableElections + 1,
		quorum.CountableElections + quorum.ElectionLeap + 1, 1 << 62, 1 << 63, math.MaxUint64 - 1, math.MaxUint64}
	return some[s.IntN(len(some))]
}

// uncountable is an election that nobody has counted to, or none.
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

func (s *wildSpeaker) message() []byte {
	switch s.IntN(8) {
	case 0:
		return wire.AppendPing(nil, &wire.Ping{Heard: s.uint(), Digest: s.uint()})
	case 1:
		return wire.AppendVerdictRequest(nil, &wire.VerdictRequest{Heard: s.uint(), Names: s.names()})
	case 2:
		q := wire.AcquireRequest{Ballot: wire.Ballot{Number: s.uint(), By: s.name()}, Known: s.names(), Hearsay: s.names()}
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
	}
	m := wire.Message{
		Kind: wire.Kind(1 + s.IntN(int(wire.KindEnd)-1)), Rule: wire.AppendRule(nil, fmt.Sprint("wild-", s.IntN(100)), []limit.Limit{per(s.number(), time.Hour)}),
		Key: "wild", Cost: s.number(), Total: s.number(), MaxDelay: time.Duration(s.uint() >> 1), Hops: uint8(s.IntN(4)),
		Undo: &limit.Undo{}, Borrow: wire.Borrowing{Want: s.number(), Returned: []wire.LeaseReturn{{ID: s.uint(), Unused: s.number()}}},
	}
	return wire.AppendMessage(nil, &m)
}

// FuzzAMemberThatSaysAnything has a member say what comes into its head to each of three others, ten times.
func FuzzAMemberThatSaysAnything(f *testing.F) {
	for seed := range uint64(8) {
		f.Add(seed)
	}
	f.Add(uint64(268))
	f.Add(uint64(248)) // one member believed an election that the others did not
	f.Fuzz(func(t *testing.T, seed uint64) {
		inWildCluster(t, func(c *wildCluster) {
			goroutines := runtime.NumGoroutine()
			s := &wildSpeaker{rand.New(rand.NewPCG(seed, 0)), c}
			for range 10 {
				c.tell(s.message())
			}
			c.requireAsBefore()
			for _, n := range c.nodes {
				require.LessOrEqual(c.t, n.reach.Heard.Load(), uint64(2*quorum.CountableElections), "it is not passed on")
			}
			time.Sleep(2 * arrivalTime)
			for _, n := range c.nodes {
				require.Zero(c.t, n.table.arrivingSize.Load())
			}
			require.LessOrEqual(c.t, runtime.NumGoroutine(), goroutines+20)
		})
	})
}
