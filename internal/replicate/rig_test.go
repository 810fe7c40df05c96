package replicate

import (
	"context"
	"errors"
	"log/slog"
	"maps"
	"math"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/peerlimit/peerlimit/internal/limit"
	"github.com/peerlimit/peerlimit/internal/quorum"
	"github.com/peerlimit/peerlimit/internal/ring"
	"github.com/peerlimit/peerlimit/internal/rule"
	"github.com/peerlimit/peerlimit/internal/store"
	"github.com/peerlimit/peerlimit/internal/wire"
	"github.com/stretchr/testify/require"
)

// A cluster of replicators in virtual time. Each member has a table, a quorum and rules of its own; what one tells another is
// encoded, carried at once, and decoded. No member acquires: the tests say which one holds.

const (
	interval = 20 * time.Millisecond
	burst    = 1000
	capacity = 1 << 16 // keys of a table
)

type cluster struct {
	t       *testing.T
	began   time.Time
	ring    atomic.Pointer[ring.Ring]
	members map[string]*member
}

// member is one of the cluster, and what its replicator sees of the cluster.
type member struct {
	*Replicator
	cluster *cluster
	name    string
	table   *store.Table
	reach   *quorum.State
	rules   *rule.Rules
	rule    *rule.Rule

	mu         sync.Mutex // guards everything below
	told       []telling
	postponed  []uint16
	challenged int
	yielded    int
	silent     bool
	takes      time.Duration                                                       // how long a request to it lasts
	instead    func(request []byte, try int, answer func() []byte) ([]byte, error) // answers in its place
}

// telling is a request that a member has sent.
type telling struct {
	at      time.Duration // since the cluster began
	to      string
	kind    wire.Kind
	try     int
	request []byte
}

// inCluster runs test in virtual time, on members that have quorum and form the ring.
func inCluster(t *testing.T, test func(t *testing.T, c *cluster), names ...string) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		c := &cluster{t: t, began: time.Now(), members: make(map[string]*member)}
		c.ring.Store(ring.New(names))
		for _, name := range names {
			c.add(name, interval)
		}
		test(t, c)
	})
}

func (c *cluster) now() int64 { return int64(time.Since(c.began)) }

// add makes a member that has quorum.
func (c *cluster) add(name string, every time.Duration) *member {
	m := &member{cluster: c, name: name, rules: rule.New(1000)}
	m.reach = quorum.New(name, func() { m.table.LapseAll() })
	m.table = store.New(store.Config{MaxKeys: capacity, FullUntil: &m.reach.FullUntil, Replicates: every > 0})
	m.reach.SetSeats(quorum.Seats{Panel: wire.PanelID{Number: 1}, Witnesses: []string{name}, Granted: []int64{0}}, c.now())
	var err error
	limits := []limit.Limit{{Tokens: burst, Period: 100_000 * time.Hour, Burst: burst}} // drains nothing that a test would notice
	m.rule, err = m.rules.Find(wire.AppendRule(nil, "api", limits))
	require.NoError(c.t, err)
	m.Replicator = New(Config{
		Self: name, Log: slog.New(slog.DiscardHandler), Table: m.table, Reach: m.reach, Rules: m.rules, Others: m, Now: c.now, Interval: every,
	})
	c.members[name] = m
	return m
}

// run has the replicators of some members run until the test ends, all if none is named.
func (c *cluster) run(names ...string) {
	if len(names) == 0 {
		names = slices.Sorted(maps.Keys(c.members))
	}
	ctx, stop := context.WithCancel(context.Background())
	var running sync.WaitGroup
	for _, name := range names {
		running.Go(func() { c.members[name].Run(ctx) })
	}
	c.t.Cleanup(func() { stop(); running.Wait() })
}

// partOf returns a partition that the ring gives to owner, and then to standby.
func (c *cluster) partOf(owner, standby string) uint16 {
	return partOf(c.t, c.ring.Load(), owner, standby)
}

func partOf(t *testing.T, on *ring.Ring, owner, standby string) uint16 {
	for part := range uint16(ring.Partitions) {
		if on.Owner(part) == owner && on.OwnerWithout(part, owner) == standby {
			return part
		}
	}
	require.FailNow(t, "no partition has this owner and this standby")
	return 0
}

// setRing changes the ring and tells all members.
func (c *cluster) setRing(names ...string) {
	c.ring.Store(ring.New(names))
	for _, m := range c.members {
		m.LookAgain()
	}
}

