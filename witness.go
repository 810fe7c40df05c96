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
			n.mergeNames(&membership.Word{Teller: witness, Names: p.Known, Lost: p.Lost})
		},
		Meet: n.addHeardFrom,
		Known: func() quorum.Told {
			known := n.membership.Roster()
			return quorum.Told{Digest: known.Digest, Names: known.Told, Doubtful: known.Doubtful(), Lost: known.Lost}
		},
		Settled: func() { n.membership.Renotify() },
	}
}

// fate is what membership takes from quorum: whom to give up, and how many have been agreed on.
func (w witnesses) fate() membership.Fate {
	n := w.node
	return membership.Fate{
		HasQuorum: func() bool { return n.reach.IsFull(n.now()) },
		Lost:      func(name string) bool { return n.reach.Lost(name, n.now()) },
		Panel:     n.agreement.Counted,
	}
}

// agreeing is how the agreement on panels talks to the other members and sees them.
func (w witnesses) agreeing() quorum.AgreementIO {
	n := w.node
	return quorum.AgreementIO{
		Now: n.now,
		Ask: func(ctx context.Context, witness string, q wire.PanelRequest) (wire.PanelAnswer, error) {
			response, err := w.callWitness(ctx, witness, wire.AppendPanelRequest(nil, &q))
			if err != nil {
				return wire.PanelAnswer{}, err
			}
			return wire.DecodePanelAnswer(response)
		},
		Linked: w.linked,
		Silent: func(name string) bool { return n.reach.Silent(name, n.now()) },
		Count:  func() int { return len(n.membership.Roster().Told) },
		Needs: func() int {
			if r := n.membership.Roster(); r.Expected > len(r.Told) {
				return r.Expected/2 + 1
			}
			return 1
		},
		Names:        func() []string { return n.membership.Roster().Names },
		OutvoteAfter: n.settings.OutvoteAfter, SplitMemory: n.settings.SplitMemory,
	}
}

// linked returns the other members that have a link.
func (w witnesses) linked() (linked []quorum.Candidate) {
	n := w.node
	for _, m := range n.membership.View().Members {
		if m.Self || n.client.State(m.Name) != transport.LinkUp {
			continue
		}
		linked = append(linked, quorum.Candidate{Name: m.Name, Serving: m.State == membership.Alive, Leaving: m.State == membership.Leaving})
	}
	return linked
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

// hearLastWords takes in what members that have left said last.
func (n *Node) hearLastWords(view *membership.View) {
	for _, w := range view.LastWords {
		g, err := wire.DecodeGoodbye(w.Word)
		if err != nil {
			n.log.Debug("ignoring malformed goodbye", "member", w.Name, "err", err)
			continue
		}
		n.agreement.HearGoodbye(w.Name, g, n.now())
		n.prober.LookAgain()
	}
}

// isReplaced reports whether this node, which is leaving, can go without being missed as a witness. Without a majority there is nothing
// to wait for: its goodbye will do.
func (n *Node) isReplaced(hasWaited bool) bool {
	now := n.now()
	return !n.reach.IsFull(now) || n.agreement.MayGo(hasWaited, now)
}
