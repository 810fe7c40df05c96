package panel_test

import (
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/peerlimit/peerlimit/internal/panel"
	"github.com/peerlimit/peerlimit/internal/wire"
)

// letter is a message on its way: one of its parts is set.
type letter struct {
	from, to string
	prepare  *panel.Prepare
	promise  *panel.Promise
	accept   *panel.Accept
	told     *panel.Told
	goodbye  *panel.Goodbye
	outbid   wire.Ballot
}

// world is members that propose whatever they like, and a network that delivers in any order, twice or never.
type world struct {
	t       *rapid.T
	rng     *rand.Rand // of a seed that rapid draws: its own draws prefer small numbers, and so runs in which little happens
	names   []string
	states  map[string]*panel.State
	letters []letter
	now     int64
	adopted map[wire.PanelID]panel.Panel
	gone    map[string]bool
	leaves  int // that may still happen
}

func newWorld(t *rapid.T, seed uint64) *world {
	w := &world{t: t, rng: rand.New(rand.NewPCG(seed, 0)), states: make(map[string]*panel.State), adopted: make(map[wire.PanelID]panel.Panel), gone: make(map[string]bool)}
	w.leaves = w.rng.IntN(4)
	members := 1 + w.rng.IntN(6)
	witnesses := 1 + w.rng.IntN(members)
	for i := range members {
		w.names = append(w.names, string(rune('a'+i)))
	}
	first := of(1, w.names[:witnesses]...)
	for _, name := range w.names {
		w.states[name] = at(name, first)
	}
	w.adopted[first.ID()] = first
	return w
}

func (w *world) any() *panel.State { return w.states[w.names[w.rng.IntN(len(w.names))]] }

// one reports true once in n times.
func (w *world) one(n int) bool { return w.rng.IntN(n) == 0 }

func (w *world) send(l letter) {
	if l.from == l.to || len(w.letters) < 30 {
		w.letters = append(w.letters, l)
	}
}

// look sees anything, mostly what makes it accept.
func (w *world) look() panel.Look {
	yes := !w.one(4)
	says := func(string) bool { return yes }
	return panel.Look{Misses: says, Hears: says, Met: func(wire.Origin) bool { return yes }, Members: panel.MaxMembers}
}

func (w *world) propose(s *panel.State) {
	p := s.Panel
	next := p.Counting(p.Members + w.rng.IntN(3) - 1)
	switch other := w.any().Self; {
	case w.one(8):
	case w.one(50):
		next = p.EndingFor(wire.Origin{Name: "elsewhere"})
	case p.Has(other):
		next = p.Without(other)
	default:
		next = p.With(other)
	}
	prepare, err := s.Propose(next, all, w.now)
	if err != nil {
		return
	}
	for _, to := range p.Witnesses {
		w.send(letter{from: s.Self, to: to, prepare: &prepare})
	}
}

func (w *world) tell(s *panel.State) {
	told := s.Tell()
	for _, to := range w.names {
		w.send(letter{from: s.Self, to: to, told: &told})
	}
}

func (w *world) deliver(l letter) {
	s := w.states[l.to]
	switch {
	case w.gone[l.to]:
	case l.prepare != nil:
		promise, err := s.OnPrepare(*l.prepare)
		if err != nil {
			w.send(letter{from: l.to, to: l.from, outbid: s.Promised})
			return
		}
		w.send(letter{from: l.to, to: l.from, promise: &promise})
	case l.promise != nil:
		accept, ready, _ := s.OnPromise(l.from, *l.promise, all, w.now)
		if ready {
			for _, to := range s.Panel.Witnesses {
				w.send(letter{from: l.to, to: to, accept: &accept})
			}
		}
	case l.accept != nil:
		if s.OnAccept(*l.accept, w.look(), w.now) == nil {
			w.tell(s)
		}
	case l.told != nil:
		if s.Hear(l.from, *l.told, w.now) {
			w.note(s.Panel)
		}
	case l.goodbye != nil:
		s.HearGoodbye(l.from, *l.goodbye, w.now)
	default:
		s.OnOutbid(l.outbid)
	}
}

// note judges: panels of one number are equal.
func (w *world) note(p panel.Panel) {
	if known, has := w.adopted[p.ID()]; has && !known.Equal(p) {
		w.t.Fatalf("two panels of number %d: %v and %v", p.Number, known.Witnesses, p.Witnesses)
	}
	w.adopted[p.ID()] = p
}

func (w *world) step() {
	s := w.any()
	switch kind := w.rng.IntN(60); {
	case kind < 3:
		w.propose(s)
	case kind < 6:
		w.tell(s)
	case kind == 6:
		w.now += 250 * ms
	case kind == 7 && w.leaves > 0 && !w.gone[s.Self] && w.one(2):
		w.leaves--
		w.gone[s.Self] = true
		g := s.SayGoodbye()
		for _, to := range w.names {
			w.send(letter{from: s.Self, to: to, goodbye: &g})
		}
	case kind == 8:
		teller := w.any()
		to := teller.Panel
		confirms := func(name string) bool { return w.states[name] != nil && w.states[name].Panel.Equal(to) }
		if s.Jump(to, teller.Self, confirms, false, w.now) == nil {
			w.note(s.Panel)
		}
	case len(w.letters) > 0:
		i := w.rng.IntN(len(w.letters))
		l := w.letters[i]
		if !w.one(10) { // else it comes again
			w.letters = slices.Delete(w.letters, i, i+1)
		}
		if !w.one(10) { // else it is lost
			w.deliver(l)
		}
	}
}

