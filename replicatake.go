package peerlimit

import (
	"context"
	"github.com/peerlimit/peerlimit/internal/rule"
	"github.com/peerlimit/peerlimit/internal/wire"
	"slices"
	"time"
)

// Taking replicas, as the standby. Who sends them is in their version: a request may have come through another member, so
// the link it came by says nothing.

// arrivalTime is how long the pieces of a replica are kept when no more come.
const arrivalTime = 10 * time.Second

// arriving is a replica of which some pieces are there.
type arriving struct {
	version wire.Version
	arrival arrival
	last    int64 // when a piece of it came
	size    int64 // bytes, as far as it is bounded; see table.arrivingSize
}

// What pieces take up in memory, which is bounded: they belong to no bucket that could be evicted yet.
const (
	arrivingLeast  = 64 << 20 // bytes that all pieces at a node may take up, whatever MaxKeys
	arrivingPerKey = 256      // and for each of MaxKeys: a partition that has all of them can come
	arrivingBucket = 160      // of a bucket beside its key and levels
)

// setArriving makes a the pieces of p that are there, nil for none. The caller holds p.mu.
func (t *table) setArriving(p *partition, a *arriving) {
	if p.arriving != nil {
		t.arrivingSize.Add(-p.arriving.size)
	}
	if p.arriving = a; a != nil {
		t.arrivingSize.Add(a.size)
	}
}

// add adds a piece's buckets.
func (a *arriving) add(made *built) {
	for i := range made.content.Buckets {
		image := &made.content.Buckets[i]
		a.size += int64(arrivingBucket + len(image.Key) + 8*len(image.Levels))
	}
	a.arrival.add(made)
}

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
		if !kept && cap(m.Message) <= 2*shipmentBudget {
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
		ack, over := n.table.takeReplica(part, n.reach.IsFull(now), n.rules, now)
		ans.Parts = append(ans.Parts, ack)
		ended = ended || over
	}
	if ended {
		n.keeper.wake()
	}
	return ans
}

// AcceptReplica takes what a holder has sent of one partition, or says why not. full says that this node's evidence is
// fresh. ended reports that an attempt of this node's to acquire the partition is over.
func (t *table) takeReplica(part *wire.ReplicaPart, full bool, rules *rule.Rules, now int64) (ack wire.ReplicaAck, ended bool) {
	s := storing{table: t, part: part, full: full, rules: rules, now: now}
	if part.Full {
		s.made = t.build(part.Part, &part.Content, rules, now)
	}
	t.inSteps(part.Part, s.step)
	return s.ack, s.ended
}

// storing is a replica that is being taken, in steps.
type storing struct {
	table *table
	part  *wire.ReplicaPart
	made  *built // of all of it, if that is what was sent
	full  bool   // this node's evidence is fresh
	rules *rule.Rules
	now   int64

	copy wire.Version // what there was before the first step
	done int          // so many of the changed buckets are stored
	turn *storesNext  // nil where one step is enough, as it mostly is

	ack   wire.ReplicaAck
	ended bool
}

// storesNext says whose changes are being stored.
type storesNext struct{ version wire.Version }

// step is a step of taking a replica. The caller holds p.mu.
//
// A copy of which some buckets are newer than its version says is as good as one of that version, so nothing is wrong
// with what there is between two steps. But what is stored later must not be older: so only one message's changes are
// being stored at a time, those of the highest version, and only while nothing else has become of the copy.
func (s *storing) step(p *partition) (more bool) {
	t, part, h := s.table, s.part, &p.holding
	if !s.full && h.Lapse() {
		t.noteHolding(part.Part, p)
		p.forgetChanges()
	}
	s.ack = wire.ReplicaAck{Part: part.Part, Status: h.CheckReplica(part.Version, part.Full, part.Since)}
	switch {
	case s.ack.Status == wire.ReplicaRefused, s.ack.Status == wire.ReplicaHeld:
		if s.ack.Promised = h.Promised; s.ack.Promised.Below(h.Copy.Ballot) {
			s.ack.Promised = h.Copy.Ballot
		}
	case s.ack.Status != wire.ReplicaTaken:
	case part.Full:
		trying := h.Attempt != nil
		s.ack.Status = t.takePiece(p, part, s.made, s.now)
		s.ended = trying && h.Attempt == nil
	case s.done == 0 && p.storesNext() != nil && part.Version.Below(p.storesNext().version),
		s.done > 0 && (p.storesNext() != s.turn || h.Copy != s.copy):
		s.ack.Status = wire.ReplicaMissing
	default:
		return s.change(p)
	}
	if s.turn != nil && p.storesNext() == s.turn {
		p.underway.storing = nil
		p.ended()
	}
	return false
}

// storesNext returns whose changes are being stored, or nil. The caller holds p.mu.
func (p *partition) storesNext() *storesNext {
	if p.underway == nil {
		return nil
	}
	return p.underway.storing
}

// change stores some of what has changed, and reports whether there is more of it. The caller holds p.mu.
func (s *storing) change(p *partition) (more bool) {
	h, changed := &p.holding, s.part.Content.Buckets
	some := changed[s.done:min(s.done+stepChanges, len(changed))]
	p.store(s.table, some, s.rules, s.now)
	if s.done += len(some); s.done < len(changed) {
		if s.turn == nil {
			s.turn, s.copy = &storesNext{s.part.Version}, h.Copy
			p.start().storing = s.turn
		}
		return true
	}
	if u := p.underway; u != nil { // one of a lower version, that was being stored, is not any more
		u.storing = nil
		p.ended()
	}
	trying := h.Attempt != nil
	if marks := s.part.Content.Marks; len(marks) > 0 {
		h.SetMarks(marks)
	}
	h.AcceptReplica(s.part.Version)
	s.ended = trying && h.Attempt == nil
	return false
}

// takePiece takes all of a replica, or a piece. With the last piece it replaces what was there. The caller holds p.mu.
func (t *table) takePiece(p *partition, part *wire.ReplicaPart, made *built, now int64) wire.ReplicaStatus {
	a := p.arriving
	switch {
	case part.First && (a == nil || !part.Version.Below(a.version)):
		a = &arriving{version: part.Version}
	case part.First, a == nil, a.version != part.Version, uint64(a.arrival.images) != part.Since:
		return wire.ReplicaMissing
	}
	t.setArriving(p, nil)
	a.add(made)
	if a.last = now; !part.Last {
		if t.arrivingSize.Load()+a.size > max(arrivingLeast, arrivingPerKey*t.maxKeys) {
			return wire.ReplicaMissing // what no more comes of makes room soon
		}
		t.setArriving(p, a)
		return wire.ReplicaTaken
	}
	t.replace(p, &a.arrival)
	p.holding.AcceptReplica(part.Version)
	return wire.ReplicaTaken
}

// dropArrived forgets the pieces of a replica of which no more have come for long.
func (t *table) dropArrived(part uint16, now int64) {
	p := &t.partitions[part]
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.arriving != nil && now-p.arriving.last > int64(arrivalTime) {
		t.setArriving(p, nil)
	}
}
