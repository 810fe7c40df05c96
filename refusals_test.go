package peerlimit

import (
	"errors"
	"log/slog"
	"net"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"

	"github.com/peerlimit/peerlimit/internal/seldom"
)

// A flood of what is refused is a line in the log every ten seconds, and not one is lost from the count.
func TestRefusalsAreLoggedSeldom(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var logs strings.Builder
		node := &Node{refusedConnections: seldom.New(slog.New(slog.NewTextHandler(&logs, nil)))}
		stranger := &net.TCPAddr{IP: net.IPv4(10, 0, 0, 1), Port: 7}
		for range 25 * 1000 { // 25 s
			server{node}.refusedConnection(stranger, errors.New("no TLS"))
			time.Sleep(time.Millisecond)
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

// A peer says what its name is, before anybody knows whether it may be one.
func TestARefusedRequestPrints(t *testing.T) {
	var logs strings.Builder
	node := &Node{refusedRequests: seldom.New(slog.New(slog.NewJSONHandler(&logs, nil)))}
	server{node}.refuse(nil, "api\u009b2J\u202e", errors.New("no such \u009b31m"))
	assert.Contains(t, logs.String(), `"member":"api\\u009b2J\\u202e","err":"no such \\u009b31m"`)
}
