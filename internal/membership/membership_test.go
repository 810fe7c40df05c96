package membership

import (
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"runtime"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/memberlist"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/peerlimit/peerlimit/internal/ring"
	"github.com/peerlimit/peerlimit/internal/sim"
)

func TestMembershipConverges(t *testing.T) {
	for _, n := range []int{1, 3, 5, 20} {
		t.Run(fmt.Sprint(n), func(t *testing.T) {
			inCluster(t, func(t *testing.T, c *testCluster) {
				c.startAll(n)
				c.within(10*time.Second, "all see all", func() bool { return agree(c.all...) })
				m := c.all[n/2]
				assert.Equal(t, Info{
					Name: m.identity, Gossip: netip.MustParseAddrPort(m.ip + ":7946"), RPC: netip.MustParseAddrPort(m.ip + ":7947"),
					Self: true, ProtocolMin: 1, ProtocolMax: 2,
				}, m.Self())
				other, ok := c.all[0].View().find(m.identity)
				require.True(t, ok)
				assert.Equal(t, m.Self().RPC, other.RPC)
				assert.Equal(t, [2]uint8{1, 2}, [2]uint8{other.ProtocolMin, other.ProtocolMax})
				assert.Len(t, m.View().List(), n)
			})
		})
	}
}

func TestMembershipFirstViewIsOneself(t *testing.T) {
	inCluster(t, func(t *testing.T, c *testCluster) {
		m := c.start("10.0.0.1", nil)
		assert.Equal(t, 1, m.views, "told before it was started")
		assert.Equal(t, []string{m.identity}, m.seen())
		<-m.firstJoin
		assert.True(t, agree(m))
	})
}

func TestMembershipSeedsOfEachOtherAlwaysMeet(t *testing.T) {
	for seed := range uint64(10) {
		inCluster(t, func(t *testing.T, c *testCluster) {
			c.network = sim.New(seed)
			t.Cleanup(c.network.Close)
			a := c.start("10.0.0.1", nil, "10.0.0.1", "10.0.0.2")
			time.Sleep(time.Duration(seed) * 100 * time.Microsecond)
			b := c.start("10.0.0.2", nil, "10.0.0.1", "10.0.0.2")
			c.within(5*time.Second, "both see both", func() bool { return agree(a, b) })
		})
	}
}

func TestMembershipFirstJoinHasMetTheSeeds(t *testing.T) {
	inCluster(t, func(t *testing.T, c *testCluster) {
		c.startAll(5)
		c.within(10*time.Second, "all see all", func() bool { return agree(c.all...) })
		late := c.start("10.0.0.9", nil, "10.0.0.1", "10.0.0.77") // the second does not exist
		begin := time.Now()
		<-late.firstJoin
		assert.Len(t, late.View().Owners(), 6)
		assert.Less(t, time.Since(begin), 5*time.Second)
	})
}

func TestMembershipCountsSeedsUntilOneIsMet(t *testing.T) {
	inCluster(t, func(t *testing.T, c *testCluster) {
		m := c.start("10.0.0.1", nil, "10.0.0.1", "10.0.0.2", "10.0.0.3")
		c.within(10*time.Second, "own address discounted", func() bool { return m.View().Divisor == 3 })
		assert.Equal(t, 1, m.View().Reachable)
		assert.Equal(t, []string{m.identity}, m.View().memberNames)

		expecting := c.start("10.0.0.2", func(s *Config) { s.ExpectMembers = 4 }, "10.0.0.1")
		c.within(30*time.Second, "joined", func() bool { return len(expecting.View().Owners()) == 2 })
		assert.Equal(t, 4, expecting.View().Divisor)
		c.within(30*time.Second, "joined", func() bool { return m.View().Divisor == 2 })
	})
}

