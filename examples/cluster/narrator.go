package main

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/peerlimit/peerlimit"
)

// narrator turns what happens into the samples and events that an observer is shown, in the order in which they happened.
// What several nodes notice at nearly the same time becomes one event.
type narrator struct {
	observer observer
	clock    *clock
	recorder *recorder
	limit    func() float64 // of all keys together, per second

	told chan *entry
	halt chan struct{} // closed by stop

	// For run only.
	pending []*entry           // in the order of time
	cut     map[[2]string]bool // which node has lost the connection to which
	sampled time.Duration
}

// entry is something to be shown: an event, a sample, a verdict, or something that nodes notice.
type entry struct {
	event
	sample  *sample
	notice  *notice
	verdict *verdict
}

// notice is what nodes notice about one of them.
type notice struct {
	kind  peerlimit.EventKind
	about string
	from  []string
	gains gains
}

const (
	sampleInterval = time.Second

	// gathering is how late everything is shown, so that nodes may still notice the same. Gossip needs about that.
	gathering = 400 * time.Millisecond
)

func newNarrator(o observer, c *clock, r *recorder, limit func() float64) *narrator {
	return &narrator{
		observer: o, clock: c, recorder: r, limit: limit,
		told: make(chan *entry), halt: make(chan struct{}), cut: make(map[[2]string]bool),
	}
}

// did tells what the demo does.
func (n *narrator) did(format string, args ...any) {
	n.tell(&entry{event: event{Done: true, Text: fmt.Sprintf(format, args...)}})
}

// came tells what has come of it.
func (n *narrator) came(format string, args ...any) {
	n.tell(&entry{event: event{Text: fmt.Sprintf(format, args...)}})
}

// judged tells a verdict on what was until now.
func (n *narrator) judged(v verdict) { n.tell(&entry{verdict: &v}) }

// hear takes in what a node noticed.
func (n *narrator) hear(from string, e nodeEvent) {
	n.tell(&entry{notice: &notice{e.Kind, e.Member, []string{from}, e.Gains}})
}

func (n *narrator) tell(e *entry) {
	e.At = n.clock.elapsed()
	select {
	case n.told <- e:
	case <-n.halt:
	}
}

// run shows the observer what it is told, and a sample every second, until stop is called.
func (n *narrator) run() {
	samples := time.NewTicker(sampleInterval)
	defer samples.Stop()
	ripen := time.NewTicker(gathering / 8)
	defer ripen.Stop()
	for {
		select {
		case e := <-n.told:
			n.take(e)
		case <-samples.C:
			n.takeSample()
		case <-ripen.C:
			n.show(n.clock.elapsed() - gathering)
		case <-n.halt:
			if n.clock.elapsed()-n.sampled > sampleInterval/4 { // less is not worth a line
				n.takeSample()
			}
			n.show(never)
			return
		}
	}
}

// stop ends run.
func (n *narrator) stop() { close(n.halt) }

func (n *narrator) takeSample() {
	now := n.clock.elapsed()
	n.insert(&entry{
		event:  event{At: now},
		sample: &sample{At: now, Interval: now - n.sampled, Limit: n.limit(), counts: n.recorder.sample()},
	})
	n.sampled = now
}

// take keeps an entry; a notice only once, however many nodes report it.
func (n *narrator) take(e *entry) {
	if e.notice != nil {
		if !n.isNew(*e.notice) {
			return
		}
		for _, old := range n.pending {
			if old.notice != nil && old.notice.merge(*e.notice) {
				return
			}
		}
	}
	n.insert(e)
}

func (n *narrator) insert(e *entry) {
	n.pending = append(n.pending, e)
	slices.SortStableFunc(n.pending, func(a, b *entry) int { return cmp.Compare(a.At, b.At) })
}

