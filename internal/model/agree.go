package model

import (
	"errors"

	"github.com/peerlimit/peerlimit/internal/panel"
	"github.com/peerlimit/peerlimit/internal/wire"
)

// panels lists what members may do about panels.
func (x *explorer) panels() {
	for n := range node(x.Nodes) {
		q := &x.s.members[n]
		if q.life != up || !q.p.on() {
			continue
		}
		x.aging(n)
		for w := range node(x.Nodes) {
			if x.s.members[w].life != up || !x.s.linked(n, w) {
				continue
			}
			if x.mayPromise(n, w) {
				x.do(promises, w, n, func(t *State) { x.promise(t, n, w) })
			}
			if x.mayAccept(n, w) {
				x.judge(Step{action: accepts, a: w, b: n}, func(t *State) error { return x.accept(t, n, w) })
			}
			if x.hasNews(n, w) {
				x.judge(Step{action: hearsOfPanel, a: n, b: w}, func(t *State) error { return x.hearPanel(t, n, w) })
			}
			if w != n && q.p.mayFollow(&x.s.members[w].p) && !x.s.hasQuorum(n) {
				x.judge(Step{action: jumps, a: n, b: w}, func(t *State) error { return x.jump(t, n, w) })
			}
		}
		x.proposals(n)
	}
}

// The following leave out calls of package panel that would change nothing, because they are slow.

// mayPromise tells whether w's promise is of use to n.
func (x *explorer) mayPromise(n, w node) bool {
	p, q := &x.s.members[n].p, &x.s.members[w].p
	return p.proposal.bid != 0 && !p.proposal.accepting && !p.proposal.promises.has(w) && p.panel == q.panel && p.panel.set.set.has(w)
}

// mayAccept tells whether w may accept what n asks for, or would outbid it.
func (x *explorer) mayAccept(n, w node) bool {
	p, q := &x.s.members[n].p, &x.s.members[w].p
	if !p.proposal.accepting || p.panel != q.panel || !p.panel.set.set.has(w) || q.accepted.bid == p.proposal.bid {
		return false
	}
	return !q.young || p.proposal.bid < q.promised || !x.Rules.NextPanelWaits
}

// hasNews tells whether n hears something of w's panels that it has not heard.
func (x *explorer) hasNews(n, w node) bool {
	p, q := &x.s.members[n].p, &x.s.members[w].p
	if !p.panel.set.set.has(w) || p.panel.origin != q.panel.origin || p.panel.ends {
		return false
	}
	leavers := x.s.members[n].tombstones & p.panel.set.set // without them it may be enough by now
	switch q.panel.number {
	case p.panel.number:
		return q.accepted.bid != 0 && (p.heard[w] != q.accepted || leavers != 0)
	case p.panel.number + 1:
		return p.heard[w].bid != adopted || leavers != 0
	}
	return false
}

// mayFollow tells whether o's panel may come after a's.
func (a *agreement) mayFollow(o *agreement) bool {
	if a.panel.origin != o.panel.origin {
		return a.panel.ends
	}
	return a.panel.number < o.panel.number
}

// aging lists how what was before the panel ends.
func (x *explorer) aging(n node) {
	q := &x.s.members[n]
	for w := range node(maxNodes) {
		if q.p.kept.has(w) {
			x.do(keptLapses, w, n, func(t *State) { t.members[n].p.keptLapse(w) })
		}
	}
	if q.p.young && x.hasAged(n) {
		x.do(adoptionAges, n, n, func(t *State) { t.members[n].p.young = false })
	}
}

func (a *agreement) keptLapse(w node) {
	a.kept.remove(w)
	a.keptEarly.remove(w)
	if a.kept == 0 {
		a.before = 0
	}
}

// hasAged tells whether n's adoption can be half a second old: no answer from before counts any more, at others or at n.
func (x *explorer) hasAged(n node) bool {
	for o := range node(maxNodes) {
		if q := &x.s.members[o]; q.alive() && (q.p.early | q.p.keptEarly).has(n) {
			return false
		}
	}
	return x.s.members[n].p.kept == 0
}

