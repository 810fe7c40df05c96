package replicate

import (
	"slices"

	"github.com/peerlimit/peerlimit/internal/store"
	"github.com/peerlimit/peerlimit/internal/wire"
)

// Accepting replicas, as the standby. The sender is in their version: a request may have come through another member, so
// the link it came by says nothing.

// Later returns what takes a replica that has just come, in memory that is used again.
func (r *Replicator) Later(request []byte, refuse func(error) []byte) func() []byte {
	m, _ := r.memories.Get().(*wire.ReplicaMemory)
	if m == nil {
		m = new(wire.ReplicaMemory)
	}
	m.Message = append(m.Message[:0], request...)
	return func() []byte {
		response, err := r.Answer(m)
		if err != nil {
			return refuse(err)
		}
		kept := slices.ContainsFunc(m.Parts, func(p wire.ReplicaPart) bool { return p.Full }) // as pieces, see arriving
		if !kept && cap(m.Message) <= 2*store.ShipmentBudget {
			r.memories.Put(m)
		}
		return response
	}
}

// Answer takes the replicas of a message, or says why not.
func (r *Replicator) Answer(m *wire.ReplicaMemory) ([]byte, error) {
	q, err := m.Decode(r.rules.PlainSet)
	if err != nil {
		return nil, err
	}
	return wire.AppendReplicaResponse(nil, r.accept(&q)), nil
}

// accept takes replicas, or says why not.
func (r *Replicator) accept(q *wire.ReplicaRequest) *wire.ReplicaResponse {
	r.reach.Check(r.now())
	ans := &wire.ReplicaResponse{Parts: make([]wire.ReplicaAck, 0, len(q.Parts))}
	ended := false
	for i := range q.Parts {
		part := &q.Parts[i]
		if !r.reach.Hear(part.Version.Ballot.Number) {
			ans.Parts = append(ans.Parts, wire.ReplicaAck{Part: part.Part, Status: wire.ReplicaRefused})
			continue // no ballot could be above such a version: its holder is to acquire by another
		}
		now := r.now()
		ack, over := r.table.AcceptReplica(part, r.reach.IsFull(now), r.rules, now)
		ans.Parts = append(ans.Parts, ack)
		ended = ended || over
	}
	if ended {
		r.others.Challenged()
	}
	return ans
}
