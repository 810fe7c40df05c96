package peerlimit_test

import (
	"io"
	"log/slog"
	"net"
	"strconv"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/peerlimit/peerlimit"
	"github.com/peerlimit/peerlimit/internal/sim"
)

// startsNot starts a node with a configuration that must fail.
func startsNot(t *testing.T, config peerlimit.Config) error {
	t.Helper()
	node, err := peerlimit.Start(config)
	if err == nil {
		_ = node.Close()
	}
	require.Error(t, err)
	require.NotContains(t, err.Error(), "\n")
	return err
}

// A port that somebody else has is an error that names the field which was set, and says what to do.
func TestAPortThatIsTakenNamesTheField(t *testing.T) {
	for name, network := range map[string]string{"streams": "tcp", "packets": "udp"} {
		t.Run("BindAddr, "+name, func(t *testing.T) {
			addr := taken(t, network)
			err := startsNot(t, peerlimit.Config{BindAddr: addr, RPCAddr: "127.0.0.1:0"})
			assert.ErrorIs(t, err, syscall.EADDRINUSE)
			assert.ErrorContains(t, err, `peerlimit: BindAddr is "`+addr+`"`)
			assert.NotContains(t, err.Error(), "RPCAddr")
		})
	}
	t.Run("RPCAddr", func(t *testing.T) {
		addr := taken(t, "tcp")
		err := startsNot(t, peerlimit.Config{RPCAddr: addr})
		assert.ErrorIs(t, err, syscall.EADDRINUSE)
		assert.ErrorContains(t, err, `peerlimit: RPCAddr is "`+addr+`"`)
		assert.NotContains(t, err.Error(), "BindAddr")
	})
	t.Run("the port after that of BindAddr", func(t *testing.T) {
		node, err := peerlimit.Start(peerlimit.Config{})
		require.NoError(t, err)
		defer node.Close()
		_, port, err := net.SplitHostPort(node.Self().RPCAddr)
		require.NoError(t, err)
		bind := net.JoinHostPort("127.0.0.1", portBefore(t, port))
		err = startsNot(t, peerlimit.Config{BindAddr: bind})
		assert.ErrorIs(t, err, syscall.EADDRINUSE)
		assert.ErrorContains(t, err, `peerlimit: BindAddr is "`+bind+`" and RPCAddr is empty, so takes need `+node.Self().RPCAddr)
	})
}

// taken returns an address that this test listens on.
func taken(t *testing.T, network string) string {
	t.Helper()
	var held io.Closer
	var addr net.Addr
	if network == "udp" {
		conn, err := net.ListenPacket("udp", "127.0.0.1:0")
		require.NoError(t, err)
		held, addr = conn, conn.LocalAddr()
	} else {
		listener, err := net.Listen("tcp", "127.0.0.1:0")
		require.NoError(t, err)
		held, addr = listener, listener.Addr()
	}
	t.Cleanup(func() { _ = held.Close() })
	return addr.String()
}

func portBefore(t *testing.T, port string) string {
	t.Helper()
	number, err := strconv.Atoi(port)
	require.NoError(t, err)
	return strconv.Itoa(number - 1)
}

// warnings returns what a log has of WARN and above.
func warnings(logs *peerlimit.LockedBuffer) []string {
	return append(linesWith(logs, "level=WARN"), linesWith(logs, "level=ERROR")...)
}

// simulated starts a node on a machine of a simulated network; the log is of what it says at INFO and above.
func simulated(t *testing.T, network *sim.Network, ip string, config peerlimit.Config) (*peerlimit.Node, *peerlimit.LockedBuffer) {
	t.Helper()
	logs := new(peerlimit.LockedBuffer)
	config.Logger = slog.New(slog.NewTextHandler(logs, nil))
	config.BindAddr, config.Insecure, config.Network = ip, true, network.Host(ip)
	node, err := peerlimit.Start(config)
	require.NoError(t, err)
	t.Cleanup(func() { _ = node.Close() })
	return node, logs
}

