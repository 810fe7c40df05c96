package store

import (
	"time"

	"github.com/peerlimit/peerlimit/internal/rule"
	"github.com/peerlimit/peerlimit/internal/wire"
)

// Taking in replicas: a message at a time, of which large ones are pieces of a whole.

// ArrivalTime is how long the pieces of a replica are kept when no more come.
const ArrivalTime = 10 * time.Second

// arriving is a replica of which some pieces are there.
type arriving struct {
	version wire.Version
	arrival Arrival
	last    int64 // when a piece of it came
	size    int64 // bytes, as far as it is bounded; see table.arrivingSize
}

// What pieces take up in memory, which is bounded: they belong to no bucket that could be evicted yet.
const (
	arrivingLeast  = 64 << 20 // bytes that all pieces at a node may take up, whatever MaxKeys
	arrivingPerKey = 256      // and for each of MaxKeys: a partition that has all of them can come
	arrivingBucket = 160      // of a bucket beside its key and levels
)

// arriving returns the pieces of p that are there, or nil. The caller holds p.mu.
func (p *Partition) arriving() *arriving {
	if p.underway == nil {
		return nil
	}
	return p.underway.arriving
}

// setArriving makes a the pieces of p that are there, nil for none. The caller holds p.mu.
func (t *Table) setArriving(p *Partition, a *arriving) {
	before := p.arriving()
	if before == a {
		return
	}
	if before != nil {
		t.arrivingSize.Add(-before.size)
	}
	if p.start().arriving = a; a != nil {
		t.arrivingSize.Add(a.size)
	}
	p.ended()
}

// add adds a piece's buckets.
func (a *arriving) add(made *Built) {
	for i := range made.content.Buckets {
		image := &made.content.Buckets[i]
		a.size += int64(arrivingBucket + len(image.Key) + 8*len(image.Levels))
	}
	a.arrival.add(made)
}

// AcceptReplica takes what a holder has sent of one partition, or says why not. full says that this node's quorum is
// fresh. ended reports that an attempt of this node's to acquire the partition is over.
func (t *Table) AcceptReplica(part *wire.ReplicaPart, full bool, rules *rule.Rules, now int64) (ack wire.ReplicaAck, ended bool) {
	s := storing{table: t, part: part, full: full, rules: rules, now: now}
	if part.Full {
		s.made = t.Build(part.Part, &part.Content, now)
	}
	t.InSteps(part.Part, s.step)
	return s.ack, s.ended
}

// storing is a replica that is being taken, in steps.
type storing struct {
	table *Table
	part  *wire.ReplicaPart
	made  *Built // of all of it, if that is what was sent
	full  bool   // this node's quorum is fresh
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
func (s *storing) step(p *Partition) (more bool) {
	t, part, h := s.table, s.part, &p.Holding
	if !s.full {
		h.Lapse()
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
func (p *Partition) storesNext() *storesNext {
	if p.underway == nil {
		return nil
	}
	return p.underway.storing
}

// change stores some of what has changed, and reports whether there is more of it. The caller holds p.mu.
func (s *storing) change(p *Partition) (more bool) {
	h, changed := &p.Holding, s.part.Content.Buckets
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
func (t *Table) takePiece(p *Partition, part *wire.ReplicaPart, made *Built, now int64) wire.ReplicaStatus {
	a := p.arriving()
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
	p.replace(&a.arrival)
	p.Holding.AcceptReplica(part.Version)
	return wire.ReplicaTaken
}

// DropArrived forgets the pieces of a replica of which no more have come for long.
func (t *Table) DropArrived(part uint16, now int64) {
	p := &t.partitions[part]
	p.mu.Lock()
	defer p.mu.Unlock()
	if a := p.arriving(); a != nil && now-a.last > int64(ArrivalTime) {
		t.setArriving(p, nil)
	}
}
