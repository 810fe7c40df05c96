package main

import (
	"cmp"
	"maps"
	"slices"
	"time"

	"github.com/peerlimit/peerlimit"
)

// On a busy machine nodes lose each other without the demo's doing. A node that reaches no holder of a key decides by its share of the
// limit, 1 of as many as there are, and reports that. What follows is which decisions such reports explain, and what they allow.

// degradation is a node's report that it decides by its share, about the keys of a member or about all.
type degradation struct {
	Node   string
	Member string        // whose keys no holder can be reached for; "" when the node has lost quorum, which concerns all keys
	At     time.Duration // when the node reported it
	Until  time.Duration // when it reported the end; never if it has not
	Of     int           // the fewest members that limits were divided by meanwhile
}

// ringAt is which members own the keys as a node sees it, from a time on.
type ringAt struct {
	at     time.Duration
	owners map[string]string
}

// absence is a time in which the demo had taken a node away from the others.
type absence struct {
	node     string
	from, to time.Duration
}

// reports is what there is to explain decisions by shares.
type reports struct {
	degradations []degradation       // in the order in which they were told
	rings        map[string][]ringAt // of each node, in the order of time
	absences     []absence
}

// toldLate is how much later a node on a busy machine may report something: the goroutine that does waits for its turn.
const toldLate = 500 * time.Millisecond

// heard takes in what a node noticed, and when.
func (t *timeline) heard(node string, e nodeEvent, at time.Duration) {
	t.mu.Lock()
	defer t.mu.Unlock()
	switch e.Kind {
	case peerlimit.EventDegraded:
		t.degrade(node, e.Member, at)
	case peerlimit.EventQuorumLost:
		t.degrade(node, "", at)
	case peerlimit.EventRecovered:
		t.recovered(node, e.Member, at)
	case peerlimit.EventQuorumRegained:
		t.recovered(node, "", at+linksUp) // with quorum it still has to acquire what it owns, which no event tells
	}
}

// degrade notes that a node began to decide by its share. The caller holds mu.
func (t *timeline) degrade(node, member string, at time.Duration) {
	for _, g := range t.reports.degradations {
		if g.Node == node && g.Member == member && g.Until == never {
			return
		}
	}
	t.reports.degradations = append(t.reports.degradations, degradation{node, member, at, never, t.counting(at)})
}

// recovered notes that a node has ceased to. The caller holds mu.
func (t *timeline) recovered(node, member string, at time.Duration) {
	for i := range t.reports.degradations {
		if g := &t.reports.degradations[i]; g.Node == node && g.Member == member && g.Until == never {
			g.Until = at
		}
	}
}

// recount notes that other members may count from now on. The caller holds mu.
func (t *timeline) recount(now time.Duration) {
	for i := range t.reports.degradations {
		if g := &t.reports.degradations[i]; g.Until > now {
			g.Of = min(g.Of, t.counting(now))
		}
	}
}

// counting is how many members limits are divided by at least: a newcomer may not count yet, and one that has failed counts for a
// minute. The caller holds mu.
func (t *timeline) counting(now time.Duration) int {
	n := len(t.live)
	for _, d := range t.open {
		if d.Kind == started && t.live[d.Node] {
			n--
		}
	}
	for _, since := range t.missing {
		if now-since < failedCounts {
			n++
		}
	}
	return max(n, 1)
}

// saw notes how a node sees the ring; with no owners that it sees none any more. The caller holds mu.
func (t *timeline) saw(node string, owners map[string]string) {
	rings := t.reports.rings[node]
	if n := len(rings); n == 0 || !maps.Equal(rings[n-1].owners, owners) {
		t.reports.rings[node] = append(rings, ringAt{t.elapsed(), owners})
	}
}

// away notes that a node is away from now on, and back that it is there again. The caller holds mu.
func (t *timeline) away(node string) {
	t.reports.absences = append(t.reports.absences, absence{node, t.elapsed(), never})
}

func (t *timeline) back(node string) {
	for i := range t.reports.absences {
		if a := &t.reports.absences[i]; a.node == node && a.to == never {
			a.to = t.elapsed()
		}
	}
}

// follow notes which nodes are away because of what is done to them. The caller holds mu.
func (t *timeline) follow(kind disturbanceKind, nodes []string) {
	for _, node := range nodes {
		switch kind {
		case killed, frozen:
			t.away(node)
			t.saw(node, nil)
		case retired:
			t.saw(node, nil) // it gets no more requests
		case split:
			t.away(node)
		case woken:
			t.back(node)
			t.saw(node, t.views[node].Owners)
		}
	}
	t.recount(t.elapsed())
}

// told returns what was reported so far.
func (t *timeline) told() reports {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.recount(t.elapsed()) // some may have been forgotten
	r := reports{slices.Clone(t.reports.degradations), make(map[string][]ringAt), slices.Clone(t.reports.absences)}
	for node, rings := range t.reports.rings {
		r.rings[node] = slices.Clone(rings)
	}
	return r
}

// sawOwner reports whether a node saw a member as the owner of a key at some time in a part of the run.
func (r reports) sawOwner(node, key, member string, from, to time.Duration) bool {
	rings := r.rings[node]
	for i, ring := range rings {
		over := i+1 < len(rings) && rings[i+1].at < from
		if ring.at <= to && !over && ring.owners[key] == member {
			return true
		}
	}
	return false
}

// isAway reports whether the demo had taken a node away at a time.
func (r reports) isAway(node string, at time.Duration) bool {
	return slices.ContainsFunc(r.absences, func(a absence) bool { return a.node == node && a.from <= at && at <= a.to })
}

