package membership

import (
	"context"
	"log"
	"log/slog"
	"strings"
	"sync"

	"github.com/peerlimit/peerlimit/internal/printable"
	"github.com/peerlimit/peerlimit/internal/seldom"
)

// gossipLogger returns a logger for memberlist that writes to l. memberlist writes lines that begin with a level in
// brackets and "memberlist: ".
func gossipLogger(l *slog.Logger) *log.Logger {
	return log.New(&gossipLog{logger: l.With("component", "gossip"), kinds: make(map[string]*seldom.Log)}, "", 0)
}

// gossipLog is the writer behind that logger: one Write is one line. Of warnings it writes one of each kind in
// seldom.Interval, and counts the others: most are about what another node has sent, and can be as many as that node likes.
type gossipLog struct {
	logger *slog.Logger

	mu    sync.Mutex // guards kinds, and is not held while anything is written
	kinds map[string]*seldom.Log
}

// maxGossipKinds bounds the kinds of warnings that are told apart, in case that somebody else's words get into a kind;
// memberlist has some forty lines.
const maxGossipKinds = 64

// maxGossipLine bounds a line, in bytes: memberlist writes what packets say.
const maxGossipLine = 1000

// everyday has parts of the lines that memberlist calls warnings or errors although they only say that another node does
// not answer, or is another process now, each time it notices. What follows from it, a member lost, is logged once by us.
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
	text = printable.Cut(text, maxGossipLine)
	switch {
	case level == slog.LevelWarn:
		g.limit(gossipKind(text)).Warn(text)
	case g.logger.Enabled(context.Background(), level):
		g.logger.Log(context.Background(), level, text)
	}
	return len(line), nil
}

// gossipKind returns what lines about the same thing have in common: what is before the first value. memberlist puts a
// value behind a colon or a bracket, in quotes, or names a member after "for", "to" or "node".
func gossipKind(text string) string {
	if end := strings.IndexAny(text, ":('\"0123456789"); end >= 0 {
		text = text[:end]
	}
	for _, word := range []string{" for ", " to ", " node ", "Node "} {
		if before, _, ok := strings.Cut(text, word); ok {
			return before + word
		}
	}
	return text
}

// limit returns what limits lines of a kind.
func (g *gossipLog) limit(kind string) *seldom.Log {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.kinds[kind] == nil {
		if len(g.kinds) >= maxGossipKinds {
			kind = ""
		}
		if g.kinds[kind] == nil {
			g.kinds[kind] = seldom.New(g.logger)
		}
	}
	return g.kinds[kind]
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
