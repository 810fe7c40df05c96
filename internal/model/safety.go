package model

import "errors"

// The properties. A Violation wraps one of them.
var (
	// ErrTwoDeciders is S1: two nodes decide in full at once.
	ErrTwoDeciders = errors.New("S1: two nodes decide in full")
	// ErrTakeLost is S2: a holder starts without a take although every node that could have it answered, or left in peace.
	ErrTakeLost = errors.New("S2: a new holder starts without a take that was decided")
	// ErrAckedTakeLost is S3: a holder starts without an acknowledged take although only one node is lost.
	ErrAckedTakeLost = errors.New("S3: a new holder starts without an acknowledged take")
	// ErrNoWayBack is the liveness property: a majority lives, and yet no good state can be reached without more faults.
	ErrNoWayBack = errors.New("liveness: no good state can be reached")
	// ErrTwoPanels: two panels have one number and one origin.
	ErrTwoPanels = errors.New("panels: two have one number")
	// ErrFarApart: two nodes have evidence of one origin by panels whose numbers differ by two or more.
	ErrFarApart = errors.New("panels: evidence of numbers that are no neighbours")
	// ErrDeadPanel: a panel is proposed of which at least half are dead, and have been for longer than an answer counts.
	ErrDeadPanel = errors.New("panels: one is proposed whose witnesses are dead")
	// ErrRemovedUnmissed: a witness accepts, as the first one, that another is removed that is up, not leaving, and missed by nobody.
	ErrRemovedUnmissed = errors.New("panels: a witness is removed that nobody misses")
	// ErrEvidenceEnded: a node had evidence, adopts a panel, and has none.
	ErrEvidenceEnded = errors.New("panels: adopting one ends the evidence")
)

// judgeOneDecider is S1.
func (s *State) judgeOneDecider() error {
	if s.apart {
		return nil
	}
	deciders := 0
	for n := range node(maxNodes) {
		if s.decidesInFull(n) {
			deciders++
		}
	}
	if deciders > 1 {
		return ErrTwoDeciders
	}
	return nil
}

// unite notes when two clusters have become one: all alive know each other, exactly one of them holds, no copy is on its
// way to another that would hold by it, and no copy is of a higher version: that of a holder that has yielded can be, and
// a node that acquires before the holder has outdone it starts on that. What was decided until then is excused, except what
// the one holder has.
func (s *State) unite() {
	if !s.apart {
		return
	}
	var alive, holding nodes
	for n := range node(maxNodes) {
		if q := &s.members[n]; q.alive() {
			alive.add(n)
			if q.holding {
				holding.add(n)
			}
		}
	}
	if holding.size() != 1 {
		return
	}
	var has, highest version
	s.eachVersion(func(v *version) {
		if highest.less(*v) {
			highest = *v
		}
	})
	for n := range node(maxNodes) {
		q := &s.members[n]
		if alive.has(n) && (alive&^q.known != 0 || s.isGiven(n) || s.foreign(alive, n)) {
			return
		}
		if q.holding {
			has = q.copy
		}
	}
	if has.less(highest) {
		return
	}
	s.apart = false
	s.excused |= (1<<s.taken - 1) &^ has.takes
}

// isGiven tells whether a copy has been given to n's present round.
func (s *State) isGiven(n node) bool {
	ballot := s.members[n].round.ballot
	if ballot == 0 {
		return false
	}
	for i := range s.messages {
		if a := &s.messages[i]; a.kind == theCopy && a.to == n && a.round == ballot {
			return true
		}
	}
	for giver := range node(maxNodes) {
		if s.members[giver].transfer == (transfer{to: n, round: ballot}) {
			return true
		}
	}
	return false
}

// judgeStart is S2 and S3, judged when a node starts on a copy without a response from missing. Nodes that left in peace
// excuse nothing. One lost node excuses what it had not replicated, two lost nodes (holder and standby) excuse anything;
// what was excused once is not asked for again.
func (s *State) judgeStart(has takes, missing nodes) error {
	if s.apart {
		return nil
	}
	lost := 0
	for n := range node(maxNodes) {
		if missing.has(n) && s.members[n].life != left {
			lost++
		}
	}
	all := takes(1<<s.taken - 1)
	lacks := all &^ has &^ s.excused
	switch {
	case lost == 0 && lacks != 0:
		return ErrTakeLost
	case lost == 1 && lacks&s.acked != 0:
		return ErrAckedTakeLost
	}
	s.excused |= lacks
	return nil
}