func TestMembershipUnresolvableSeedIsLoggedAndRetried(t *testing.T) {
	inCluster(t, func(t *testing.T, c *testCluster) {
		names := &fakeNames{names: map[string][]string{}}
		first := c.start("10.0.0.1", nil)
		s := testConfig(c.network, "10.0.0.2", "api.internal")
		s.Resolver = names
		logs := new(lockedBuffer)
		s.Logger = slog.New(slog.NewTextHandler(logs, nil))
		links := new(atomic.Pointer[Membership])
		m, err := startMembership(s, func(v *View) { shakeHands(links.Load(), v) })
		require.NoError(t, err)
		links.Store(m)
		defer m.Close()
		<-m.firstJoin
		time.Sleep(time.Minute)
		assert.Equal(t, 1, strings.Count(logs.String(), "cannot join seed"), logs.String())
		assert.Contains(t, logs.String(), "no such host")
		names.set("api.internal", "10.0.0.1")
		c.within(joinRetryMax+time.Second, "joined", func() bool {
			return len(m.View().Owners()) == 2 && len(first.View().Owners()) == 2
		})
	})
}

func TestMembershipSplitHeals(t *testing.T) {
	for _, test := range []struct {
		duration time.Duration
		side     int // members on the side of the seed, of five
	}{{10 * time.Second, 3}, {45 * time.Second, 3}, {10 * time.Minute, 3}, {10 * time.Minute, 1}, {10 * time.Minute, 4}} {
		t.Run(fmt.Sprintf("%v %d of 5", test.duration, test.side), func(t *testing.T) {
			inCluster(t, func(t *testing.T, c *testCluster) {
				c.startAll(5)
				c.within(10*time.Second, "all see all", func() bool { return agree(c.all...) })
				left, right := c.all[:test.side], c.all[test.side:]
				c.network.Split(ipsOf(left), ipsOf(right))
				time.Sleep(test.duration)
				if test.duration > 30*time.Second {
					assert.True(t, onlySee(left...) && onlySee(right...), "either side sees itself")
					minority := left
					if len(right) < len(left) {
						minority = right
					}
					for _, m := range minority {
						assert.Equal(t, 5, m.View().Divisor, "the smaller side remembers")
						assert.Len(t, m.View().Members, 5)
					}
				}
				c.network.Heal()
				took := c.within(30*time.Second, "one cluster", func() bool { return agree(c.all...) })
				t.Logf("healed after %v", took)
			})
		})
	}
}

func TestMembershipEvenSplitWithoutSeedsHeals(t *testing.T) {
	inCluster(t, func(t *testing.T, c *testCluster) {
		c.startAll(5)
		c.within(10*time.Second, "all see all", func() bool { return agree(c.all...) })
		require.NoError(t, c.all[0].Leave(5*time.Second, nil)) // the only seed
		require.NoError(t, c.all[0].Close())
		left, right := c.all[1:3], c.all[3:]
		c.network.Split(ipsOf(left), ipsOf(right))
		time.Sleep(50 * time.Minute)
		assert.True(t, onlySee(left...) && onlySee(right...), "either side sees itself")
		c.network.Heal()
		took := c.within(30*time.Second, "one cluster", func() bool { return agree(c.all[1:]...) })
		t.Logf("healed after %v", took)
	})
}

func TestMembershipKilledIsLostAndForgotten(t *testing.T) {
	inCluster(t, func(t *testing.T, c *testCluster) {
		c.startAll(5)
		c.within(10*time.Second, "all see all", func() bool { return agree(c.all...) })
		victim := c.all[2]
		c.end(victim)
		took := c.within(30*time.Second, "all have lost it", func() bool {
			return !slices.ContainsFunc(c.all, func(m *testMember) bool {
				state, ok := m.stateOf(victim.identity)
				return !ok || state != Failed
			})
		})
		t.Logf("lost after %v", took)
		for _, m := range c.all {
			assert.Equal(t, [2]int{5, 4}, [2]int{m.View().Divisor, m.View().Reachable})
			assert.NotContains(t, m.View().Owners(), victim.identity)
		}
		time.Sleep(deadAfter - 2*time.Second)
		assert.False(t, agree(c.all...), "it still counts")
		c.within(3*time.Second, "given up", func() bool { return agree(c.all...) })
	})
}

func TestMembershipRestartReplacesTheOldName(t *testing.T) {
	inCluster(t, func(t *testing.T, c *testCluster) {
		c.startAll(5)
		c.within(10*time.Second, "all see all", func() bool { return agree(c.all...) })
		old := c.all[2]
		c.end(old)
		c.network.Restart(old.ip)
		fresh := c.start(old.ip, nil, simIP(0))
		assert.NotEqual(t, old.identity, fresh.identity)
		c.within(30*time.Second, "five members again", func() bool { return agree(c.all...) })
	})
}

