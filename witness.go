package peerlimit

import (
	"context"

	"github.com/peerlimit/peerlimit/internal/membership"
	"github.com/peerlimit/peerlimit/internal/quorum"
	"github.com/peerlimit/peerlimit/internal/wire"
	"github.com/peerlimit/peerlimit/transport"
)

// witnessing is how evidence talks to the other members and learns of them.
func (n *Node) witnessing() quorum.IO {
	return quorum.IO{
		Now:   n.now,
		Ping:  n.pingWitness,
		Judge: n.askVerdict,
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

// pingWitness asks a witness for evidence, over the link that takes use: it is that one's state that matters.
func (n *Node) pingWitness(ctx context.Context, witness string, p wire.Ping) (wire.Pong, error) {
	response, err := n.callWitness(ctx, witness, wire.AppendPing(nil, &p))
	if err != nil {
		return wire.Pong{}, err
	}
	return wire.DecodePong(response)
}

// askVerdict asks a witness whom it hears no pings of.
func (n *Node) askVerdict(ctx context.Context, witness string, q wire.VerdictRequest) (wire.Verdict, error) {
	response, err := n.tell(ctx, witness, wire.AppendVerdictRequest(nil, &q), quorum.AnswerAge, 0)
	if err != nil {
		return wire.Verdict{}, err
	}
	return wire.DecodeVerdict(response)
}

func (n *Node) callWitness(ctx context.Context, witness string, request []byte) ([]byte, error) {
	p := n.route.Load().others[witness]
	if p == nil {
		return nil, transport.ErrUnreachable
	}
	return n.client.Call(ctx, p.Peer, request, quorum.AnswerAge)
}
