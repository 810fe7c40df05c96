package membership

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// fakeCluster is what a joiner sees of a cluster that consists of addresses.
type fakeCluster struct {
	mu      sync.Mutex
	members map[netip.AddrPort]bool
	lost    []netip.AddrPort
	some    netip.AddrPort // what someMember returns, if valid
	others  []int          // as told

	// answer is called outside of the lock; nil refuses every join. Use respond to change it later.
	answer func(netip.AddrPort) error
	joins  []fakeJoin
	atOnce int // joins under way
	most   int // the most there were
}

type fakeJoin struct {
	addr netip.AddrPort
	at   time.Time
}

func (c *fakeCluster) memberAt(addr netip.AddrPort) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.members[addr]
}

func (c *fakeCluster) failedAddrs() []netip.AddrPort {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.Clone(c.lost)
}

func (c *fakeCluster) someMember() (netip.AddrPort, bool) { return c.some, c.some.IsValid() }

func (c *fakeCluster) otherSeeds(n int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.others = append(c.others, n)
}

func (c *fakeCluster) join(addr netip.AddrPort) error {
	c.mu.Lock()
	c.joins = append(c.joins, fakeJoin{addr, time.Now()})
	c.atOnce++
	c.most = max(c.most, c.atOnce)
	answer := c.answer
	c.mu.Unlock()
	err := errors.New("refused")
	if answer != nil {
		err = answer(addr)
	}
	c.mu.Lock()
	c.atOnce--
	c.mu.Unlock()
	return err
}

// respond changes what joins are answered.
func (c *fakeCluster) respond(answer func(netip.AddrPort) error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.answer = answer
}

// meet makes addresses members, and lost no longer.
func (c *fakeCluster) meet(addrs ...netip.AddrPort) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, addr := range addrs {
		c.members[addr] = true
	}
	c.lost = slices.DeleteFunc(c.lost, func(a netip.AddrPort) bool { return c.members[a] })
}

// lose makes addresses lost.
func (c *fakeCluster) lose(addrs ...netip.AddrPort) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, addr := range addrs {
		delete(c.members, addr)
		c.lost = append(c.lost, addr)
	}
}

// takeJoins returns the joins since it was last called, grouped by the moment at which they began: one round each, when
// answers come at once.
func (c *fakeCluster) takeJoins() (rounds [][]fakeJoin) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, j := range c.joins {
		if n := len(rounds); n > 0 && rounds[n-1][0].at.Equal(j.at) {
			rounds[n-1] = append(rounds[n-1], j)
		} else {
			rounds = append(rounds, []fakeJoin{j})
		}
	}
	c.joins = nil
	return rounds
}

// fakeNames resolves names to what they are mapped to, as of now.
type fakeNames struct {
	mu    sync.Mutex
	names map[string][]string
}

func (n *fakeNames) set(name string, ips ...string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.names[name] = ips
}

func (n *fakeNames) LookupNetIP(_ context.Context, network, host string) ([]netip.Addr, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	var ips []netip.Addr
	for _, ip := range n.names[host] {
		ips = append(ips, netip.MustParseAddr(ip))
	}
	if ips == nil || network != "ip" {
		return nil, &net.DNSError{Err: "no such host", Name: host, IsNotFound: true}
	}
	return ips, nil
}

var (
	ownAddr   = netip.MustParseAddrPort("10.0.0.1:7946")
	firstSeed = netip.MustParseAddrPort("10.0.0.2:7946")
)

// runJoiner starts a joiner that ends with the test.
func runJoiner(t *testing.T, c *fakeCluster, names *fakeNames, logs *lockedBuffer, join ...string) *joiner {
	c.members = map[netip.AddrPort]bool{ownAddr: true}
	if names == nil {
		names = &fakeNames{}
	}
	if logs == nil {
		logs = new(lockedBuffer)
	}
	log := slog.New(slog.NewTextHandler(logs, &slog.HandlerOptions{ReplaceAttr: withoutTime}))
	j := newJoiner(c, log, testSeeds(join...), []netip.AddrPort{ownAddr, netip.MustParseAddrPort("0.0.0.0:7946")}, names)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() { j.run(ctx); close(done) }()
	t.Cleanup(func() { cancel(); <-done })
	return j
}

// lockedBuffer is a log that can be read while it is written.
type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lockedBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

