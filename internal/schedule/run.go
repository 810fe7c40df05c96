package schedule

import (
	"context"
	crand "crypto/rand"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/peerlimit/peerlimit"
	"github.com/peerlimit/peerlimit/fallback"
	"github.com/peerlimit/peerlimit/internal/inspect"
	"github.com/peerlimit/peerlimit/internal/oracle"
	"github.com/peerlimit/peerlimit/internal/ring"

	// With the race detector all of a bubble runs on one core.
	_ "github.com/peerlimit/peerlimit/internal/onecore"
	"github.com/peerlimit/peerlimit/peerlimittest"
)

// Running a schedule: a cluster in a bubble, callers on every node, the events, and a goroutine that looks at every node
// every few milliseconds. What can be judged immediately is, and the rest is written down for judge.go.

const (
	sampleEvery  = 5 * time.Millisecond
	callBound    = 2*peerlimit.DefaultRPCTimeout + 50*time.Millisecond // the longest that a call may take
	holderBound  = 5 * time.Second                                     // from the last event until all is decided in full again
	healingBound = 30 * time.Second                                    // the same when something had to heal first
	calmAfter    = time.Second                                         // from then until no node decides by a share any more
	lastLook     = 3 * time.Second                                     // how long the load goes on after that began
)

// call is one call that was made and what came of it.
type call struct {
	start, end time.Duration
	key        *keyRun
	node       int
	origin     peerlimit.Origin
	cost       float64
	admitted   bool
	paused     bool // the node was frozen while it lasted, and the caller with it
}

// keyRun is one key of a plan in a run.
type keyRun struct {
	plan      *plan
	name      string
	partition uint16
	oracles   []*oracle.Oracle // one for each limit; none for keys that are reset
	holders   []holding        // the nodes that decided in full, in order of time

	// replicated has, for each event by its time, the nodes that had a copy when it began.
	replicated map[time.Duration]uint64
}

func (k *keyRun) String() string { return k.plan.name + "/" + k.name }

// nodeRun is one node in a run.
type nodeRun struct {
	number  int
	node    *peerlimit.Node
	frozen  atomic.Bool // its callers stand still with it
	freezes atomic.Int32
	going   atomic.Bool // it was told to leave or killed: calls may find it closed
	killed  atomic.Bool // its callers are dead with it, whatever they are still told
	decides [64]uint64  // when it was looked at last

	since time.Duration // when it was told to start
	ended atomic.Int64  // when it was killed or had left, a time.Duration; 0 while it lives
}

// Run is a schedule being played, and what was seen.
type Run struct {
	s       *Schedule
	cluster *peerlimittest.Cluster
	began   time.Time
	stop    chan struct{} // closed when the load and the looking end
	load    sync.WaitGroup
	keys    []*keyRun
	started []chan struct{} // by number: closed when that node is in nodes

	mu       sync.Mutex // guards what follows; held for a look or an entry
	nodes    []*nodeRun
	calls    []call
	lost     []call            // that ended with their deadlines, before there was a response
	wrong    map[string]*wrong // by kind
	noted    []noted
	happened []event // with the times at which they really began
	doubles  bool    // two nodes decided in full about a partition when last looked at
	missing  int     // partitions about which nobody did
	gaps     []gap
	joiners  []joiner
	counts   []count
	settled  time.Duration // when all was as it should be after the last event, or that was given up
	loaded   time.Duration // when the callers began
	stopped  time.Duration // and were told to end; those in the middle of a burst take a moment
	finished time.Duration

	outOfTurn time.Duration // the most by which one that waited was overtaken
}

// wrong is one kind of thing that went wrong: when it first did, the first few of it, and how many there were.
type wrong struct {
	since time.Duration
	key   *keyRun // one that it is about; nil when there is none
	first []string
	count int
}

// noted is a line for the timeline of a failure.
type noted struct {
	at     time.Time
	node   int // that noticed; -1 for what was done to the cluster
	kind   peerlimit.EventKind
	member string // that it is about
	text   string
}

// maxNoted bounds what a run that goes wild writes down.
const maxNoted = 20_000

