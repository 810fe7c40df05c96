package quorum

import (
	"cmp"
	"context"
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	"github.com/peerlimit/peerlimit/internal/panel"
	"github.com/peerlimit/peerlimit/internal/wire"
)

const (
	// meetEvery is how often a member is pinged that is no witness, to learn of which panel it is.
	meetEvery = time.Second

	// maxMeets is how many members of other origins, or of an unknown one, are pinged with every tick.
	maxMeets = 3

	// maxCandidates is how many members are pinged that may be witnesses next.
	maxCandidates = 4

	// metFor is how long another origin counts as met after a member of it has answered.
	metFor = 3 * time.Second

	// proposalTime is how long a proposal may take before the proposer looks anew.
	proposalTime = AnswerAge

	// forgetSighting is after which time nothing is known of a member any more that is not heard.
	forgetSighting = time.Minute

	// maxSightings bounds the members that something is remembered of.
	maxSightings = 1 << 14
)

// Candidate is a member that this node has a link to, as far as membership knows.
type Candidate struct {
	Name    string
	Serving bool // it answers takes
	Leaving bool
}

// AgreementIO is what the agreement on panels needs of the node.
type AgreementIO struct {
	Now func() int64 // nanoseconds of the monotonic clock

	// Ask asks a witness. It must end when its context does.
	Ask func(ctx context.Context, witness string, q wire.PanelRequest) (wire.PanelAnswer, error)

	Linked func() []Candidate     // the other members that can be asked
	Silent func(name string) bool // no ping of it has come for silentAfter while this node was running
	Count  func() int             // how many members there are, this node among them
	Needs  func() int             // how many must be in touch, this node among them, before this node is anybody's witness, or its own

	// Names returns the names of all members that count, this node's among them. It is called while there has been no quorum for one
	// of the times below only.
	Names func() []string

	// OutvoteAfter and SplitMemory are those of peerlimit.Config: after so long without a quorum a later era is founded by more than
	// half of all members, or by any number. 0 and below means never.
	OutvoteAfter, SplitMemory time.Duration
}

// Agreement is this node's part in the agreement on panels: internal/panel has the rules, and here is what they are
// told of the other members, and the messages. See docs/internals/panels.md.
type Agreement struct {
	io    AgreementIO
	begin func(call func(context.Context)) // of a prober; its context ends the call

	// mu guards what follows. It is held for steps of plain state; nothing waits under it.
	mu      sync.Mutex
	state   *panel.State
	seen    map[string]*sighting
	met     map[wire.Origin]metPanel
	metAt   int64 // when a member was pinged last that is no witness
	begunAt int64 // when the proposal under way was begun
	count   int   // of members, as it was last
	counted int64 // since when
	countOn int64 // until when the quorum of the panel before counts

	founded  int64 // when the node was started, by the wall clock
	deadlock deadlock

	leaving    bool // this node is
	handedOver bool // and holds nothing any more
}

// sighting is what is known of another member.
type sighting struct {
	pinged      int64        // when its last ping came
	answered    int64        // when the last ping was sent that it has answered
	granted     int64        // when the last one was that it answered and whose panel it did not refuse
	heardSince  int64        // since when it pings and answers, by this origin's name; never: it does not
	missedSince int64        // since when this node misses its pings; never: it does not
	id          wire.PanelID // of its panel, as it named it last
	panel       panel.Panel  // the same, where it has told it; none when it is this node's
}

// metPanel is a panel of another origin.
type metPanel struct {
	panel panel.Panel
	at    int64
}

// NewAgreement returns the part of a node that begins alone. founded is the time of its start by the wall clock.
func NewAgreement(self string, founded int64, io AgreementIO) *Agreement {
	return &Agreement{
		io: io, state: panel.New(self, wire.Origin{Founded: founded}, 1),
		seen: make(map[string]*sighting), met: make(map[wire.Origin]metPanel),
		metAt: never, begunAt: never, counted: never, countOn: never, founded: founded,
		deadlock: deadlock{since: never, told: never, ticked: never, mayFound: never},
	}
}

// Panel returns the panel that this node has adopted last. It is not to be changed.
func (a *Agreement) Panel() panel.Panel {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.state.Panel
}

// Counted returns how many members that panel counts, and its witnesses, which are not to be changed.
func (a *Agreement) Counted() (members int, witnesses []string) {
	p := a.Panel()
	return p.Members, p.Witnesses
}

