package main

import (
	"maps"
	"math"
	"slices"
	"strings"
	"sync"
	"time"
)

// disturbanceKind is what was done to a node.
type disturbanceKind string

const (
	killed  disturbanceKind = "kill"
	started disturbanceKind = "start"
	retired disturbanceKind = "leave"
	frozen  disturbanceKind = "freeze" // stopped, and so gone for all the others know
	woken   disturbanceKind = "wake-up"
	split   disturbanceKind = "split" // some are cut off from the others; Until is after the network has healed

	degraded disturbanceKind = "degraded" // not done: a node reported that it decided by its share
)

// isSudden reports whether the others are not told before.
func (k disturbanceKind) isSudden() bool { return k == killed || k == frozen || k == split }

// disturbance is something done to a node, or reported by it, and what it did to the keys.
type disturbance struct {
	Kind  disturbanceKind
	Node  string
	At    time.Duration   // when it was done
	Gone  time.Duration   // when the process had ended; never if it has not
	Until time.Duration   // when the last node had taken it in, or the run had ended
	Done  bool            // all nodes had taken it in
	Moved map[string]move // keys that have another owner because of it, or that a report is about

	Unreached  string          // of a report: whose keys it is about; "" when the node has lost quorum
	Apart      int             // of a split: how many are on the smaller side
	Of         int             // how many there were
	Stranded   bool            // nobody has a majority after it, unless it is one of those that are gone
	StandbyToo map[string]bool // keys that have lost both owner and standby, by this one and another sudden one shortly before
	wasStandby map[string]bool // keys that a node of it was the standby of
	held       bool            // it goes on, whatever the nodes report
}

// move is the change of a key's owner.
type move struct {
	From, To string
	Resumed  time.Duration // after a kill: when an owner has admitted something again
	Unsent   int           // by a kill: what was admitted so shortly before that the next owner may not know of it
	ByShare  float64       // of a report: what was admitted by the node's share, as far as that may be
}

// never is later than everything.
const never time.Duration = math.MaxInt64

// isOf reports whether a node is concerned. A split has the names of those that are cut off in Node.
func (d *disturbance) isOf(node string) bool {
	return d.Node == node || d.Kind == split && slices.Contains(strings.Split(d.Node, ", "), node)
}

// concerns notes that the keys which a view gives to d's node are moved by d: away from a node that goes, to one that
// comes.
func (d *disturbance) concerns(v ringView) {
	for key, owner := range v.Owners {
		if d.isOf(owner) {
			d.Moved[key] = move{}
			if d.isOf(v.Standbys[key]) {
				d.StandbyToo[key] = true
			}
		} else if d.isOf(v.Standbys[key]) {
			d.wasStandby[key] = true
		}
	}
}

// overlaps reports whether a window has an instant in common with the disturbance.
func (d disturbance) overlaps(from, to time.Duration) bool { return from <= d.Until && d.At <= to }

// timeline knows from the nodes' reports which of them own the keys, since when all of them agree on it, and so how long each
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

	missing map[string]time.Duration // since when: gone without a goodbye: the others may still count them
	reports reports
}

func newTimeline(elapsed func() time.Duration, settled func([]disturbance)) *timeline {
	return &timeline{
		elapsed: elapsed, settled: settled, agreed: make(chan struct{}),
		live: make(map[string]bool), views: make(map[string]ringView), missing: make(map[string]time.Duration),
		reports: reports{rings: make(map[string][]ringAt)},
	}
}

// expect says that a node belongs to the cluster from the first.
func (t *timeline) expect(node string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.live[node] = true
}

// shortlyAfter is how long after a sudden end everything has a standby again that knows all, with some to spare.
const shortlyAfter = 3 * time.Second

// failedCounts is how long a member that has failed still counts when a limit is divided.
const failedCounts = time.Minute

