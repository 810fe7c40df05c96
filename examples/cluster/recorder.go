package main

import (
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/peerlimit/peerlimit"
	"github.com/peerlimit/peerlimit/peerlimittest"
)

// call is one HTTP request and what came of it.
type call struct {
	key, node  string
	start, end time.Duration
	admitted   bool
	origin     string
	err        error
	cutOff     bool // by the end of a node that the demo ended
}

// recorder keeps what the verdict needs, and counts what the lines show.
type recorder struct {
	mu       sync.Mutex    // guards what follows
	from     time.Duration // calls that began before are counted, and not judged
	judges   map[string]*peerlimittest.Judge
	ideals   map[string]*ideal      // of each key
	seconds  map[string][]second    // of each key
	admitted map[string][]admission // of each key
	shared   map[string][]call      // of each key: what was decided by shares, denied or not
	total    counts                 // since the beginning
	sampled  counts                 // total when sample was called last
	calls    int
	cutOff   int
	failed   int
	failures []string // the first of them
}

// admission is a call that was admitted.
type admission struct {
	start, end time.Duration
	byOwner    bool // and not by a node that had to do without the owner
	local      bool // by the node that was asked
	node       string
}

// byShare reports whether a call was decided without the holder.
func (c *call) byShare() bool {
	return c.origin == peerlimit.OriginStandby.String() || c.origin == peerlimit.OriginFallback.String()
}

// second is what happened to one key in one second. A call that was not answered, because its node had stopped, is not
// counted: nobody could have admitted it.
type second struct {
	answered, admitted int
	due                int // what an ideal bucket would have admitted, asked in the same moments
}

// ideal is a bucket that loses nothing, asked for what the nodes are asked for, so that it tells how much of the limit the
// load had use for.
type ideal struct {
	limit peerlimit.Limit
	level float64
	at    time.Duration // when level was right
}

// take reports whether the bucket admits one token. Calls that end together may come a little out of order.
func (b *ideal) take(now time.Duration) bool {
	if now > b.at {
		drained := inflow(b.limit, now-b.at)
		b.level, b.at = max(0, b.level-drained), now
	}
	if b.level+1 > b.limit.Burst*(1+rounding) {
		return false
	}
	b.level++
	return true
}

// rounding is what a limiter that computes in float64 may be off by, relative to what is allowed.
const rounding = 1e-9

// inflow is what flows into a bucket in a stretch of time.
func inflow(l peerlimit.Limit, w time.Duration) float64 {
	return l.Tokens * float64(w) / float64(l.Period)
}

// allowed is what may be admitted in a window of that length: B + R·w.
func allowed(l peerlimit.Limit, w time.Duration) float64 { return l.Burst + inflow(l, w) }

// judgeOf returns a judge for one key. Limits come from flags and orders that were checked.
func judgeOf(limit peerlimit.Limit) *peerlimittest.Judge {
	j, err := peerlimittest.JudgeOf(limit)
	if err != nil {
		panic(err)
	}
	return j
}

// epoch is when the run began, for judges, which only care for what lies between instants.
var epoch = time.Unix(0, 0)

// instant is a moment of the run as a judge is told it, and moment what it was.
func instant(at time.Duration) time.Time { return epoch.Add(at) }
func moment(at time.Time) time.Duration  { return at.Sub(epoch) }

// maxFailures is how many failed calls are told in full.
const maxFailures = 3

func newRecorder(limit peerlimit.Limit) *recorder {
	r := &recorder{total: newCounts(), sampled: newCounts()}
	r.judgeBy(limit, 0)
	return r
}

// judgeBy has all calls that begin from now on judged by a limit, and those before forgotten.
func (r *recorder) judgeBy(limit peerlimit.Limit, from time.Duration) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.from = from
	r.judges, r.ideals = make(map[string]*peerlimittest.Judge), make(map[string]*ideal)
	r.seconds, r.admitted, r.shared = make(map[string][]second), make(map[string][]admission), make(map[string][]call)
	for _, d := range demands {
		r.judges[d.key], r.ideals[d.key] = judgeOf(limit), &ideal{limit: limit, at: from}
	}
}