func TestMembershipLeftIsNotLost(t *testing.T) {
	for _, announced := range []bool{true, false} {
		t.Run(fmt.Sprintf("announced %v", announced), func(t *testing.T) {
			inCluster(t, func(t *testing.T, c *testCluster) {
				c.startAll(5)
				c.within(10*time.Second, "all see all", func() bool { return agree(c.all...) })
				leaver := c.all[2]
				rest := slices.Delete(slices.Clone(c.all), 2, 3)
				want := []State{Alive}
				if announced {
					require.NoError(t, leaver.AnnounceLeaving())
					require.NoError(t, leaver.AnnounceLeaving(), "a second time")
					c.within(time.Second, "all know that it is leaving", func() bool {
						return !slices.ContainsFunc(c.all, func(m *testMember) bool {
							state, ok := m.stateOf(leaver.identity)
							return !ok || state != Leaving || slices.Contains(m.View().Owners(), leaver.identity)
						})
					})
					assert.Equal(t, 5, rest[0].View().Divisor, "it still counts")
					want = append(want, Leaving)
				}
				require.NoError(t, leaver.Leave(5*time.Second, nil))
				require.NoError(t, leaver.Leave(5*time.Second, nil), "a second time")
				assert.True(t, agree(rest...), "all others know when leave returns")
				time.Sleep(time.Second)
				_, ok := leaver.stateOf(leaver.identity)
				assert.True(t, ok, "to itself it is there until the end")
				require.NoError(t, leaver.Close())
				time.Sleep(10 * time.Minute)
				assert.True(t, agree(rest...))
				for _, m := range rest {
					assert.Equal(t, want, m.statesOf(leaver.identity), "it never was lost")
				}
			})
		})
	}
}

func TestMembershipGoodbyeSurvivesLoss(t *testing.T) {
	inCluster(t, func(t *testing.T, c *testCluster) {
		c.network.SetDefaults(sim.Conditions{Latency: time.Millisecond, Jitter: 5 * time.Millisecond, Loss: 0.15, Duplicate: 0.1})
		c.startAll(5)
		c.within(2*time.Minute, "all see all", func() bool { return agree(c.all...) })
		require.NoError(t, c.all[0].Leave(5*time.Second, nil))
		require.NoError(t, c.all[0].Close())
		rest := c.all[1:]
		c.within(2*time.Minute, "left", func() bool { return agree(rest...) })
		for _, m := range rest {
			m.mu.Lock()
			assert.True(t, m.roster.hasLeft(c.all[0].identity, time.Now()), "left, not forgotten")
			m.mu.Unlock()
		}
	})
}

func TestMembershipWhoMissedTheGoodbyeHearsOfIt(t *testing.T) {
	for _, absence := range []time.Duration{3 * time.Second, 100 * time.Second} { // still believed alive, and long given up by gossip
		t.Run(fmt.Sprint(absence), func(t *testing.T) {
			inCluster(t, func(t *testing.T, c *testCluster) {
				c.startAll(5)
				c.within(10*time.Second, "all see all", func() bool { return agree(c.all...) })
				leaver, absent, rest := c.all[3], c.all[4], c.all[:3]
				c.network.Split(append(ipsOf(rest), leaver.ip), []string{absent.ip})
				require.NoError(t, leaver.Leave(5*time.Second, nil))
				require.NoError(t, leaver.Close())
				time.Sleep(absence)
				c.network.Heal()
				c.within(time.Minute, "four are left", func() bool { return agree(c.all[0], c.all[1], c.all[2], absent) })
				time.Sleep(time.Minute)
				assert.True(t, agree(c.all[0], c.all[1], c.all[2], absent))
				for _, m := range rest {
					assert.Equal(t, []State{Alive}, m.statesOf(leaver.identity), "it never came back as lost")
				}
			})
		})
	}
}