// begin says that something is about to be done to nodes: one, or those on the smaller side of a split.
func (t *timeline) begin(kind disturbanceKind, nodes ...string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	d := &disturbance{
		Kind: kind, Node: strings.Join(nodes, ", "), At: t.elapsed(), Gone: never,
		Moved: make(map[string]move), StandbyToo: make(map[string]bool), wasStandby: make(map[string]bool),
		Apart: len(nodes), Of: len(t.live), held: kind == split,
	}
	for _, v := range t.views {
		d.concerns(v)
	}
	switch kind {
	case started, woken:
		t.live[nodes[0]] = true
		delete(t.missing, nodes[0])
		d.Of = len(t.live)
	case retired:
		delete(t.live, nodes[0])
	case killed, frozen:
		delete(t.live, nodes[0])
		if kind == killed {
			delete(t.views, nodes[0])
		}
		t.missing[nodes[0]] = d.At
		d.Stranded = 2*len(t.live) <= len(t.live)+t.counted(d.At)
	case split:
		d.Stranded = 2*(len(t.live)-len(nodes)) <= len(t.live)+t.counted(d.At)
	}
	if kind.isSudden() {
		t.addUpWith(d)
	}
	t.open = append(t.open, d)
	t.follow(kind, nodes)
}

// counted is how many of those that went without a goodbye the others may still count. The caller holds mu.
func (t *timeline) counted(now time.Duration) (n int) {
	for _, since := range t.missing {
		if now-since < failedCounts+shortlyAfter {
			n++
		}
	}
	return n
}

// addUpWith notes that what another sudden one has taken an owner from may have been with a standby that is gone now. The
// caller holds mu.
func (t *timeline) addUpWith(d *disturbance) {
	for _, old := range slices.Concat(t.closed, t.open) {
		if !old.Kind.isSudden() || old.Done && d.At-old.At >= shortlyAfter {
			continue
		}
		for key := range d.wasStandby {
			if _, moved := old.Moved[key]; moved {
				d.Moved[key], d.StandbyToo[key] = move{}, true
			}
		}
		for key := range d.Moved {
			if _, moved := old.Moved[key]; moved || old.wasStandby[key] {
				d.StandbyToo[key] = true
			}
		}
	}
}

// healed says that the network is whole again.
func (t *timeline) healed() {
	t.mu.Lock()
	for _, d := range t.open {
		d.held = false
	}
	for node := range t.live {
		t.back(node)
	}
	news := t.settle()
	t.mu.Unlock()
	if len(news) > 0 {
		t.settled(news)
	}
}

// update takes in what a node reports.
func (t *timeline) update(node string, v ringView) {
	t.mu.Lock()
	if old, ok := t.views[node]; ok && old.Version > v.Version {
		t.mu.Unlock()
		return
	}
	t.views[node] = v
	t.saw(node, v.Owners)
	for _, d := range t.open {
		if !d.isOf(node) { // which at first sees only itself, and owns everything
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
	if slices.ContainsFunc(t.open, func(d *disturbance) bool { return d.held }) {
		return nil
	}
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

// gone says that a node's process has ended, or has stopped.
func (t *timeline) gone(node string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, d := range slices.Concat(t.open, t.closed) {
		if d.Node == node && d.Gone == never && (d.Kind == killed || d.Kind == retired || d.Kind == frozen) {
			d.Gone = t.elapsed()
			if d.Kind == retired {
				t.away(node)
			}
		}
	}
}

// isStarting reports whether a node is being added.
func (t *timeline) isStarting(node string) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, d := range t.open {
		if (d.Kind == started || d.Kind == woken) && d.Node == node {
			return true
		}
	}
	return false
}

// owner returns the owner of a key, as far as all have agreed.
func (t *timeline) owner(key string) string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.owners[key]
}

// until returns all disturbances so far, in the order in which they began. What is open lasts until end.
func (t *timeline) until(end time.Duration) []disturbance {
	t.mu.Lock()
	defer t.mu.Unlock()
	var all []disturbance
	for _, d := range t.closed {
		one := *d
		one.Moved = maps.Clone(d.Moved)
		all = append(all, one)
	}
	for _, d := range t.open {
		one := *d
		one.Moved = make(map[string]move)
		for key := range d.Moved {
			one.Moved[key] = move{From: t.owners[key]}
		}
		one.Until = end
		all = append(all, one)
	}
	return all
}

// view is the ring as the first of some nodes sees it that has told how.
func (t *timeline) view(nodes []string) (v ringView, ok bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, node := range nodes {
		if v, ok = t.views[node]; ok {
			return v, true
		}
	}
	return v, false
}