// Play runs a schedule to its end, judges it and returns what was seen.
func Play(t *testing.T, s *Schedule) *Run {
	defer fixIdentities(s.seed)()
	r := &Run{s: s, wrong: make(map[string]*wrong)}
	synctest.Test(t, func(t *testing.T) {
		r.stop = make(chan struct{}) // of this bubble
		r.startCluster(t)
		r.began = time.Now()
		if s.far > 0 {
			r.cluster.Degrade(peerlimittest.Conditions{Latency: s.far})
		}
		r.prepare()
		var looking sync.WaitGroup
		looking.Go(r.look)
		r.exhaust()
		r.loaded = r.now()
		for i := range s.nodes {
			r.enlist(i, r.cluster.Node(i), 0)
		}
		if s.family.goesOn() {
			looking.Go(r.countMembers)
		}
		r.happen()
		r.settle()
		if s.family == piecesFamily {
			r.askAll()
		}
		time.Sleep(lastLook)
		if s.family.goesOn() {
			time.Sleep(s.lastEnd() + calmFrom + calmFor + time.Second - r.now())
		}
		close(r.stop)
		r.stopped = r.now()
		r.load.Wait()
		looking.Wait()
		r.finished = r.now()
	})
	r.judge()
	return r
}

// fixIdentities makes the random part of the nodes' identities, and so the owners, follow from a seed, until what it
// returns is called. A seed that fails would else be unlikely to fail again.
func fixIdentities(seed uint64) (restore func()) {
	random := crand.Reader
	crand.Reader = &seededReader{source: rand.New(rand.NewPCG(seed, 2))}
	return func() { crand.Reader = random }
}

// seededReader is a source of bytes that are not random at all.
type seededReader struct {
	mu     sync.Mutex // guards source
	source *rand.Rand
}

func (r *seededReader) Read(p []byte) (int, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for i := range p {
		p[i] = byte(r.source.Uint64())
	}
	return len(p), nil
}

// orderly reports whether nothing goes wrong in a run: nodes come and go, and that is all.
func (r *Run) orderly() bool {
	return r.s.family == membershipFamily || r.s.family == piecesFamily &&
		!slices.ContainsFunc(r.s.events, func(e event) bool { return e.kind == kill })
}

func (r *Run) now() time.Duration { return time.Since(r.began) }

// saw writes down that something went wrong, with a key if it is about one.
func (r *Run) saw(kind string, k *keyRun, format string, args ...any) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.sawLocked(kind, k, format, args...)
}

// sawAt is saw for what is found by looking back, with when it was.
func (r *Run) sawAt(at time.Duration, kind string, k *keyRun, format string, args ...any) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.wrong[kind] == nil {
		r.wrong[kind] = &wrong{since: at, key: k}
	}
	r.sawLocked(kind, k, format, args...)
}

// sawLocked is saw for callers that hold the lock.
func (r *Run) sawLocked(kind string, k *keyRun, format string, args ...any) {
	w := r.wrong[kind]
	if w == nil {
		w = &wrong{since: r.now(), key: k}
		if r.finished > 0 {
			w.since = r.finished // found by looking back
		}
		r.wrong[kind] = w
	}
	if w.count++; len(w.first) < 3 {
		w.first = append(w.first, fmt.Sprintf(format, args...))
	}
}

// note writes down what was done to the cluster.
func (r *Run) note(format string, args ...any) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.noted = append(r.noted, noted{at: time.Now(), node: -1, text: fmt.Sprintf(format, args...)})
}

// listen is an option of every node: its events go into the timeline.
func (r *Run) listen(c *peerlimit.Config) {
	var number int
	_, _ = fmt.Sscanf(c.Name, "node%d", &number)
	if r.s.family == piecesFamily {
		// A share would admit what the holder denies while a partition moves for longer than a call may take.
		c.Fallback = fallback.Closed
		inspect.MoveInPieces(c, r.s.pieces.answer, r.s.pieces.replica)
	}
	c.OnEvent = func(e peerlimit.Event) {
		news := noted{at: e.Time, node: number, kind: e.Kind, member: strings.Split(e.Member, "-")[0]}
		switch e.Kind {
		case peerlimit.EventRing:
			news.text = e.Detail
		case peerlimit.EventLinkDown: // the innermost cause; the rest repeats the member's name
			news.text = e.Detail[max(0, strings.LastIndex(e.Detail, ": ")+2):]
		}
		r.mu.Lock()
		defer r.mu.Unlock()
		if len(r.noted) < maxNoted {
			r.noted = append(r.noted, news)
		}
	}
}

// startCluster starts the nodes. Of a seed they begin one by one, and things happen before all members are witnesses.
func (r *Run) startCluster(t *testing.T) {
	if r.s.seed == 0 {
		r.cluster = peerlimittest.NewSeededCluster(t, r.s.nodes, r.s.seed, r.listen)
		return
	}
	r.cluster = peerlimittest.NewSeededCluster(t, 1, r.s.seed, r.listen)
	for range r.s.nodes - 1 {
		r.cluster.Add()
	}
	r.cluster.WaitReady()
}