// proposals lists what n may propose: anything, as often as the events allow; in calm what package panel would.
func (x *explorer) proposals(n node) {
	q := &x.s.members[n]
	if !q.p.panel.set.set.has(n) || q.p.panel.ends || !x.s.hasQuorum(n) {
		return
	}
	if x.calm {
		if q.p.proposal.bid != 0 && !q.p.proposal.accepting && !x.stalls(n) {
			return
		}
		next, wishes := x.load(x.s, n).Wish(x.view(x.s, n), now)
		if again := q.p.proposal.accepting && q.p.proposal.value == setOfPanel(next); wishes && !again {
			step := x.nameProposal(n, setOfPanel(next))
			x.judge(step, func(t *State) error { _, err := x.propose(t, n, next); return err })
		}
		return
	}
	if x.s.events.Proposals == 0 {
		return
	}
	p := q.p.panel.real()
	try := func(next panel.Panel) {
		x.judge(x.nameProposal(n, setOfPanel(next)), func(t *State) error {
			began, err := x.propose(t, n, next)
			if began {
				t.events.Proposals--
			}
			return err
		})
	}
	for o := range node(x.Nodes) {
		switch {
		case q.p.panel.set.set.has(o):
			try(p.Without(nodeNames[o]))
		case x.s.members[o].life != outside:
			try(p.With(nodeNames[o]))
			if !x.Rules.OneWitnessAtATime {
				swapped := p.With(nodeNames[o])
				swapped.Witnesses = setNames[setOf(swapped.Witnesses).without(n)]
				try(swapped)
			}
		}
	}
	if met := x.met(x.s, n); len(met) > 0 && (panel.Stays(met[0], p) || !x.Rules.OriginsInOrder) {
		try(p.EndingFor(met[0].Origin))
	}
}

// stalls tells whether no promise is to be expected any more for n's proposal.
func (x *explorer) stalls(n node) bool {
	for w := range node(x.Nodes) {
		if x.s.members[w].life == up && x.s.linked(n, w) && x.mayPromise(n, w) {
			return false
		}
	}
	return true
}

// nameProposal is the step in which n proposes a set.
func (x *explorer) nameProposal(n node, next set) Step {
	is := x.s.members[n].p.panel.set.set
	step := Step{a: n, b: n}
	switch more, less := next.set&^is, is&^next.set; {
	case next.ends:
		step.action = proposesEnd
		for o := range node(x.Nodes) {
			if x.s.members[o].p.on() && x.s.members[o].p.panel.origin != x.s.members[n].p.panel.origin {
				step.b = o
			}
		}
	case more != 0 && less != 0:
		step.action, step.b = proposesSwap, more.first()
	case more != 0:
		step.action, step.b = proposesMore, more.first()
	default:
		step.action, step.b = proposesLess, less.first()
	}
	return step
}

// first returns the lowest member of a set.
func (s nodes) first() node {
	for n := range node(maxNodes) {
		if s.has(n) {
			return n
		}
	}
	return nobody
}

// answers tells whether o has answered n of late, as its proposer sees it. Whoever is no witness is asked when it is a candidate.
func (m *machine) answers(s *State, n node) func(string) bool {
	return func(name string) bool {
		o := nodeOf(name)
		if !m.Rules.ProposedPanelAnswers {
			return true
		}
		if s.members[n].p.panel.set.set.has(o) {
			return s.members[n].fresh.has(o)
		}
		return s.hears(n, o)
	}
}

// hears tells whether n hears pings of o itself, that name a panel of n's origin: one of another never answers.
func (s *State) hears(n, o node) bool {
	p := &s.members[o]
	return p.life == up && s.linked(n, o) && !s.members[n].silent.has(o) && p.p.panel.origin == s.members[n].p.panel.origin
}

// goes tells whether n is leaving and holds nothing any more.
func (s *State) goes(n node) bool {
	q := &s.members[n]
	return q.leaving && !q.holding && !q.round.running()
}

// look is what n sees itself.
func (m *machine) look(s *State, n node) panel.Look {
	if !m.Rules.AcceptorsLook {
		yes := func(string) bool { return true }
		return panel.Look{Misses: yes, Hears: yes, Met: func(wire.Origin) bool { return true }}
	}
	q := &s.members[n]
	return panel.Look{
		Misses: func(name string) bool {
			o := nodeOf(name)
			return q.silent.has(o) || q.tombstones.has(o) || s.goes(o)
		},
		Hears: func(name string) bool { return s.hears(n, nodeOf(name)) },
		Met: func(o wire.Origin) bool {
			for _, p := range m.met(s, n) {
				if p.Origin == o {
					return true
				}
			}
			return false
		},
	}
}

