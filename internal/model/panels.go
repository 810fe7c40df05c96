package model

import (
	"fmt"
	"math/bits"
	"slices"

	"github.com/peerlimit/peerlimit/internal/panel"
	"github.com/peerlimit/peerlimit/internal/wire"
)

// Panels: who decides is agreed on, one witness at a time. The steps are calls of package panel: a member's part of the state is
// made a panel.State, the call is made, and what has become of it is written back. Only what is asked in every state, who has
// evidence and who refuses whom, is computed here, and a test compares it.
//
// A request and its answer are one step, so a request never arrives after its proposer's next one: package panel's own random
// tests do that. Acceptances are heard by anybody at any time.

// number is that of a panel; 0: there are no panels.
type number uint8

// bid is a ballot for a panel: how high, times eight, and whose.
type bid uint8

const adopted bid = 255 // instead of a ballot in heard: the witness has adopted it

// set is a panel of one origin and one number, as far as it is not in the state around it.
type set struct {
	set  nodes
	ends bool // the origin ends, in favour of the other one
}

type panelID struct {
	set
	origin uint8 // 0 or 1
	number number
}

type acceptance struct {
	bid bid // 0: nothing
	set set
}

// proposal is what a witness has under way. A zero bid is none.
type proposal struct {
	bid       bid
	value     set
	promises  nodes
	best      acceptance // highest in the promises
	accepting bool
}

// agreement is what a member knows of panels.
type agreement struct {
	panel    panelID
	young    bool // adopted less than half a second ago
	promised bid
	top      bid // the highest it was outbid by
	accepted acceptance
	heard    [maxNodes]acceptance
	proposal proposal

	// Of the answers that this member has: early ones were given before the witness adopted its panel. kept are those from before
	// this member adopted its own, which count for the panel before, of the witnesses before [OldPanelCountsOn].
	early, kept, keptEarly, before nodes
}

func (a *agreement) on() bool { return a.panel.number != 0 }

// refuses tells whether one with a does not answer a ping of one with o.
func (a *agreement) refuses(o *agreement) bool {
	return a.panel.origin != o.panel.origin || a.panel.number > o.panel.number
}

// join makes a joiner a learner of its seed's panel.
func (a *agreement) join(seed *agreement) { a.panel = seed.panel }

// formPanel makes the first of these nodes the witnesses of all.
func (m *machine) formPanel(s *State, all nodes) {
	if m.Panels == 0 || !m.Rules.PanelDecides {
		return
	}
	witnesses := all
	for witnesses.size() > m.Panels {
		witnesses.remove(node(bits.Len8(uint8(witnesses)) - 1))
	}
	id := panelID{set: set{set: witnesses}, number: 1}
	if all.size() > 1 {
		id.number = 2
	}
	if !all.has(0) {
		id.origin = 1
	}
	for n := range node(m.Members) {
		if all.has(n) {
			s.members[n].p = agreement{panel: id}
			s.members[n].fresh &= id.set.set
		}
	}
}

// panelWitnesses are the witnesses of n's panel, without those whose goodbye leaves them out of it.
func (s *State) panelWitnesses(n node) nodes {
	q := &s.members[n]
	all := q.p.panel.set.set
	for gone := range node(maxNodes) {
		if q.tombstones.has(gone) && s.members[gone].p.leftOut(q.p.panel) {
			all.remove(gone)
		}
	}
	return all
}

// leftOut tells whether one that said this goodbye counts no more in a panel.
func (a *agreement) leftOut(of panelID) bool {
	return a.panel.origin == of.origin && a.panel.number <= of.number
}

// pings tells whether n pings w: the witnesses of its panel, or without panels all that it knows.
func (s *State) pings(n, w node) bool {
	q := &s.members[n]
	if q.p.on() {
		return q.p.panel.set.set.has(w)
	}
	return q.known.has(w)
}

// goodbye is what a member that has gone leaves behind.
func (m *machine) goodbye(a *agreement) agreement {
	if !a.on() {
		return agreement{}
	}
	g := agreement{panel: a.panel, promised: a.promised}
	g.panel.set = set{}
	if a.accepted.bid != 0 {
		g.panel.number++
	}
	if !m.Rules.GoodbyeNamesPanel {
		g.panel.number = 1
	}
	if !m.Rules.GoodbyeNamesPromise {
		g.promised = 0
	}
	return g
}