func TestJoinerRetriesASeedForEver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, logs := &fakeCluster{}, new(lockedBuffer)
		j := runJoiner(t, c, nil, logs, "10.0.0.2")
		begin := time.Now()
		<-j.tried
		assert.Zero(t, time.Since(begin), "the first attempt is made at once")

		time.Sleep(2 * time.Hour)
		rounds := c.takeJoins()
		for i := 1; i < len(rounds); i++ {
			pause := rounds[i][0].at.Sub(rounds[i-1][0].at)
			limit := min(joinRetryMin<<min(i-1, 20), joinRetryMax)
			assert.True(t, limit/2 <= pause && pause <= limit, "pause %d is %v, up to %v", i, pause, limit)
		}
		assert.Equal(t, 1, strings.Count(logs.String(), "cannot join seed"), "logged once")

		c.respond(func(addr netip.AddrPort) error { c.meet(addr); return nil })
		time.Sleep(joinRetryMax)
		assert.Len(t, c.takeJoins(), 1)
		assert.Contains(t, logs.String(), `msg="seed joined" seed=10.0.0.2`)
		time.Sleep(time.Hour)
		assert.Empty(t, c.takeJoins(), "there is a member at every seed")
	})
}

func TestJoinerNoticesThatASeedIsNoMemberAnyMore(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := &fakeCluster{answer: func(netip.AddrPort) error { return errors.New("down") }}
		j := runJoiner(t, c, nil, nil, "10.0.0.2:7946")
		c.meet(firstSeed)
		time.Sleep(time.Minute)
		c.takeJoins()

		c.mu.Lock()
		delete(c.members, firstSeed) // it left: nobody misses it, but it is still a seed
		c.mu.Unlock()
		j.hurry()
		synctest.Wait()
		assert.Len(t, c.takeJoins(), 1, "at once when told")

		c.meet(firstSeed)
		time.Sleep(time.Minute)
		c.takeJoins()
		c.mu.Lock()
		delete(c.members, firstSeed)
		c.mu.Unlock()
		time.Sleep(seedCheckInterval + time.Second)
		rounds := c.takeJoins()
		require.Greater(t, len(rounds), 1, "soon when not")
		assert.LessOrEqual(t, rounds[1][0].at.Sub(rounds[0][0].at), joinRetryMin, "and often at first")
	})
}

func TestJoinerDoesNotJoinItself(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := &fakeCluster{}
		runJoiner(t, c, nil, nil, ownAddr.String(), "127.0.0.1:7946", "[::1]:7946")
		time.Sleep(time.Hour)
		assert.Empty(t, c.takeJoins())
		assert.Equal(t, []int{0}, c.others)
	})
}

func TestJoinerFollowsNames(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, logs := &fakeCluster{}, new(lockedBuffer)
		c.answer = func(addr netip.AddrPort) error { c.meet(addr); return nil }
		names := &fakeNames{names: map[string][]string{}}
		j := runJoiner(t, c, names, logs, "api.internal:99", "also.internal")
		<-j.tried
		assert.Empty(t, c.takeJoins())
		synctest.Wait()
		assert.Contains(t, logs.String(), `level=WARN msg="cannot join seed, retrying" seed=api.internal:99 reason="its name does not resolve: check Config.Join and DNS" err="lookup api.internal: no such host"`)

		names.set("api.internal", "10.0.0.2", "::ffff:10.0.0.3", "fd00::1")
		names.set("also.internal", "10.0.0.1")
		time.Sleep(time.Minute)
		var joined []string
		for _, round := range c.takeJoins() {
			for _, join := range round {
				joined = append(joined, join.addr.String())
			}
		}
		assert.ElementsMatch(t, []string{"10.0.0.2:99", "10.0.0.3:99", "[fd00::1]:99"}, joined)
		assert.Equal(t, []int{3}, c.others, "two unknown names were two seeds, now there are three others")
		assert.Equal(t, 2, strings.Count(logs.String(), "cannot join seed"), "once for each")

		names.set("api.internal", "10.0.0.4")
		time.Sleep(seedCheckInterval)
		require.Len(t, c.takeJoins(), 1, "a new address of a name is joined")
		names.set("api.internal")
		time.Sleep(time.Hour)
		assert.Empty(t, c.takeJoins(), "what the name was last is a member")
		assert.Equal(t, []int{3, 1}, c.others)
	})
}

func TestJoinerTriesEverySeedAtFirst(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var seeds []string
		for i := range 40 {
			seeds = append(seeds, fmt.Sprintf("10.1.0.%d", i))
		}
		c := &fakeCluster{}
		runJoiner(t, c, nil, nil, seeds...)
		time.Sleep(10 * time.Minute)
		rounds := c.takeJoins()
		require.Greater(t, len(rounds), 60)
		assert.Len(t, rounds[0], 40)
		tried := make(map[netip.AddrPort]bool)
		for _, round := range rounds[1:] {
			require.Len(t, round, maxSeedsPerRound)
			for _, join := range round {
				tried[join.addr] = true
			}
		}
		assert.Len(t, tried, 40, "later rounds try all of them in turn")
		assert.LessOrEqual(t, c.most, joinsAtOnce)
	})
}

