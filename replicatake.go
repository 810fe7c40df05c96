package peerlimit

import (
	"context"
	"slices"
	"time"
)

// Taking replicas, as the heir. Who sends them is in their version: a request may have come through another member, so
// the link it came by says nothing.

// arrivalTime is how long the pieces of a replica are kept when no more come.
const arrivalTime = 10 * time.Second

// arriving is a replica of which some pieces are there.
type arriving struct {
	version version
	content partContent
	began   int64
}

// replicaLater returns what takes a replica that has just come, in memory that is used again.
func (n *Node) replicaLater(from string, request []byte) func(context.Context) []byte {
	m, _ := n.replicaMemories.Get().(*replicaMemory)
	if m == nil {
		m = new(replicaMemory)
	}
	m.message = append(m.message[:0], request...)
	return func(context.Context) []byte {
		response, err := n.answerReplica(m)
		if err != nil {
			return n.refuse(nil, from, err)
		}
		kept := slices.ContainsFunc(m.parts, func(p replicaPart) bool { return p.full }) // as pieces, see arriving
		if !kept && cap(m.message) <= 2*shipmentBudget {
			n.replicaMemories.Put(m)
		}
		return response
	}
}

// answerReplica takes the replicas of a message, or says why not.
func (n *Node) answerReplica(m *replicaMemory) ([]byte, error) {
	q, err := m.decode(n.rules.plainSet)
	if err != nil {
		return nil, err
	}
	return appendReplicaAnswer(nil, n.onReplica(&q)), nil
}

// onReplica takes replicas, or says why not.
func (n *Node) onReplica(q *replicaRequest) *replicaAnswer {
	n.reach.check(n.now())
	ans := &replicaAnswer{parts: make([]replicaAck, 0, len(q.parts))}
	ended := false
	for i := range q.parts {
		part := &q.parts[i]
		n.reach.hear(part.version.election.number)
		now := n.now()
		ack, over := n.table.takeReplica(part, n.reach.isFull(now), n.rules, now)
		ans.parts = append(ans.parts, ack)
		ended = ended || over
	}
	if ended {
		n.keeper.wake()
	}
	return ans
}

// takeReplica takes what a holder has sent of one partition, or says why not. full says that this node's evidence is
// fresh. ended reports that an attempt of this node's to acquire the partition is over.
func (t *table) takeReplica(part *replicaPart, full bool, rules *rules, now int64) (ack replicaAck, ended bool) {
	p := &t.partitions[part.part]
	p.mu.Lock()
	defer p.mu.Unlock()
	h := &p.holding
	if !full && h.lapse() {
		t.noteHolding(part.part, p)
		p.forgetChanges()
	}
	ack = replicaAck{part: part.part, status: h.replica(part.version, part.full, part.since)}
	trying := h.attempt != nil
	switch {
	case ack.status == replicaRefused, ack.status == replicaHeld:
		if ack.promised = h.promised; ack.promised.below(h.copy.election) {
			ack.promised = h.copy.election
		}
	case ack.status != replicaTaken:
	case part.full:
		ack.status = t.takePiece(p, part, rules, now)
	default:
		p.store(t, part.content.buckets, rules, now)
		if len(part.content.marks) > 0 {
			h.setMarks(part.content.marks)
		}
		h.takeReplica(part.version)
	}
	return ack, trying && h.attempt == nil
}

// takePiece takes all of a replica, or a piece. With the last piece it replaces what was there. The caller holds p.mu.
func (t *table) takePiece(p *partition, part *replicaPart, rules *rules, now int64) replicaStatus {
	a := p.arriving
	switch {
	case part.first && (a == nil || !part.version.below(a.version)):
		a = &arriving{version: part.version, began: now}
	case part.first, a == nil, a.version != part.version, uint64(len(a.content.buckets)) != part.since:
		return replicaMissing
	}
	a.content.buckets = append(a.content.buckets, part.content.buckets...)
	a.content.marks = append(a.content.marks, part.content.marks...)
	if !part.last {
		p.arriving = a
		return replicaTaken
	}
	p.arriving = nil
	t.replace(part.part, p, a.content, rules, now)
	p.holding.takeReplica(part.version)
	return replicaTaken
}

// dropArrived forgets the pieces of a replica of which no more have come for long.
func (t *table) dropArrived(part uint16, now int64) {
	p := &t.partitions[part]
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.arriving != nil && now-p.arriving.began > int64(arrivalTime) {
		p.arriving = nil
	}
}