func TestMembershipClustersAtOneAddressNeverMix(t *testing.T) {
	inCluster(t, func(t *testing.T, c *testCluster) {
		one := slices.Clone(c.startAll(3))
		victim := one[2]
		// The address of the victim is a seed of another cluster and of this one.
		seeded := c.start("10.0.0.9", nil, simIP(0), victim.ip)
		c.within(10*time.Second, "all see all", func() bool { return agree(c.all...) })
		c.end(victim)
		c.network.Restart(victim.ip)
		other := func(s *Config) { s.Cluster = "another" }
		two := []*testMember{c.start(victim.ip, other), c.start("10.0.0.8", other, victim.ip)}
		c.within(10*time.Second, "the other cluster sees itself", func() bool { return agree(two...) })
		time.Sleep(10 * time.Minute)
		one = append(one[:2:2], seeded)
		assert.True(t, agree(one...))
		assert.True(t, agree(two...))
		for _, m := range two {
			assert.ElementsMatch(t, []string{two[0].identity, two[1].identity}, m.seen())
		}
		for _, m := range one {
			assert.Len(t, m.seen(), 4)
			assert.LessOrEqual(t, strings.Count(m.logs.String(), "level=WARN"), 1, m.logs.String())
		}
	})
}

// rawMember is a member of the gossip cluster that is none of ours.
type rawMember struct {
	*memberlist.Memberlist
	meta atomic.Pointer[[]byte]
}

func (r *rawMember) NodeMeta(int) []byte           { return *r.meta.Load() }
func (*rawMember) NotifyMsg([]byte)                {}
func (*rawMember) GetBroadcasts(int, int) [][]byte { return nil }
func (*rawMember) LocalState(bool) []byte          { return []byte("garbage") }
func (*rawMember) MergeRemoteState([]byte, bool)   {}

func (c *testCluster) startRaw(ip string, meta []byte) *rawMember {
	c.t.Helper()
	s := testConfig(c.network, ip)
	logger := gossipLogger(slog.New(slog.DiscardHandler))
	g, err := listenGossip(s, logger)
	require.NoError(c.t, err)
	raw := &rawMember{}
	raw.meta.Store(&meta)
	config := memberlist.DefaultLANConfig()
	config.Name, config.Label, config.Transport, config.Logger = "stranger", s.Cluster, g, logger
	config.AdvertiseAddr, config.AdvertisePort = ip, 7946
	config.Delegate = raw
	g.gate().pings.keep = longestProbe(config)
	raw.Memberlist, err = memberlist.Create(config)
	require.NoError(c.t, err)
	c.t.Cleanup(func() { require.NoError(c.t, endGossip(g, raw.Memberlist)) })
	return raw
}

func TestMembershipMemberWithGarbageIsLeftOut(t *testing.T) {
	inCluster(t, func(t *testing.T, c *testCluster) {
		c.startAll(3)
		c.within(10*time.Second, "all see all", func() bool { return agree(c.all...) })
		stranger := c.startRaw("10.0.0.9", []byte("garbage"))
		_, err := stranger.Join([]string{"10.0.0.1:7946"})
		require.NoError(t, err)
		time.Sleep(time.Minute)
		other := []byte("other garbage")
		stranger.meta.Store(&other)
		require.NoError(t, stranger.UpdateNode(5*time.Second))
		time.Sleep(time.Minute)
		require.Equal(t, 4, stranger.NumMembers(), "gossip has it")
		assert.True(t, agree(c.all...))
		late := c.start("10.0.0.4", nil, "10.0.0.9") // even one that only knows the stranger gets to the others
		c.within(10*time.Second, "all see all", func() bool { return agree(c.all...) })
		for _, m := range c.all[:3] {
			assert.Equal(t, 1, strings.Count(m.logs.String(), "ignoring member"), m.logs.String())
			assert.NotContains(t, m.seen(), "stranger")
		}
		assert.Equal(t, 1, strings.Count(late.logs.String(), "ignoring member"))
	})
}