// ID returns which panel that is.
func (a *Agreement) ID() wire.PanelID {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.state.Panel.ID()
}

// HasQuorum reports whether more than half of the panel's witnesses have lately answered.
func (a *Agreement) HasQuorum(now int64) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.hasQuorum(now)
}

// hasQuorum is HasQuorum, with mu held.
func (a *Agreement) hasQuorum(now int64) bool {
	return a.state.Majority(func(w string) bool { return a.grants(w, now) }, now)
}

func (a *Agreement) grants(name string, now int64) bool {
	if name == a.state.Self {
		return true
	}
	s := a.seen[name]
	return s != nil && fresh(s.granted, now)
}

func fresh(t, now int64) bool { return t != never && now-t < int64(AnswerAge) }

// answers reports whether a member answers pings and names this origin.
func (a *Agreement) answers(name string, now int64) bool {
	s := a.seen[name]
	return name == a.state.Self || s != nil && fresh(s.answered, now) && s.id.Origin == a.state.Panel.Origin
}

// hears reports whether a member's pings come and name this origin.
func (a *Agreement) hears(name string, now int64) bool {
	s := a.seen[name]
	return s != nil && fresh(s.pinged, now) && s.id.Origin == a.state.Panel.Origin
}

// sight returns what is known of a member; nil when there is no room.
func (a *Agreement) sight(name string) *sighting {
	s := a.seen[name]
	if s == nil && len(a.seen) < maxSightings && name != a.state.Self {
		s = &sighting{pinged: never, answered: never, granted: never, heardSince: never, missedSince: never}
		a.seen[name] = s
	}
	return s
}

