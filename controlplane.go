package peerlimit

import (
	"context"
	"errors"
	"log/slog"
	"time"

	"github.com/peerlimit/peerlimit/transport"
)

// The messages of the control plane, on their way: each kind's handler, and how a member is told something when the link
// to it is cut.

// handleControl answers a message of another node that is not about a key. Evidence is answered on the connection's own
// goroutine, because it is about time; all else later, because it can take long.
func (n *Node) handleControl(from string, request, response []byte) (reply []byte, later func(context.Context) []byte) {
	switch messageKind(request[0]) {
	case kindPing:
		p, err := decodePing(request)
		if err != nil {
			return n.refuse(response, from, err), nil
		}
		pong := n.evidence.onPing(from, p)
		return appendPong(response, &pong), nil
	case kindVerdict:
		q, err := decodeVerdictRequest(request)
		if err != nil {
			return n.refuse(response, from, err), nil
		}
		v := n.evidence.onVerdictRequest(from, q)
		return appendVerdict(response, &v), nil
	}
	if messageKind(request[0]) == kindReplica {
		return nil, n.replicaLater(from, request)
	}
	request = append([]byte(nil), request...) // its buffer is reused
	return nil, func(ctx context.Context) []byte {
		response, err := n.answerControl(ctx, from, request)
		switch {
		case errors.Is(err, errNotRelayed):
			return appendAnswer(nil, &answer{status: statusRefused})
		case err != nil:
			return n.refuse(nil, from, err)
		}
		return response
	}
}

// answerControl answers a control message that may take a while.
func (n *Node) answerControl(ctx context.Context, from string, request []byte) ([]byte, error) {
	switch messageKind(request[0]) {
	case kindQuestion:
		q, err := decodeQuestion(request)
		if err != nil {
			return nil, err
		}
		ans, err := n.onQuestion(from, &q)
		if err != nil {
			return nil, err
		}
		return appendQuestionAnswer(nil, ans), nil
	case kindReplica:
		return n.answerReplica(&replicaMemory{message: request})
	case kindSettle:
		q, err := decodeSettleRequest(request)
		if err != nil {
			return nil, err
		}
		return appendSettleAnswer(nil, n.onSettle(&q)), nil
	case kindReport:
		q, err := decodeReport(request)
		if err != nil {
			return nil, err
		}
		ans := n.onReport(&q)
		return appendAnswer(nil, &ans), nil
	case kindRelay:
		r, err := decodeRelay(request)
		if err != nil {
			return nil, err
		}
		return n.onRelay(ctx, &r)
	}
	return nil, errMalformed
}

// askQuestion puts a question to a member: directly, and every other time through another one, because the link may be
// cut without this node's having noticed yet.
func (n *Node) askQuestion(ctx context.Context, to string, q *question, try int) (*questionAnswer, error) {
	response, err := n.tell(ctx, to, appendQuestion(nil, q), askTimeout, try)
	if err != nil {
		return nil, err
	}
	ans, err := decodeQuestionAnswer(response, n.rules.plainSet)
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
	return n.client.Call(ctx, through.Peer, appendRelay(nil, &relay{to: to, from: n.identity, request: request}), timeout)
}

var (
	errBadRelay   = errors.New("peerlimit: a relayed message that is empty, or relayed twice")
	errNotRelayed = errors.New("peerlimit: a relayed message for nobody in reach") // which is what relays are tried for
)

// onRelay sends a message on to the member it is for, and returns that one's answer.
func (n *Node) onRelay(ctx context.Context, r *relay) ([]byte, error) {
	if len(r.request) == 0 || messageKind(r.request[0]) == kindRelay {
		return nil, errBadRelay
	}
	to := n.route.Load().others[r.to]
	if to == nil || !n.linked(to) {
		return nil, errNotRelayed
	}
	response, err := n.client.Call(ctx, to.Peer, r.request, askTimeout/2)
	if err != nil {
		n.log.Debug("not relayed", slog.String("to", r.to), slog.Any("error", err))
		return nil, errNotRelayed
	}
	return response, nil
}
