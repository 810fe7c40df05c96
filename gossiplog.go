package peerlimit

import (
	"context"
	"log"
	"log/slog"
	"strings"

	"github.com/peerlimit/peerlimit/internal/printable"
)

// gossipLogger returns a logger for memberlist that writes to l. memberlist writes lines that begin with a level in
// brackets and "memberlist: ".
func gossipLogger(l *slog.Logger) *log.Logger {
	return log.New(&gossipLog{l.With("component", "gossip")}, "", 0)
}

// gossipLog is the writer behind that logger: one Write is one line.
type gossipLog struct{ logger *slog.Logger }

// maxGossipLine bounds a line, in bytes: memberlist writes what packets say.
const maxGossipLine = 1000

// everyday has parts of the lines that memberlist calls warnings or errors although they only say that another node does
// not answer, or is not who it was, each time it notices. What follows from it, a member lost, is logged once by us.
var everyday = []string{
	"Failed fallback TCP ping",
	"Failed to send",
	"Failed to forward ack",
	"Push/Pull with",
	"Got ping for unexpected node",
	"unacceptable label",
	"failed to receive",
	"Failed push/pull merge",
	"Failed to read remote state",
	"Failed to push local state",
}

// Write logs one line. memberlist's errors are warnings here: none of them stops the node.
func (g *gossipLog) Write(line []byte) (int, error) {
	level, text := splitGossipLine(string(line))
	if g.logger.Enabled(context.Background(), level) {
		g.logger.Log(context.Background(), level, printable.Cut(text, maxGossipLine))
	}
	return len(line), nil
}

func splitGossipLine(line string) (slog.Level, string) {
	text := strings.TrimSpace(line)
	prefix, rest, ok := strings.Cut(text, "] ")
	if !ok || !strings.HasPrefix(prefix, "[") {
		return slog.LevelWarn, text
	}
	text = strings.TrimPrefix(rest, "memberlist: ")
	if prefix == "[DEBUG" || prefix == "[INFO" {
		return slog.LevelDebug, text
	}
	for _, part := range everyday {
		if strings.Contains(text, part) {
			return slog.LevelDebug, text
		}
	}
	return slog.LevelWarn, text
}
