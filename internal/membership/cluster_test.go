package membership

import (
	"fmt"
	"log/slog"
	"maps"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	_ "github.com/peerlimit/peerlimit/internal/onecore"
	"github.com/peerlimit/peerlimit/internal/sim"
)

// testCluster is a set of memberships on a simulated network, inside a synctest bubble.
type testCluster struct {
	t       *testing.T
	network *sim.Network
	all     []*testMember // those that were started and not ended, in order
	ended   sync.Map      // the names of those that were ended
}

// testMember is a membership that remembers what it was told.
type testMember struct {
	*Membership
	ip   string
	logs *lockedBuffer

	busy  atomic.Bool                // in onChange
	links atomic.Pointer[Membership] // once it is running

	mu     sync.Mutex
	views  int
	states map[string][]State // of each member, without repetitions
}

// inCluster runs a test in a bubble with a network.
func inCluster(t *testing.T, test func(t *testing.T, c *testCluster)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		c := &testCluster{t: t, network: sim.New(7)}
		t.Cleanup(c.network.Close)
		test(t, c)
	})
}

func simIP(i int) string { return fmt.Sprintf("10.0.%d.%d", i/250, i%250+1) }

// testConfig returns the configuration of a node at ip that joins the given hosts.
func testConfig(network *sim.Network, ip string, join ...string) *Config {
	return &Config{
		Name: NewIdentity("n"), Cluster: testLabel, Bind: netip.AddrPortFrom(netip.MustParseAddr(ip), testPort), BindText: ip,
		RPC: netip.AddrPortFrom(netip.MustParseAddr(ip), testPort+1), ProtocolMin: 1, ProtocolMax: 2, Network: network.Host(ip),
		Seeds: testSeeds(join...), Resolver: &fakeNames{}, Fate: fateWithQuorum(nil), Logger: slog.New(slog.DiscardHandler),
	}
}

// fateWithQuorum returns what quorum says where there is one, and those are lost.
func fateWithQuorum(lost func(name string) bool) Fate {
	if lost == nil {
		lost = func(string) bool { return false }
	}
	return Fate{HasQuorum: func() bool { return true }, Lost: lost, Panel: func() (int, []string) { return 1, nil }}
}

const (
	testLabel = "peerlimit"
	testPort  = 7946
)

// testSeeds returns seeds as Config.Join names them.
func testSeeds(join ...string) (seeds []Seed) {
	for _, text := range join {
		host, port := text, uint16(testPort)
		if before, after, err := net.SplitHostPort(text); err == nil {
			number, _ := strconv.Atoi(after)
			host, port = before, uint16(number)
		}
		seeds = append(seeds, Seed{Text: text, Host: host, Port: port})
	}
	return seeds
}

// startMembership makes a membership and starts it.
func startMembership(c *Config, onChange func(*View)) (*Membership, error) {
	m, err := New(*c)
	if err == nil {
		m.Start(onChange)
	}
	return m, err
}

// start starts a member that is closed at the end of the test. configure may be nil.
func (c *testCluster) start(ip string, configure func(*Config), join ...string) *testMember {
	c.t.Helper()
	s := testConfig(c.network, ip, join...)
	m := &testMember{ip: ip, logs: new(lockedBuffer), states: make(map[string][]State)}
	s.Logger = slog.New(slog.NewTextHandler(m.logs, nil))
	s.Fate = fateWithQuorum(func(name string) bool { _, ended := c.ended.Load(name); return ended })
	if configure != nil {
		configure(s)
	}
	started, err := startMembership(s, m.observe)
	require.NoError(c.t, err)
	m.Membership = started
	m.links.Store(started)
	started.Renotify()
	c.t.Cleanup(func() { require.NoError(c.t, started.Close()) })
	c.all = append(c.all, m)
	return m
}

// startAll starts n members, each of which joins the first one, at the same moment.
func (c *testCluster) startAll(n int) []*testMember {
	c.t.Helper()
	for i := range n {
		c.start(simIP(i), nil, simIP(0))
	}
	return c.all
}

// observe is onChange.
func (m *testMember) observe(v *View) {
	if !m.busy.CompareAndSwap(false, true) {
		panic("onChange is called concurrently")
	}
	time.Sleep(time.Millisecond) // gives a second call the time to come
	m.mu.Lock()
	m.views++
	for _, i := range v.Members {
		if states := m.states[i.Name]; len(states) == 0 || states[len(states)-1] != i.State {
			m.states[i.Name] = append(states, i.State)
		}
	}
	m.mu.Unlock()
	m.busy.Store(false)
	shakeHands(m.links.Load(), v)
}

// shakeHands has all members that gossip has not given up prove themselves, where there are no links. m may be nil.
func shakeHands(m *Membership, v *View) {
	for _, i := range v.List() {
		if m != nil && i.State != Failed && !i.Self {
			m.AddHeardFrom(i.Name)
		}
	}
}

// statesOf returns the states that a member had in the views so far.
func (m *testMember) statesOf(name string) []State {
	m.mu.Lock()
	defer m.mu.Unlock()
	return slices.Clone(m.states[name])
}

// seen returns every name that ever was in a view.
func (m *testMember) seen() []string {
	m.mu.Lock()
	defer m.mu.Unlock()
	return slices.Sorted(maps.Keys(m.states))
}

// StateOf returns the state of a member now, and whether there is such a member.
func (m *testMember) stateOf(name string) (State, bool) {
	i, ok := m.View().find(name)
	return i.State, ok
}

// end ends a member's process without a word, as SIGKILL does.
func (c *testCluster) end(m *testMember) {
	c.network.Kill(m.ip)
	require.NoError(c.t, m.Close())
	c.ended.Store(m.identity, true)
	c.all = slices.DeleteFunc(c.all, func(other *testMember) bool { return other == m })
}

// within waits until a condition holds, which must be within a time.
func (c *testCluster) within(limit time.Duration, what string, condition func() bool) time.Duration {
	c.t.Helper()
	begin := time.Now()
	for !condition() {
		if time.Since(begin) > limit {
			for _, m := range c.all[:min(len(c.all), 5)] {
				c.t.Logf("%s sees %v", m.identity, m.View().List())
			}
			require.FailNow(c.t, "not within "+limit.String()+": "+what)
		}
		time.Sleep(50 * time.Millisecond)
	}
	return time.Since(begin)
}

// agree reports whether each of the members sees exactly them alive, and divides by as many.
func agree(members ...*testMember) bool {
	var names []string
	for _, m := range members {
		names = append(names, m.identity)
	}
	slices.Sort(names)
	for _, m := range members {
		v := m.View()
		if !slices.Equal(names, v.Owners()) || !slices.Equal(names, v.memberNames) ||
			v.Divisor != len(names) || v.Reachable != len(names) {
			return false
		}
	}
	return true
}

// onlySee reports whether each of the members sees exactly them alive, whomever it still counts.
func onlySee(members ...*testMember) bool {
	for _, m := range members {
		if m.View().Reachable != len(members) {
			return false
		}
		for _, other := range members {
			if !slices.Contains(m.View().Owners(), other.identity) {
				return false
			}
		}
	}
	return true
}

func ipsOf(members []*testMember) (ips []string) {
	for _, m := range members {
		ips = append(ips, m.ip)
	}
	return ips
}