// mayBury tells whether a goodbye may count by now: no answer of the leaver does.
func (m *machine) mayBury(s *State, gone node) bool {
	if !s.members[gone].p.on() || !m.Rules.GoodbyeAfterAnswers {
		return true
	}
	for n := range node(maxNodes) {
		if q := &s.members[n]; q.alive() && (q.fresh | q.p.kept).has(gone) {
			return false
		}
	}
	return true
}

// The names of nodes, of sets and of origins in package panel.
var (
	nodeNames = func() (names [maxNodes]string) {
		for n := range node(maxNodes) {
			names[n] = n.String()
		}
		return names
	}()
	setNames = func() (sets [1 << maxNodes][]string) {
		for s := range sets {
			for n := range node(maxNodes) {
				if nodes(s).has(n) {
					sets[s] = append(sets[s], nodeNames[n])
				}
			}
		}
		return sets
	}()
	origins = [2]wire.Origin{{Founded: 1, Name: "first"}, {Founded: 2, Name: "second"}}
)

// now is any moment: what is not young has been so for long.
const now = int64(1) << 60

func nodeOf(name string) node { return node(name[0] - 'A') }

func setOf(names []string) (s nodes) {
	for _, name := range names {
		s.add(nodeOf(name))
	}
	return s
}

func (b bid) ballot() wire.Ballot {
	if b == 0 || b == adopted {
		return wire.Ballot{}
	}
	return wire.Ballot{Number: uint64(b >> 3), By: nodeNames[b&7]}
}

func bidOf(b wire.Ballot) bid {
	if b.Number == 0 {
		return 0
	}
	return bid(b.Number<<3) | bid(nodeOf(b.By))
}

func (p panelID) real() panel.Panel {
	q := panel.Panel{Origin: origins[p.origin], Number: uint64(p.number), Witnesses: setNames[p.set.set], Members: maxNodes}
	if p.ends {
		q.Successor = origins[1-p.origin]
	}
	return q
}

func panelOf(p panel.Panel) panelID {
	id := panelID{set: setOfPanel(p), number: number(p.Number)}
	if p.Origin == origins[1] {
		id.origin = 1
	}
	return id
}

func setOfPanel(p panel.Panel) set { return set{setOf(p.Witnesses), p.Ends()} }

// after returns the panel that follows p.
func (s set) after(p panelID) panel.Panel { return panelID{s, p.origin, p.number + 1}.real() }

func (a acceptance) real(after panelID) panel.Acceptance {
	if a.bid == 0 {
		return panel.Acceptance{}
	}
	return panel.Acceptance{Ballot: a.bid.ballot(), Panel: a.set.after(after)}
}

func acceptanceOf(a panel.Acceptance) acceptance {
	if !a.Panel.Exists() {
		return acceptance{}
	}
	b := bidOf(a.Ballot)
	if b == 0 {
		b = adopted
	}
	return acceptance{b, setOfPanel(a.Panel)}
}

// load makes n's part of the state one of package panel.
func (m *machine) load(s *State, n node) *panel.State {
	a := &s.members[n].p
	r := &panel.State{
		Self: nodeNames[n], Panel: a.panel.real(), Since: panel.Never, PendingSince: panel.Never,
		Promised: a.promised.ballot(), Accepted: a.accepted.real(a.panel), TopBallot: uint64(max(a.top, a.promised, a.accepted.bid, a.proposal.bid, a.proposal.best.bid) >> 3),
	}
	if a.young && m.Rules.NextPanelWaits {
		r.Since = now
	}
	for w := range node(maxNodes) {
		if h := a.heard[w]; h.bid != 0 {
			if r.Heard == nil {
				r.Heard = make(map[string]panel.Acceptance)
			}
			r.Heard[nodeNames[w]] = h.real(a.panel)
			r.PendingSince = 0
			if h.bid != adopted {
				r.TopBallot = max(r.TopBallot, uint64(h.bid>>3))
			}
		}
		if g := &s.members[w].p; s.members[n].tombstones.has(w) && a.panel.set.set.has(w) {
			if r.Goodbyes == nil {
				r.Goodbyes = make(map[string]panel.Goodbye)
			}
			r.Goodbyes[nodeNames[w]] = panel.Goodbye{ID: g.panel.real().ID(), Promised: g.promised.ballot()}
			r.TopBallot = max(r.TopBallot, uint64(g.promised>>3))
		}
	}
	if q := a.proposal; q.bid != 0 {
		r.Proposal = &panel.Proposal{
			Ballot: q.bid.ballot(), Value: q.value.after(a.panel), Accepting: q.accepting, Promises: make(map[string]panel.Acceptance),
		}
		best := q.best.real(a.panel)
		for _, name := range setNames[q.promises] {
			r.Proposal.Promises[name] = best // whose it is does not matter
			best = panel.Acceptance{}
		}
	}
	return r
}

