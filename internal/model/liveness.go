package model

import "math/rand/v2"

// good is a state the cluster should always find its way back to: everybody up sees the same ring, its owner alone holds
// and decides in full, its standby has everything, nobody is acquiring or about to leave.
func (m *machine) good(s *State) bool {
	staying := s.staying()
	if m.Panels > 0 && !m.panelsGood(s, staying) {
		return false
	}
	holder := nobody
	for n := range node(m.Nodes) {
		q := &s.members[n]
		switch {
		case q.life == paused || q.life == up && q.leaving:
			return false
		case q.life != up:
			continue
		case q.ring != staying || q.round.running():
			return false
		case q.holding && holder != nobody:
			return false
		case q.holding:
			holder = n
		}
	}
	return holder != nobody && holder == m.owners.owner(staying) && s.decidesInFull(holder) && m.standbyHasEverything(s, holder)
}

// staying returns the nodes alive that are not leaving.
func (s *State) staying() nodes {
	var set nodes
	for n := range node(maxNodes) {
		if q := &s.members[n]; q.alive() && !q.leaving {
			set.add(n)
		}
	}
	return set
}

// recoverable tells whether a way back is promised: more than half of what anybody alive knows is alive. A message on its
// way, or a goodbye, may still tell of others: they count as well. Nodes that left, or are about to, are not counted.
func (s *State) recoverable() bool {
	if s.anyPanel() {
		return s.staying() != 0
	}
	var known, departed nodes
	for i := range s.messages {
		known |= s.messages[i].known
	}
	for n := range node(maxNodes) {
		q := &s.members[n]
		if q.alive() || q.life == left {
			known |= q.known
		}
		if q.life == left || q.life == up && q.leaving {
			departed.add(n)
		}
	}
	staying := s.staying()
	return staying != 0 && staying.majority(known&^departed|staying)
}

// maxLiveSearch bounds one search for a way back. None met here needed a tenth of it; a search that is cut off is
// counted, not taken for either answer.
const maxLiveSearch = 300_000

// maxPanelsLiveSearch is the same with panels, with which states are more and steps slower. Some searches are cut off by it.
const maxPanelsLiveSearch = 20_000

// wayBack searches depth first for a good state without further faults, and remembers states that have a way back.
type wayBack struct {
	*machine
	good    map[State]struct{}
	tried   map[State]struct{}
	most    int // of tried
	rng     *rand.Rand
	cutOffs int
}

func newWayBack(m *machine) *wayBack {
	w := &wayBack{machine: m, good: map[State]struct{}{}, most: maxLiveSearch, rng: rand.New(rand.NewPCG(1, 2))}
	if m.Panels > 0 {
		w.most = maxPanelsLiveSearch
	}
	return w
}

// judge is the liveness property for one state.
func (w *wayBack) judge(s *State) error {
	if !s.recoverable() || w.Panels > 0 && !s.panelsRecoverable() {
		return nil
	}
	if w.Panels > 0 {
		for range strolls {
			if w.stroll(*s) {
				return nil
			}
		}
	}
	w.tried = map[State]struct{}{}
	switch {
	case w.search(s):
		return nil
	case len(w.tried) >= w.most:
		w.cutOffs++
		return nil
	}
	return ErrNoWayBack
}

// With panels there are so many orders of steps that a search depth first gets lost in them. A few walks at random, without
// messages and rounds until the members have agreed on a panel, come to a good state in most cases: fair schedules do.
const (
	strolls      = 4
	strollLength = 500
)

// stroll reports whether one walk finds a good state.
func (w *wayBack) stroll(s State) bool {
	quiet := w.rng.IntN(2) == 0
	for range strollLength {
		if w.machine.good(&s) {
			return true
		}
		var next State
		count := 0
		x := explorer{machine: w.machine, s: &s, calm: true, visit: func(_ Step, t *State, _ error) {
			if count++; w.rng.IntN(count) == 0 {
				next = *t
			}
		}}
		x.quiet = quiet && !w.panelsGood(&s, s.staying())
		x.steps()
		if count == 0 {
			return false
		}
		s = next
	}
	return false
}

func (w *wayBack) search(s *State) bool {
	if _, known := w.good[*s]; known || w.machine.good(s) {
		w.good[*s] = struct{}{}
		return true
	}
	if _, again := w.tried[*s]; again || len(w.tried) >= w.most {
		return false
	}
	w.tried[*s] = struct{}{}
	var next []State
	w.successors(s, true, func(_ Step, t *State, _ error) { next = append(next, *t) })
	for i := range next {
		if w.search(&next[i]) {
			w.good[*s] = struct{}{}
			return true
		}
	}
	return false
}
