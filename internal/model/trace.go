package model

import (
	"fmt"
	"strings"
)

// Violation is a run of the cluster that breaks a property. It is an error that wraps the property.
type Violation struct {
	Property error
	Steps    []Step
	Last     State
}

// Unwrap returns the property.
func (v *Violation) Unwrap() error { return v.Property }

// Error tells the run as numbered steps, and the state it ends in.
func (v *Violation) Error() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%v\n", v.Property)
	for i, step := range v.Steps {
		fmt.Fprintf(&b, "%3d. %s\n", i+1, step)
	}
	b.WriteString(v.Last.String())
	return b.String()
}

// String shows the state, one line for each node and message.
func (s State) String() string {
	var b strings.Builder
	for n := range node(maxNodes) {
		if q := &s.members[n]; q.life != outside {
			fmt.Fprintf(&b, "   %s %s\n", n, q)
		}
	}
	for _, m := range s.messages {
		if m.kind != noMessage {
			fmt.Fprintf(&b, "   %s -> %s: %s, round %d, copy %s, promise %d to %s, known %s, gave to %s\n",
				m.from, m.to, kindNames[m.kind], m.round, m.copy, m.promise.ballot, m.promise.to, m.known, m.gaveTo)
		}
	}
	fmt.Fprintf(&b, "   %d takes, acknowledged %03b, excused %03b, cuts %s\n", s.taken, s.acked, s.excused, s.cuts)
	return b.String()
}

var lifeNames = [...]string{"outside", "up", "paused", "crashed", "left", "closed"}

// String shows what the node knows.
func (m *member) String() string {
	var b strings.Builder
	b.WriteString(lifeNames[m.life])
	for _, flag := range []struct {
		set  bool
		name string
	}{
		{m.leaving, "leaving"}, {m.holding, "holding"}, {m.lapsed, "lapsed"}, {m.refused, "refused"}, {m.owes, "owes"},
		{m.renewed, "renewed"},
	} {
		if flag.set {
			b.WriteString(" " + flag.name)
		}
	}
	fmt.Fprintf(&b, "; ring %s known %s doubted %s tombstones %s forgotten %s fresh %s silent %s; copy %s, promise %d to %s",
		m.ring, m.known, m.doubted, m.tombstones, m.forgotten, m.fresh, m.silent, m.copy, m.promise.ballot, m.promise.to)
	if m.transfer != (transfer{}) {
		fmt.Fprintf(&b, ", gave to %s in round %d", m.transfer.to, m.transfer.round)
	}
	if r := m.round; r.running() {
		fmt.Fprintf(&b, ", round %d: must %s answered %s gone %s best %s", r.ballot, r.must, r.answered, r.gone, r.best)
	}
	if m.ackedBy != 0 {
		fmt.Fprintf(&b, ", acknowledged by %s: %03b", m.ackedBy, m.acked)
	}
	if m.p.on() {
		fmt.Fprintf(&b, "; %s", &m.p)
	}
	return b.String()
}

// String lists the members, or "-".
func (s nodes) String() string {
	if s == 0 {
		return "-"
	}
	var b strings.Builder
	for n := range node(8) {
		if s.has(n) {
			b.WriteString(n.String())
		}
	}
	return b.String()
}

// String is term, holder and takes.
func (v version) String() string {
	if !v.exists() {
		return "none"
	}
	return fmt.Sprintf("%d.%d/%s/%03b", v.ballot, v.transfers, v.holder, v.takes)
}
