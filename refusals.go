package peerlimit

import (
	"context"
	"log/slog"
	"net"
	"sync"
	"time"

	"github.com/peerlimit/peerlimit/internal/printable"
	"github.com/peerlimit/peerlimit/internal/wire"
)

// refusalInterval is how often the log says that something was refused: who floods a node must not flood its log.
const refusalInterval = 10 * time.Second

// refusals logs what is refused: one at once, those of the next refusalInterval at debug level only, and with the next
// one how many they were.
type refusals struct {
	log *slog.Logger

	mu     sync.Mutex // guards the fields below, and is not held while anything is written
	next   time.Time  // when the next one may be logged
	unsaid int        // since the last one that was
}

func (r *refusals) add(what string, attributes ...any) { r.say(slog.LevelWarn, what, attributes...) }

// say is add at another level.
func (r *refusals) say(level slog.Level, what string, attributes ...any) {
	now := time.Now()
	r.mu.Lock()
	due := !now.Before(r.next)
	unsaid := r.unsaid
	if r.unsaid++; due {
		r.next, r.unsaid = now.Add(refusalInterval), 0
	}
	r.mu.Unlock()
	if !due {
		r.log.Debug(what, attributes...)
		return
	}
	if unsaid > 0 {
		attributes = append(attributes, slog.Int("suppressed", unsaid))
	}
	r.log.Log(context.Background(), level, what, attributes...)
}

// refuse answers a message that makes no sense, and logs why. Keys do not appear in the log.
func (n *Node) refuse(response []byte, from string, err error) []byte {
	n.counters.refused.Add(1)
	n.refusedRequests.add("rejected request from member, is it of a newer version?", slog.String("member", printable.Text(from)), slog.String("err", printable.Text(err.Error())))
	return wire.AppendResponse(response, &wire.Response{Status: wire.StatusRefused})
}

// refusedConnection is told of somebody who has not said who it is, or is not of this cluster.
func (n *Node) refusedConnection(remote net.Addr, err error) {
	n.counters.strangers.Add(1)
	n.refusedConnections.add("rejected connection, does the peer have this cluster's Secret?", slog.Any("addr", remote), slog.String("err", printable.Text(err.Error())))
}