// prepare makes room for what will be seen.
func (r *Run) prepare() {
	for i := range r.s.plans {
		p := &r.s.plans[i]
		for _, name := range p.keys {
			k := &keyRun{plan: p, name: name, partition: ring.PartitionOf(p.name, name)}
			if p.use != resetting {
				for _, l := range p.limits {
					k.oracles = append(k.oracles, oracleFor(l))
				}
			}
			r.keys = append(r.keys, k)
		}
	}
	numbers := r.s.nodes
	for _, e := range r.s.events {
		if e.kind == join {
			numbers++
		}
	}
	for range numbers {
		r.started = append(r.started, make(chan struct{}))
	}
	for i := range r.s.nodes {
		r.nodes = append(r.nodes, &nodeRun{number: i, node: r.cluster.Node(i)})
	}
	r.sample()
}

// exhaust empties the buckets that are to be empty when things begin to happen.
func (r *Run) exhaust() {
	for _, k := range r.keys {
		if k.plan.use != exhausted {
			continue
		}
		l, err := r.cluster.Node(0).Limiter(k.plan.name, k.plan.limits...)
		if err != nil {
			r.saw("errors", nil, "%v", err)
			return
		}
		burst := k.plan.limits[0].Burst
		if burst == 0 {
			burst = k.plan.limits[0].Tokens
		}
		c := caller{Run: r, node: r.nodes[0], limiter: l}
		c.take(k, burst)
	}
}

// askAll takes once from every key that is exhausted, from one node after the other: whatever was forgotten is admitted.
func (r *Run) askAll() {
	nodes := r.cluster.Nodes()
	for i, k := range r.keys {
		if k.plan.use != exhausted {
			continue
		}
		node := nodes[i%len(nodes)]
		l, err := node.Limiter(k.plan.name, k.plan.limits...)
		if err != nil {
			r.saw("errors", nil, "%v", err)
			return
		}
		n := r.nodes[slices.IndexFunc(r.nodes, func(n *nodeRun) bool { return n.node == node })]
		c := caller{Run: r, node: n, limiter: l}
		c.take(k, k.plan.cost)
	}
}

// enlist puts callers on a node that was told to start at a time.
func (r *Run) enlist(number int, node *peerlimit.Node, since time.Duration) {
	r.mu.Lock()
	var n *nodeRun
	if i := slices.IndexFunc(r.nodes, func(n *nodeRun) bool { return n.number == number }); i >= 0 {
		n = r.nodes[i]
	} else {
		n = &nodeRun{number: number, node: node, since: since}
		r.nodes = append(r.nodes, n)
	}
	r.mu.Unlock()
	close(r.started[number])
	for i := range r.s.plans {
		p := &r.s.plans[i]
		l, err := node.Limiter(p.name, p.limits...)
		if errors.Is(err, peerlimit.ErrClosed) && n.going.Load() {
			return
		}
		if err != nil {
			r.saw("errors", nil, "limiter %s on node%d: %v", p.name, number, err)
			return
		}
		var keys []*keyRun
		for _, k := range r.keys {
			if k.plan == p {
				keys = append(keys, k)
			}
		}
		seed := r.s.seed<<16 | uint64(number)<<8 | uint64(i)
		for j := range p.callers(r.s.nodes) {
			c := caller{Run: r, node: n, limiter: l, random: rand.New(rand.NewPCG(seed, 1+uint64(j)<<8))}
			if !p.remote {
				c.hurry = rand.New(rand.NewPCG(seed, 3))
			}
			r.load.Go(func() { c.call(p, keys) })
		}
	}
}

// happen lets everything happen that is to happen, and returns when all of it is over.
func (r *Run) happen() {
	var events sync.WaitGroup
	for _, e := range r.s.events {
		time.Sleep(e.at - r.now())
		events.Go(func() {
			r.begins(e)
			r.do(e)
			r.sample()
			if e.lasts > 0 {
				time.Sleep(e.lasts)
				r.undo(e)
				r.note("ends: %s", e.what())
				r.sample()
			}
		})
		synctest.Wait() // so that numbers are given in the order of the events
	}
	events.Wait()
	if len(r.s.events) == 0 {
		time.Sleep(12 * time.Second)
	}
}

// begins waits until the nodes have started that the event happens to, and notes when it does.
func (r *Run) begins(e event) {
	switch e.kind {
	case leave, kill, freeze:
		<-r.started[e.node]
	case cutWay, cutLink:
		<-r.started[e.node]
		<-r.started[e.peer]
	}
	r.note("%s", e.what())
	r.mu.Lock()
	defer r.mu.Unlock()
	e.at = r.now()
	r.happened = append(r.happened, e)
	for _, k := range r.keys {
		if k.replicated == nil {
			k.replicated = make(map[time.Duration]uint64)
		}
		for _, n := range r.nodes {
			if inspect.HasCopy(n.node, k.partition) {
				k.replicated[e.at] |= 1 << n.number
			}
		}
	}
}

