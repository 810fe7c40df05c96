package peerlimit_test

import (
	"crypto/tls"
	"fmt"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/peerlimit/peerlimit"
	"github.com/peerlimit/peerlimit/internal/sim"
)

// Every field that is wrong is refused by name, with the value given.
func TestStartRefusesWhatCannotBe(t *testing.T) {
	secret := []byte("0123456789abcdef0123456789abcdef")
	noCertificate := func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return nil, nil }
	mutual := &tls.Config{Certificates: make([]tls.Certificate, 1), ClientAuth: tls.RequireAndVerifyClientCert}
	for _, test := range []struct {
		config peerlimit.Config
		says   []string
	}{
		{peerlimit.Config{Cluster: strings.Repeat("c", 129)}, []string{"Cluster", "129"}},
		{peerlimit.Config{Name: strings.Repeat("n", 129)}, []string{"Name", "129"}},
		{peerlimit.Config{Name: "two words"}, []string{"Name", `"two words"`}},
		{peerlimit.Config{Name: "bell\a"}, []string{"Name", `"bell\a"`}},
		{peerlimit.Config{Name: "\xff"}, []string{"Name"}},
		{peerlimit.Config{BindAddr: "127.0.0.1:http!"}, []string{"BindAddr", "127.0.0.1:http!", "http!"}},
		{peerlimit.Config{BindAddr: "127.0.0.1:65536"}, []string{"BindAddr", "65536"}},
		{peerlimit.Config{BindAddr: "127.0.0.1:1:2"}, []string{"BindAddr", "127.0.0.1:1:2"}},
		{peerlimit.Config{BindAddr: " 127.0.0.1"}, []string{"BindAddr", "spaces"}},
		{peerlimit.Config{BindAddr: "no.such.host.invalid:1"}, []string{"BindAddr", "no.such.host.invalid"}},
		{peerlimit.Config{BindAddr: "127.0.0.1:65535"}, []string{"RPCAddr", "65535"}},
		{peerlimit.Config{RPCAddr: "127.0.0.1"}, []string{"RPCAddr", "no port"}},
		{peerlimit.Config{BindAddr: "127.0.0.1:7000", RPCAddr: "127.0.0.1:7000"}, []string{"RPCAddr", "BindAddr", "7000"}},
		{peerlimit.Config{AdvertiseAddr: "0.0.0.0:1"}, []string{"AdvertiseAddr", "0.0.0.0:1"}},
		{peerlimit.Config{AdvertiseAddr: "10.0.0.1:x"}, []string{"AdvertiseAddr", "10.0.0.1:x"}},
		{peerlimit.Config{Join: []string{"127.0.0.1:1", ""}}, []string{"Join[1]", "empty"}},
		{peerlimit.Config{Join: []string{":7946"}}, []string{"Join[0]", ":7946", "no host"}},
		{peerlimit.Config{Join: []string{"seed:-1"}}, []string{"Join[0]", "seed:-1", "-1"}},
		{peerlimit.Config{BindAddr: "0.0.0.0:0"}, []string{"BindAddr", "0.0.0.0", "Insecure"}},
		{peerlimit.Config{BindAddr: ":7946"}, []string{"BindAddr", "Insecure"}},
		{peerlimit.Config{RPCAddr: "192.0.2.1:7000"}, []string{"RPCAddr", "192.0.2.1:7000", "Insecure"}},
		{peerlimit.Config{Secret: make([]byte, 31)}, []string{"Secret", "31", "32"}},
		{peerlimit.Config{Secret: []byte{}}, []string{"Secret", "0 bytes of Secret"}},
		{peerlimit.Config{AcceptSecrets: [][]byte{make([]byte, 32)}}, []string{"AcceptSecrets", "Secret is nil"}},
		{peerlimit.Config{Secret: secret, AcceptSecrets: [][]byte{secret, secret[1:]}}, []string{"AcceptSecrets[1]", "31"}},
		{peerlimit.Config{Secret: secret, AcceptSecrets: make([][]byte, 9)}, []string{"AcceptSecrets", "9", "8"}},
		{peerlimit.Config{TLS: new(tls.Config)}, []string{"TLS", "Certificates"}},
		{peerlimit.Config{TLS: &tls.Config{Certificates: make([]tls.Certificate, 1)}}, []string{"TLS.ClientAuth", "NoClientCert"}},
		{
			peerlimit.Config{TLS: &tls.Config{GetCertificate: noCertificate, ClientAuth: tls.RequireAndVerifyClientCert}},
			[]string{"TLS", "GetClientCertificate"},
		},
		{
			peerlimit.Config{TLS: &tls.Config{
				Certificates: make([]tls.Certificate, 1), ClientAuth: tls.RequireAndVerifyClientCert, InsecureSkipVerify: true,
			}},
			[]string{"TLS.InsecureSkipVerify"},
		},
		{peerlimit.Config{BindAddr: "192.0.2.1", TLS: mutual}, []string{"BindAddr", "192.0.2.1", "gossip", "Secret", "Insecure"}},
		{peerlimit.Config{RPCTimeout: -time.Second}, []string{"RPCTimeout", "-1s"}},
		{peerlimit.Config{RPCTimeout: time.Hour}, []string{"RPCTimeout", "1h"}},
		{peerlimit.Config{MaxWait: -time.Second}, []string{"MaxWait", "-1s"}},
		{peerlimit.Config{SplitMemory: -time.Second}, []string{"SplitMemory", "-1s"}},
		{peerlimit.Config{OutvoteAfter: 999 * time.Millisecond}, []string{"OutvoteAfter", "999ms", "at least 1s"}},
		{peerlimit.Config{OutvoteAfter: 2 * time.Minute, SplitMemory: time.Minute}, []string{"OutvoteAfter", "2m0s", "SplitMemory", "1m0s"}},
		{peerlimit.Config{OutvoteAfter: 2 * time.Hour}, []string{"OutvoteAfter", "2h0m0s", "SplitMemory", "1h0m0s"}},
		{peerlimit.Config{MaxKeys: -1}, []string{"MaxKeys", "-1"}},
		{peerlimit.Config{ExpectMembers: -1}, []string{"ExpectMembers", "-1"}},
		{peerlimit.Config{ExpectMembers: 10_001}, []string{"ExpectMembers", "10001"}},
	} {
		t.Run(strings.Join(test.says, " "), func(t *testing.T) {
			node, err := peerlimit.Start(test.config)
			if err == nil {
				_ = node.Close()
			}
			require.ErrorIs(t, err, peerlimit.ErrInvalidConfig)
			require.NotContains(t, err.Error(), string(secret[1:]), "no secret is in an error")
			for _, says := range test.says {
				require.ErrorContains(t, err, says)
			}
		})
	}
}

