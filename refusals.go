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
	n.refusedRequests.Warn("refused a request", slog.String("from", printable.Text(from)), slog.String("error", printable.Text(err.Error())))
	return wire.AppendResponse(response, &wire.Response{Status: wire.StatusRefused})
}

// refusedConnection is told of somebody who has not said who it is, or is not of this cluster.
func (s server) refusedConnection(remote net.Addr, err error) {
	n := s.node
	n.counters.strangers.Add(1)
	n.refusedConnections.Warn("refused a connection", slog.Any("remote", remote), slog.String("error", printable.Text(err.Error())))
}
