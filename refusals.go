package peerlimit

import (
	"log/slog"
	"net"

	"github.com/peerlimit/peerlimit/internal/membership"
	"github.com/peerlimit/peerlimit/internal/printable"
	"github.com/peerlimit/peerlimit/internal/seldom"
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
	fault := membership.FaultOfConnection(err, n.settings.TLS != nil)
	switch {
	case fault.IsCluster():
		n.counters.otherCluster.Add(1)
	case fault.IsSecret():
		n.counters.otherSecret.Add(1)
	}
	n.refusedConnections[fault].Warn("rejected connection of a peer that is not of this cluster", slog.String("reason", fault.String()), slog.Any("addr", remote), slog.String("err", printable.Text(err.Error())))
}

// newRefusals returns what limits the lines about each fault.
func newRefusals(log *slog.Logger) (refusals [membership.Faults]*seldom.Log) {
	for i := range refusals {
		refusals[i] = seldom.New(log)
	}
	return refusals
}
