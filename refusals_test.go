package peerlimit

import (
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"

	"github.com/peerlimit/peerlimit/internal/membership"
	"github.com/peerlimit/peerlimit/internal/secret"
	"github.com/peerlimit/peerlimit/internal/seldom"
	"github.com/peerlimit/peerlimit/transport"
)

// A flood of what is refused is a line in the log every minute, and not one is lost from the count.
func TestRefusalsAreLoggedSeldom(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var logs strings.Builder
		node := &Node{settings: &settings{}, refusedConnections: newRefusals(slog.New(slog.NewTextHandler(&logs, nil)))}
		stranger := &net.TCPAddr{IP: net.IPv4(10, 0, 0, 1), Port: 7}
		for range 25 * 1000 { // 150 s
			server{node}.refusedConnection(stranger, errors.New("no TLS"))
			time.Sleep(6 * time.Millisecond)
		}
		lines := strings.Split(strings.TrimSpace(logs.String()), "\n")
		assert.Len(t, lines, 3)
		for _, line := range lines {
			assert.Contains(t, line, "level=WARN")
			assert.Contains(t, line, `"no TLS"`)
			assert.Contains(t, line, "10.0.0.1:7")
		}
		assert.NotContains(t, lines[0], "suppressed")
		assert.Contains(t, lines[1], "suppressed=9999")
		assert.EqualValues(t, 25_000, node.counters.strangers.Load())
	})
}

// What a connection for takes ended with says which of the two sides is to be set up otherwise.
func TestFaultsOfConnections(t *testing.T) {
	remote := &net.OpError{Op: "remote error", Err: errors.New("tls: bad certificate")}
	plain := tls.RecordHeaderError{RecordHeader: [5]byte{'P', 'L', 'M', 'T', 0}}
	for name, c := range map[string]struct {
		err          error
		ours, theirs membership.Fault // with Secret alone; with Config.TLS
	}{
		"another Cluster":     {&transport.HandshakeError{Status: transport.HandshakeCluster}, membership.FaultCluster, membership.FaultCluster},
		"another version":     {&transport.HandshakeError{Status: transport.HandshakeVersion}, membership.FaultVersion, membership.FaultVersion},
		"another key":         {fmt.Errorf("tls: %w", secret.ErrNoMember), membership.FaultSecret, membership.FaultSecret},
		"it refuses ours":     {remote, membership.FaultSecret, membership.FaultCertificate},
		"we refuse its":       {&tls.CertificateVerificationError{Err: errors.New("unknown")}, membership.FaultForeign, membership.FaultCertificate},
		"it speaks no TLS":    {plain, membership.FaultNoSecretThere, membership.FaultCertificate},
		"we speak none":       {fmt.Errorf("x: %w", transport.ErrTLS), membership.FaultNoSecretHere, membership.FaultNoSecretHere},
		"noise instead":       {tls.RecordHeaderError{}, membership.FaultForeign, membership.FaultForeign},
		"noise without a TLS": {errors.New("malformed handshake"), membership.FaultForeign, membership.FaultForeign},
	} {
		assert.Equal(t, c.ours.String(), membership.FaultOfConnection(c.err, false).String(), name)
		assert.Equal(t, c.theirs.String(), membership.FaultOfConnection(c.err, true).String(), name)
	}
}

// A peer says what its name is, before anybody knows whether it may be one.
func TestARefusedRequestPrints(t *testing.T) {
	var logs strings.Builder
	node := &Node{refusedRequests: seldom.New(slog.New(slog.NewJSONHandler(&logs, nil)))}
	server{node}.refuse(nil, "api\u009b2J\u202e", errors.New("no such \u009b31m"))
	assert.Contains(t, logs.String(), `"member":"api\\u009b2J\\u202e","err":"no such \\u009b31m"`)
}