// isNew reports whether a node tells something else about a connection than it did before: one that is lost forever is
// reported as down once more.
func (n *narrator) isNew(x notice) bool {
	pair := [2]string{x.from[0], x.about}
	switch x.kind {
	case peerlimit.EventLinkUp:
		delete(n.cut, pair)
	case peerlimit.EventLinkDown:
		if n.cut[pair] {
			return false
		}
		n.cut[pair] = true
	}
	return true
}

// show shows what happened not after a given time.
func (n *narrator) show(until time.Duration) {
	for len(n.pending) > 0 && n.pending[0].At <= until {
		e := n.pending[0]
		n.pending = n.pending[1:]
		switch {
		case e.sample != nil:
			n.observer.Sampled(*e.sample)
			continue
		case e.verdict != nil:
			n.observer.Judged(*e.verdict)
			continue
		}
		if e.notice != nil {
			e.Text = e.notice.String()
		}
		if e.Text = shown(e.Text); e.Text != "" { // names come from other processes
			n.observer.Happened(e.event)
		}
	}
}

// merge adds the nodes that noticed the same, and reports whether it is the same.
func (x *notice) merge(y notice) bool {
	if x.kind != y.kind || x.about != y.about {
		return false
	}
	if !slices.Contains(x.from, y.from[0]) {
		x.from = append(x.from, y.from[0])
	}
	x.gains.Given += y.gains.Given
	x.gains.Replica += y.gains.Replica
	x.gains.Empty += y.gains.Empty
	return true
}

// notices in words; what is not among them would say nothing new.
var noticeTexts = map[peerlimit.EventKind]string{
	peerlimit.EventMemberJoined:  "%s is a member now",
	peerlimit.EventMemberLeaving: "%s says that it is leaving",
	peerlimit.EventMemberLeft:    "%s has left",
	peerlimit.EventMemberFailed:  "%s failed",
	peerlimit.EventLinkDown:      "the connection to %s is down",
	peerlimit.EventDegraded:      "no decisions from %s: shares of the limit until others take over",
	peerlimit.EventRecovered:     "%s decides again",
}

// String tells the notice in words, if there are any for it.
func (x notice) String() string {
	from := plural(len(x.from), "node")
	switch x.kind {
	case peerlimit.EventAcquired:
		return x.gains.by(list(slices.Sorted(slices.Values(x.from))))
	case peerlimit.EventQuorumLost:
		return fmt.Sprintf("no answers from most others in time: only shares of the limits, for a while (%s)", from)
	}
	text, ok := noticeTexts[x.kind]
	if !ok {
		return ""
	}
	return fmt.Sprintf(text+" (%s)", x.about, from)
}

// by tells how much a node has taken over, and whence; nothing when it was told before.
func (g gains) by(node string) string {
	var parts []string
	for _, part := range []struct {
		n    uint64
		from string
	}{
		{g.Given, "handed over"}, {g.Replica, "from replicas"}, {g.Empty, "empty"},
	} {
		if part.n > 0 {
			parts = append(parts, fmt.Sprintf("%d %s", part.n, part.from))
		}
	}
	if len(parts) == 0 {
		return ""
	}
	return fmt.Sprintf("%s took over partitions: %s", node, list(parts))
}

// settled tells what has become of disturbances.
func (n *narrator) settled(ds []disturbance) {
	for _, d := range ds {
		n.came("all agree, %s after the %s of %s: %s", seconds(d.Until-d.At), d.Kind, d.Node, newOwners(d))
	}
}

// newOwners says which keys have another owner.
func newOwners(d disturbance) string {
	keys := make(map[string][]string) // by owner
	for _, key := range keyNames() {
		if m, ok := d.Moved[key]; ok {
			keys[m.To] = append(keys[m.To], key)
		}
	}
	var parts []string
	for _, key := range keyNames() {
		owner := d.Moved[key].To
		if owned := keys[owner]; len(owned) > 0 && owned[0] == key {
			parts = append(parts, owner+" owns "+list(owned))
		}
	}
	if len(parts) == 0 {
		return "all keys have the owners they had"
	}
	return strings.Join(parts, ", ")
}
