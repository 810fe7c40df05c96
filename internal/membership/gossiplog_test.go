package membership

import (
	"bytes"
	"log"
	"log/slog"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
)

func TestGossipLogLevels(t *testing.T) {
	for line, want := range map[string]string{
		"[DEBUG] memberlist: Stream connection from=1.2.3.4:5":                     "level=DEBUG msg=\"Stream connection from=1.2.3.4:5\" component=gossip\n",
		"[INFO] memberlist: Suspect x has failed, no acks received\n":              "level=DEBUG msg=\"Suspect x has failed, no acks received\" component=gossip\n",
		"[WARN] memberlist: Refuting a suspect message (from: x)":                  "level=WARN msg=\"Refuting a suspect message (from: x)\" component=gossip\n",
		"[ERR] memberlist: Conflicting address for x":                              "level=WARN msg=\"Conflicting address for x\" component=gossip\n",
		"[ERR] memberlist: Push/Pull with x failed: EOF":                           "level=DEBUG msg=\"Push/Pull with x failed: EOF\" component=gossip\n",
		"[ERR] memberlist: discarding stream with unacceptable label \"b\": from=": "level=DEBUG msg=\"discarding stream with unacceptable label \\\"b\\\": from=\" component=gossip\n",
		"[WARN] memberlist: Got ping for unexpected node x from=1.2.3.4:5":         "level=DEBUG msg=\"Got ping for unexpected node x from=1.2.3.4:5\" component=gossip\n",
		"Err: Could not set the deadline: x":                                       "level=WARN msg=\"Err: Could not set the deadline: x\" component=gossip\n",
	} {
		var out bytes.Buffer
		handler := slog.NewTextHandler(&out, &slog.HandlerOptions{Level: slog.LevelDebug, ReplaceAttr: withoutTime})
		gossipLogger(slog.New(handler)).Print(line)
		assert.Equal(t, want, out.String())
	}
}

func TestGossipLogAsksTheHandlerFirst(t *testing.T) {
	var out bytes.Buffer
	gossipLogger(slog.New(slog.NewTextHandler(&out, nil))).Print("[DEBUG] memberlist: Stream connection")
	assert.Empty(t, out.String())
}

func withoutTime(_ []string, a slog.Attr) slog.Attr {
	if a.Key == slog.TimeKey {
		return slog.Attr{}
	}
	return a
}

// memberlist writes what packets say. slog's default handler writes messages as they are.
func TestGossipLogPrints(t *testing.T) {
	var out bytes.Buffer
	old, flags := log.Writer(), log.Flags()
	log.SetOutput(&out)
	log.SetFlags(0)
	defer func() {
		log.SetOutput(old)
		log.SetFlags(flags)
	}()
	logger := gossipLogger(slog.Default())
	logger.Print("[ERR] memberlist: Conflicting address for x\x1b[2J\u009b31m\u202e\xff\nsecond line")
	assert.Equal(t, `WARN Conflicting address for x\x1b[2J\u009b31m\u202e\xff\nsecond line component=gossip`+"\n", out.String())
	out.Reset()
	logger.Print("[ERR] memberlist: " + strings.Repeat("\x1b", 100_000))
	assert.Less(t, out.Len(), 5_000)
}