// Two nodes that were not set up alike: each logs one line in a minute that says what it is and what to set, counts it, and the one that
// joins says so in its status.
func TestNodesThatAreSetUpDifferently(t *testing.T) {
	ours, theirs, open := peerlimit.Config{Secret: oldSecret}, peerlimit.Config{Secret: newSecret}, peerlimit.Config{}
	for name, c := range map[string]struct {
		here, there  peerlimit.Config
		says, isTold string // the log of the one that is joined, and of the one that joins
		ofCluster    bool
	}{
		"another Secret":          {ours, theirs, "another Secret: set the same Config.Secret", "another Secret: set the same Config.Secret", false},
		"without ours":            {ours, open, "no Secret and this node has one", "a Secret and this node has none: set Config.Secret", false},
		"with one, and we do not": {open, ours, "a Secret and this node has none: set Config.Secret", "no Secret and this node has one", false},
		"another Cluster":         {open, peerlimit.Config{Cluster: "blue"}, "another Cluster: set the same Config.Cluster", "another Cluster: set the same Config.Cluster", true},
		"another Cluster, both with Secrets": {ours, peerlimit.Config{Cluster: "blue", Secret: oldSecret},
			"another Cluster: set the same Config.Cluster", "another Cluster: set the same Config.Cluster", true},
		"another length of Cluster": {open, peerlimit.Config{Cluster: "peerlimit-blue"},
			"another Cluster: set the same Config.Cluster", "another Cluster: set the same Config.Cluster", true},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				network := sim.New(1)
				t.Cleanup(network.Close)
				here, hereLogs := simulated(t, network, "10.0.0.1", c.here)
				c.there.Join = []string{"10.0.0.1"}
				there, thereLogs := simulated(t, network, "10.0.0.2", c.there)
				time.Sleep(59 * time.Second)
				require.Len(t, warnings(hereLogs), 1, hereLogs.String())
				require.Contains(t, warnings(hereLogs)[0], c.says)
				if c.ofCluster {
					require.Contains(t, warnings(hereLogs)[0], c.there.Cluster, "which it is")
				}
				require.Len(t, warnings(thereLogs), 1, thereLogs.String())
				require.Contains(t, warnings(thereLogs)[0], c.isTold)
				require.Contains(t, warnings(thereLogs)[0], "seed=10.0.0.1")

				for _, s := range []peerlimit.Stats{here.Stats(), there.Stats()} {
					counted, not := s.OtherSecret, s.OtherCluster
					if c.ofCluster {
						counted, not = not, counted
					}
					assert.NotZero(t, counted)
					assert.Zero(t, not)
				}
				assert.NotZero(t, here.Stats().Unauthenticated)
				assert.NotZero(t, there.Stats().FailedJoins)
				assert.Equal(t, 1, there.Stats().SeedsNotJoined)
				require.Len(t, there.Status().Seeds, 1)
				seed := there.Status().Seeds[0]
				assert.False(t, seed.Joined)
				assert.Contains(t, seed.Reason, c.isTold)
				for _, log := range []*peerlimit.LockedBuffer{hereLogs, thereLogs} {
					assert.NotContains(t, log.String(), string(oldSecret))
				}

				time.Sleep(10 * time.Minute) // and it stays quiet
				assert.LessOrEqual(t, len(warnings(hereLogs)), 12)
				assert.Len(t, warnings(thereLogs), 1)
			})
		})
	}
}

// A seed that is not a node of any cluster: one line that says which it is, and the status does.
func TestASeedThatIsSomebodyElse(t *testing.T) {
	answers := func(do func(net.Conn)) func(*testing.T, *sim.Network) {
		return func(t *testing.T, network *sim.Network) {
			listener, err := network.Host("10.0.0.1").Listen("10.0.0.1:7946")
			require.NoError(t, err)
			t.Cleanup(func() { _ = listener.Close() })
			go func() {
				for {
					conn, err := listener.Accept()
					if err != nil {
						return
					}
					go func() { defer conn.Close(); do(conn) }()
				}
			}()
		}
	}
	for name, c := range map[string]struct {
		there func(*testing.T, *sim.Network)
		says  string
	}{
		"an HTTP server": {answers(func(conn net.Conn) {
			_, _ = conn.Read(make([]byte, 1000))
			_, _ = io.WriteString(conn, "HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n400 Bad Request")
		}), "no peerlimit node"},
		"one that hangs up":     {answers(func(conn net.Conn) { _, _ = conn.Read(make([]byte, 1000)) }), "it hangs up"},
		"one that is silent":    {answers(func(conn net.Conn) { _, _ = io.Copy(io.Discard, conn) }), "says nothing"},
		"a port that is closed": {func(_ *testing.T, network *sim.Network) { network.Host("10.0.0.1") }, "nothing answers at its address"},
	} {
		for kind, secret := range map[string][]byte{"open": nil, "with a Secret": oldSecret} {
			t.Run(name+", "+kind, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					network := sim.New(1)
					t.Cleanup(network.Close)
					c.there(t, network)
					node, logs := simulated(t, network, "10.0.0.2", peerlimit.Config{Secret: secret, Join: []string{"10.0.0.1:7946"}})
					time.Sleep(59 * time.Second)
					requireNotJoined(t, node, logs, "10.0.0.1:7946", c.says)
					if name == "an HTTP server" {
						require.Contains(t, warnings(logs)[0], "HTTP/1.1 400 Bad Request")
						require.Contains(t, node.Status().Seeds[0].Err, "HTTP/1.1 400 Bad Request")
					}
				})
			})
		}
	}
}

