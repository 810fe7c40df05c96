package main

import (
	"maps"
	"math"
	"slices"
	"sync"
	"time"
)

// disturbanceKind is what was done to a node.
type disturbanceKind string

const (
	killed  disturbanceKind = "kill"
	started disturbanceKind = "start"
	retired disturbanceKind = "leave"
)

// disturbance is something done to a node, and what it did to the keys.
type disturbance struct {
	Kind  disturbanceKind
	Node  string
	At    time.Duration   // when it was done
	Gone  time.Duration   // when the process had ended; never if it has not
	Until time.Duration   // when the last node had taken it in, or the run had ended
	Done  bool            // all nodes had taken it in
	Moved map[string]move // keys that have another owner because of it
}

// move is the change of a key's owner.
type move struct {
	From, To string
	Resumed  time.Duration // after a kill: when an owner has admitted something again
	Unsent   int           // by a kill: what was admitted so shortly before that the next owner may not know of it
}

// never is later than everything.
const never time.Duration = math.MaxInt64

// concerns notes that the keys which a view gives to d's node are moved by d: away from a node that goes, to one that
// comes.
func (d *disturbance) concerns(v ringView) {
	for key, owner := range v.Owners {
		if owner == d.Node {
			d.Moved[key] = move{}
		}
	}
}

// overlaps reports whether a window has time in common with the disturbance.
func (d disturbance) overlaps(from, to time.Duration) bool { return from < d.Until && d.At < to }

// timeline knows from the nodes' reports who owns the keys, since when all of them agree on it, and so how long each
// disturbance lasted.
type timeline struct {
	elapsed func() time.Duration
	agreed  chan struct{}          // closed when all agree for the first time
	settled func(ds []disturbance) // called when all agree again; not under mu

	mu     sync.Mutex // guards what follows
	live   map[string]bool
	views  map[string]ringView // the latest of each node
	owners map[string]string   // of the keys, when all agreed last; nil before
	open   []*disturbance
	closed []*disturbance
}

func newTimeline(elapsed func() time.Duration, settled func([]disturbance)) *timeline {
	return &timeline{
		elapsed: elapsed, settled: settled, agreed: make(chan struct{}),
		live: make(map[string]bool), views: make(map[string]ringView),
	}
}

// expect says that a node belongs to the cluster from the first.
func (t *timeline) expect(node string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.live[node] = true
}

// begin says that something is about to be done to a node.
func (t *timeline) begin(kind disturbanceKind, node string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if kind == started {
		t.live[node] = true
	} else {
		delete(t.live, node)
	}
	d := &disturbance{Kind: kind, Node: node, At: t.elapsed(), Gone: never, Moved: make(map[string]move)}
	for _, v := range t.views {
		d.concerns(v)
	}
	t.open = append(t.open, d)
}

// update takes in what a node reports.
func (t *timeline) update(node string, v ringView) {
	t.mu.Lock()
	if old, ok := t.views[node]; ok && old.Version > v.Version {
		t.mu.Unlock()
		return
	}
	t.views[node] = v
	for _, d := range t.open {
		if node != d.Node { // which at first sees only itself, and owns everything
			d.concerns(v)
		}
	}
	news := t.settle()
	t.mu.Unlock()
	if len(news) > 0 {
		t.settled(news)
	}
}

// settle ends the open disturbances when all live nodes have the same ring of all live nodes. The caller holds mu.
func (t *timeline) settle() []disturbance {
	var owners map[string]string
	for node := range t.live {
		v, ok := t.views[node]
		if !ok || !t.isComplete(v) || owners != nil && !maps.Equal(v.Owners, owners) {
			return nil
		}
		owners = v.Owners
	}
	if t.owners == nil {
		close(t.agreed)
	}
	var news []disturbance
	for _, d := range t.open {
		for key := range d.Moved {
			d.Moved[key] = move{From: t.owners[key], To: owners[key]}
		}
		d.Until, d.Done = t.elapsed(), true
		news = append(news, *d)
	}
	t.closed = append(t.closed, t.open...)
	t.open, t.owners = nil, owners
	return news
}

// isComplete reports whether a view has all live nodes and no others. The caller holds mu.
func (t *timeline) isComplete(v ringView) bool {
	return v.Size == len(t.live) && len(v.Members) == len(t.live) &&
		!slices.ContainsFunc(v.Members, func(node string) bool { return !t.live[node] })
}

// gone says that a node's process has ended.
func (t *timeline) gone(node string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, d := range slices.Concat(t.open, t.closed) {
		if d.Node == node && d.Kind != started {
			d.Gone = t.elapsed()
		}
	}
}

// isStarting reports whether a node is being added.
func (t *timeline) isStarting(node string) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, d := range t.open {
		if d.Kind == started && d.Node == node {
			return true
		}
	}
	return false
}

// owner returns who owns a key, as far as all have agreed.
func (t *timeline) owner(key string) string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.owners[key]
}

// finish returns all disturbances, in the order in which they began. What is open lasts until end.
func (t *timeline) finish(end time.Duration) []disturbance {
	t.mu.Lock()
	defer t.mu.Unlock()
	var all []disturbance
	for _, d := range t.closed {
		all = append(all, *d)
	}
	for _, d := range t.open {
		for key := range d.Moved {
			d.Moved[key] = move{From: t.owners[key]}
		}
		d.Until = end
		all = append(all, *d)
	}
	t.closed, t.open = nil, nil
	return all
}
