package peerlimit_test

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"io"
	"log/slog"
	"math/big"
	"net"
	"runtime"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/peerlimit/peerlimit"
	"github.com/peerlimit/peerlimit/internal/onecore"
	"github.com/peerlimit/peerlimit/peerlimittest"
)

// attack is what an unauthenticated peer does to an address, until it ends or stop is closed.
type attack func(t *testing.T, addr string, stop <-chan struct{})

// dialed connects, and leaves the rest to do; the connection is closed when the attack stops.
func dialed(do func(conn net.Conn, stop <-chan struct{})) attack {
	return func(t *testing.T, addr string, stop <-chan struct{}) {
		conn, err := net.Dial("tcp", addr)
		if err != nil {
			return // refused: as good
		}
		defer conn.Close()
		do(conn, stop)
	}
}

// sent sends bytes and hears what comes, until the other side hangs up.
func sent(b []byte) attack {
	return dialed(func(conn net.Conn, stop <-chan struct{}) {
		_, _ = conn.Write(b)
		_ = conn.SetReadDeadline(time.Now().Add(5 * time.Second))
		_, _ = io.Copy(io.Discard, conn)
	})
}

// greeted sends bytes over TLS, with a certificate of the peer's own.
func greeted(b []byte) attack {
	return dialed(func(conn net.Conn, stop <-chan struct{}) {
		client := tls.Client(conn, &tls.Config{InsecureSkipVerify: true, Certificates: []tls.Certificate{foreignCertificate()}})
		_ = client.SetDeadline(time.Now().Add(5 * time.Second))
		_, _ = client.Write(b)
		_, _ = io.Copy(io.Discard, client)
	})
}

