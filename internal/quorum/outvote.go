package quorum

import (
	"time"

	"github.com/peerlimit/peerlimit/internal/panel"
)

// How members go on without those that have died: when half of the witnesses die at the same moment no panel can follow by agreement,
// so one of those that are left founds a later era, and the others join it. internal/panel says when it may.

const (
	// foundPause is by how much longer a member waits than the one before it, by name, of those in touch with each other: by then it
	// has heard of the era that the other one has founded.
	foundPause = time.Second

	// joinPause is how long a member that has joined a later panel gives it, before it founds another: its witnesses answer within
	// some round trips.
	joinPause = 2 * time.Second

	// tickGap is how long a node may not have run before its wait begins anew: the links that it takes for up may be down since long.
	tickGap = time.Second
)

// deadlock is what this node knows of its having no quorum. Times are of its monotonic clock.
type deadlock struct {
	since    int64 // since when neither this node nor any that has told it has had a quorum; never: there is one
	told     int64 // when the last ping was sent that a member has answered that has a quorum with others
	ticked   int64 // when since was looked at last
	mayFound int64 // since when this node may found a later era; never: it may not
}

// noteQuorum keeps since when there has been no quorum, with mu held. A member of a cluster that has a quorum, out of this one's
// reach, is not to be outvoted: this node's links to the witnesses are at fault.
func (a *Agreement) noteQuorum(now int64) {
	d := &a.deadlock
	paused := d.ticked != never && now-d.ticked > int64(tickGap)
	d.ticked = max(d.ticked, now)
	switch {
	case a.hasQuorum(now):
		d.since = never
	case d.since == never || paused:
		d.since = now
	}
	if d.since != never {
		d.since = max(d.since, d.told)
	}
}

// longWithoutQuorum returns the names that count and how many members must be in touch, when isLongWithoutQuorum. It is called without
// mu.
func (a *Agreement) longWithoutQuorum(now int64) (names []string, needs int, is bool) {
	if !a.isLongWithoutQuorum(now) {
		return nil, 0, false
	}
	return a.io.Names(), a.io.Needs(), true
}

// isLongWithoutQuorum reports whether this node has had no quorum for so long that it may found a later era as far as time goes.
func (a *Agreement) isLongWithoutQuorum(now int64) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.noteQuorum(now)
	since := a.deadlock.since
	for _, after := range []time.Duration{a.io.OutvoteAfter, a.io.SplitMemory} {
		if since != never && after > 0 && now-since >= int64(after) {
			return true
		}
	}
	a.deadlock.mayFound = never // also where it might before: another member has told it of a quorum since
	return false
}

// foundEra founds a later era when that is all that is left to do, and reports whether it has, with mu held. Of those in touch with each
// other the one with the lowest name does so immediately, and each next one a second later, so that one does.
func (a *Agreement) foundEra(linked []Candidate, names []string, needs int, now int64) bool {
	if a.deadlock.since == never || a.hasQuorum(now) {
		return false
	}
	v := panel.Stuck{
		For: time.Duration(now - a.deadlock.since), Names: names, Era: a.highestEra(), OutvoteAfter: a.io.OutvoteAfter, SplitMemory: a.io.SplitMemory,
	}
	var pause time.Duration
	for _, c := range linked {
		v.InTouch = append(v.InTouch, c.Name)
		if c.Name < a.state.Self {
			pause += foundPause
		}
	}
	first, may := a.state.Refound(v, a.founded+now, now)
	joined := a.state.Since != panel.Never && now-a.state.Since < int64(joinPause)
	if !may || joined || a.leaving || !a.isInTouch(needs, now) {
		a.deadlock.mayFound = never
		return false
	}
	if a.deadlock.mayFound == never {
		a.deadlock.mayFound = now
	}
	if now-a.deadlock.mayFound < int64(pause) {
		return false
	}
	a.deadlock.mayFound, a.deadlock.since = never, never
	return a.adopting(now, func() bool { a.state.Restart(first); return true })
}

// highestEra returns the latest era that members tell of, with mu held.
func (a *Agreement) highestEra() uint64 {
	mine := a.state.Panel.Origin.Era
	era := mine
	for _, s := range a.seen {
		if told := s.id.Origin.Era; told > era && told-mine <= panel.MaxLeap {
			era = told
		}
	}
	return era
}
