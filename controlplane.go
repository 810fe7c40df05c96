package peerlimit

import (
	"context"
	"errors"
	"log/slog"
	"time"

	"github.com/peerlimit/peerlimit/internal/wire"
	"github.com/peerlimit/peerlimit/transport"
)

// The messages of the control plane, on their way: each kind's handler, and how a member is told something when the link
// to it is cut.

// handleControl answers a message of another node that is not about a key. Evidence is answered on the connection's own
// goroutine, because it is about time; all else later, because it can take long.
func (n *Node) handleControl(from string, request, response []byte) (reply []byte, later func(context.Context) []byte) {
	switch wire.Kind(request[0]) {
	case wire.KindPing:
		p, err := wire.DecodePing(request)
		if err != nil {
			return n.refuse(response, from, err), nil
		}
		pong := n.evidence.OnPing(from, p)
		return wire.AppendPong(response, &pong), nil
	case wire.KindVerdict:
		q, err := wire.DecodeVerdictRequest(request)
		if err != nil {
			return n.refuse(response, from, err), nil
		}
		v := n.evidence.OnVerdictRequest(from, q)
		return wire.AppendVerdict(response, &v), nil
	}
	if wire.Kind(request[0]) == wire.KindReplica {
		return nil, n.replicaLater(from, request)
	}
	request = append([]byte(nil), request...) // its buffer is reused
	return nil, func(ctx context.Context) []byte {
		response, err := n.answerControl(ctx, from, request)
		switch {
		case errors.Is(err, errNotRelayed):
			return wire.AppendResponse(nil, &wire.Response{Status: wire.StatusRefused})
		case err != nil:
			return n.refuse(nil, from, err)
		}
		return response
	}
}

// answerControl answers a control message that may take a while.
func (n *Node) answerControl(ctx context.Context, from string, request []byte) ([]byte, error) {
	switch wire.Kind(request[0]) {
	case wire.KindAcquire:
		q, err := wire.DecodeAcquireRequest(request)
		if err != nil {
			return nil, err
		}
		ans, err := n.onQuestion(from, &q)
		if err != nil {
			return nil, err
		}
		return wire.AppendAcquireResponse(nil, ans), nil
	case wire.KindReplica:
		return n.answerReplica(&wire.ReplicaMemory{Message: request})
	case wire.KindSettle:
		q, err := wire.DecodeSettleRequest(request)
		if err != nil {
			return nil, err
		}
		return wire.AppendSettleResponse(nil, n.onSettle(&q)), nil
	case wire.KindDebt:
		q, err := wire.DecodeDebt(request)
		if err != nil {
			return nil, err
		}
		ans := n.onReport(&q)
		return wire.AppendResponse(nil, &ans), nil
	case wire.KindRelay:
		r, err := wire.DecodeRelay(request)
		if err != nil {
			return nil, err
		}
		return n.onRelay(ctx, &r)
	}
	return nil, wire.ErrMalformed
}

// askQuestion puts a question to a member: directly, and every other time through another one, because the link may be
// cut without this node's having noticed yet.
func (n *Node) askQuestion(ctx context.Context, to string, q *wire.AcquireRequest, try int) (*wire.AcquireResponse, error) {
	response, err := n.tell(ctx, to, wire.AppendAcquireRequest(nil, q), askTimeout, try)
	if err != nil {
		return nil, err
	}
	ans, err := wire.DecodeAcquireResponse(response, n.rules.PlainSet)
	if err != nil {
		return nil, err
	}
	return &ans, nil
}

// tell sends a control message to a member and returns its answer. On odd tries, and when the link is down, it goes
// through another member.
func (n *Node) tell(ctx context.Context, to string, request []byte, timeout time.Duration, try int) ([]byte, error) {
	route := n.route.Load()
	direct := route.others[to]
	if direct != nil && n.linked(direct) && try%2 == 0 {
		return n.client.Call(ctx, direct.Peer, request, timeout)
	}
	through := n.neighbour(route, to, n.identity)
	if through == nil {
		if direct == nil || !n.linked(direct) {
			return nil, transport.ErrUnreachable
		}
		return n.client.Call(ctx, direct.Peer, request, timeout)
	}
	return n.client.Call(ctx, through.Peer, wire.AppendRelay(nil, &wire.Relay{To: to, From: n.identity, Request: request}), timeout)
}

var (
	errBadRelay   = errors.New("peerlimit: a relayed message that is empty, or relayed twice")
	errNotRelayed = errors.New("peerlimit: a relayed message for nobody in reach") // which is what relays are tried for
)

// onRelay sends a message on to the member it is for, and returns that one's answer.
func (n *Node) onRelay(ctx context.Context, r *wire.Relay) ([]byte, error) {
	if len(r.Request) == 0 || wire.Kind(r.Request[0]) == wire.KindRelay {
		return nil, errBadRelay
	}
	to := n.route.Load().others[r.To]
	if to == nil || !n.linked(to) {
		return nil, errNotRelayed
	}
	response, err := n.client.Call(ctx, to.Peer, r.Request, askTimeout/2)
	if err != nil {
		n.log.Debug("request not relayed", slog.String("member", r.To), slog.Any("err", err))
		return nil, errNotRelayed
	}
	return response, nil
}
