package peerlimit

import (
	"context"

	"github.com/peerlimit/peerlimit/internal/membership"
	"github.com/peerlimit/peerlimit/internal/quorum"
	"github.com/peerlimit/peerlimit/internal/wire"
	"github.com/peerlimit/peerlimit/transport"
)

// witnesses asks members whether they hear this node, and what they say of others.
type witnesses struct{ node *Node }

// witnessing is how quorum talks to the other members and learns of them.
func (w witnesses) witnessing() quorum.IO {
	n := w.node
	return quorum.IO{
		Now:   n.now,
		Ping:  w.pingWitness,
		Judge: w.askVerdict,
		Learn: func(witness string, p *wire.Pong) {
			n.mergeNames(&membership.Word{Teller: witness, Names: p.Known, Hearsay: p.Hearsay, Full: p.Full})
		},
		Meet:    n.addHeardFrom,
		Settled: func() { n.membership.NoteQuorum() },
		Known: func() quorum.Told {
			known := n.membership.Roster()
			return quorum.Told{Digest: known.Digest, Names: known.Told, Hearsay: known.Hearsay}
		},
	}
}

// pingWitness asks a witness for quorum, over the link that takes use: it is that one's state that matters.
func (w witnesses) pingWitness(ctx context.Context, witness string, p wire.Ping) (wire.Pong, error) {
	response, err := w.callWitness(ctx, witness, wire.AppendPing(nil, &p))
	if err != nil {
		return wire.Pong{}, err
	}
	return wire.DecodePong(response)
}

// askVerdict asks a witness which members' pings it does not hear.
func (w witnesses) askVerdict(ctx context.Context, witness string, q wire.VerdictRequest) (wire.Verdict, error) {
	n := w.node
	response, err := n.others.Tell(ctx, witness, wire.AppendVerdictRequest(nil, &q), quorum.AnswerAge, 0)
	if err != nil {
		return wire.Verdict{}, err
	}
	return wire.DecodeVerdict(response)
}

func (w witnesses) callWitness(ctx context.Context, witness string, request []byte) ([]byte, error) {
	n := w.node
	p := n.route.Load().others[witness]
	if p == nil {
		return nil, transport.ErrUnreachable
	}
	return n.client.Call(ctx, p.Peer, request, quorum.AnswerAge)
}