// judged returns what was recorded so far and is judged, to be read while more is recorded.
func (r *recorder) judged() *recorder {
	r.mu.Lock()
	defer r.mu.Unlock()
	copied := &recorder{
		from: r.from, judges: maps.Clone(r.judges), seconds: make(map[string][]second), admitted: maps.Clone(r.admitted),
		shared: maps.Clone(r.shared), calls: r.calls, cutOff: r.cutOff, failed: r.failed, failures: slices.Clone(r.failures),
	}
	for key, seconds := range r.seconds {
		copied.seconds[key] = slices.Clone(seconds)
	}
	return copied
}

func newCounts() counts {
	return counts{ByNode: make(map[string]int), ByOrigin: make(map[string]int), ByKey: make(map[string]int)}
}

func (r *recorder) add(c call) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.calls++
	r.total.Offered++
	switch {
	case c.cutOff:
		r.cutOff++
	case c.err != nil:
		if r.failed++; len(r.failures) < maxFailures {
			r.failures = append(r.failures, shown(fmt.Sprintf("at %.1f s, %s for %s: %v", c.start.Seconds(), c.node, c.key, c.err)))
		}
	}
	if c.start >= r.from {
		r.judge(c)
	}
	if c.admitted && c.err == nil {
		r.total.Admitted++
		r.total.ByNode[c.node]++
		r.total.ByOrigin[c.origin]++
		r.total.ByKey[c.key]++
	}
}

// judge keeps a call for the verdict. The caller holds mu.
func (r *recorder) judge(c call) {
	if c.err != nil {
		return
	}
	r.count(c)
	if c.admitted {
		r.judges[c.key].AdmitBetween(instant(c.start), instant(c.end), 1)
		local := c.origin == peerlimit.OriginLocal.String()
		r.admitted[c.key] = append(r.admitted[c.key], admission{c.start, c.end, !c.byShare(), local, c.node})
	}
	if c.byShare() {
		r.shared[c.key] = append(r.shared[c.key], c)
	}
}

// resumed returns when the first call began, not before a given time, that an owner of the key admitted; never when there
// is none.
func (r *recorder) resumed(key string, after time.Duration) time.Duration {
	r.mu.Lock()
	defer r.mu.Unlock()
	first := never
	for _, a := range r.admitted[key] {
		if a.byOwner && a.start >= after {
			first = min(first, a.start)
		}
	}
	return first
}

// admittedIn returns how many takes of a key may have been decided, and were admitted, in a part of the run: nobody outside
// knows at which instant of a call its take is decided.
func (r *recorder) admittedIn(key string, from, to time.Duration) int {
	r.mu.Lock()
	defer r.mu.Unlock()
	n := 0
	for _, a := range r.admitted[key] {
		if a.start <= to && a.end >= from {
			n++
		}
	}
	return n
}

// admittedBy returns how many takes of a key a node may have decided in full, and were admitted, in a part of the run. Nobody
// outside knows which node has decided what another was asked for.
func (r *recorder) admittedBy(node, key string, from, to time.Duration) int {
	r.mu.Lock()
	defer r.mu.Unlock()
	n := 0
	for _, a := range r.admitted[key] {
		if a.start <= to && a.end >= from && a.byOwner && (a.node == node || !a.local) {
			n++
		}
	}
	return n
}

// count notes a call that was answered in the second in which it was. The caller holds mu.
func (r *recorder) count(c call) {
	at, seconds := int(c.end/time.Second), r.seconds[c.key]
	for len(seconds) <= at {
		seconds = append(seconds, second{})
	}
	seconds[at].answered++
	if c.admitted {
		seconds[at].admitted++
	}
	if r.ideals[c.key].take(c.end) {
		seconds[at].due++
	}
	r.seconds[c.key] = seconds
}

// sample returns the counts since it was last called.
func (r *recorder) sample() counts {
	r.mu.Lock()
	defer r.mu.Unlock()
	now := r.total.minus(counts{})
	c := now.minus(r.sampled)
	r.sampled = now
	return c
}

// totals returns the counts since the beginning.
func (r *recorder) totals() counts {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.total.minus(counts{})
}