// met returns a panel of the other origin whose members n is in touch with.
func (m *machine) met(s *State, n node) (met []panel.Panel) {
	for o := range node(m.Nodes) {
		p := &s.members[o]
		if p.life == up && p.p.on() && s.linked(n, o) && p.p.panel.origin != s.members[n].p.panel.origin && !p.p.panel.ends {
			return []panel.Panel{p.p.panel.real()}
		}
	}
	return nil
}

// view is what n sees when it looks what to propose: everything for so long that it is due.
func (m *machine) view(s *State, n node) panel.View {
	q := &s.members[n]
	v := panel.View{
		HasQuorum: s.hasQuorum(n), Leaving: q.leaving, HandedOver: s.goes(n), Members: maxNodes, Met: m.met(s, n),
	}
	for o := range node(m.Nodes) {
		p := &s.members[o]
		if o == n || p.life == outside || !(q.known | q.p.panel.set.set).has(o) {
			continue
		}
		seen := panel.Member{
			Name: nodeNames[o], HeardSince: panel.Never, MissedSince: panel.Never, Serving: true,
			Leaving: p.leaving, HandedOver: s.goes(o), Goodbye: q.tombstones.has(o),
		}
		if s.hears(n, o) {
			seen.HeardSince = 0
		}
		if s.lost(n, o) {
			seen.MissedSince = 0
		}
		v.Others = append(v.Others, seen)
	}
	return v
}

// propose begins a proposal of n, if it may.
func (m *machine) propose(s *State, n node, next panel.Panel) (began bool, err error) {
	r := m.load(s, n)
	_, err = r.Propose(next, m.answers(s, n), now)
	a := &s.members[n].p
	if errors.Is(err, panel.ErrInvalid) && !m.Rules.OneWitnessAtATime {
		r.TopBallot++
		a.save(r)
		a.proposal = proposal{bid: bid(r.TopBallot<<3) | bid(n), value: setOfPanel(next)}
		return true, nil
	}
	if err != nil {
		return false, nil
	}
	a.save(r)
	return true, s.judgeProposal(n, panelOf(next))
}

// judgeProposal judges whether the proposed witnesses can be a majority: those alive, and those that answered the proposer of late.
func (s *State) judgeProposal(n node, next panelID) error {
	possible := s.members[n].fresh
	for o := range node(maxNodes) {
		if s.members[o].alive() {
			possible.add(o)
		}
	}
	all := next.set.set
	for o := range node(maxNodes) {
		if q := &s.members[o]; !possible.has(o) && (q.life == left || q.life == closed) && q.p.leftOut(next) {
			all.remove(o)
		}
	}
	if !possible.majority(all) {
		return ErrDeadPanel
	}
	return nil
}

// promise is w's answer to n's proposal, and what n makes of it.
func (m *machine) promise(s *State, n, w node) {
	ballot := s.members[n].p.proposal.bid.ballot()
	acceptor := m.load(s, w)
	given, err := acceptor.OnPrepare(panel.Prepare{ID: s.members[n].p.panel.real().ID(), Ballot: ballot})
	if errors.Is(err, panel.ErrOutbid) {
		m.outbid(s, n, w)
	}
	if err != nil {
		return
	}
	s.members[w].p.save(acceptor)
	if !m.Rules.AcceptedGoesOn {
		given.Accepted = panel.Acceptance{}
	}
	proposer := m.load(s, n)
	_, _, _ = proposer.OnPromise(nodeNames[w], given, m.answers(s, n), now)
	s.members[n].p.save(proposer)
}

func (m *machine) outbid(s *State, n, w node) {
	proposer := m.load(s, n)
	proposer.OnOutbid(s.members[w].p.promised.ballot())
	s.members[n].p.save(proposer)
}