// save writes back what has become of it, when the panel is still the same.
func (a *agreement) save(r *panel.State) {
	a.promised, a.accepted = bidOf(r.Promised), acceptanceOf(r.Accepted)
	a.top = max(a.top, bid(r.TopBallot<<3))
	a.heard = [maxNodes]acceptance{}
	for name, h := range r.Heard {
		a.heard[nodeOf(name)] = acceptanceOf(h)
	}
	a.proposal = proposal{}
	if q := r.Proposal; q != nil {
		a.proposal = proposal{bid: bidOf(q.Ballot), value: setOfPanel(q.Value), accepting: q.Accepting}
		for name, accepted := range q.Promises {
			a.proposal.promises.add(nodeOf(name))
			if b := acceptanceOf(accepted); b.bid > a.proposal.best.bid {
				a.proposal.best = b
			}
		}
	}
}

// adopt makes p the panel of n. Evidence that there was counts on.
func (m *machine) adopt(s *State, n node, p panelID) error {
	q, had := &s.members[n], s.hasQuorum(n)
	a := agreement{panel: p, young: p.set.set.has(n)}
	if had && m.Rules.OldPanelCountsOn {
		a.before = s.panelWitnesses(n)
		a.kept = (q.fresh | only(n)) & a.before
		a.keptEarly = q.p.early & a.kept
	}
	if q.p.panel.origin != p.origin {
		q.fresh, q.p.early = 0, 0
	}
	a.early = q.p.early & p.set.set
	q.p = a
	q.fresh &= p.set.set
	for o := range node(maxNodes) {
		r := &s.members[o]
		r.p.early |= r.fresh & only(n) // settle drops those that make no difference
		r.p.keptEarly |= r.p.kept & only(n)
	}
	if had && !p.ends && !s.hasQuorum(n) {
		return ErrEvidenceEnded
	}
	return nil
}

// settlePanels drops what makes no difference any more.
func (s *State) settlePanels() {
	var young nodes
	for n := range node(maxNodes) {
		if q := &s.members[n]; q.alive() && q.p.young {
			young.add(n)
		}
	}
	for n := range node(maxNodes) {
		a := &s.members[n].p
		if !a.on() {
			continue
		}
		if !a.kept.majority(a.before) {
			a.kept, a.keptEarly, a.before = 0, 0, 0
		}
		a.early &= young & s.members[n].fresh
		a.keptEarly &= young & a.kept
		known := max(a.promised, a.accepted.bid, a.proposal.bid)
		for w := range a.heard {
			if a.heard[w].bid != adopted {
				known = max(known, a.heard[w].bid)
			}
		}
		if a.top>>3 <= known>>3 || !a.panel.set.set.has(n) {
			a.top = 0
		}
	}
}

// renumberPanels keeps the ballots small: only their order matters. How high one was outbid matters only above what it knows.
func (s *State) renumberPanels() {
	var used [32]bool
	s.eachBid(func(b *bid) {
		if *b != adopted {
			used[*b>>3] = true
		}
	})
	var to [32]bid
	next := bid(0)
	for i := 1; i < len(used); i++ {
		if used[i] {
			next++
		}
		to[i] = next
	}
	s.eachBid(func(b *bid) {
		if *b != adopted {
			*b = to[*b>>3]<<3 | *b&7
		}
	})
}

func (s *State) eachBid(visit func(*bid)) {
	for n := range node(maxNodes) {
		a := &s.members[n].p
		if !a.on() {
			continue
		}
		for _, b := range []*bid{&a.promised, &a.top, &a.accepted.bid, &a.proposal.bid, &a.proposal.best.bid} {
			visit(b)
		}
		for w := range a.heard {
			visit(&a.heard[w].bid)
		}
	}
}