// No two panels have one number, whatever is lost, comes twice or late, and whoever goes.
func TestNoTwoPanelsHaveOneNumber(t *testing.T) {
	highest := uint64(1)
	rapid.Check(t, func(t *rapid.T) {
		seed := rapid.Uint64().Draw(t, "seed")
		for i := range uint64(20) {
			w := newWorld(t, seed+i)
			for range 3000 {
				w.step()
			}
			for id := range w.adopted {
				highest = max(highest, id.Number)
			}
		}
	})
	require.Greater(t, highest, uint64(10), "little was agreed on: the test judges nothing")
	t.Logf("up to number %d", highest)
}

// FuzzAcceptor tells a witness whatever it likes: nothing panics, what is kept stays bounded and valid, and no promise is broken.
func FuzzAcceptor(f *testing.F) {
	f.Add([]byte{0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16})
	f.Add([]byte("\x02\x01a\x03\x01\x04\x02\x01\x05\x00\x06\xff\xff\xff"))
	f.Fuzz(func(t *testing.T, data []byte) {
		r := &reader{data: data}
		s := at("b", of(3, "a", "b", "c"))
		for len(r.data) > 0 {
			promised, accepted, number := s.Promised, s.Accepted, s.Panel.Number
			from := r.name()
			now := int64(r.byte()) * 100 * ms
			switch r.byte() % 8 {
			case 0:
				_, _ = s.OnPrepare(panel.Prepare{ID: r.panel(s).ID(), Ballot: r.ballot()})
			case 1:
				_ = s.OnAccept(panel.Accept{Ballot: r.ballot(), Panel: r.panel(s)}, agreeable, now)
			case 2:
				s.Hear(from, panel.Told{Panel: r.panel(s), Accepted: panel.Acceptance{Ballot: r.ballot(), Panel: r.panel(s)}}, now)
			case 3:
				_, _ = s.Propose(r.panel(s), all, now)
			case 4:
				p := panel.Promise{ID: s.Panel.ID(), Ballot: r.ballot(), Accepted: panel.Acceptance{Ballot: r.ballot(), Panel: r.panel(s)}}
				if s.Proposal != nil {
					p.Ballot = s.Proposal.Ballot
				}
				_, _, _ = s.OnPromise(from, p, all, now)
			case 5:
				s.HearGoodbye(from, panel.Goodbye{ID: r.panel(s).ID(), Promised: r.ballot()}, now)
			case 6:
				s.HearMoved(r.panel(s).Origin, r.panel(s).Origin)
				_ = s.Jump(r.panel(s), r.name(), all, r.byte()%2 == 0, now)
			case 7:
				s.Wish(panel.View{HasQuorum: true, Members: int(int8(r.byte())), Met: []panel.Panel{r.panel(s)}}, now)
				s.OnOutbid(r.ballot())
			}
			require.NoError(t, s.Panel.Check())
			require.LessOrEqual(t, len(s.Heard)+len(s.Goodbyes), 2*panel.MaxWitnesses)
			require.False(t, s.Promised.Below(s.Accepted.Ballot))
			if s.Panel.Number == number && s.Panel.Origin == cluster {
				require.False(t, s.Promised.Below(promised))
				require.False(t, s.Accepted.Ballot.Below(accepted.Ballot))
			}
		}
	})
}

// reader makes hostile values of bytes.
type reader struct{ data []byte }

func (r *reader) byte() byte {
	if len(r.data) == 0 {
		return 0
	}
	b := r.data[0]
	r.data = r.data[1:]
	return b
}

func (r *reader) name() string {
	switch b := r.byte(); {
	case b > 250:
		return fmt.Sprintf("%0*d", 10*int(b%26), 0)
	case b > 247:
		return ""
	default:
		return string(rune('a' + b%6))
	}
}

func (r *reader) number(near uint64) uint64 {
	switch b := r.byte(); {
	case b > 252:
		return math.MaxUint64 - uint64(b-253)
	case b > 248:
		return near + panel.MaxLeap + uint64(b-250)
	default:
		return near + uint64(b%4) - 1
	}
}

func (r *reader) ballot() wire.Ballot { return wire.Ballot{Number: r.number(1), By: r.name()} }

// panel makes one, often a valid one that follows.
func (r *reader) panel(s *panel.State) panel.Panel {
	switch r.byte() % 6 {
	case 0:
		return s.Panel.With(r.name())
	case 1:
		return s.Panel.Without(r.name())
	case 2:
		return s.Panel.EndingFor(wire.Origin{Era: r.number(1), Name: r.name()})
	case 3:
		return s.Panel.Counting(int(r.number(3)))
	case 4:
		return panel.Panel{}
	}
	p := panel.Panel{Origin: s.Panel.Origin, Number: r.number(s.Panel.Number), Members: int(r.number(1))}
	if r.byte()%4 == 0 {
		p.Origin = wire.Origin{Era: r.number(0), Name: r.name()}
	}
	for range r.byte() % 40 {
		p.Witnesses = append(p.Witnesses, r.name())
	}
	return p
}
