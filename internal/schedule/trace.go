package schedule

import (
	"cmp"
	"fmt"
	"maps"
	"math"
	"slices"
	"strings"
	"time"

	"github.com/peerlimit/peerlimit"
)

// The timeline of one key in a run that failed: what was done to the cluster, which nodes decided in full about the key, what
// the nodes noticed, and what each node admitted in between, next to what an ideal bucket would hold.

// maxTimeline is how many lines a timeline has at most.
const maxTimeline = 60

// line is one line of a timeline.
type line struct {
	at    time.Duration
	order int // of lines at the same instant: the order in which they were made
	rank  int // the higher, the sooner it is left out
	text  string
}

// What is left out first when there is too much to show.
const (
	rankEvent  = iota // what the schedule did: shown always, or, where that is much, sooner than all else
	rankHolder        // the nodes that decide in full
	rankExcess        // takes that an ideal bucket would not have admitted
	rankTakes         // other takes
	rankRing          // rings changed
	rankMember        // members came and went, decided by a share
	rankLink          // links went up and down
)

// sameNews is how close in time the same news of several nodes must be to share a line.
const sameNews = 250 * time.Millisecond

// timeline returns what matters about a key, most of it around one instant.
func (r *Run) timeline(k *keyRun, l peerlimit.Limit, focus time.Duration) []string {
	lines := append(r.eventLines(), k.holderLines()...)
	for _, g := range r.gaps {
		text := fmt.Sprintf("(partitions about which no node decides in full: %d)", g.missing)
		lines = append(lines, line{at: g.at, rank: rankHolder, text: text})
	}
	lines = append(lines, r.takeLines(k, l, lines)...)
	for i := range lines {
		lines[i].order = i
	}
	total := len(lines)
	if total > maxTimeline-1 {
		eventful := len(r.s.events) > maxTimeline/4
		slices.SortStableFunc(lines, func(a, b line) int {
			return cmp.Compare(a.remoteness(focus, eventful), b.remoteness(focus, eventful))
		})
		lines = lines[:maxTimeline-1]
	}
	slices.SortFunc(lines, func(a, b line) int {
		return cmp.Or(cmp.Compare(a.at, b.at), cmp.Compare(a.rank, b.rank), cmp.Compare(a.order, b.order))
	})
	var texts []string
	for _, line := range lines {
		mark := ' '
		if line.rank == rankEvent {
			mark = '*'
		}
		texts = append(texts, fmt.Sprintf("%9.3fs %c %s", line.at.Seconds(), mark, line.text))
	}
	if total > len(lines) {
		texts = append(texts, fmt.Sprintf("(%d lines that seem to matter less are left out)", total-len(lines)))
	}
	return texts
}

// remoteness says how little a line matters to what happened at an instant. What the schedule did always matters, unless there was much.
func (l line) remoteness(focus time.Duration, eventful bool) float64 {
	if l.rank == rankEvent && !eventful {
		return -1
	}
	return (l.at - focus).Abs().Seconds() * float64(1+l.rank)
}

// news is what one or more nodes noticed at about the same time: one node about several, or several about one.
type news struct {
	since, until time.Duration
	kind         peerlimit.EventKind
	text         string
	nodes        []string
	members      []string
}

// join adds what a node noticed if that fits, and reports whether it did.
func (n *news) join(other noted, at time.Duration, node string) bool {
	sameNode, sameMember := slices.Equal(n.nodes, []string{node}), slices.Equal(n.members, []string{other.member})
	if n.kind != other.kind || n.text != other.text || at-n.since > sameNews || sameNode == sameMember {
		return false
	}
	if sameNode {
		n.members = append(n.members, other.member)
	} else if slices.Contains(n.nodes, node) {
		return false
	} else {
		n.nodes = append(n.nodes, node)
	}
	n.until = at
	return true
}

func (n *news) line() line {
	text := fmt.Sprintf("%s: %v %s", strings.Join(n.nodes, ", "), n.kind, strings.Join(n.members, ", "))
	if n.text != "" {
		text = strings.TrimSpace(text) + ": " + n.text
	}
	if took := n.until - n.since; took > 0 {
		text += fmt.Sprintf(" (within %v)", took.Round(time.Millisecond))
	}
	rank := rankMember
	switch n.kind {
	case peerlimit.EventRing:
		rank = rankRing
	case peerlimit.EventLinkUp, peerlimit.EventLinkDown:
		rank = rankLink
	}
	return line{at: n.since, rank: rank, text: text}
}

