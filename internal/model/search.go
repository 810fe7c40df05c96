package model

// Result says what a search has seen.
type Result struct {
	States    int        // distinct states for a breadth-first search, steps for walks
	Depth     int        // of the last complete layer of a breadth-first search
	Live      int        // states whose way back was searched
	CutOffs   int        // searches for a way back that were cut off, undecided
	Exhausted bool       // every reachable state was seen
	Violation *Violation // nil when there was none
}

// edge is how a state was first reached.
type edge struct {
	parent int
	step   Step
}

// breadthFirst is one search. Visited states are kept whole, so "exhausted" does not depend on a hash.
type breadthFirst struct {
	*machine
	seen  map[State]struct{}
	queue []State // in order of discovery; never shortened, an index names a state
	edges []edge
	live  *wayBack
	Result
}

// Explore searches c breadth first until it is exhausted, a property is violated (by a shortest trace), or maxStates
// states are seen. Liveness is judged for every liveEvery-th state; 0 means for none.
func Explore(c Config, maxStates, liveEvery int) Result {
	m := newMachine(c)
	b := &breadthFirst{machine: m, seen: map[State]struct{}{}, live: newWayBack(m)}
	b.discover(m.scripted(), edge{parent: -1})
	layerEnd := 1
	for i := 0; i < len(b.queue) && b.Violation == nil && len(b.queue) < maxStates; i++ {
		if i == layerEnd {
			layerEnd = len(b.queue)
			b.Depth++
		}
		if liveEvery > 0 && i%liveEvery == 0 {
			b.judgeLiveness(i)
		}
		b.expand(i)
		b.Exhausted = i+1 == len(b.queue) && b.Violation == nil
	}
	b.States, b.CutOffs = len(b.queue), b.live.cutOffs
	return b.Result
}

func (b *breadthFirst) expand(i int) {
	s := b.queue[i]
	b.successors(&s, false, func(step Step, next *State, err error) {
		if err != nil && b.Violation == nil {
			b.discover(*next, edge{i, step})
			b.Violation = b.trace(len(b.queue)-1, err)
		}
		if _, again := b.seen[*next]; !again {
			b.discover(*next, edge{i, step})
		}
	})
}

func (b *breadthFirst) discover(s State, e edge) {
	b.seen[s] = struct{}{}
	b.queue = append(b.queue, s)
	b.edges = append(b.edges, e)
}

func (b *breadthFirst) judgeLiveness(i int) {
	b.Live++
	if err := b.live.judge(&b.queue[i]); err != nil {
		b.Violation = b.trace(i, err)
	}
}

func (b *breadthFirst) trace(i int, err error) *Violation {
	v := &Violation{Property: err, Last: b.queue[i]}
	for ; b.edges[i].parent >= 0; i = b.edges[i].parent {
		v.Steps = append([]Step{b.edges[i].step}, v.Steps...)
	}
	return v
}
