package secret

import (
	"bytes"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"net"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func testSecret(b byte) []byte { return bytes.Repeat([]byte{b}, MinLen) }

func TestKeysAreOfTheSecretAndTheCluster(t *testing.T) {
	derive := func(cluster string, secret []byte) *Keys {
		keys, err := Derive(cluster, secret)
		require.NoError(t, err)
		return keys
	}
	one := derive("api", testSecret(1))
	assert.Equal(t, one, derive("api", testSecret(1)))
	assert.Len(t, one.Gossip, 32)
	for _, other := range []*Keys{derive("web", testSecret(1)), derive("api", testSecret(2))} {
		assert.NotEqual(t, one.Gossip, other.Gossip)
		assert.NotEqual(t, one.Takes, other.Takes)
	}
	assert.NotContains(t, string(one.Takes), string(one.Gossip))
}

// handshake lets a client and a server of takes meet, and returns what each thinks of it once the client has heard.
func handshake(t *testing.T, client, server Encryption) (clientErr, serverErr error) {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer listener.Close()
	done := make(chan error, 1)
	go func() {
		raw, err := listener.Accept()
		if err != nil {
			done <- err
			return
		}
		defer raw.Close()
		_ = raw.SetDeadline(time.Now().Add(5 * time.Second))
		conn := raw
		if wrap := server.WrapServer(); wrap != nil {
			conn = wrap(raw)
		}
		hello := make([]byte, 5)
		if _, err = conn.Read(hello); err == nil {
			_, err = conn.Write(hello)
		}
		done <- err
	}()
	raw, err := net.Dial("tcp", listener.Addr().String())
	require.NoError(t, err)
	defer raw.Close()
	_ = raw.SetDeadline(time.Now().Add(5 * time.Second))
	conn := raw
	if wrap := client.WrapClient(); wrap != nil {
		conn = wrap(raw)
	}
	if _, clientErr = conn.Write([]byte("hello")); clientErr == nil {
		answer := make([]byte, 5)
		if _, clientErr = conn.Read(answer); clientErr == nil && string(answer) != "hello" {
			clientErr = ErrNoMember
		}
	}
	raw.Close()
	return clientErr, <-done
}

func encrypted(t *testing.T, cluster string, secret []byte, accepted ...[]byte) Encryption {
	t.Helper()
	e, err := For(cluster, secret, accepted, nil)
	require.NoError(t, err)
	return e
}

func TestMembersMeetAndStrangersDoNot(t *testing.T) {
	old, next := testSecret(1), testSecret(2)
	for name, test := range map[string]struct {
		client, server Encryption
		meet           bool
	}{
		"one secret":                   {encrypted(t, "api", old), encrypted(t, "api", old), true},
		"another secret":               {encrypted(t, "api", next), encrypted(t, "api", old), false},
		"another cluster":              {encrypted(t, "web", old), encrypted(t, "api", old), false},
		"the next one is accepted":     {encrypted(t, "api", old, next), encrypted(t, "api", next, old), true},
		"and the other way round":      {encrypted(t, "api", next, old), encrypted(t, "api", old, next), true},
		"the old one is not any more":  {encrypted(t, "api", old, next), encrypted(t, "api", next), false},
		"the server accepts, only":     {encrypted(t, "api", next), encrypted(t, "api", old, next), false},
		"plain bytes to an encrypted":  {Encryption{}, encrypted(t, "api", old), false},
		"encrypted bytes to a plain":   {encrypted(t, "api", old), Encryption{}, false},
		"the client has no secret":     {Encryption{client: &tls.Config{InsecureSkipVerify: true}}, encrypted(t, "api", old), false},
		"the server has another key":   {encrypted(t, "api", old), foreign(t), false},
		"the client has a foreign key": {foreign(t), encrypted(t, "api", old), false},
	} {
		t.Run(name, func(t *testing.T) {
			clientErr, serverErr := handshake(t, test.client, test.server)
			if test.meet {
				assert.NoError(t, clientErr)
				assert.NoError(t, serverErr)
				return
			}
			assert.Error(t, clientErr)
			for _, err := range []error{clientErr, serverErr} {
				if err != nil {
					assert.NotContains(t, err.Error(), string(old))
				}
			}
		})
	}
}

// foreign shows a certificate that looks like a member's, with a key of its own.
func foreign(t *testing.T) Encryption {
	t.Helper()
	_, key, err := ed25519.GenerateKey(rand.Reader)
	require.NoError(t, err)
	certificate, err := certify(key)
	require.NoError(t, err)
	config := &tls.Config{
		Certificates: []tls.Certificate{certificate}, InsecureSkipVerify: true, ClientAuth: tls.RequireAnyClientCert,
	}
	return Encryption{server: config, client: config}
}

// A caller's own configuration is used as it is, but not below TLS 1.3; a renewed certificate is shown to the next one.
func TestOwnTLSIsUsed(t *testing.T) {
	authority, pool := newAuthority(t)
	shown := authority.issue(t, "127.0.0.1")
	config := &tls.Config{
		GetCertificate:       func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return shown, nil },
		GetClientCertificate: func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return shown, nil },
		ClientAuth:           tls.RequireAndVerifyClientCert, ClientCAs: pool, RootCAs: pool,
	}
	e, err := For("api", nil, nil, config)
	require.NoError(t, err)
	assert.Nil(t, e.Keyring, "gossip is in the clear")
	clientErr, serverErr := handshake(t, e, e)
	require.NoError(t, clientErr)
	require.NoError(t, serverErr)

	shown = authority.issue(t, "127.0.0.1")
	clientErr, _ = handshake(t, e, e)
	assert.NoError(t, clientErr, "renewed")
	shown = authority.issue(t, "10.1.2.3")
	clientErr, _ = handshake(t, e, e)
	assert.Error(t, clientErr, "for another address")
	other, _ := newAuthority(t)
	shown = other.issue(t, "127.0.0.1")
	clientErr, _ = handshake(t, e, e)
	assert.Error(t, clientErr, "by another authority")

	weak := Encryption{client: &tls.Config{InsecureSkipVerify: true, MaxVersion: tls.VersionTLS12}}
	clientErr, _ = handshake(t, weak, e)
	assert.Error(t, clientErr, "TLS 1.2")
}

// authority is a certificate authority of a test.
type authority struct {
	certificate *x509.Certificate
	key         ed25519.PrivateKey
}

func newAuthority(t *testing.T) (*authority, *x509.CertPool) {
	t.Helper()
	_, key, err := ed25519.GenerateKey(rand.Reader)
	require.NoError(t, err)
	template := certificateTemplate()
	template.IsCA, template.BasicConstraintsValid, template.KeyUsage = true, true, x509.KeyUsageCertSign
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	require.NoError(t, err)
	certificate, err := x509.ParseCertificate(der)
	require.NoError(t, err)
	pool := x509.NewCertPool()
	pool.AddCert(certificate)
	return &authority{certificate, key}, pool
}

func (a *authority) issue(t *testing.T, address string) *tls.Certificate {
	t.Helper()
	_, key, err := ed25519.GenerateKey(rand.Reader)
	require.NoError(t, err)
	template := certificateTemplate()
	template.IPAddresses = []net.IP{net.ParseIP(address)}
	der, err := x509.CreateCertificate(rand.Reader, template, a.certificate, key.Public(), a.key)
	require.NoError(t, err)
	return &tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
}
