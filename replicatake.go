package peerlimit

import (
	"context"
	"slices"
	"time"
)

// Taking replicas, as the standby. Who sends them is in their version: a request may have come through another member, so
// the link it came by says nothing.

// arrivalTime is how long the pieces of a replica are kept when no more come.
const arrivalTime = 10 * time.Second

// arriving is a replica of which some pieces are there.
type arriving struct {
	version version
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
	for i := range made.content.buckets {
		image := &made.content.buckets[i]
		a.size += int64(arrivingBucket + len(image.key) + 8*len(image.levels))
	}
	a.arrival.add(made)
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
		if !n.reach.hear(part.version.election.number) {
			ans.parts = append(ans.parts, replicaAck{part: part.part, status: replicaRefused})
			continue // whoever held by that version would be outbid by nobody: it is to acquire by another
		}
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
	s := storing{table: t, part: part, full: full, rules: rules, now: now}
	if part.full {
		s.made = t.build(part.part, &part.content, rules, now)
	}
	t.inSteps(part.part, s.step)
	return s.ack, s.ended
}

// storing is a replica that is being taken, in steps.
type storing struct {
	table *table
	part  *replicaPart
	made  *built // of all of it, if that is what was sent
	full  bool   // this node's evidence is fresh
	rules *rules
	now   int64

	copy version     // what there was before the first step
	done int         // so many of the changed buckets are stored
	turn *storesNext // nil where one step is enough, as it mostly is

	ack   replicaAck
	ended bool
}

// storesNext says whose changes are being stored.
type storesNext struct{ version version }

// step is a step of taking a replica. The caller holds p.mu.
//
// A copy of which some buckets are newer than its version says is as good as one of that version, so nothing is wrong
// with what there is between two steps. But what is stored later must not be older: so only one message's changes are
// being stored at a time, those of the highest version, and only while nothing else has become of the copy.
func (s *storing) step(p *partition) (more bool) {
	t, part, h := s.table, s.part, &p.holding
	if !s.full && h.lapse() {
		t.noteHolding(part.part, p)
		p.forgetChanges()
	}
	s.ack = replicaAck{part: part.part, status: h.replica(part.version, part.full, part.since)}
	switch {
	case s.ack.status == replicaRefused, s.ack.status == replicaHeld:
		if s.ack.promised = h.promised; s.ack.promised.below(h.copy.election) {
			s.ack.promised = h.copy.election
		}
	case s.ack.status != replicaTaken:
	case part.full:
		trying := h.attempt != nil
		s.ack.status = t.takePiece(p, part, s.made, s.now)
		s.ended = trying && h.attempt == nil
	case s.done == 0 && p.storesNext() != nil && part.version.below(p.storesNext().version),
		s.done > 0 && (p.storesNext() != s.turn || h.copy != s.copy):
		s.ack.status = replicaMissing
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
	h, changed := &p.holding, s.part.content.buckets
	some := changed[s.done:min(s.done+stepChanges, len(changed))]
	p.store(s.table, some, s.rules, s.now)
	if s.done += len(some); s.done < len(changed) {
		if s.turn == nil {
			s.turn, s.copy = &storesNext{s.part.version}, h.copy
			p.start().storing = s.turn
		}
		return true
	}
	if u := p.underway; u != nil { // one of a lower version, that was being stored, is not any more
		u.storing = nil
		p.ended()
	}
	trying := h.attempt != nil
	if marks := s.part.content.marks; len(marks) > 0 {
		h.setMarks(marks)
	}
	h.takeReplica(s.part.version)
	s.ended = trying && h.attempt == nil
	return false
}

// takePiece takes all of a replica, or a piece. With the last piece it replaces what was there. The caller holds p.mu.
func (t *table) takePiece(p *partition, part *replicaPart, made *built, now int64) replicaStatus {
	a := p.arriving
	switch {
	case part.first && (a == nil || !part.version.below(a.version)):
		a = &arriving{version: part.version}
	case part.first, a == nil, a.version != part.version, uint64(a.arrival.images) != part.since:
		return replicaMissing
	}
	t.setArriving(p, nil)
	a.add(made)
	if a.last = now; !part.last {
		if t.arrivingSize.Load()+a.size > max(arrivingLeast, arrivingPerKey*t.maxKeys) {
			return replicaMissing // what no more comes of makes room soon
		}
		t.setArriving(p, a)
		return replicaTaken
	}
	t.replace(p, &a.arrival)
	p.holding.takeReplica(part.version)
	return replicaTaken
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