// nodeRun returns a node that has started.
func (r *Run) nodeRun(number int) *nodeRun {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.nodes[slices.IndexFunc(r.nodes, func(n *nodeRun) bool { return n.number == number })]
}

func (r *Run) do(e event) {
	switch e.kind {
	case join:
		since := r.now()
		r.enlist(e.node, r.cluster.AddCutOff(r.s.cutOffAt(e.node, since)), since)
		if r.s.family > piecesFamily {
			r.load.Go(func() { r.awaitJoiner(r.nodeRun(e.node)) })
		}
	case leave:
		r.nodeRun(e.node).going.Store(true)
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		if err := r.cluster.Leave(ctx, e.node); err != nil && r.orderly() {
			r.saw("errors", nil, "node%d leaves: %v", e.node, err)
		}
		r.nodeRun(e.node).ended.Store(int64(r.now()))
		r.note("node%d has left", e.node)
	case kill:
		r.nodeRun(e.node).going.Store(true)
		r.nodeRun(e.node).killed.Store(true)
		r.cluster.Kill(e.node)
		r.nodeRun(e.node).ended.CompareAndSwap(0, int64(r.now()))
	case freeze:
		r.nodeRun(e.node).frozen.Store(true)
		r.nodeRun(e.node).freezes.Add(1)
		r.cluster.Freeze(e.node)
	case cutWay:
		r.cluster.Cut(e.node, e.peer)
	case cutLink:
		r.cluster.CutBoth(e.node, e.peer)
	case split:
		r.cluster.Split(r.s.sidesAt(e, r.now())...)
	case degrade:
		r.cluster.Degrade(e.conditions)
	}
}

func (r *Run) undo(e event) {
	switch e.kind {
	case freeze:
		r.cluster.Thaw(e.node)
		r.nodeRun(e.node).frozen.Store(false)
	case cutWay, cutLink:
		r.cluster.Mend(e.node, e.peer)
	case split:
		sides := r.s.sidesAt(e, r.now())
		for i, side := range sides {
			for _, other := range sides[i+1:] {
				for _, a := range side {
					for _, b := range other {
						r.cluster.Mend(a, b)
					}
				}
			}
		}
	case degrade:
		r.cluster.Degrade(peerlimittest.Healthy)
	}
}

// settle waits until everything is as it should be after the last event, and says so when it is not in time.
func (r *Run) settle() {
	bound := holderBound
	for _, e := range r.s.events {
		if e.lasts > 0 {
			bound = healingBound
		}
	}
	from := r.now()
	for {
		r.sample()
		complaint := r.unsettled()
		if complaint == "" {
			break
		}
		if r.now()-from > bound {
			for _, node := range r.cluster.Nodes() {
				complaint += "\n" + inspect.Acquiring(node)
			}
			r.saw("not settled", r.keyHeldBy(0), "%v after the last event %s", bound, complaint)
			break
		}
		time.Sleep(20 * time.Millisecond)
	}
	r.settled = r.now()
	r.note("settled, or given up, %.3fs after the last event", (r.settled - from).Seconds())
}

// unsettled says what is not yet as it should be, or nothing.
func (r *Run) unsettled() string {
	r.mu.Lock()
	missing, doubled := r.missing, r.doubles
	r.mu.Unlock()
	if missing > 0 {
		return fmt.Sprintf("%d partitions have no node that decides in full", missing)
	}
	if doubled {
		return "two decide in full about the same partition"
	}
	nodes := r.cluster.Nodes()
	for _, node := range nodes {
		alive := 0
		for _, m := range node.Members() {
			if m.State == peerlimit.MemberAlive {
				alive++
			}
		}
		if alive != len(nodes) {
			return fmt.Sprintf("%s sees %d of %d nodes alive", strings.Split(node.Self().Name, "-")[0], alive, len(nodes))
		}
	}
	return r.disagreement(nodes)
}

// disagreement names a key about whose owner two nodes differ, if there is one.
func (r *Run) disagreement(nodes []*peerlimit.Node) string {
	for i := range r.s.plans {
		p := &r.s.plans[i]
		var first *peerlimit.Limiter
		for _, node := range nodes {
			l, err := node.Limiter(p.name, p.limits...)
			if err != nil {
				return err.Error()
			}
			if first == nil {
				first = l
			}
			for _, key := range p.keys {
				if a, b := first.Owner(key).Name, l.Owner(key).Name; a != b {
					return fmt.Sprintf("%s says that %s/%s is owned by %s, not %s", node.Self().Name, p.name, key, b, a)
				}
			}
		}
	}
	return ""
}