func TestJoinerDoesNotWaitForOneSilentSeed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := &fakeCluster{}
		c.answer = func(addr netip.AddrPort) error {
			if addr == firstSeed {
				time.Sleep(time.Hour)
				return errors.New("timeout")
			}
			c.meet(addr)
			return nil
		}
		begin := time.Now()
		j := runJoiner(t, c, nil, nil, "10.0.0.2", "10.0.0.3", "10.0.0.4")
		synctest.Wait()
		assert.Zero(t, time.Since(begin))
		assert.Len(t, c.members, 3, "the others were joined meanwhile")
		<-j.tried
		assert.Equal(t, time.Hour, time.Since(begin), "the first attempt includes it")
	})
}

func TestJoinerSkipsSeedsThatOthersBringIn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var seeds []string
		var addrs []netip.AddrPort
		for i := range 100 {
			addrs = append(addrs, netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 1, 0, byte(i)}), 7946))
			seeds = append(seeds, addrs[i].String())
		}
		c := &fakeCluster{}
		c.answer = func(netip.AddrPort) error { time.Sleep(time.Millisecond); c.meet(addrs...); return nil }
		runJoiner(t, c, nil, nil, seeds...)
		time.Sleep(time.Hour)
		joins := 0
		for _, round := range c.takeJoins() {
			joins += len(round)
		}
		assert.Equal(t, joinsAtOnce, joins)
	})
}

func TestJoinerRejoinsAnAliasSeldom(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := &fakeCluster{answer: func(netip.AddrPort) error { return nil }} // some process responds, but another one than meant
		runJoiner(t, c, nil, nil, "10.0.0.2")
		time.Sleep(time.Hour)
		rounds := c.takeJoins()
		for i := 1; i < len(rounds); i++ {
			pause := rounds[i][0].at.Sub(rounds[i-1][0].at)
			assert.True(t, aliasInterval <= pause && pause <= aliasInterval+seedCheckInterval, "pause %v", pause)
		}
		assert.Greater(t, len(rounds), 30)
	})
}

func TestJoinerAsksMembersWhileItSettles(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		some := netip.MustParseAddrPort("10.0.0.99:7946")
		c := &fakeCluster{some: some}
		c.answer = func(addr netip.AddrPort) error { c.meet(addr); return nil }
		j := runJoiner(t, c, nil, nil, "10.0.0.2")
		assertAsked := func() {
			t.Helper()
			time.Sleep(time.Minute)
			rounds := c.takeJoins()
			require.Len(t, rounds, 1+warmupRounds)
			assert.NotEqual(t, some, rounds[0][0].addr)
			for _, round := range rounds[1:] {
				require.Len(t, round, 1)
				assert.Equal(t, some, round[0].addr)
			}
		}
		assertAsked()
		c.lose(netip.MustParseAddrPort("10.0.0.3:7946"))
		j.hurry()
		assertAsked()
	})
}

func TestJoinerRejoinsTheLost(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := &fakeCluster{}
		j := runJoiner(t, c, nil, nil)
		time.Sleep(time.Minute)
		assert.Empty(t, c.takeJoins())

		var addrs []netip.AddrPort
		for i := range 150 {
			addrs = append(addrs, netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 1, 0, byte(i)}), 7946))
		}
		c.lose(addrs...)
		j.hurry()
		time.Sleep(time.Hour)
		rounds := c.takeJoins()
		require.NotEmpty(t, rounds)
		tried := make(map[netip.AddrPort]bool)
		for _, round := range rounds {
			require.Len(t, round, maxFailedPerRound)
			for _, join := range round {
				tried[join.addr] = true
			}
		}
		assert.Len(t, tried, 150, "all of them in turn")
		perMinute := float64(len(rounds)) / 60
		assert.True(t, 6 <= perMinute && perMinute <= 13, "%v rounds a minute", perMinute)

		c.respond(func(netip.AddrPort) error { c.meet(addrs...); return nil })
		time.Sleep(joinRetryMax)
		assert.Empty(t, c.failedAddrs())
		c.takeJoins()
		time.Sleep(time.Hour)
		assert.Empty(t, c.takeJoins())
	})
}

func TestJoinerEndsWithItsContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := &fakeCluster{answer: func(netip.AddrPort) error { time.Sleep(time.Second); return errors.New("timeout") }}
		c.members = map[netip.AddrPort]bool{}
		j := newJoiner(c, slog.New(slog.DiscardHandler), testSeeds(slices.Repeat([]string{"10.0.0.2", "10.0.0.3"}, 10)...), nil, &fakeNames{})
		ctx, cancel := context.WithCancel(t.Context())
		time.AfterFunc(time.Second/2, cancel)
		begin := time.Now()
		j.run(ctx)
		assert.Equal(t, time.Second, time.Since(begin), "waits for the joins under way, and begins no others")
		assert.Len(t, c.takeJoins()[0], joinsAtOnce)
	})
}