// requireNotJoined fails unless a node says of its only seed why it is not joined: once in its log, and in its status.
func requireNotJoined(t *testing.T, node *peerlimit.Node, logs *peerlimit.LockedBuffer, seed, says string) {
	t.Helper()
	require.Len(t, warnings(logs), 1, logs.String())
	require.Contains(t, warnings(logs)[0], says)
	require.Contains(t, warnings(logs)[0], "seed="+seed)
	require.Contains(t, warnings(logs)[0], "Join", "what to set")
	require.NotZero(t, node.Stats().FailedJoins)
	require.Equal(t, 1, node.Stats().SeedsNotJoined)
	require.Len(t, node.Status().Seeds, 1)
	require.Equal(t, seed, node.Status().Seeds[0].Seed)
	require.Contains(t, node.Status().Seeds[0].Reason, says)
}

// A seed that names the port for takes, where TLS or the handshake answers: both sides say that there is no gossip.
func TestASeedThatIsThePortForTakes(t *testing.T) {
	for kind, secret := range map[string][]byte{"open": nil, "with a Secret": oldSecret} {
		t.Run(kind, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				network := sim.New(1)
				t.Cleanup(network.Close)
				here, hereLogs := simulated(t, network, "10.0.0.1", peerlimit.Config{Secret: secret})
				there, thereLogs := simulated(t, network, "10.0.0.2", peerlimit.Config{Secret: secret, Join: []string{"10.0.0.1:7947"}})
				time.Sleep(59 * time.Second)
				requireNotJoined(t, there, thereLogs, "10.0.0.1:7947", "it hangs up")
				require.Len(t, warnings(hereLogs), 1, hereLogs.String())
				require.Contains(t, warnings(hereLogs)[0], "rejected connection")
				require.Contains(t, warnings(hereLogs)[0], "it is no peerlimit node")
				require.NotZero(t, here.Stats().Unauthenticated)
			})
		})
	}
}

// Another reason is another line, and what is mended is joined.
func TestASeedThatIsMendedIsJoined(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		network := sim.New(1)
		t.Cleanup(network.Close)
		node, logs := simulated(t, network, "10.0.0.2", peerlimit.Config{Secret: oldSecret, Join: []string{"10.0.0.1"}})
		time.Sleep(time.Minute)
		requireNotJoined(t, node, logs, "10.0.0.1", "nothing answers at its address")

		wrong, _ := simulated(t, network, "10.0.0.1", peerlimit.Config{Secret: newSecret})
		time.Sleep(time.Minute)
		require.Len(t, warnings(logs), 2, logs.String())
		require.Contains(t, warnings(logs)[1], "another Secret")
		require.Contains(t, node.Status().Seeds[0].Reason, "another Secret")
		require.NoError(t, wrong.Close())
		time.Sleep(time.Minute)
		require.Len(t, warnings(logs), 2, "that was said")

		_, _ = simulated(t, network, "10.0.0.1", peerlimit.Config{Secret: oldSecret})
		time.Sleep(time.Minute)
		require.Len(t, linesWith(logs, "seed joined"), 1)
		require.Zero(t, node.Stats().SeedsNotJoined)
		require.Equal(t, []peerlimit.SeedStatus{{Seed: "10.0.0.1", Joined: true}}, node.Status().Seeds)
	})
}

// On real sockets the peer hangs up while the other side still writes, and what it answered before is heard all the same.
func TestTheReasonIsHeardOnSockets(t *testing.T) {
	quiet := slog.New(slog.DiscardHandler)
	start := func(config peerlimit.Config) *peerlimit.Node {
		config.Logger = quiet
		node, err := peerlimit.Start(config)
		require.NoError(t, err)
		return node
	}
	for name, c := range map[string]struct {
		here, there peerlimit.Config
		says        string
	}{
		"another Cluster":  {peerlimit.Config{}, peerlimit.Config{Cluster: "blue"}, "another Cluster"},
		"another Secret":   {peerlimit.Config{Secret: oldSecret}, peerlimit.Config{Secret: newSecret}, "another Secret"},
		"no Secret":        {peerlimit.Config{Secret: oldSecret}, peerlimit.Config{}, "it has a Secret"},
		"one, and we none": {peerlimit.Config{}, peerlimit.Config{Secret: oldSecret}, "it has no Secret"},
	} {
		t.Run(name, func(t *testing.T) {
			here := start(c.here)
			defer here.Close()
			c.there.Join = []string{here.Self().Addr}
			for range 20 {
				there := start(c.there)
				require.Contains(t, there.Status().Seeds[0].Reason, c.says, there.Status().Seeds[0].Err)
				require.NoError(t, there.Close())
			}
		})
	}
}