// Pinged takes in a ping, and returns what to answer, and whether it is time to look what is to be done: this node is a founder alone,
// which somebody has joined.
func (a *Agreement) Pinged(from string, id wire.PanelID, now int64) (w wire.PanelWord, look bool) {
	if id.Number == 0 {
		return wire.PanelWord{}, false
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if s := a.sight(from); s != nil {
		s.pinged = max(s.pinged, now)
		s.name(id)
	}
	if g, said := a.state.Goodbyes[from]; said && now-g.At >= int64(AnswerAge) { // what it sent before has come
		a.state.HearAgain(from)
	}
	return a.word(id), id == a.state.Panel.ID() && id.Number == 1
}

// name takes in which panel a member has.
func (s *sighting) name(id wire.PanelID) {
	if s.id != id {
		s.id, s.panel = id, panel.Panel{}
	}
}

// word returns what this node tells of its panel a member whose panel is id, with mu held.
func (a *Agreement) word(id wire.PanelID) wire.PanelWord {
	t := a.state.TellTo(id)
	w := wire.PanelWord{ID: t.Panel.ID(), Accepted: wire.AcceptedPanel{Ballot: t.Accepted.Ballot, Panel: wire.Panel(t.Accepted.Panel)}}
	if w.ID != id {
		w.Panel = wire.Panel(t.Panel)
	}
	return w
}

// Answered takes in what a member has answered to a ping that was sent at that time and named that panel. It reports whether
// this node has another panel now, and whether it is time to look what is to be done: it is a founder alone, which the member may
// join or be joined by, or has no quorum. An answer that refuses the ping is no part of a quorum under any panel: the member may have
// said that this node is silent.
func (a *Agreement) Answered(from string, asked wire.PanelID, sent int64, p *wire.Pong, now int64) (adopted, look bool) {
	w := p.Panel
	if w.ID.Number == 0 {
		return false, false
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	s := a.sight(from)
	if s == nil {
		return false, false
	}
	s.answered = max(s.answered, sent)
	if !p.Refused && w.ID.Origin == asked.Origin && w.ID.Number <= asked.Number {
		s.granted = max(s.granted, sent)
	}
	if p.HasQuorum && w.ID.Number > 1 {
		a.deadlock.told = max(a.deadlock.told, sent)
	}
	adopted = a.hearWord(from, s, w, now)
	return adopted, a.state.Panel.Number == 1 || !a.hasQuorum(now)
}

// hearWord takes in what a member tells of its panel, with mu held.
func (a *Agreement) hearWord(from string, s *sighting, w wire.PanelWord, now int64) (adopted bool) {
	told := panel.Panel(w.Panel)
	if !told.Exists() {
		if told = a.state.Panel; told.ID() != w.ID {
			return false // it is this node's no more
		}
	}
	if told.ID() != w.ID || told.Check() != nil {
		return false
	}
	s.name(w.ID)
	s.panel = told
	if told.Ends() {
		a.state.HearMoved(told.Origin, told.Successor)
	}
	if told.Origin != a.state.Panel.Origin {
		a.met[told.Origin] = metPanel{told, now}
	}
	return a.adopting(now, func() bool {
		return a.state.Hear(from, panel.Told{Panel: told, Accepted: acceptance(w.Accepted)}, now)
	})
}

func acceptance(w wire.AcceptedPanel) panel.Acceptance {
	return panel.Acceptance{Ballot: w.Ballot, Panel: panel.Panel(w.Panel)}
}

// adopting does something that may change the panel, with mu held: the quorum of the one before counts on for a while.
func (a *Agreement) adopting(now int64, step func() (adopted bool)) bool {
	until, origin := a.quorumEnd(now), a.state.Panel.Origin
	if !step() {
		return false
	}
	a.countOn = a.state.CountOn(until)
	if a.state.Panel.Origin != origin { // nothing that was answered there counts here
		a.countOn = never
		for _, s := range a.seen {
			s.granted = never
		}
	}
	return true
}

// quorumEnd returns until when the quorum lasts that there is now, with mu held.
func (a *Agreement) quorumEnd(now int64) int64 {
	if !a.hasQuorum(now) {
		return a.countOn
	}
	return max(a.countOn, now+int64(AnswerAge))
}

// Targets returns the members to ping: the witnesses of the panel; those of the panel that this node is about to take over; and
// some of whose panels it knows nothing, or that are of another origin. linked are those that can be asked; their order is changed.
func (a *Agreement) Targets(linked []Candidate, now int64) []string {
	a.mu.Lock()
	defer a.mu.Unlock()
	targets := slices.Clone(a.state.Panel.Witnesses)
	if later, is := a.laterPanel(now); is {
		targets = append(targets, later.panel.Witnesses...)
	}
	targets = append(targets, a.candidates(linked, now)...)
	rand.Shuffle(len(linked), func(i, k int) { linked[i], linked[k] = linked[k], linked[i] })
	meets := 0
	for _, c := range linked {
		s := a.seen[c.Name]
		stranger := s == nil || s.answered == never || s.id.Origin != a.state.Panel.Origin
		switch {
		case stranger && meets < maxMeets:
			meets++
		case a.metAt == never || now-a.metAt >= int64(meetEvery):
		default:
			continue
		}
		if !stranger {
			a.metAt = now
		}
		targets = append(targets, c.Name)
	}
	slices.Sort(targets)
	return slices.DeleteFunc(slices.Compact(targets), func(name string) bool { return name == a.state.Self })
}

// candidates returns the members that may be witnesses next: the first by hash of those that ping this witness. A witness pings them,
// as only one that answers is added.
func (a *Agreement) candidates(linked []Candidate, now int64) (names []string) {
	if !a.state.Panel.Has(a.state.Self) || len(a.state.Panel.Witnesses) >= panel.MaxWitnesses {
		return nil
	}
	for _, c := range linked {
		if c.Serving && !a.state.Panel.Has(c.Name) && a.hears(c.Name, now) {
			names = append(names, c.Name)
		}
	}
	slices.SortFunc(names, panel.ByHash)
	return names[:min(len(names), maxCandidates)]
}

// laterPanel returns the panel that this node may jump to: the latest that a member has told of lately, where this node has no quorum.
func (a *Agreement) laterPanel(now int64) (later struct {
	panel  panel.Panel
	teller string
}, is bool) {
	if a.hasQuorum(now) {
		return later, false
	}
	for name, s := range a.seen {
		if !fresh(s.answered, now) || !s.panel.Exists() || !a.state.ComesLater(s.panel) {
			continue
		}
		before := later.panel
		if !is || cmp.Or(cmp.Compare(s.id.Origin.Era, before.Origin.Era), cmp.Compare(s.id.Number, before.Number), cmp.Compare(later.teller, name)) > 0 {
			later.panel, later.teller, is = s.panel, name, true
		}
	}
	return later, is
}

// Tick looks what is to be done, and begins it. It reports whether this node has another panel now.
func (a *Agreement) Tick(now int64) (adopted bool) { return a.tick(a.io.Linked(), now) }

// tick is Tick; linked are the members that can be asked. A learner proposes nothing: it only notes what it hears, looks for a later
// panel to take over, and may found an era.
func (a *Agreement) tick(linked []Candidate, now int64) (adopted bool) {
	count, misses := a.io.Count(), a.missedAmong(linked) // their locks are others
	names, needs, stuck := a.longWithoutQuorum(now)
	a.mu.Lock()
	defer a.mu.Unlock()
	a.noteSights(misses, now)
	if count != a.count {
		a.count, a.counted = count, now
	}
	if later, is := a.laterPanel(now); is && a.jump(later.panel, later.teller, now) {
		return true
	}
	if stuck && a.foundEra(linked, names, needs, now) {
		return true
	}
	if !a.state.Panel.Has(a.state.Self) {
		return false
	}
	if a.begunAt != never && now-a.begunAt < int64(proposalTime) && a.state.Proposal != nil {
		return false
	}
	next, wishes := a.state.Wish(a.view(linked, now), now)
	if !wishes {
		return false
	}
	addLeaving(misses, linked)
	return a.propose(next, misses, now)
}

// addLeaving adds those that are leaving to those that a member misses: both may be removed.
func addLeaving(misses map[string]bool, linked []Candidate) {
	for _, c := range linked {
		if c.Leaving {
			misses[c.Name] = true
		}
	}
}

// missedAmong returns which of those that are linked, and of the witnesses, this witness misses: mostly none. A learner is pinged by few,
// and so misses nobody. It is called without mu.
func (a *Agreement) missedAmong(linked []Candidate) map[string]bool {
	misses, p := make(map[string]bool), a.Panel()
	if !p.Has(a.state.Self) {
		return misses
	}
	for _, c := range linked {
		if a.io.Silent(c.Name) {
			misses[c.Name] = true
		}
	}
	for _, w := range p.Witnesses {
		if !misses[w] && a.io.Silent(w) {
			misses[w] = true
		}
	}
	return misses
}

// noteSights notes since when members are heard, and lost, with mu held.
func (a *Agreement) noteSights(misses map[string]bool, now int64) {
	for name, s := range a.seen {
		switch heard := a.hears(name, now) && fresh(s.answered, now); {
		case !heard:
			s.heardSince = never
		case s.heardSince == never:
			s.heardSince = now
		}
		switch {
		case !misses[name]:
			s.missedSince = never
		case s.missedSince == never:
			s.missedSince = now
		}
		last := max(s.pinged, s.answered)
		if !a.state.Panel.Has(name) && (last == never || now-last > int64(forgetSighting)) {
			delete(a.seen, name)
		}
	}
	for origin, m := range a.met {
		if now-m.at > int64(metFor) || origin == a.state.Panel.Origin {
			delete(a.met, origin)
		}
	}
}

// jump takes over a panel that was agreed on out of hearing, with mu held.
func (a *Agreement) jump(to panel.Panel, teller string, now int64) bool {
	confirms := func(name string) bool {
		s := a.seen[name]
		return s != nil && fresh(s.answered, now) && s.id == to.ID()
	}
	return a.adopting(now, func() bool { return a.state.Jump(to, teller, confirms, a.hasQuorum(now), now) == nil })
}

// view returns what this witness sees, with mu held.
func (a *Agreement) view(linked []Candidate, now int64) panel.View {
	v := panel.View{
		HasQuorum: a.hasQuorum(now) || now < a.countOn, Members: a.count, CountedSince: a.counted,
		Leaving: a.leaving, HandedOver: a.handedOver,
	}
	var listed [panel.MaxWitnesses]bool
	v.Others = make([]panel.Member, 0, len(linked)+len(a.state.Panel.Witnesses))
	for _, c := range linked {
		if i, is := slices.BinarySearch(a.state.Panel.Witnesses, c.Name); is {
			listed[i] = true
		}
		v.Others = append(v.Others, a.member(c, now))
	}
	for i, w := range a.state.Panel.Witnesses {
		if !listed[i] && w != a.state.Self {
			v.Others = append(v.Others, a.member(Candidate{Name: w}, now))
		}
	}
	for _, m := range a.met {
		v.Met = append(v.Met, m.panel)
	}
	return v
}

// member returns what this witness sees of one, with mu held.
func (a *Agreement) member(c Candidate, now int64) panel.Member {
	m := panel.Member{Name: c.Name, HeardSince: never, MissedSince: never, Serving: c.Serving, Leaving: c.Leaving}
	if s := a.seen[c.Name]; s != nil {
		m.HeardSince, m.MissedSince = s.heardSince, s.missedSince
	}
	_, m.Goodbye = a.state.Goodbyes[c.Name]
	return m
}

// look returns what this member sees for itself of what is proposed, with mu held. misses has what it misses.
func (a *Agreement) look(misses func(string) bool, now int64) panel.Look {
	return panel.Look{
		Misses: func(name string) bool {
			_, said := a.state.Goodbyes[name]
			return said || misses(name) || name == a.state.Self && a.handedOver
		},
		Hears: func(name string) bool { return a.hears(name, now) },
		Met: func(o wire.Origin) bool {
			m, met := a.met[o]
			return met && now-m.at <= int64(metFor)
		},
		Members: a.count,
	}
}

// Leave says that this node is leaving. Others may be witnesses in its place from now on, as soon as it holds nothing.
func (a *Agreement) Leave() {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.leaving = true
}

// HandOver says that this node is leaving and holds nothing any more.
func (a *Agreement) HandOver() {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.handedOver = true
}

// MayGo reports whether a leaving node is no witness any more, and enough of those that are know it [LeaverSeesAdoption]. One that has
// waited for long may go when nothing is pending that it has accepted: its goodbye tells the rest. Before that it leaves three witnesses, where there are
// as many members: in a cluster that is rolled in its first seconds there would be one, and then a crash.
func (a *Agreement) MayGo(hasWaited bool, now int64) bool {
	stay := 0
	for _, c := range a.io.Linked() {
		if c.Serving && !c.Leaving {
			stay++
		}
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if hasWaited && !a.state.Accepted.Panel.Exists() {
		return true
	}
	if len(a.state.Panel.Witnesses) < min(3, stay-1+stay%2) {
		return false
	}
	id := a.state.Panel.ID()
	return a.state.MayGo(func(w string) bool {
		s := a.seen[w]
		return s != nil && fresh(s.answered, now) && s.id.Origin == id.Origin && s.id.Number >= id.Number
	})
}

// SayGoodbye ends this node's part in the agreement, and returns what others are to be told by its goodbye.
func (a *Agreement) SayGoodbye() wire.Goodbye {
	a.mu.Lock()
	defer a.mu.Unlock()
	g := a.state.SayGoodbye()
	return wire.Goodbye{ID: g.ID, Promised: g.Promised}
}

// HearGoodbye takes in what a member has said last.
func (a *Agreement) HearGoodbye(from string, g wire.Goodbye, now int64) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.state.HearGoodbye(from, panel.Goodbye{ID: g.ID, Promised: g.Promised}, now)
}

// Seats returns the panel's witnesses as quorum is judged by them. Of a panel that has ended nobody has a quorum; nor of one
// whose witness this node is while it is in touch with too few.
func (a *Agreement) Seats(now int64) Seats {
	needs := a.io.Needs()
	a.mu.Lock()
	defer a.mu.Unlock()
	s := Seats{Panel: a.state.Panel.ID()}
	if a.state.Panel.Ends() || a.state.Panel.Has(a.state.Self) && !a.isInTouch(needs, now) {
		return s
	}
	for _, w := range a.state.Counting(now) {
		granted := int64(never)
		if seen := a.seen[w]; seen != nil {
			granted = seen.granted
		}
		s.Witnesses, s.Granted = append(s.Witnesses, w), append(s.Granted, granted)
	}
	return s
}

// isInTouch reports whether this node hears from enough members, with mu held.
func (a *Agreement) isInTouch(needs int, now int64) bool {
	n := 1
	for _, s := range a.seen {
		if n >= needs {
			break
		}
		if fresh(s.pinged, now) || fresh(s.answered, now) {
			n++
		}
	}
	return n >= needs
}

// Refuses reports whether a ping of a member whose panel is that one is refused: it is behind, or this node gives nobody a quorum. A
// founder that is alone does not: it may end the next moment for another, of which those that rely on it would not hear.
func (a *Agreement) Refuses(id wire.PanelID, now int64) bool {
	needs := a.io.Needs()
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.state.Refuses(id) || a.state.Panel.Number == 1 || !a.isInTouch(needs, now)
}