// judgePanels judges the panels that members have, and the evidence that they have by them.
func (s *State) judgePanels() error {
	var lowest, highest [2]number
	var seen [2][256]set
	for n := range node(maxNodes) {
		q := &s.members[n]
		if !q.alive() || !q.p.on() {
			continue
		}
		id := q.p.panel
		if known := &seen[id.origin][id.number]; known.set == 0 {
			*known = id.set
		} else if *known != id.set {
			return ErrTwoPanels
		}
		if !s.hasQuorum(n) {
			continue
		}
		from, to := id.number, id.number
		if q.p.kept != 0 {
			from--
		}
		if id.ends || !(q.fresh | only(n)).majority(s.witnesses(n)) {
			to--
		}
		if lowest[id.origin] == 0 || from < lowest[id.origin] {
			lowest[id.origin] = from
		}
		highest[id.origin] = max(highest[id.origin], to)
	}
	for o := range lowest {
		if lowest[o] != 0 && highest[o] > lowest[o]+1 {
			return ErrFarApart
		}
	}
	return nil
}

// foreign tells whether one alive is of another origin than n.
func (s *State) foreign(alive nodes, n node) bool {
	for o := range node(maxNodes) {
		if alive.has(o) && s.members[o].p.panel.origin != s.members[n].p.panel.origin {
			return true
		}
	}
	return false
}

func (s *State) anyPanel() bool {
	return slices.ContainsFunc(s.members[:], func(q member) bool { return q.p.on() })
}

// panelsRecoverable tells whether a way back is promised: of each origin that stays, more than half of the witnesses live of the
// latest panel that anybody alive has, and of what may have been agreed on to follow it.
func (s *State) panelsRecoverable() bool {
	var alive nodes
	var latest [2]panelID
	for n := range node(maxNodes) {
		if q := &s.members[n]; q.alive() && q.p.on() {
			alive.add(n)
			if id := q.p.panel; id.number > latest[id.origin].number {
				latest[id.origin] = id
			}
		}
	}
	for n := range node(maxNodes) {
		q := &s.members[n]
		if !alive.has(n) || q.p.panel != latest[q.p.panel.origin] {
			continue
		}
		if !s.livingMajority(alive, q.p.panel) {
			return false
		}
		for _, pending := range append(q.p.heard[:], q.p.accepted) {
			next := panelID{pending.set, q.p.panel.origin, q.p.panel.number + 1}
			if pending.bid != 0 && !s.livingMajority(alive, next) {
				return false
			}
		}
	}
	return true
}

// livingMajority tells whether more than half of the witnesses are alive, of those that have not said goodbye.
func (s *State) livingMajority(alive nodes, p panelID) bool {
	all := p.set.set
	for n := range node(maxNodes) {
		if q := &s.members[n]; q.life == left || q.life == closed && q.p.leftOut(p) {
			all.remove(n)
		}
	}
	return alive.majority(all)
}

// panelsGood tells whether all alive have one panel, of living members, and evidence by it.
func (m *machine) panelsGood(s *State, staying nodes) bool {
	first := nobody
	for n := range node(maxNodes) {
		q := &s.members[n]
		if !q.p.on() || !staying.has(n) {
			continue
		}
		if first == nobody {
			first = n
		}
		if q.p.panel != s.members[first].p.panel || q.p.panel.set.set&^staying != 0 || q.p.kept != 0 || !s.hasQuorum(n) {
			return false
		}
	}
	return true
}

// String shows what a member knows of panels.
func (a *agreement) String() string {
	text := fmt.Sprintf("panel %d.%d %s", a.panel.origin, a.panel.number, a.panel.set)
	if a.young {
		text += " young"
	}
	text += fmt.Sprintf(", promised %d, accepted %v, heard %v, early %s kept %s of %s (early %s)", a.promised, a.accepted, a.heard, a.early, a.kept, a.before, a.keptEarly)
	if a.proposal.bid != 0 {
		text += fmt.Sprintf(", proposes %+v", a.proposal)
	}
	return text
}

func (s set) String() string {
	if s.ends {
		return s.set.String() + ", the last"
	}
	return s.set.String()
}