func TestMembershipRefusesWhatWouldStopPushPulls(t *testing.T) {
	d := gossipDelegate{Membership: &Membership{nodes: make(map[string]*gossipNode)}, protocol: 2}
	good := memberlist.Node{Name: "n-1", PMin: 1, PMax: 5, PCur: 2}
	require.NoError(t, d.NotifyAlive(&good))
	for name, spoil := range map[string]func(*memberlist.Node){
		"no name":              func(n *memberlist.Node) { n.Name = "" },
		"long name":            func(n *memberlist.Node) { n.Name = strings.Repeat("n", 256) },
		"an escape sequence":   func(n *memberlist.Node) { n.Name = "n\x1b[2J-1" },
		"one in a character":   func(n *memberlist.Node) { n.Name = "n\u009b2J-1" },
		"runs backwards":       func(n *memberlist.Node) { n.Name = "n\u202e-1" },
		"without width":        func(n *memberlist.Node) { n.Name = "n\u200b-1" },
		"a line end":           func(n *memberlist.Node) { n.Name = "n\n-1" },
		"a space":              func(n *memberlist.Node) { n.Name = "n -1" },
		"not UTF-8":            func(n *memberlist.Node) { n.Name = "n\xff-1" },
		"needs more than ours": func(n *memberlist.Node) { n.PMin, n.PCur = 3, 3 },
		"knows less than ours": func(n *memberlist.Node) { n.PMax, n.PCur = 1, 1 },
		"speaks what it can't": func(n *memberlist.Node) { n.PCur = 6 },
		"speaks nothing":       func(n *memberlist.Node) { n.PMin, n.PCur = 0, 0 },
		"delegate version":     func(n *memberlist.Node) { n.DMin, n.DMax, n.DCur = 1, 1, 1 },
		"endless metadata":     func(n *memberlist.Node) { n.Meta = make([]byte, memberlist.MetaMaxSize+1) },
		"endless address":      func(n *memberlist.Node) { n.Addr = make([]byte, net.IPv6len+1) },
	} {
		n := good
		spoil(&n)
		assert.Error(t, d.NotifyAlive(&n), name)
	}
	for i := range ring.MaxMembers {
		d.nodes[fmt.Sprint("n-", i)] = &gossipNode{}
	}
	require.NoError(t, d.NotifyAlive(&good), "it is there already")
	good.Name = "one-too-many"
	assert.Error(t, d.NotifyAlive(&good))
}

// TestMembershipGoodbyes is about what a goodbye does, apart from memberlist's own messages.
func TestMembershipGoodbyes(t *testing.T) {
	inCluster(t, func(t *testing.T, c *testCluster) {
		c.startAll(4)
		c.within(10*time.Second, "all see all", func() bool { return agree(c.all...) })
		first := c.all[0]
		d := gossipDelegate{Membership: first.Membership}
		d.NotifyMsg([]byte("garbage"))
		d.MergeRemoteState(nil, true)
		d.NotifyMsg(encodeDepartures([]departure{{first.identity, time.Hour}}))
		time.Sleep(time.Second)
		assert.True(t, agree(c.all...), "a node does not believe that it has left")

		// A goodbye that comes before memberlist knows: the member is gone at once, for all others too.
		d.NotifyMsg(encodeDepartures([]departure{{c.all[3].identity, time.Hour}}))
		c.within(2*time.Second, "passed on", func() bool { return agree(c.all[:3]...) })

		// One that comes a little later.
		d.NotifyLeave(&memberlist.Node{Name: c.all[2].identity})
		time.Sleep(250 * time.Millisecond)
		_, ok := first.stateOf(c.all[2].identity)
		assert.True(t, ok, "it is waited for")
		d.NotifyMsg(encodeDepartures([]departure{{c.all[2].identity, time.Hour}}))
		time.Sleep(10 * time.Millisecond)
		_, ok = first.stateOf(c.all[2].identity)
		assert.False(t, ok)
		assert.Equal(t, []State{Alive}, first.statesOf(c.all[2].identity))

		// One that does not come.
		first.haltJoins()
		d.NotifyLeave(&memberlist.Node{Name: c.all[1].identity})
		time.Sleep(490 * time.Millisecond)
		state, _ := first.stateOf(c.all[1].identity)
		assert.Equal(t, Alive, state)
		time.Sleep(20 * time.Millisecond)
		state, _ = first.stateOf(c.all[1].identity)
		assert.Equal(t, Failed, state)
		assert.Len(t, first.joiner.wake, 1, "the joiner is told")
	})
}