// eventLines are what the schedule did and what the nodes noticed, the same news in one line.
func (r *Run) eventLines() (lines []line) {
	var all []*news
	slices.SortStableFunc(r.noted, func(a, b noted) int { return a.at.Compare(b.at) })
	for _, seen := range r.noted {
		at := seen.at.Sub(r.began)
		if at < 0 || at > r.finished {
			continue // how the cluster was made, and how it was ended
		}
		if seen.node < 0 {
			lines = append(lines, line{at: at, rank: rankEvent, text: seen.text})
			continue
		}
		node := fmt.Sprintf("node%d", seen.node)
		joined := false
		for i := len(all) - 1; i >= 0 && i >= len(all)-20 && !joined; i-- {
			joined = all[i].join(seen, at, node)
		}
		if !joined {
			all = append(all, &news{
				since: at, until: at, kind: seen.kind, text: seen.text, nodes: []string{node}, members: []string{seen.member},
			})
		}
	}
	for _, n := range all {
		lines = append(lines, n.line())
	}
	return lines
}

// holderLines are the nodes that decided in full about the key.
func (k *keyRun) holderLines() (lines []line) {
	for _, h := range k.holders {
		text := "decided in full by " + nodeNames(h.nodes)
		if h.nodes&(h.nodes-1) != 0 {
			text += ": TWO AT ONCE"
		}
		lines = append(lines, line{at: h.at, rank: rankHolder, text: text})
	}
	return lines
}

// idealBucket is what the judge compares with: it lets everything through and remembers how much was taken.
type idealBucket struct {
	limit peerlimit.Limit
	level float64
	at    time.Duration
}

// take takes, and reports whether that was too much: by more than comes of not knowing at which instant of a call it was
// decided.
func (b *idealBucket) take(at time.Duration, cost float64) (excess bool) {
	drained := b.limit.Tokens * float64(at-b.at) / float64(b.limit.Period)
	b.level = math.Max(0, b.level-drained) + cost
	b.at = at
	return b.level > burstOf(b.limit)+max(1, cost)/2
}

func (b *idealBucket) String() string {
	burst := burstOf(b.limit)
	if over := b.level - burst; over > 0.05 {
		return fmt.Sprintf("taken %.1f of %v: %.1f TOO MANY", b.level, burst, over)
	}
	return fmt.Sprintf("taken %.1f of %v", b.level, burst)
}

// takeGroup is a stretch of calls for a key with nothing worth a line in between.
type takeGroup struct {
	calls    int
	denied   int
	admitted map[peerlimit.Origin]map[int]float64 // tokens, by the origin of the decision and by the node that asked
	from, to time.Duration
	excess   bool // the ideal bucket was overdrawn at some call of it
}

// takeLines are the calls for a key, those between two events or two holders in one line, if that is not too long.
func (r *Run) takeLines(k *keyRun, l peerlimit.Limit, others []line) (lines []line) {
	var borders []time.Duration
	for _, other := range others {
		if other.rank <= rankHolder {
			borders = append(borders, other.at)
		}
	}
	slices.Sort(borders)
	longest := max(200*time.Millisecond, r.finished/40) // four times as long while nothing is wrong
	bucket := idealBucket{limit: l}
	g := takeGroup{admitted: make(map[peerlimit.Origin]map[int]float64)}
	flush := func(after idealBucket) {
		if g.calls > 0 {
			lines = append(lines, g.line(&after))
		}
		g = takeGroup{admitted: make(map[peerlimit.Origin]map[int]float64)}
	}
	for _, c := range r.callsOf(k) {
		crossed := false
		for len(borders) > 0 && borders[0] <= c.end {
			borders, crossed = borders[1:], true
		}
		before, excess := bucket, false
		if c.admitted {
			excess = bucket.take(c.end, c.cost)
		}
		tooLong := c.end-g.from > 4*longest || g.excess && c.end-g.from > longest
		if crossed || tooLong || excess && !g.excess {
			flush(before)
		}
		g.add(c)
		g.excess = g.excess || excess
	}
	flush(bucket)
	return lines
}

func (g *takeGroup) add(c call) {
	if g.calls++; g.calls == 1 {
		g.from = c.end
	}
	g.to = c.end
	if !c.admitted {
		g.denied++
		return
	}
	if g.admitted[c.origin] == nil {
		g.admitted[c.origin] = make(map[int]float64)
	}
	g.admitted[c.origin][c.node] += c.cost
}

func (g *takeGroup) line(bucket *idealBucket) line {
	text := fmt.Sprintf("  until %.3fs: ", g.to.Seconds())
	for _, origin := range slices.Sorted(maps.Keys(g.admitted)) {
		tokens, nodes := 0.0, g.admitted[origin]
		var names []string
		for _, node := range slices.Sorted(maps.Keys(nodes)) {
			tokens += nodes[node]
			names = append(names, fmt.Sprintf("node%d", node))
		}
		text += fmt.Sprintf("+%v %v at %s, ", tokens, origin, strings.Join(names, " "))
	}
	text += fmt.Sprintf("%d denied; %v", g.denied, bucket)
	rank := rankTakes
	if g.excess {
		rank = rankExcess
	}
	if len(g.admitted) == 0 {
		rank = rankMember
	}
	return line{at: g.from, rank: rank, text: text}
}
