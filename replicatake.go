package peerlimit

import (
	"context"
	"github.com/peerlimit/peerlimit/internal/store"
	"github.com/peerlimit/peerlimit/internal/wire"
	"slices"
)

// Taking replicas, as the standby. Who sends them is in their version: a request may have come through another member, so
// the link it came by says nothing.

// replicaLater returns what takes a replica that has just come, in memory that is used again.
func (n *Node) replicaLater(from string, request []byte) func(context.Context) []byte {
	m, _ := n.replicaMemories.Get().(*wire.ReplicaMemory)
	if m == nil {
		m = new(wire.ReplicaMemory)
	}
	m.Message = append(m.Message[:0], request...)
	return func(context.Context) []byte {
		response, err := n.answerReplica(m)
		if err != nil {
			return n.refuse(nil, from, err)
		}
		kept := slices.ContainsFunc(m.Parts, func(p wire.ReplicaPart) bool { return p.Full }) // as pieces, see arriving
		if !kept && cap(m.Message) <= 2*store.ShipmentBudget {
			n.replicaMemories.Put(m)
		}
		return response
	}
}

// answerReplica takes the replicas of a message, or says why not.
func (n *Node) answerReplica(m *wire.ReplicaMemory) ([]byte, error) {
	q, err := m.Decode(n.rules.PlainSet)
	if err != nil {
		return nil, err
	}
	return wire.AppendReplicaResponse(nil, n.onReplica(&q)), nil
}

// onReplica takes replicas, or says why not.
func (n *Node) onReplica(q *wire.ReplicaRequest) *wire.ReplicaResponse {
	n.reach.Check(n.now())
	ans := &wire.ReplicaResponse{Parts: make([]wire.ReplicaAck, 0, len(q.Parts))}
	ended := false
	for i := range q.Parts {
		part := &q.Parts[i]
		if !n.reach.Hear(part.Version.Ballot.Number) {
			ans.Parts = append(ans.Parts, wire.ReplicaAck{Part: part.Part, Status: wire.ReplicaRefused})
			continue // whoever held by that version would be outbid by nobody: it is to acquire by another
		}
		now := n.now()
		ack, over := n.table.AcceptReplica(part, n.reach.IsFull(now), n.rules, now)
		ans.Parts = append(ans.Parts, ack)
		ended = ended || over
	}
	if ended {
		n.keeper.Wake()
	}
	return ans
}
