package model

import "math/rand/v2"

// maxRemembered bounds the memory of a long walk: states known to have a way back, a few hundred bytes each.
const maxRemembered = 200_000

// Walks says which random walks to take.
type Walks struct {
	Seed      uint64
	Count     int
	Length    int  // steps at most in each
	LiveEvery int  // judge liveness after every so many steps; 0 means never
	Muted     bool // each walk leaves out a quarter of the steps, chosen at random
}

// walker takes seeded random walks, for clusters too large to exhaust.
type walker struct {
	*machine
	rng *rand.Rand
	Walks
	live *wayBack
	salt uint64 // chooses the steps a muted walk never takes
	Result
}

// Walk takes random walks from c's initial state until a property is violated. Every successor of every state passed is
// judged, also where the walk goes another way. The same arguments take the same walks.
func Walk(c Config, walks Walks) Result {
	m := newMachine(c)
	w := &walker{machine: m, Walks: walks, rng: rand.New(rand.NewPCG(walks.Seed, 0)), live: newWayBack(m)}
	for range walks.Count {
		if w.walk(); w.Violation != nil {
			break
		}
	}
	w.CutOffs = w.live.cutOffs
	return w.Result
}

// choice is a step that can be taken.
type choice struct {
	step Step
	next State
}

func (w *walker) walk() {
	s := w.scripted()
	if w.Muted {
		w.salt = w.rng.Uint64()
	}
	var trace []Step
	var choices [actionCount][]choice
	for range w.Length {
		for a := range choices {
			choices[a] = choices[a][:0]
		}
		w.successors(&s, false, func(step Step, next *State, err error) {
			if err != nil && w.Violation == nil {
				w.Violation = &Violation{Property: err, Steps: append(trace[:len(trace):len(trace)], step), Last: *next}
			}
			if w.muted(step) {
				return
			}
			choices[step.action] = append(choices[step.action], choice{step, *next})
		})
		if w.Violation != nil {
			return
		}
		chosen, ok := w.choose(&choices)
		if !ok {
			return
		}
		s, trace = chosen.next, append(trace, chosen.step)
		w.States++
		if w.LiveEvery > 0 && w.States%w.LiveEvery == 0 {
			w.judgeLiveness(&s, trace)
		}
	}
}

func (w *walker) judgeLiveness(s *State, trace []Step) {
	w.Live++
	if len(w.live.good) > maxRemembered {
		clear(w.live.good)
	}
	if err := w.live.judge(s); err != nil {
		w.Violation = &Violation{Property: err, Steps: trace, Last: *s}
	}
}

// muted tells whether this walk leaves the step out: a quarter of all, chosen anew for each walk. Most counterexamples
// need something not to happen for long (a piece of gossip, a response to a ping), which walks that take every step
// sooner or later hardly ever meet.
func (w *walker) muted(t Step) bool {
	if !w.Muted {
		return false
	}
	x := w.salt ^ (uint64(t.action)<<24 | uint64(t.a)<<16 | uint64(t.b)<<8 | uint64(t.kind))
	x = (x ^ x>>30) * 0xbf58476d1ce4e5b9 // the finalizer of splitmix64
	x = (x ^ x>>27) * 0x94d049bb133111eb
	return (x^x>>31)%4 == 0
}

// choose picks among kinds of steps first, so that the few interesting steps are not drowned by the many pings; a third
// of the time among all. Events are spread out, to happen in the middle of what earlier ones began.
func (w *walker) choose(choices *[actionCount][]choice) (choice, bool) {
	var kinds []action
	total := 0
	for a := range actionCount {
		if n := len(choices[a]); n > 0 {
			kinds = append(kinds, a)
			total += n
		}
	}
	if total == 0 {
		return choice{}, false
	}
	if w.rng.IntN(3) == 0 {
		i := w.rng.IntN(total)
		for _, a := range kinds {
			if i < len(choices[a]) {
				return choices[a][i], true
			}
			i -= len(choices[a])
		}
	}
	a := kinds[w.rng.IntN(len(kinds))]
	if a.rare() && w.rng.IntN(3) != 0 {
		a = kinds[w.rng.IntN(len(kinds))]
	}
	return choices[a][w.rng.IntN(len(choices[a]))], true
}

func (a action) rare() bool {
	return a >= eventLapse && a <= dropsCopy || a == eventClose || a == resume || a == healLink
}
