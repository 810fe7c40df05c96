package schedule

import (
	"fmt"
	"math"
	"slices"
	"time"
)

// Judging how a cluster does while members change all the time: how much of a limit is given out, how soon a newcomer holds what
// is its own, and whether the dead still count.

const (
	// calmFrom is how long after an event nearly all of a limit is given out, whatever comes next.
	calmFrom = 10 * time.Second

	// calmFor is the time over which that is counted.
	calmFor = 15 * time.Second

	// calmRate is the part of the limit that must be given out then.
	calmRate = 0.9

	// joinBound is how long a newcomer may take, from when it is told to start, until it holds all that is its own.
	joinBound = 3 * time.Second

	// deadCount is how long one that died may count when a limit is divided.
	deadCount = 10 * time.Second

	// countEvery is how often nodes are asked how many they count.
	countEvery = 500 * time.Millisecond
)

// joiner is a node that has joined, and how it did.
type joiner struct {
	node  *nodeRun
	ready time.Duration // when it held all that is its own for the first time; 0 when it never did in time
	gone  bool          // it was told to leave or killed before
	state string        // when its time was over
}

// count is how many members a node was seen to count, of at most how many it may.
type count struct {
	at          time.Duration
	node        int
	counts, may int
}

// awaitJoiner looks at a node that has just started until it holds all that is its own, or its time is over, or it ends.
func (r *Run) awaitJoiner(n *nodeRun) {
	seen := joiner{node: n}
	for ; r.now() <= n.since+joinBound && !n.going.Load(); time.Sleep(sampleEvery) {
		s := n.node.Stats()
		if s.Members > 1 && s.PartitionsOwned > 0 && s.HasQuorum && s.PartitionsHeld >= s.PartitionsOwned {
			seen.ready = r.now()
			break
		}
		seen.state = fmt.Sprintf("members %d, counted %d, within reach %d, quorum %v, holds %d of %d that are its own",
			s.Members, s.Known, s.Reachable, s.HasQuorum, s.PartitionsHeld, s.PartitionsOwned)
	}
	seen.gone = n.going.Load() && r.now() <= n.since+joinBound
	r.mu.Lock()
	defer r.mu.Unlock()
	r.joiners = append(r.joiners, seen)
}

// countMembers asks all nodes, until the run ends, how many members they count.
func (r *Run) countMembers() {
	r.untilTheEnd(countEvery, func() {
		for _, c := range r.countOnce() {
			c.counts = r.nodeRun(c.node).node.Stats().Known
			r.mu.Lock()
			r.counts = append(r.counts, c)
			r.mu.Unlock()
		}
	})
}

// countOnce returns for each node that lives how many it may count now: all that were told to start, but for those that have been
// dead for so long that every look since their time was over has seen it.
func (r *Run) countOnce() (counts []count) {
	r.mu.Lock()
	defer r.mu.Unlock()
	now := r.now()
	may := r.s.nodes
	for _, e := range r.happened {
		if e.kind == join {
			may++
		}
	}
	for _, n := range r.nodes {
		if ended := time.Duration(n.ended.Load()); ended > 0 && now-ended > deadCount+countEvery {
			may--
		}
	}
	for _, n := range r.nodes {
		if !n.going.Load() {
			counts = append(counts, count{at: now, node: n.number, may: may})
		}
	}
	return counts
}

// judgeChanges judges what was seen while members changed.
func (r *Run) judgeChanges() {
	for _, k := range r.keys {
		for _, e := range r.happened {
			r.judgeCalm(e, k)
		}
	}
	for _, j := range r.joiners {
		r.judgeJoiner(j)
	}
	for _, c := range r.counts {
		if c.counts > c.may && !r.halved(c.at, c.at) {
			r.sawAt(c.at, "the dead still count", nil, "%.3fs: node%d counts %d members, of at most %d that live or ended less than %v ago",
				c.at.Seconds(), c.node, c.counts, c.may, deadCount)
		}
	}
}

// calmAt returns what part of its limit was given out of a key in the time that is judged after an event; false when there is nothing to
// judge: the key is not always asked for, the load ended, or half of the members were gone at once. Whatever happens
// meanwhile is no excuse, so events that come every few seconds are judged as well as others.
func (r *Run) calmAt(e event, k *keyRun) (part float64, judged bool) {
	from, to := e.at+calmFrom, e.at+calmFrom+calmFor
	if !r.s.family.goesOn() || !r.asked(k) || to > r.stopped || r.halved(from, to) {
		return 0, false
	}
	l := k.plan.limits[0]
	admitted := k.oracles[0].Between(from, to).Report().Run.Admitted + r.spentInVain(k, from, to)
	return admitted / (l.Tokens * float64(calmFor) / float64(l.Period)), true
}

func (r *Run) judgeCalm(e event, k *keyRun) {
	if part, judged := r.calmAt(e, k); judged && part < calmRate {
		r.sawAt(e.at+calmFrom, "much of a limit is lost", k, "%v: %.1f %% of the limit admitted from %v to %v after: %v",
			k, 100*part, calmFrom, calmFrom+calmFor, e)
	}
}

// judgeJoiner judges whether a newcomer came to hold what is its own in time, unless it ended before, half of the members were gone,
// or it reached only those that have no majority.
func (r *Run) judgeJoiner(j joiner) {
	from, to := j.node.since, j.node.since+joinBound
	if j.ready > 0 || j.gone || r.halved(from, to) || !r.majorityReached(j.node.number, from, to) {
		return
	}
	r.sawAt(to, "a newcomer is not ready", nil, "%.3fs: node%d, %v after it was told to start: %s", to.Seconds(), j.node.number, joinBound, j.state)
}

// majorityReached reports whether a node is on the larger side of each split, if there are any in a time, from well before until after.
func (r *Run) majorityReached(node int, from, to time.Duration) bool {
	return !slices.ContainsFunc(r.happened, func(e event) bool {
		during := e.kind == split && e.at <= to && e.end()+rejoin >= from
		return during && (e.at > from-halfGone || e.end() < to || r.s.cutBefore(e) || !r.s.hasMajority(e) || !e.together(node, r.s.largestSide(e)[0]))
	})
}

// halved reports whether half of the members that counted, or more, died within halfGone, and newcomers had not outvoted them yet
// at some time in a window.
func (r *Run) halved(from, to time.Duration) bool {
	return slices.ContainsFunc(r.happened, func(first event) bool {
		if first.kind != kill || first.at > to || first.at+outvoted < from {
			return false
		}
		living, dead := r.s.nodes, 0
		for _, e := range r.happened {
			switch {
			case e.at < first.at && e.kind == join:
				living++
			case e.at < first.at && (e.kind == leave || e.kind == kill):
				living--
			case e.kind == kill && e.at <= first.at+halfGone:
				dead++
			}
		}
		return 2*dead >= living
	})
}

// leastCalm returns the smallest part of a limit that was given out in the time that is judged after an event; infinite when none was.
func (r *Run) leastCalm() float64 {
	least := math.Inf(1)
	for _, k := range r.keys {
		for _, e := range r.happened {
			if part, judged := r.calmAt(e, k); judged {
				least = min(least, part)
			}
		}
	}
	return least
}