// accept is w's acceptance of what n asks for.
func (m *machine) accept(s *State, n, w node) error {
	acceptor, p := m.load(s, w), &s.members[n].p
	a := panel.Accept{Ballot: p.proposal.bid.ballot(), Panel: p.proposal.value.after(p.panel)}
	err := acceptor.OnAccept(a, m.look(s, w), now)
	if errors.Is(err, panel.ErrInvalid) && !m.Rules.OneWitnessAtATime {
		acceptor.Promised, acceptor.Accepted = a.Ballot, panel.Acceptance(a)
		err = nil
	}
	switch {
	case errors.Is(err, panel.ErrOutbid):
		m.outbid(s, n, w)
	case err == nil:
		first := s.judgeRemoval(w, p.panel, p.proposal.value)
		s.members[w].p.save(acceptor)
		return first
	}
	return nil
}

// judgeRemoval judges a removal that w is about to accept. It goes on if w has heard of another that has accepted it.
func (s *State) judgeRemoval(w node, from panelID, next set) error {
	gone := from.set.set &^ next.set
	if gone.size() != 1 || next.set.size()%2 == 1 || next.set&^from.set.set != 0 {
		return nil // to an odd number is allowed
	}
	for _, heard := range s.members[w].p.heard {
		if heard.set == next {
			return nil
		}
	}
	for n := range node(maxNodes) {
		q := &s.members[n]
		switch {
		case gone.has(n) && (q.life != up || q.leaving):
			return nil
		case q.alive() && q.p.panel == from && q.silent&gone != 0:
			return nil
		}
	}
	return ErrRemovedUnmissed
}

// hearPanel takes in what w tells n of panels.
func (m *machine) hearPanel(s *State, n, w node) error {
	told := m.load(s, w).Tell()
	if !m.Rules.AdoptedByHearing && told.Accepted.Panel.Exists() {
		told.Accepted.Ballot = bid(1 << 3).ballot() // all are of one
	}
	hearer := m.load(s, n)
	agreed := hearer.Hear(nodeNames[w], told, now)
	next := panelOf(hearer.Panel)
	if !m.Rules.OneWitnessAtATime {
		next, agreed = hearLoosely(s, n, hearer, nodeNames[w], told)
	}
	if !agreed {
		s.members[n].p.save(hearer)
		return nil
	}
	return m.adopt(s, n, next)
}

// hearLoosely is Hear for panels that differ in more than one witness.
func hearLoosely(s *State, n node, hearer *panel.State, from string, told panel.Told) (panelID, bool) {
	a := &s.members[n].p
	heard := told.Accepted
	if told.Panel.Number == uint64(a.panel.number)+1 {
		heard = panel.Acceptance{Panel: told.Panel}
	} else if told.Panel.Number != uint64(a.panel.number) || !heard.Panel.Exists() {
		return panelID{}, false
	}
	if hearer.Heard == nil {
		hearer.Heard = make(map[string]panel.Acceptance)
	}
	hearer.Heard[from] = heard
	var say nodes
	for name, other := range hearer.Heard {
		if other.Panel.Equal(heard.Panel) && (other.Ballot == heard.Ballot || other.Ballot.Number == 0 || heard.Ballot.Number == 0) {
			say.add(nodeOf(name))
		}
	}
	return panelOf(heard.Panel), say.majority(a.panel.set.set)
}

// isNotMissed tells whether a leaving node may go, as far as panels are concerned.
func (m *machine) isNotMissed(s *State, n node) bool {
	p := &s.members[n].p
	if !m.Rules.LeaverSeesAdoption {
		return !p.panel.set.set.has(n)
	}
	return m.load(s, n).MayGo(func(name string) bool {
		w := &s.members[nodeOf(name)]
		return w.life == up && s.linked(n, nodeOf(name)) && w.p.panel.origin == p.panel.origin && w.p.panel.number >= p.panel.number
	})
}

// jump takes n, which has no evidence, to w's panel, if enough of its witnesses confirm it.
func (m *machine) jump(s *State, n, w node) error {
	to := s.members[w].p.panel
	confirms := func(name string) bool {
		o := nodeOf(name)
		return s.members[o].life == up && s.linked(n, o) && s.members[o].p.panel == to
	}
	r := m.load(s, n)
	if r.Jump(to.real(), nodeNames[w], confirms, s.hasQuorum(n), now) != nil {
		return nil
	}
	return m.adopt(s, n, to)
}
