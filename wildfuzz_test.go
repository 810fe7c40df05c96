package peerlimit

import (
	"fmt"
	"math"
	"math/rand/v2"
	"runtime"
	"testing"
	"time"

	"github.com/peerlimit/peerlimit/internal/limit"
	"github.com/peerlimit/peerlimit/internal/ring"
	"github.com/stretchr/testify/require"
)

// wildSpeaker makes messages that are well formed, of fields that are mostly as much, or as little, as fits.
type wildSpeaker struct {
	*rand.Rand
	c *wildCluster
}

func (s *wildSpeaker) uint() uint64 {
	some := [...]uint64{0, 1, 2, 1 << 31, 1 << 32, 1 << 47, countableElections, countableElections + 1,
		countableElections + electionLeap + 1, 1 << 62, 1 << 63, math.MaxUint64 - 1, math.MaxUint64}
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

func (s *wildSpeaker) version() version {
	return version{seq: s.uint(), election: election{s.uncountable(), s.name()}, gifts: uint32(s.uint()), holder: s.name()}
}

func (s *wildSpeaker) parts() []uint16 {
	return everyPart(func(part uint16) uint16 { return part })[:[...]int{0, 1, 100, ring.Partitions}[s.IntN(4)]]
}

func (s *wildSpeaker) content() partContent {
	content := partContent{marks: []reportMark{{s.name(), s.uint()}}}
	set := limit.NewSet([]limit.Limit{per(s.number(), time.Hour), perSecond(1)})
	for i := range s.IntN(20) {
		content.buckets = append(content.buckets, bucketImage{
			limiter: fmt.Sprint("wild-", s.IntN(1000)), key: fmt.Sprint("wild-", i), set: set,
			levels: []float64{s.number(), s.number()}, leases: []limit.MovingLease{{Set: set, Tokens: s.number(), Left: math.MaxInt64}},
		})
	}
	return content
}

func (s *wildSpeaker) message() []byte {
	switch s.IntN(8) {
	case 0:
		return appendPing(nil, &ping{heard: s.uint(), digest: s.uint()})
	case 1:
		return appendVerdictRequest(nil, &verdictRequest{heard: s.uint(), names: s.names()})
	case 2:
		q := question{round: election{s.uint(), s.name()}, known: s.names(), hearsay: s.names()}
		for _, part := range s.parts() {
			q.parts = append(q.parts, askedPart{part: part, have: s.version(), from: uint32(s.uint())})
		}
		return appendQuestion(nil, &q)
	case 3:
		var q replicaRequest
		for _, part := range s.parts() {
			flags := s.IntN(8)
			q.parts = append(q.parts, replicaPart{
				part: part, version: s.version(), since: s.uint(), content: s.content(), full: flags&1 != 0, first: flags&2 != 0, last: flags&4 != 0,
			})
		}
		return appendReplicaRequest(nil, &q)
	case 4:
		q := settleRequest{by: s.name()}
		for _, part := range s.parts() {
			q.parts = append(q.parts, settlePart{part, s.version()})
		}
		return appendSettleRequest(nil, &q)
	case 5:
		rule := appendRule(nil, "wild", []limit.Limit{per(s.number(), time.Hour)})
		return appendReport(nil, &report{reporter: s.name(), part: uint16(s.IntN(ring.Partitions)), seq: s.uint(),
			charges: []charge{{rule: rule, key: "wild", cost: s.number()}}})
	case 6:
		return appendRelay(nil, &relay{to: s.name(), from: s.name(), request: s.message()})
	}
	m := message{
		kind: messageKind(1 + s.IntN(int(kindEnd)-1)), rule: appendRule(nil, fmt.Sprint("wild-", s.IntN(100)), []limit.Limit{per(s.number(), time.Hour)}),
		key: "wild", cost: s.number(), total: s.number(), maxDelay: time.Duration(s.uint() >> 1), hops: uint8(s.IntN(4)),
		undo: &limit.Undo{}, borrow: borrowing{want: s.number(), returned: []leaseReturn{{id: s.uint(), unused: s.number()}}},
	}
	return appendMessage(nil, &m)
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
				require.LessOrEqual(c.t, n.reach.heard.Load(), uint64(2*countableElections), "it is not passed on")
			}
			time.Sleep(2 * arrivalTime)
			for _, n := range c.nodes {
				require.Zero(c.t, n.table.arrivingSize.Load())
			}
			require.LessOrEqual(c.t, runtime.NumGoroutine(), goroutines+20)
		})
	})
}
