package model

// kind is the kind of a message. Zero is an empty slot.
type kind uint8

const (
	noMessage  kind = iota
	ask             // do you hold? (round, known)
	notHolding      // promised; here is the version of my copy (round, known, copy, gaveTo)
	theCopy         // the authoritative copy, given to this round (round, known, copy)
	behind          // promised a later round (round, promise, gaveTo)
	replicate       // keep this (copy)
	replicated      // kept (copy)
	refuse          // not kept, or newer here (copy, promise)
	held            // not kept, because the receiver is holding itself (copy, promise)
	settled         // my standby has all that is in that copy (copy)
	settle          // does your standby have all that is in my copy? (copy)
)

var kindNames = [...]string{"", "request", "not holding", "copy", "behind", "replica", "acknowledgement", "refusal", "refusal as a holder", "all clear", "request about its copy"}

// message is in flight from one node to another. The fields a kind does not use are zero.
type message struct {
	kind     kind
	from, to node
	round    ballot // of the asker, in requests and responses
	copy     version
	promise  promise
	known    nodes
	gaveTo   nodes // one or none
	place    uint8 // of the piece that is asked for, or that is in the response
}

func (m message) key() (hi, lo uint64) {
	hi = uint64(m.place)<<40 | uint64(m.kind)<<32 | uint64(m.from)<<24 | uint64(m.to)<<16 | uint64(m.round)<<8 | uint64(m.known)
	v := m.copy
	lo = uint64(v.ballot)<<48 | uint64(v.transfers)<<40 | uint64(v.holder)<<32 | uint64(v.takes)<<24 |
		uint64(m.promise.ballot)<<16 | uint64(m.promise.to)<<8 | uint64(m.gaveTo)
	return hi, lo
}

// before is the order in which a state lists its messages, so that their order of sending makes no difference.
func (m message) before(o message) bool {
	if (m.kind == noMessage) != (o.kind == noMessage) {
		return o.kind == noMessage
	}
	mh, ml := m.key()
	oh, ol := o.key()
	return mh < oh || mh == oh && ml < ol
}

func (s *State) inFlight() int {
	count := 0
	for i := range s.messages {
		if s.messages[i].kind != noMessage {
			count++
		}
	}
	return count
}

// send puts a message in flight. Two equal ones are one: delivering a message twice is a repeated request, which the
// asker can send by itself. A response without room is lost.
func (s *State) send(m message) {
	free := -1
	for i := range s.messages {
		if s.messages[i] == m {
			return
		}
		if free < 0 && s.messages[i].kind == noMessage {
			free = i
		}
	}
	if free >= 0 {
		s.messages[free] = m
	}
}

func (s *State) underway(k kind, from, to node) bool {
	for i := range s.messages {
		if m := &s.messages[i]; m.kind == k && m.from == from && m.to == to {
			return true
		}
	}
	return false
}

func (s *State) linked(a, b node) bool { return !s.cuts[a].has(b) }

// reaches tells whether a message gets from a to b, itself or through one other member.
func (s *State) reaches(a, b node) bool {
	if s.linked(a, b) {
		return true
	}
	for via := range node(maxNodes) {
		if via != a && via != b && s.members[via].life == up && s.linked(a, via) && s.linked(via, b) {
			return true
		}
	}
	return false
}

func (s *State) cut(a, b node) {
	s.cuts[a].add(b)
	s.cuts[b].add(a)
}

func (s *State) heal(a, b node) {
	s.cuts[a].remove(b)
	s.cuts[b].remove(a)
}