func (m *member) Ring() *ring.Ring { return m.cluster.ring.Load() }

func (m *member) Postpone(part uint16) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.postponed = append(m.postponed, part)
}

func (m *member) Challenged() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.challenged++
}

func (m *member) Yielded() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.yielded++
}

var errNobody = errors.New("there is no such member")

// Tell carries a request to a member and its response back. A silent member costs the timeout.
func (m *member) Tell(ctx context.Context, to string, request []byte, timeout time.Duration, try int) ([]byte, error) {
	request = slices.Clone(request)
	m.mu.Lock()
	m.told = append(m.told, telling{time.Duration(m.cluster.now()), to, wire.Kind(request[0]), try, request})
	m.mu.Unlock()
	other := m.cluster.members[to]
	if other == nil {
		return nil, errNobody
	}
	other.mu.Lock()
	silent, takes, instead := other.silent, other.takes, other.instead
	other.mu.Unlock()
	if silent || takes > timeout {
		takes = timeout
	}
	select {
	case <-ctx.Done():
		return nil, ctx.Err()
	case <-time.After(takes):
	}
	if takes == timeout {
		return nil, context.DeadlineExceeded
	}
	answer := func() []byte { return other.hear(request) }
	if instead != nil {
		return instead(request, try, answer)
	}
	return answer(), nil
}

// hear answers a request as a node does.
func (m *member) hear(request []byte) []byte {
	switch wire.Kind(request[0]) {
	case wire.KindReplica:
		return m.Later(request, func(err error) []byte {
			require.NoError(m.cluster.t, err)
			return nil
		})()
	case wire.KindSettle:
		q, err := wire.DecodeSettleRequest(request)
		require.NoError(m.cluster.t, err)
		return wire.AppendSettleResponse(nil, m.AnswerSettle(&q))
	}
	require.Failf(m.cluster.t, "unexpected request", "kind %d", request[0])
	return nil
}

func (m *member) set(change func()) {
	m.mu.Lock()
	defer m.mu.Unlock()
	change()
}

// requests returns what this member has sent to another one of a kind, in order.
func (m *member) requests(to string, kind wire.Kind) (list []telling) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, each := range m.told {
		if each.to == to && each.kind == kind {
			list = append(list, each)
		}
	}
	return list
}

// counts returns how often the node around the replicator was told of a challenge, and of a yielding.
func (m *member) counts() (challenged, yielded int) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.challenged, m.yielded
}

// loseQuorum has the member hear from no majority any more. Nothing that holds notices by itself.
func (m *member) loseQuorum() { m.reach.FullUntil.Store(m.cluster.now()) }

// ballot is one of a number, by a member.
func ballot(number uint64, by string) wire.Ballot { return wire.Ballot{Number: number, By: by} }

// version is one of the first holder under a ballot.
func version(number uint64, holder string, seq uint64) wire.Version {
	return wire.Version{Ballot: ballot(number, holder), Holder: holder, Seq: seq}
}

// hold makes a member the holder of a partition under a ballot of its own.
func (m *member) hold(part uint16, number uint64) {
	p := m.table.Lock(part)
	defer p.Unlock()
	p.Holding.Hold(version(number, m.name, p.Holding.Copy.Seq))
}

// keep gives a member an empty copy of a version, which it does not hold.
func (m *member) keep(part uint16, v wire.Version) {
	p := m.table.Lock(part)
	defer p.Unlock()
	p.Holding.AcceptReplica(v)
}

func (m *member) copyOf(part uint16) wire.Version {
	p := m.table.Lock(part)
	defer p.Unlock()
	return p.Holding.Copy
}

// take takes a token from each of some keys.
func (m *member) take(part uint16, keys ...string) {
	for _, key := range keys {
		var d limit.Decision
		ok := m.table.Decide(&d, part, m.rule.Bucket(key), &limit.Request{Set: m.rule.Set, Cost: 1}, m.now())
		require.True(m.cluster.t, ok, "%s decides about partition %d", m.name, part)
		require.True(m.cluster.t, d.Allowed)
	}
}

// taken returns how many tokens were taken from a key, as far as this member's copy says.
func (m *member) taken(part uint16, key string) int {
	p := m.table.Lock(part)
	defer p.Unlock()
	state, there := p.StateOf(m.rule.Bucket(key), m.now())
	if !there {
		return 0
	}
	return int(math.Round(burst - state.Peek(m.rule.Set, m.now()).Remaining))
}
