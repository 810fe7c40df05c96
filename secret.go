package peerlimit

import (
	"bytes"
	"crypto/ed25519"
	"crypto/hkdf"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net"
	"time"

	"github.com/hashicorp/memberlist"
)

// Encryption. Everything a cluster says is encrypted and authenticated with what is derived from Config.Secret: gossip by
// memberlist with AES-256-GCM, takes by mutual TLS 1.3. All members have the same TLS key, so a peer is either a member
// or none; what it says of itself, members believe of each other.
//
// The secret itself is used for nothing but deriving (HKDF, RFC 5869, with the cluster's name as salt), so neither key
// tells anything about the other or about another cluster that has the same secret.

const (
	// minSecretLen keeps out passwords: who records traffic can try as many as they like.
	minSecretLen = 32

	// maxAccepted bounds AcceptSecrets: a rotation needs one.
	maxAccepted = 8
)

// secretKeys are what is derived from one secret.
type secretKeys struct {
	gossip []byte // AES-256
	takes  ed25519.PrivateKey
}

// Format keeps derived keys out of whatever is printed.
func (secretKeys) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, "(keys)") }

func deriveKeys(cluster string, secret []byte) (*secretKeys, error) {
	gossip, err := hkdf.Key(sha256.New, secret, []byte(cluster), "peerlimit gossip 1", 32)
	if err != nil {
		return nil, err
	}
	seed, err := hkdf.Key(sha256.New, secret, []byte(cluster), "peerlimit takes 1", ed25519.SeedSize)
	if err != nil {
		return nil, err
	}
	return &secretKeys{gossip: gossip, takes: ed25519.NewKeyFromSeed(seed)}, nil
}

// encryption is how a node speaks to others; the zero value is in the clear.
type encryption struct {
	server, client *tls.Config         // of takes; nil: not encrypted
	keyring        *memberlist.Keyring // of gossip; nil: not encrypted
}

// encryptionFor prepares the keys. secret is the one to encrypt with; accepted ones are understood as well.
func encryptionFor(cluster string, secret []byte, accepted [][]byte, own *tls.Config) (e encryption, err error) {
	if len(secret) > 0 {
		var all []*secretKeys
		for _, s := range append([][]byte{secret}, accepted...) {
			keys, err := deriveKeys(cluster, s)
			if err != nil {
				return encryption{}, err
			}
			all = append(all, keys)
		}
		if e.keyring, err = keyringOf(all); err != nil {
			return encryption{}, err
		}
		if e.server, err = memberTLS(all); err != nil {
			return encryption{}, err
		}
		e.client = e.server
	}
	if own != nil {
		e.server, e.client = own.Clone(), own.Clone()
		e.server.MinVersion, e.client.MinVersion = tls.VersionTLS13, tls.VersionTLS13
	}
	return e, nil
}

func keyringOf(all []*secretKeys) (*memberlist.Keyring, error) {
	var others [][]byte
	for _, keys := range all[1:] {
		others = append(others, keys.gossip)
	}
	return memberlist.NewKeyring(others, all[0].gossip)
}

// memberTLS returns how members prove to each other that they know a secret: each shows a certificate with the public key
// that belongs to it, and TLS proves that it has the private one. Names, dates and signatures in the certificate mean
// nothing, so neither clocks nor addresses matter.
func memberTLS(all []*secretKeys) (*tls.Config, error) {
	certificate, err := certify(all[0].takes)
	if err != nil {
		return nil, err
	}
	var members [][]byte
	for _, keys := range all {
		members = append(members, keys.takes.Public().(ed25519.PublicKey))
	}
	return &tls.Config{
		MinVersion:             tls.VersionTLS13,
		Certificates:           []tls.Certificate{certificate},
		ClientAuth:             tls.RequireAnyClientCert,
		InsecureSkipVerify:     true, // #nosec G402 -- VerifyConnection is stricter: one of these keys and no other
		SessionTicketsDisabled: true, // links last; a ticket would outlive the secret
		VerifyConnection: func(state tls.ConnectionState) error {
			if len(state.PeerCertificates) > 0 {
				shown, _ := state.PeerCertificates[0].PublicKey.(ed25519.PublicKey)
				for _, member := range members {
					if bytes.Equal(shown, member) {
						return nil
					}
				}
			}
			return errStranger
		},
	}, nil
}

var errStranger = errors.New("peerlimit: the other side does not have the cluster's secret")

// certify makes the certificate that carries a key.
func certify(key ed25519.PrivateKey) (tls.Certificate, error) {
	template := certificateTemplate()
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		return tls.Certificate{}, err
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, nil
}

func certificateTemplate() *x509.Certificate {
	return &x509.Certificate{
		SerialNumber: big.NewInt(1),
		Subject:      pkix.Name{CommonName: "peerlimit member"},
		NotBefore:    time.Unix(0, 0),
		NotAfter:     time.Date(9999, 12, 31, 23, 59, 59, 0, time.UTC), // RFC 5280: never expires
		KeyUsage:     x509.KeyUsageDigitalSignature,
		ExtKeyUsage:  []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}
}

// wrapServer returns what makes connections of takes encrypted where they are accepted, or nil when they are not.
func (e *encryption) wrapServer() func(net.Conn) net.Conn {
	if e.server == nil {
		return nil
	}
	return func(conn net.Conn) net.Conn { return tls.Server(conn, e.server) }
}

// wrapClient returns the same for where they are dialled. A configuration of the caller's that names no server expects the
// address that is dialled in the other side's certificate.
func (e *encryption) wrapClient() func(net.Conn) net.Conn {
	if e.client == nil {
		return nil
	}
	return func(conn net.Conn) net.Conn {
		config := e.client
		if config.ServerName == "" && !config.InsecureSkipVerify {
			config = config.Clone()
			config.ServerName = hostOf(conn.RemoteAddr())
		}
		return tls.Client(conn, config)
	}
}

func hostOf(addr net.Addr) string {
	host, _, err := net.SplitHostPort(addr.String())
	if err != nil {
		return addr.String()
	}
	return host
}