func TestStartSaysWhichAddressIsInUse(t *testing.T) {
	network := sim.New(1)
	defer network.Close()
	config := peerlimit.Config{BindAddr: "10.0.0.1:7946", Insecure: true, Network: network.Host("10.0.0.1")}
	node, err := peerlimit.Start(config)
	require.NoError(t, err)
	defer node.Close()

	_, err = peerlimit.Start(config)
	require.ErrorIs(t, err, syscall.EADDRINUSE)
	require.ErrorContains(t, err, "RPCAddr")
	require.ErrorContains(t, err, "10.0.0.1:7947")

	config.RPCAddr = "10.0.0.1:0"
	_, err = peerlimit.Start(config)
	require.ErrorIs(t, err, syscall.EADDRINUSE)
	require.ErrorContains(t, err, "BindAddr")
	require.ErrorContains(t, err, "10.0.0.1:7946")
}

func TestStartSaysWhichAddressIsInUseOnRealSockets(t *testing.T) {
	node, err := peerlimit.Start(peerlimit.Config{})
	require.NoError(t, err)
	defer node.Close()
	_, err = peerlimit.Start(peerlimit.Config{BindAddr: node.Self().Addr, RPCAddr: "127.0.0.1:0"})
	require.ErrorIs(t, err, syscall.EADDRINUSE)
	require.ErrorContains(t, err, "BindAddr")
	_, err = peerlimit.Start(peerlimit.Config{RPCAddr: node.Self().RPCAddr})
	require.ErrorIs(t, err, syscall.EADDRINUSE)
	require.ErrorContains(t, err, "RPCAddr")
}

func TestZeroConfigIsAWorkingNode(t *testing.T) {
	node, err := peerlimit.Start(peerlimit.Config{})
	require.NoError(t, err)
	defer node.Close()
	require.NoError(t, node.WaitReady(t.Context(), 1))
	self := node.Self()
	require.True(t, self.Self)
	require.Equal(t, []peerlimit.Member{self}, node.Members())
	require.Regexp(t, `^.+-[0-9a-f]{8}$`, self.Name)
	require.Regexp(t, `^127\.0\.0\.1:\d+$`, self.Addr)
	require.Regexp(t, `^127\.0\.0\.1:\d+$`, self.RPCAddr)
	l, err := node.Limiter("api", peerlimit.PerHour(2))
	require.NoError(t, err)
	require.Equal(t, self, l.Owner("k"))
	for i := range 3 {
		d, err := l.Take(t.Context(), "k", 1)
		require.NoError(t, err)
		require.Equal(t, i < 2, d.Allowed)
		require.Equal(t, peerlimit.OriginLocal, d.Origin)
	}
	require.Equal(t, 1, node.Stats().Keys)
}

// Names for people may be anything printable, and a restarted process is somebody else.
func TestIdentities(t *testing.T) {
	seen := make(map[string]bool)
	for i := range 4 {
		node, err := peerlimit.Start(peerlimit.Config{Name: "größe-1"})
		require.NoError(t, err)
		name := node.Self().Name
		require.NoError(t, node.Close())
		require.Regexp(t, `^größe-1-[0-9a-f]{8}$`, name)
		require.False(t, seen[name], fmt.Sprint(i))
		seen[name] = true
	}
}