func TestMembershipThatHasLeftJoinsNoMore(t *testing.T) {
	inCluster(t, func(t *testing.T, c *testCluster) {
		leaver := c.start("10.0.0.1", nil, "10.0.0.2")
		require.NoError(t, leaver.Leave(time.Second, nil))
		seed := c.start("10.0.0.2", nil)
		time.Sleep(time.Minute)
		assert.Equal(t, []string{seed.identity}, seed.seen())
		assert.Equal(t, []string{leaver.identity}, leaver.seen())

		departures, err := decodeNote(gossipDelegate{Membership: leaver.Membership}.LocalState(false))
		require.NoError(t, err)
		assert.Equal(t, []departure{{leaver.identity, tombstoneMemory}}, departures, "a member that asks is told")
	})
}

func TestMembershipOnlyTimingIsTheCallers(t *testing.T) {
	inCluster(t, func(t *testing.T, c *testCluster) {
		meddle := func(s *Config) {
			s.Memberlist = func(config *memberlist.Config) {
				config.GossipInterval, config.RetransmitMult = 150*time.Millisecond, 5
				config.Name, config.Label = "mine", "mine"
				config.SecretKey = []byte("0123456789abcdef")
				config.BindPort, config.AdvertisePort, config.AdvertiseAddr = 1, 2, "1.2.3.4"
				config.Delegate, config.Events, config.Transport = nil, nil, nil
				config.LogOutput = new(lockedBuffer)
				config.DelegateProtocolMin, config.DelegateProtocolMax, config.DelegateProtocolVersion = 3, 3, 3
			}
		}
		meddled := c.start("10.0.0.1", meddle)
		assert.Equal(t, 5, meddled.goodbyes.RetransmitMult, "goodbyes are gossiped as everything else")
		c.start("10.0.0.2", nil, "10.0.0.1")
		c.within(10*time.Second, "both see both", func() bool { return agree(c.all...) })
	})
}

func TestMembershipThatCannotStartLeavesNothingBehind(t *testing.T) {
	inCluster(t, func(t *testing.T, c *testCluster) {
		for name, spoil := range map[string]func(*Config){
			"gossip": func(s *Config) { s.Memberlist = func(c *memberlist.Config) { c.ProtocolVersion = 99 } },
			"label":  func(s *Config) { s.Cluster = strings.Repeat("c", 256) },
		} {
			s := testConfig(c.network, "10.0.0.1")
			spoil(s)
			_, err := startMembership(s, func(*View) {})
			require.ErrorContains(t, err, "peerlimit: cannot start gossip", name)
		}
		c.start("10.0.0.1", nil) // the address is free again; no goroutine keeps the bubble from ending
	})
}

func TestMembershipAdvertisesTakesWhereTheyAreServed(t *testing.T) {
	inCluster(t, func(t *testing.T, c *testCluster) {
		for _, test := range []struct{ bound, advertise, want string }{
			{"10.0.0.1:7947", "", "10.0.0.1:7947"},
			{"0.0.0.0:7947", "", "10.0.0.1:7947"},
			{"10.9.9.9:99", "", "10.9.9.9:99"},
			{"10.9.9.9:99", "1.2.3.4", "1.2.3.4:99"},
		} {
			s := testConfig(c.network, "10.0.0.1")
			if test.advertise != "" {
				s.Advertise = netip.AddrPortFrom(netip.MustParseAddr(test.advertise), 0)
			}
			s.RPC = netip.MustParseAddrPort(test.bound)
			m, err := startMembership(s, func(*View) {})
			require.NoError(t, err)
			time.Sleep(time.Second) // what gossip says of this node has replaced the first view
			assert.Equal(t, test.want, m.Self().RPC.String())
			require.NoError(t, m.Close())
		}
	})
}

func TestMembershipCloseDoesNotWaitForSilence(t *testing.T) {
	inCluster(t, func(t *testing.T, c *testCluster) {
		c.network.Host("10.0.0.7")
		c.network.PowerOff("10.0.0.7")
		m := c.start("10.0.0.1", nil, "10.0.0.7", "10.0.0.8")
		time.Sleep(500 * time.Millisecond)
		select {
		case <-m.firstJoin:
			t.Fatal("the first attempt should still be under way")
		default:
		}
		begin := time.Now()
		require.NoError(t, m.Close())
		assert.Less(t, time.Since(begin), 100*time.Millisecond)
		<-m.firstJoin
		require.NoError(t, m.Close(), "a second time")
		assert.ErrorIs(t, m.Leave(time.Second, nil), ErrClosed)
		assert.ErrorIs(t, m.AnnounceLeaving(), ErrClosed)
		assert.NotNil(t, m.View())
	})
}

