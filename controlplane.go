package peerlimit

import (
	"context"
	"errors"
	"log/slog"
	"time"

	"github.com/peerlimit/peerlimit/internal/wire"
)

// The messages of the control plane, on their way: each kind's handler, and how a member is told something when the link
// to it is cut.

// handleControl answers a message of another node that is not about a key. Quorum is answered on the connection's own
// goroutine, because it is about time; all else later, because it can take long.
func (s server) handleControl(from string, request, response []byte) (reply []byte, later func(context.Context) []byte) {
	n := s.node
	switch wire.Kind(request[0]) {
	case wire.KindPing:
		p, err := wire.DecodePing(request)
		if err != nil {
			return s.refuse(response, from, err), nil
		}
		pong := n.prober.OnPing(from, p)
		return wire.AppendPong(response, &pong), nil
	case wire.KindVerdict:
		q, err := wire.DecodeVerdictRequest(request)
		if err != nil {
			return s.refuse(response, from, err), nil
		}
		v := n.prober.OnVerdictRequest(q)
		return wire.AppendVerdict(response, &v), nil
	case wire.KindPanel:
		q, err := wire.DecodePanelRequest(request)
		if err != nil {
			return s.refuse(response, from, err), nil
		}
		answer, ok := n.prober.OnPanelRequest(from, &q)
		if !ok {
			return wire.AppendResponse(response, &wire.Response{Status: wire.StatusRefused}), nil
		}
		return wire.AppendPanelAnswer(response, &answer), nil
	}
	if wire.Kind(request[0]) == wire.KindWake {
		return s.onWake(from, request, response), nil
	}
	if wire.Kind(request[0]) == wire.KindReplica {
		take := n.replicator.Later(request, func(err error) []byte { return s.refuse(nil, from, err) })
		return nil, func(context.Context) []byte { return take() }
	}
	request = append([]byte(nil), request...) // its buffer is reused
	return nil, func(ctx context.Context) []byte {
		response, err := s.answerControl(ctx, from, request)
		switch {
		case errors.Is(err, errNotRelayed):
			return wire.AppendResponse(nil, &wire.Response{Status: wire.StatusRefused})
		case err != nil:
			return s.refuse(nil, from, err)
		}
		return response
	}
}

// answerControl answers a control message that may take a while.
func (s server) answerControl(ctx context.Context, from string, request []byte) ([]byte, error) {
	n := s.node
	switch wire.Kind(request[0]) {
	case wire.KindAcquire:
		q, err := wire.DecodeAcquireRequest(request)
		if err != nil {
			return nil, err
		}
		ans, err := n.keeper.Answer(from, &q)
		if err != nil {
			return nil, err
		}
		return wire.AppendAcquireResponse(nil, ans), nil
	case wire.KindReplica:
		return n.replicator.Answer(&wire.ReplicaMemory{Message: request})
	case wire.KindSettle:
		q, err := wire.DecodeSettleRequest(request)
		if err != nil {
			return nil, err
		}
		return wire.AppendSettleResponse(nil, n.replicator.AnswerSettle(&q)), nil
	case wire.KindDebt:
		q, err := wire.DecodeDebt(request)
		if err != nil {
			return nil, err
		}
		n.reach.Check(n.now())
		ans := n.reporter.Charge(&q)
		return wire.AppendResponse(nil, &ans), nil
	case wire.KindRelay:
		r, err := wire.DecodeRelay(request)
		if err != nil {
			return nil, err
		}
		return s.onRelay(ctx, &r)
	}
	return nil, wire.ErrMalformed
}

// relayTimeout bounds how long a message that was sent on is waited for: half of what the one that asks for the relay waits.
const relayTimeout = 250 * time.Millisecond

// onRelay sends a message on to the member it is for, and returns that one's answer.
func (s server) onRelay(ctx context.Context, r *wire.Relay) ([]byte, error) {
	n := s.node
	if len(r.Request) == 0 || wire.Kind(r.Request[0]) == wire.KindRelay {
		return nil, errBadRelay
	}
	to := n.route.Load().others[r.To]
	if to == nil || !n.others.linked(to) {
		return nil, errNotRelayed
	}
	response, err := n.client.Call(ctx, to.Peer, r.Request, relayTimeout)
	if err != nil {
		n.log.Debug("request not relayed", slog.String("member", r.To), slog.Any("err", err))
		return nil, errNotRelayed
	}
	return response, nil
}