func foreignCertificate() tls.Certificate {
	_, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		panic(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotBefore: time.Unix(0, 0), NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		panic(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
}

// recorded returns what an unauthenticated peer would hear of an honest client's first words, to say them again.
func recorded(t *testing.T) []byte {
	ours, theirs := net.Pipe()
	defer ours.Close()
	var heard bytes.Buffer
	done := make(chan struct{})
	go func() {
		defer close(done)
		_, _ = io.Copy(&heard, theirs)
	}()
	client := tls.Client(ours, &tls.Config{InsecureSkipVerify: true})
	_ = client.SetDeadline(time.Now().Add(50 * time.Millisecond))
	_ = client.Handshake()
	theirs.Close()
	<-done
	require.NotEmpty(t, heard.Bytes())
	return heard.Bytes()
}

// sizeUnlessRacing is a tenth of size under the race detector.
func sizeUnlessRacing(size int) int {
	if onecore.RaceDetector {
		return size / 10
	}
	return size
}

// Unauthenticated do what they like to a live cluster that has a secret: it keeps serving, says in its log which peers it refused, and
// is as it was when they are gone.
func TestStrangersDisturbNobody(t *testing.T) {
	began := time.Now()
	logs := new(peerlimit.LockedBuffer)
	start := func(join ...string) *peerlimit.Node {
		node, err := peerlimit.Start(peerlimit.Config{
			Secret: oldSecret, Join: join,
			Logger: slog.New(slog.NewTextHandler(logs, &slog.HandlerOptions{Level: slog.LevelInfo})),
		})
		require.NoError(t, err)
		t.Cleanup(func() { _ = node.Close() })
		return node
	}
	nodes := []*peerlimit.Node{start()}
	nodes = append(nodes, start(nodes[0].Self().Addr))
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	for _, n := range nodes {
		require.NoError(t, n.WaitReady(ctx, 2))
	}
	before, heap := runtime.NumGoroutine(), peerlimit.HeapInUse()

	stop := make(chan struct{})
	var attackers, callers sync.WaitGroup
	noise := make([]byte, 1<<16)
	_, _ = rand.Read(noise)
	huge := append([]byte{0xff, 0xff, 0xff, 0xff}, noise...)
	slow := dialed(func(conn net.Conn, stop <-chan struct{}) {
		for _, b := range noise {
			if _, err := conn.Write([]byte{b}); err != nil {
				return
			}
			select {
			case <-stop:
				return
			case <-time.After(time.Second):
			}
		}
	})
	halfOpen := dialed(func(_ net.Conn, stop <-chan struct{}) { <-stop })
	self := nodes[0].Self()
	for _, addr := range []string{self.RPCAddr, self.Addr} {
		for _, a := range []attack{sent(noise), sent(huge), sent([]byte("GET / HTTP/1.1\r\n\r\n")), sent(recorded(t)), greeted(noise), greeted(huge), slow} {
			for range 10 {
				attackers.Go(func() { a(t, addr, stop) })
			}
		}
		for range sizeUnlessRacing(1000) {
			attackers.Go(func() { halfOpen(t, addr, stop) })
		}
	}
	attackers.Go(func() {
		conn, err := net.Dial("udp", self.Addr)
		if err != nil {
			return
		}
		defer conn.Close()
		for i := range 5000 {
			_, _ = conn.Write(noise[:1+i%1300])
		}
	})
	limit := peerlimit.PerHour(1e9)
	for _, n := range nodes {
		l, err := n.Limiter("api", limit)
		require.NoError(t, err)
		callers.Go(func() {
			for i := 0; ; i++ {
				select {
				case <-stop:
					return
				case <-time.After(time.Millisecond):
				}
				d, err := l.Take(context.Background(), string(rune('a'+i%26)), 1)
				if !assert.NoError(t, err) || !assert.True(t, d.Allowed) {
					return
				}
			}
		})
	}
	underWay := func() bool { return nodes[0].Stats().Unauthenticated > 200 }
	assert.Eventually(t, underWay, time.Minute, 10*time.Millisecond, "the attack is under way")
	time.Sleep(2 * time.Second)
	close(stop)
	attackers.Wait()
	callers.Wait()

	for _, n := range nodes {
		// Where the cores are taken, a member that is not heard of for a moment is back afterwards.
		assert.Eventually(t, func() bool { s := n.Stats(); return s.Members == 2 && s.Known == 2 }, time.Minute, 10*time.Millisecond)
		assert.Zero(t, n.Stats().Refused, "nothing of an unauthenticated peer was even looked at")
	}
	assert.Eventually(t, func() bool { return runtime.NumGoroutine() <= before+10 }, time.Minute, 50*time.Millisecond,
		"%d goroutines before", before)
	assert.Eventually(t, func() bool { return peerlimit.HeapInUse() <= heap+4<<20 }, time.Minute, 50*time.Millisecond,
		"%d bytes before", heap)
	rejected := linesWith(logs, "rejected connection")
	assert.NotEmpty(t, rejected)
	for _, line := range rejected {
		assert.Contains(t, line, "addr=127.0.0.1:")
	}
	assert.LessOrEqual(t, len(rejected), 2*(1+int(time.Since(began)/time.Minute)), "of each node one in a minute")
	assert.NotContains(t, logs.String(), string(oldSecret))
}

var (
	oldSecret = []byte("the old one, 32 bytes of it at least")
	newSecret = []byte("the new one, 32 bytes of it at least")
)

func withSecret(secret []byte, accepted ...[]byte) peerlimittest.Option {
	return func(c *peerlimit.Config) { c.Secret, c.AcceptSecrets = secret, accepted }
}

// A peer without the secret is no member, takes nothing, and disturbs no member.
func TestStrangersStayOutside(t *testing.T) {
	for name, stranger := range map[string]peerlimittest.Option{
		"no secret":                 func(c *peerlimit.Config) { c.Secret = nil },
		"another one":               withSecret(newSecret),
		"another, but accepts ours": withSecret(newSecret, oldSecret),
		"another cluster":           func(c *peerlimit.Config) { c.Cluster = "other" },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				cluster := peerlimittest.NewCluster(t, 2, withSecret(oldSecret))
				outside := cluster.Add(stranger)
				limit := peerlimit.PerMinute(60)
				o, began := judge(limit), time.Now()
				var limiters []*peerlimit.Limiter
				for _, i := range []int{0, 1} {
					l, err := cluster.Node(i).Limiter("api", limit)
					require.NoError(t, err)
					limiters = append(limiters, l)
				}
				saturate(t, o, began, limiters, "k", 1, 50*time.Millisecond, 20*time.Second)
				requireHeld(t, o, 0)
				for i := range 2 {
					s := cluster.Node(i).Stats()
					assert.Equal(t, 2, s.Members)
					assert.Equal(t, 2, s.Known)
				}
				assert.Equal(t, 1, outside.Stats().Members)
				theirs, err := outside.Limiter("api", limit)
				require.NoError(t, err)
				d, err := theirs.Take(context.Background(), "k", 1)
				require.NoError(t, err)
				assert.NotEqual(t, peerlimit.OriginRemote, d.Origin)
			})
		})
	}
}