func TestMembershipLeaveIsBounded(t *testing.T) {
	inCluster(t, func(t *testing.T, c *testCluster) {
		c.startAll(2)
		c.within(10*time.Second, "both see both", func() bool { return agree(c.all...) })
		c.network.CutBoth(simIP(0), simIP(1))
		m := c.all[0]

		begin := time.Now()
		assert.NoError(t, m.AnnounceLeaving())
		assert.Less(t, time.Since(begin), time.Millisecond, "it does not wait")
		assert.ErrorIs(t, m.Leave(300*time.Millisecond, nil), ErrUnheard)
		assert.Equal(t, 300*time.Millisecond, time.Since(begin).Round(time.Millisecond))
	})
}

func TestMembershipCloseWaitsForALeave(t *testing.T) {
	inCluster(t, func(t *testing.T, c *testCluster) {
		c.startAll(3)
		c.within(10*time.Second, "all see all", func() bool { return agree(c.all...) })
		left := make(chan error)
		go func() { left <- c.all[0].Leave(5*time.Second, nil) }()
		synctest.Wait()
		closed := make(chan error)
		go func() { closed <- c.all[0].Close() }()
		synctest.Wait()
		assert.NoError(t, <-left)
		assert.NoError(t, <-closed)
		assert.True(t, agree(c.all[1:]...))
	})
}

// TestMembershipOnLoopback runs on real sockets: members find each other, one leaves, one dies, and nothing is left
// running when all are closed.
func TestMembershipOnLoopback(t *testing.T) {
	before := runtime.NumGoroutine()
	var all []*Membership
	for i := range 4 {
		var join []string
		if i > 0 {
			join = []string{all[0].Self().Gossip.String()}
		}
		s := testSocketConfig(t, "127.0.0.1:0", join...)
		s.Logger = slog.New(slog.DiscardHandler)
		links := new(atomic.Pointer[Membership])
		s.RPC = netip.MustParseAddrPort(fmt.Sprintf("127.0.0.1:%d", 100+i))
		m, err := startMembership(s, func(v *View) { shakeHands(links.Load(), v) })
		require.NoError(t, err)
		links.Store(m)
		m.Renotify()
		defer m.Close()
		all = append(all, m)
	}
	eventually := func(n int, members ...*Membership) {
		t.Helper()
		require.Eventually(t, func() bool {
			return !slices.ContainsFunc(members, func(m *Membership) bool {
				v := m.View()
				return v.Divisor != n || v.Reachable != n || len(v.Owners()) != n
			})
		}, 30*time.Second, 10*time.Millisecond)
	}
	eventually(4, all...)
	info, ok := all[0].View().find(all[3].identity)
	require.True(t, ok)
	assert.Equal(t, "127.0.0.1:103", info.RPC.String())

	require.NoError(t, all[3].AnnounceLeaving())
	require.NoError(t, all[3].Leave(5*time.Second, nil))
	require.NoError(t, all[3].Close())
	eventually(3, all[:3]...)
	require.NoError(t, all[2].Close()) // without a word: probes of it fail from now on
	for _, m := range all {
		require.NoError(t, m.Close())
	}
	require.Eventually(t, func() bool {
		return runtime.NumGoroutine() <= before+1 // the condition has a goroutine of its own
	}, 30*time.Second, 10*time.Millisecond, "goroutines are left")
}

func TestStateNames(t *testing.T) {
	assert.Equal(t, "alive suspect leaving failed State(4)",
		fmt.Sprint(Alive, Suspect, Leaving, Failed, State(4)))
}

func TestIdentitiesDiffer(t *testing.T) {
	a, b := NewIdentity("web"), NewIdentity("web")
	assert.Regexp(t, "^web-[0-9a-f]{8}$", a)
	assert.NotEqual(t, a, b)
}