// explains reports whether a node's report explains that the node decided by a share. While an owner is away nobody decides in
// full, so its standby's share adds nothing; only a node that has not reached the standby either decides beside it.
func (r reports) explains(g degradation, c call) bool {
	if g.Node != c.node || c.end < g.At-toldLate || c.start > g.Until {
		return false
	}
	if g.Member == "" {
		return true
	}
	alone := c.origin == peerlimit.OriginFallback.String()
	return r.sawOwner(c.node, c.key, g.Member, c.start, c.end+toldLate) && (alone || !r.isAway(g.Member, c.end))
}

// takenOver returns since when other nodes saw another owner of a key in place of the one that reported to have lost quorum.
func (r reports) takenOver(g degradation, key string) (since time.Duration, ok bool) {
	since = never
	for node, rings := range r.rings {
		for i, ring := range rings {
			over := i+1 < len(rings) && rings[i+1].at < g.At
			instead := i > 0 && rings[i-1].owners[key] == g.Node && ring.owners[key] != "" && ring.owners[key] != g.Node
			if node != g.Node && instead && !over && ring.at <= g.Until {
				since = min(since, ring.at)
			}
		}
	}
	return since, since != never
}

// allowsShares reports whether what is allowed for a disturbance has a node's share of a key in it, whatever the node reports.
func (d *disturbance) allowsShares(node, key string) bool {
	if d.Kind.isSudden() && (d.Stranded || d.StandbyToo[key]) {
		return true
	}
	return (d.Kind == split || d.Kind == woken) && d.isOf(node)
}

// stint is what a node has answered about a key by shares, for one reason.
type stint struct {
	reason
	from, to time.Duration
	of       int
	admitted int
	allowed  float64
}

// reason is why a node decided by a share: a disturbance that allows it, or else a report of the node's. It can be compared.
type reason struct {
	node string
	done *disturbance
	told *degradation
}

// reasonOf returns why a call was decided by a share; false when there is no reason.
func (e evidence) reasonOf(c call) (why reason, of int, ok bool) {
	for i := range e.disturbances {
		if d := &e.disturbances[i]; d.overlaps(c.start, c.end) && d.allowsShares(c.node, c.key) {
			return reason{node: c.node, done: d}, d.Of, true
		}
	}
	for i := range e.degradations {
		if g := &e.degradations[i]; e.explains(*g, c) {
			return reason{node: c.node, told: g}, g.Of, true
		}
	}
	return reason{}, 0, false
}

// stints returns all stints of a key, in the order in which they began.
func (e evidence) stints(key string) []*stint {
	known := make(map[reason]*stint)
	var all []*stint
	for _, c := range e.shared[key] {
		why, of, ok := e.reasonOf(c)
		if !ok {
			continue
		}
		s := known[why]
		if s == nil {
			s = &stint{reason: why, from: c.start, to: c.end, of: of}
			known[why], all = s, append(all, s)
		}
		s.from, s.to = min(s.from, c.start), max(s.to, c.end)
		if c.admitted {
			s.admitted++
		}
	}
	slices.SortStableFunc(all, func(a, b *stint) int { return cmp.Compare(a.from, b.from) })
	return all
}

// bound sets what a stint allows: what was admitted, but with the stints of the same node before it not more than a share of the limit
// for all the time that they took. A share is not whole again because a node has recovered in between.
func bound(limit peerlimit.Limit, before []*stint, s *stint) {
	from, to, of, given := s.from, s.to, s.of, 0.0
	s.allowed = min(float64(s.admitted), shares(limit, to-from, 1, of))
	for _, old := range slices.Backward(before) {
		if old.node == s.node {
			from, to, of = min(from, old.from), max(to, old.to), min(of, old.of)
			given += old.allowed
			s.allowed = min(s.allowed, shares(limit, to-from, 1, of)-given)
		}
	}
	s.allowed = max(s.allowed, 0)
}

// degraded returns the times in which nodes decided about a key by shares and reported it, as disturbances of that key.
func (e evidence) degraded(key string) []disturbance {
	var all []disturbance
	stints := e.stints(key)
	for i, s := range stints {
		bound(e.limit, stints[:i], s)
		if s.told != nil { // what was done is allowed for already
			all = append(all, disturbance{
				Kind: degraded, Node: s.node, Unreached: s.told.Member, At: s.from, Gone: never, Until: s.to, Of: s.of,
				Moved: map[string]move{key: {ByShare: s.allowed}},
			})
		}
	}
	return all
}

// lapsed returns the times in which nodes lost quorum and others took over a key from them, as disturbances of that key. As an
// owner that is cut off, one that a busy machine has stopped may have admitted what the others do not know of.
func (e evidence) lapsed(key string) []disturbance {
	var all []disturbance
	for _, g := range e.degradations {
		since, taken := e.takenOver(g, key)
		until := min(g.At, since)
		from := until - quorumLasts - replicaInterval
		if g.Member != "" || !taken || !e.sawOwner(g.Node, key, g.Node, from, g.At) {
			continue
		}
		isAllowed := func(d disturbance) bool { return d.overlaps(from, g.At) && d.allowsShares(g.Node, key) }
		if !slices.ContainsFunc(e.disturbances, isAllowed) {
			all = append(all, disturbance{
				Kind: degraded, Node: g.Node, At: from, Gone: never, Until: g.At, Of: g.Of,
				Moved: map[string]move{key: {Unsent: e.admittedBy(g.Node, key, from, until)}},
			})
		}
	}
	return all
}

// withReports returns the evidence with what nodes reported among the disturbances.
func (e evidence) withReports() evidence {
	all := slices.Clone(e.disturbances)
	for _, d := range demands {
		all = append(all, e.lapsed(d.key)...)
		all = append(all, e.degraded(d.key)...)
	}
	e.disturbances = all
	return e
}
