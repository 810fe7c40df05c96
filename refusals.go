package peerlimit

import (
	"log/slog"
	"net"

	"github.com/peerlimit/peerlimit/internal/printable"
	"github.com/peerlimit/peerlimit/internal/wire"
)

// refuse answers a message that makes no sense, and logs why. Keys do not appear in the log.
func (s server) refuse(response []byte, from string, err error) []byte {
	n := s.node
	n.counters.refused.Add(1)
	n.refusedRequests.Warn("rejected request from member, is it of a newer version?", slog.String("member", printable.Text(from)), slog.String("err", printable.Text(err.Error())))
	return wire.AppendResponse(response, &wire.Response{Status: wire.StatusRefused})
}

// refusedConnection is told of a peer that has not authenticated, or is not of this cluster.
func (s server) refusedConnection(remote net.Addr, err error) {
	n := s.node
	n.counters.strangers.Add(1)
	n.refusedConnections.Warn("rejected connection, does the peer have this cluster's Secret?", slog.Any("addr", remote), slog.String("err", printable.Text(err.Error())))
}
