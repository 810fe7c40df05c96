package model

import "errors"

// The properties. A Violation wraps one of them.
var (
	// ErrTwoDeciders is S1: two nodes decide in full at once.
	ErrTwoDeciders = errors.New("S1: two nodes decide in full")
	// ErrTakeLost is S2: a holder starts without a take although everybody who could have it answered, or left in peace.
	ErrTakeLost = errors.New("S2: a new holder starts without a take that was decided")
	// ErrAckedTakeLost is S3: a holder starts without an acknowledged take although only one node is lost.
	ErrAckedTakeLost = errors.New("S3: a new holder starts without an acknowledged take")
	// ErrNoWayBack is the liveness property: a majority lives, and yet no good state can be reached without more faults.
	ErrNoWayBack = errors.New("liveness: no good state can be reached")
)

// judgeOneDecider is S1.
func (s *State) judgeOneDecider() error {
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

// judgeStart is S2 and S3, judged when a node starts on a copy without an answer from missing. Nodes that left in peace
// excuse nothing. One lost node excuses what it had not replicated, two lost nodes (holder and heir) excuse anything;
// what was excused once is not asked for again.
func (s *State) judgeStart(has takes, missing nodes) error {
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
