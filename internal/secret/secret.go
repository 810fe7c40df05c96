package secret

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
	// MinLen keeps out passwords: a peer that records traffic can try as many as it likes.
	MinLen = 32

	// MaxAccepted bounds AcceptSecrets: a rotation needs one.
	MaxAccepted = 8
)

// Keys are what is derived from one secret.
type Keys struct {
	Gossip []byte // AES-256
	Takes  ed25519.PrivateKey
}

// Format keeps derived keys out of whatever is printed.
func (Keys) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, "(keys)") }

// MarshalText keeps them out of JSON, and of what slog makes of it.
func (Keys) MarshalText() ([]byte, error) { return []byte("(keys)"), nil }

func Derive(cluster string, secret []byte) (*Keys, error) {
	gossip, err := hkdf.Key(sha256.New, secret, []byte(cluster), "peerlimit gossip 1", 32)
	if err != nil {
		return nil, err
	}
	seed, err := hkdf.Key(sha256.New, secret, []byte(cluster), "peerlimit takes 1", ed25519.SeedSize)
	if err != nil {
		return nil, err
	}
	return &Keys{Gossip: gossip, Takes: ed25519.NewKeyFromSeed(seed)}, nil
}

// Encryption is how a node speaks to others; the zero value is in the clear.
type Encryption struct {
	server, client *tls.Config         // of takes; nil: not encrypted
	Keyring        *memberlist.Keyring // of gossip; nil: not encrypted
}

// For prepares the keys. secret is the one to encrypt with; accepted ones are understood as well.
func For(cluster string, secret []byte, accepted [][]byte, own *tls.Config) (e Encryption, err error) {
	if len(secret) > 0 {
		var all []*Keys
		for _, s := range append([][]byte{secret}, accepted...) {
			keys, err := Derive(cluster, s)
			if err != nil {
				return Encryption{}, err
			}
			all = append(all, keys)
		}
		if e.Keyring, err = keyringOf(all); err != nil {
			return Encryption{}, err
		}
		if e.server, err = memberTLS(all); err != nil {
			return Encryption{}, err
		}
		e.client = e.server
	}
	if own != nil {
		e.server, e.client = own.Clone(), own.Clone()
		e.server.MinVersion, e.client.MinVersion = tls.VersionTLS13, tls.VersionTLS13
	}
	return e, nil
}

func keyringOf(all []*Keys) (*memberlist.Keyring, error) {
	var others [][]byte
	for _, keys := range all[1:] {
		others = append(others, keys.Gossip)
	}
	return memberlist.NewKeyring(others, all[0].Gossip)
}

// memberTLS returns how members prove to each other that they know a secret: each shows a certificate with the public key
// that belongs to it, and TLS proves that it has the private one. Names, dates and signatures in the certificate mean
// nothing, so neither clocks nor addresses matter.
func memberTLS(all []*Keys) (*tls.Config, error) {
	certificate, err := certify(all[0].Takes)
	if err != nil {
		return nil, err
	}
	var members [][]byte
	for _, keys := range all {
		members = append(members, keys.Takes.Public().(ed25519.PublicKey))
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
			return ErrNoMember
		},
	}, nil
}

// ErrNoMember is of a peer whose certificate has none of the cluster's keys.
var ErrNoMember = errors.New("peerlimit: the other side does not have the cluster's secret")

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

// WrapServer returns what makes connections of takes encrypted where they are accepted, or nil when they are not.
func (e *Encryption) WrapServer() func(net.Conn) net.Conn {
	if e.server == nil {
		return nil
	}
	return func(conn net.Conn) net.Conn { return tls.Server(conn, e.server) }
}

// WrapClient returns the same for where they are dialled. A configuration of the caller's that names no server expects the
// address that is dialled in the other side's certificate.
func (e *Encryption) WrapClient() func(net.Conn) net.Conn {
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
