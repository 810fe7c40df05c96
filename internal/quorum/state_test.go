package quorum

import (
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/peerlimit/peerlimit/internal/panel"
	"github.com/peerlimit/peerlimit/internal/wire"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

const (
	testMs     = int64(time.Millisecond)
	testSecond = int64(time.Second)
)

// reachOf returns the reach of "a" that knows names since 0, all of them witnesses of its panel, and counts the calls of onLapse.
func reachOf(names ...string) (r *State, lapses *int) {
	lapses = new(int)
	r = New("a", func() { *lapses++ })
	r.SetKnown(names, 0)
	seat(r, 0, names...)
	return r, lapses
}

// seat gives a node the next panel, with these witnesses. What those of the panel before have answered counts on.
func seat(r *State, now int64, names ...string) {
	s := Seats{Panel: r.panel, Witnesses: names}
	s.Panel.Number++
	for _, name := range names {
		granted := int64(never)
		if i, was := slices.BinarySearch(r.witnesses, name); was {
			granted = r.answers[i]
		}
		s.Granted = append(s.Granted, granted)
	}
	r.SetSeats(s, now)
}

func TestAloneIsAlwaysFull(t *testing.T) {
	r := New("a", func() { t.Error("nothing was held") })
	assert.False(t, r.Check(5))
	r.answered("a", 5, 5)
	assert.False(t, r.Check(5), "there is no panel")
	seat(r, 5, "a")
	assert.True(t, r.IsFull(5) && r.Check(1<<62))
}

// PanelDecides
func TestQuorumIsOfThePanelAndNotOfTheKnown(t *testing.T) {
	r := New("a", func() {})
	r.SetKnown([]string{"a", "b"}, 0)
	seat(r, 0, "a", "b", "c", "d", "e")
	r.answered("b", 10, 11)
	assert.False(t, r.IsFull(12), "two of five")
	r.answered("c", 20, 21)
	assert.True(t, r.IsFull(22), "three of five")
	r.SetKnown([]string{"a", "b", "c", "d", "e", "f", "g", "h"}, 23)
	assert.True(t, r.IsFull(24), "others may be known")
	assert.Equal(t, 20+int64(AnswerAge), r.FullUntil.Load()+10, "the older answer is that of b")

	learner := New("x", func() {})
	learner.SetKnown([]string{"x"}, 0)
	seat(learner, 0, "a", "b", "c")
	learner.answered("a", 10, 11)
	learner.answered("x", 10, 11)
	assert.False(t, learner.IsFull(12), "a learner does not count itself")
	learner.answered("c", 10, 11)
	assert.True(t, learner.IsFull(12))
}

func TestAnswerAgesFromSending(t *testing.T) {
	r, lapses := reachOf("a", "b", "c", "d", "e")
	require.False(t, r.IsFull(0))
	r.answered("b", 10*testMs, 30*testMs)
	require.False(t, r.IsFull(30*testMs))
	r.answered("c", 50*testMs, 400*testMs)
	assert.True(t, r.IsFull(510*testMs-1))
	assert.False(t, r.IsFull(510*testMs), "more than half lapses with the older of two")
	r.answered("d", 100*testMs, 420*testMs)
	assert.True(t, r.IsFull(550*testMs-1))
	assert.False(t, r.IsFull(550*testMs))
	r.answered("d", 40*testMs, 430*testMs)
	assert.True(t, r.IsFull(550*testMs-1), "answers may come in any order")
	r.answered("unknown", 400*testMs, 440*testMs)
	assert.False(t, r.IsFull(550*testMs))
	assert.Zero(t, *lapses)
}

// TestLapseIsRemembered is the rule for a process that was paused: fresh answers come before the next take.
func TestLapseIsRemembered(t *testing.T) {
	var r *State
	lapses, now := 0, int64(0)
	r = New("a", func() {
		lapses++
		assert.False(t, r.IsFull(now), "an end that was moved while something was held")
	})
	seat(r, now, "a", "b", "c")
	r.answered("b", 0, 1)
	require.Zero(t, lapses, "nothing was held before the first quorum")

	now = 2 * testSecond
	r.answered("b", now-1, now)
	assert.Equal(t, 1, lapses)
	assert.True(t, r.Check(now))
	r.answered("c", now-1, now+1)
	assert.Equal(t, 1, lapses)

	now = 3 * testSecond
	assert.False(t, r.Check(now) || r.Check(now+1))
	r.answered("b", now, now+2)
	r.answered("c", now, now+2)
	assert.Equal(t, 2, lapses, "once for a lapse")
	assert.EqualValues(t, 2, r.Lapses.Load())
	assert.True(t, r.IsFull(now+3))

	now += 10
	seat(r, now, "a", "b", "c", "d")
	assert.True(t, r.IsFull(now), "c answered, too")
	now += int64(AnswerAge)
	r.answered("b", now-1, now)
	r.answered("c", now-1, now)
	assert.Equal(t, 3, lapses, "the quorum of the panel before has lapsed as well")
	assert.True(t, r.IsFull(now))

	gone := Seats{Panel: r.panel}
	r.SetSeats(gone, now)
	assert.Equal(t, 4, lapses, "the panel gives nobody a quorum any more")
	gone.Panel.Number++
	r.SetSeats(gone, now)
	assert.False(t, r.Check(now), "there was none that could count on")
	assert.Equal(t, 4, lapses)
}

// OldPanelCountsOn: a new witness gets the time for its first answer, but not more than the quorum has that there was without it.
func TestQuorumOfThePanelBeforeCountsOn(t *testing.T) {
	lapses := 0
	r := New("a", func() { lapses++ })
	seat(r, 0, "a")
	require.True(t, r.IsFull(math.MaxInt64-1), "alone")

	now := int64(time.Hour)
	seat(r, now, "a", "b")
	assert.True(t, r.IsFull(now+int64(AnswerAge)-1))
	assert.False(t, r.IsFull(now+int64(AnswerAge)))
	for i := range 4 { // one panel after another does not extend it
		seat(r, now+int64(i)*100*testMs, []string{"a", "b", "c", "d", "e", "f"}[:3+i]...)
		r.answered("b", now, now+int64(i)*100*testMs+1)
	}
	assert.True(t, r.IsFull(now+int64(AnswerAge)-1))
	assert.False(t, r.IsFull(now+int64(AnswerAge)))
	require.Zero(t, lapses)

	now += int64(AnswerAge)
	assert.False(t, r.Check(now))
	assert.Equal(t, 1, lapses)
	seat(r, now+1, "a", "b", "c", "d", "e", "f", "g")
	assert.False(t, r.IsFull(now+1), "what has lapsed does not count on")
}

// Less witnesses under the same number, by a goodbye, are no new panel: nothing counts on that they do not give.
func TestFewerWitnessesOfOnePanelEndItsQuorum(t *testing.T) {
	r, lapses := reachOf("a", "b", "c")
	r.answered("c", 0, 1)
	require.True(t, r.IsFull(2))
	r.SetSeats(Seats{Panel: r.panel, Witnesses: []string{"a", "b"}, Granted: []int64{never, never}}, 3)
	assert.False(t, r.IsFull(3))
	assert.Equal(t, 1, *lapses)
	r.answered("c", 4, 5)
	assert.False(t, r.IsFull(6), "c is none of them")
	r.SetSeats(Seats{Panel: r.panel, Witnesses: []string{"a", "b"}, Granted: []int64{never, 4}}, 7)
	assert.False(t, r.IsFull(8), "they are the same seats, and b did not answer")
	r.SetSeats(Seats{Panel: r.panel, Witnesses: []string{"a"}, Granted: []int64{never}}, 9)
	assert.True(t, r.IsFull(math.MaxInt64-1))
}

// A member whose origin ended goes on in another one. What it held on its quorum ends with that: a member of the other cluster may hold it. What
// the witnesses of the new origin have granted counts at once.
func TestQuorumUnderAnotherOrigin(t *testing.T) {
	r, lapses := reachOf("a", "b", "c")
	r.answered("b", 0, 1)
	other := wire.PanelID{Origin: wire.Origin{Founded: 1, Name: "x"}, Number: r.panel.Number}
	r.SetSeats(Seats{Panel: other, Witnesses: []string{"x", "y", "z"}, Granted: []int64{never, never, never}}, 100*testMs)
	assert.False(t, r.IsFull(100*testMs))
	assert.Equal(t, 1, *lapses)
	r.answered("b", 200*testMs, 201*testMs)
	assert.False(t, r.IsFull(int64(AnswerAge)), "b is no witness there")
	r.judged("b", 200*testMs, []string{"c"}, []string{"c"}, 201*testMs)
	r.judged("a", 200*testMs, []string{"c"}, []string{"c"}, 201*testMs)
	assert.False(t, r.Lost("c", 202*testMs), "nor do they say there that somebody is silent")
	r.answered("x", 300*testMs, 301*testMs)
	r.answered("z", 310*testMs, 311*testMs)
	assert.True(t, r.IsFull(800*testMs-1))
	assert.Equal(t, 1, *lapses)

	other.Origin.Name = "y"
	r.SetSeats(Seats{Panel: other, Witnesses: []string{"p", "q", "r"}, Granted: []int64{400 * testMs, never, 500 * testMs}}, 900*testMs)
	assert.Equal(t, 2, *lapses)
	assert.False(t, r.IsFull(900*testMs))
	other.Number++
	r.SetSeats(Seats{Panel: other, Witnesses: []string{"p", "q"}, Granted: []int64{700 * testMs, 800 * testMs}}, 901*testMs)
	assert.True(t, r.IsFull(1200*testMs-1))
	assert.False(t, r.IsFull(1200*testMs))
}

// TestNoTakeSeesNewEvidenceWithOldHolding lapses and renews quorum while others take.
func TestNoTakeSeesNewEvidenceWithOldHolding(t *testing.T) {
	var r *State
	var clock, heldSince atomic.Int64 // heldSince: 0 when nothing is held
	r = New("a", func() { heldSince.Store(0) })
	seat(r, 1, "a", "b")
	clock.Store(1)
	stop := make(chan struct{})
	var takers sync.WaitGroup
	for range 2 {
		takers.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				now := clock.Load()
				if r.Check(now) {
					if since := heldSince.Load(); since != 0 && since < now {
						t.Errorf("at %d something is held since %d", now, since)
						return
					}
				}
			}
		})
	}
	for range 5000 {
		now := clock.Add(testSecond) // longer than quorum lasts
		r.answered("b", now, now)
		heldSince.Store(now)
	}
	close(stop)
	takers.Wait()
	assert.EqualValues(t, 4999, r.Lapses.Load())
}

func TestQuorumOfTheLargestPanel(t *testing.T) {
	names := manyNames(panel.MaxWitnesses)
	r := New(names[30], func() {})
	seat(r, 0, names...)
	for i := range 15 {
		require.False(t, r.IsFull(int64(i)), "%d of 31 with itself", i+1)
		r.answered(names[2*i], int64(i), int64(i))
	}
	assert.True(t, r.IsFull(15))
	assert.Equal(t, int64(AnswerAge), r.FullUntil.Load(), "the oldest of the answers is needed")
}

func manyNames(n int) (names []string) {
	for i := range n {
		names = append(names, fmt.Sprintf("member-%04d", i))
	}
	return names
}

func TestWitnessSaysWhoIsSilentAndRefuses(t *testing.T) {
	r, _ := reachOf("a", "b", "c")
	require.Empty(t, r.silentAmong([]string{"a", "b"}, 499*testMs), "it had no time to ping")
	require.False(t, r.pinged("b", 300*testMs))
	assert.Equal(t, []string{"c", "unknown"}, r.silentAmong([]string{"a", "b", "c", "unknown"}, 500*testMs))
	assert.False(t, r.pinged("b", 501*testMs))
	assert.True(t, r.pinged("c", 600*testMs) && r.pinged("unknown", 600*testMs))
	assert.Empty(t, r.silentAmong([]string{"c", "unknown"}, 700*testMs), "refused pings are heard")
	assert.True(t, r.pinged("c", 1500*testMs-1))
	assert.False(t, r.pinged("c", 1500*testMs) || r.pinged("unknown", 1500*testMs))
	assert.False(t, r.knows("unknown"))
}

func TestWitnessThatDidNotRunForgives(t *testing.T) {
	r, _ := reachOf("a", "b")
	for ms := range int64(6) {
		r.running(ms * 100 * testMs)
	}
	require.Equal(t, []string{"b"}, r.missed(500*testMs))
	r.running(3000 * testMs)
	assert.Empty(t, r.missed(3399*testMs))
	assert.Empty(t, r.silentAmong([]string{"b"}, 3499*testMs))
	r.running(3200 * testMs)
	r.running(3400 * testMs)
	assert.Equal(t, []string{"b"}, r.silentAmong([]string{"b"}, 3500*testMs))
}

func TestMissedIsBoundedAndNamesAllInTurn(t *testing.T) {
	names := manyNames(151)
	r := New(names[0], func() {})
	r.SetKnown(names[:30], 0)
	seat(r, 0, names[:3]...)
	require.Empty(t, r.missed(399*testMs))
	assert.Len(t, r.missed(400*testMs), 29, "learners are missed like witnesses")
	r.SetKnown(names, 0)
	named := make(map[string]bool)
	for tick := range int64(4) {
		missed := r.missed(testSecond + tick*int64(pingInterval))
		require.Len(t, missed, maxMissed)
		for _, name := range missed {
			named[name] = true
		}
	}
	assert.Len(t, named, 150)
	seat(r, testSecond, names[1:3]...)
	assert.Empty(t, r.missed(testSecond), "nobody pings one that is no witness")
}

func TestStrangersAreBounded(t *testing.T) {
	r, _ := reachOf("a", "b")
	var names []string
	for i := range 2 * maxUnknown {
		names = append(names, fmt.Sprint("s", i))
	}
	assert.Equal(t, maxUnknown, len(r.silentAmong(names, testSecond)))
	assert.True(t, r.pinged("one more", testSecond), "what cannot be remembered is refused")
	assert.Equal(t, maxUnknown+1, len(r.watch), "with b")
	assert.False(t, r.pinged("one more", 2*testSecond), "those were forgotten")
	assert.Len(t, r.watch, 2)
}

func TestLostIsSaidByMoreThanHalf(t *testing.T) {
	r, _ := reachOf("a", "b", "c", "d", "e")
	ask, say := []string{"e"}, []string{"e"}
	r.judged("b", 0, ask, say, 1)
	r.judged("c", 100, ask, say, 101)
	r.judged("unknown", 100, ask, say, 101)
	r.judged("c", 100, ask, say, 102)
	require.False(t, r.Lost("e", 103))
	assert.Len(t, r.words["e"], 2, "what others say is not remembered")
	r.judged("a", 200, ask, say, 200)
	assert.True(t, r.Lost("e", 201))
	assert.Equal(t, []string{"e"}, r.LostNames(201))
	assert.True(t, r.Lost("e", testSecond-1))
	assert.False(t, r.Lost("e", testSecond), "what b said counts from the sending")
	r.judged("b", 300, ask, say, 301)
	assert.True(t, r.Lost("e", testSecond))
	r.judged("c", 400, ask, nil, 401)
	assert.False(t, r.Lost("e", 402), "c has taken it back")
	r.judged("c", 350, ask, nil, 403)
	r.judged("d", 500, []string{"b"}, nil, 501)
	r.judged("d", 500, ask, say, 501)
	assert.True(t, r.Lost("e", 502))
	r.judged("d", 450, ask, nil, 503)
	assert.True(t, r.Lost("e", 504), "an older answer takes nothing back")
	r.judged("b", 500, []string{"a"}, []string{"a"}, 501)
	r.judged("c", 500, []string{"a"}, []string{"a"}, 501)
	r.judged("d", 500, []string{"a"}, []string{"a"}, 501)
	assert.False(t, r.Lost("a", 502), "nobody is lost to itself")
	r.SetKnown([]string{"a", "b", "c", "d"}, 600)
	assert.False(t, r.Lost("e", 600), "it is not known")
	assert.Empty(t, r.LostNames(600))
}

// PanelDecides
func TestLossIsSaidByThePanel(t *testing.T) {
	r, _ := reachOf("a", "b", "c", "d", "e")
	r.SetKnown([]string{"a", "b", "c", "d", "e", "x"}, 0)
	ask := []string{"e", "x"}
	for _, w := range []string{"b", "c", "d"} {
		r.judged(w, 0, ask, ask, 1)
	}
	require.Equal(t, []string{"e", "x"}, r.LostNames(2))
	seat(r, 3, "a", "b", "c", "d")
	assert.Equal(t, []string{"e", "x"}, r.LostNames(3), "three of four")
	seat(r, 4, "a", "c", "d")
	assert.Equal(t, []string{"e", "x"}, r.LostNames(4), "c and d of three: e need be no witness itself")
	seat(r, 5, "a", "c")
	assert.Empty(t, r.LostNames(5), "c of two")
	r.judged("b", 5, ask, ask, 6)
	assert.Empty(t, r.LostNames(6), "b is no witness any more")
	r.SetSeats(Seats{Panel: wire.PanelID{Number: 9}}, 7)
	assert.Empty(t, r.LostNames(7), "a panel that gives nobody a quorum calls nobody lost")
}

func TestLostForgetsWhatDoesNotCount(t *testing.T) {
	r, _ := reachOf("a", "b", "c")
	r.judged("b", 0, []string{"c"}, []string{"c"}, 1)
	require.Len(t, r.words, 1)
	assert.Empty(t, r.LostNames(testSecond))
	assert.Empty(t, r.words)
}

func TestHeardOnlyRises(t *testing.T) {
	r, _ := reachOf("a")
	r.Hear(7)
	r.Hear(3)
	assert.EqualValues(t, 7, r.Heard.Load())
}

// TestMajoritiesNeverContradict plays pings, verdict requests and responses of nodes in any order, with any delays, and without
// the driver, while panels follow each other: whatever is asked of which node and when, none is full while it is lost to another
// one that is full. Nor is it lost to others, unless they are two panels behind.
func TestMajoritiesNeverContradict(t *testing.T) {
	losses := 0
	rapid.Check(t, func(t *rapid.T) {
		p := newPlay(rapid.IntRange(2, 5).Draw(t, "nodes"), rapid.Uint64().Draw(t, "seed"))
		silenced := p.rng.IntN(len(p.nodes)) // it pings rarely
		for now := int64(0); now < 8*testSecond; now += 10 * testMs {
			p.step(silenced, now)
			for _, r := range p.nodes {
				losses += p.verify(t, r, now)
			}
		}
	})
	assert.NotZero(t, losses, "the schedules are too tame to show anything")
}

// verify checks what must hold of a node, and returns to how many that are full it is lost.
func (p *play) verify(t *rapid.T, r *player, now int64) (losses int) {
	full := r.IsFull(now)
	if full && r.number < len(p.panels)-2 {
		t.Fatalf("at %v %s is full under panel %d of %d", time.Duration(now), r.self, r.number+1, len(p.panels))
	}
	for _, other := range p.nodes {
		if !other.Lost(r.self, now) {
			continue
		}
		if full && (other.IsFull(now) || other.number >= r.number-1) {
			t.Fatalf("at %v %s is full, and lost to %s", time.Duration(now), r.self, other.self)
		}
		if other.IsFull(now) {
			losses++
		}
	}
	return losses
}

// play is a few nodes and the panels that they have agreed on, each of which differs from the one before by one witness.
type play struct {
	rng    *rand.Rand
	nodes  []*player
	names  []string
	panels [][]string
	later  []played
}

type player struct {
	*State
	number  int // of its panel
	since   int64
	granted map[string]int64
}

// played is something that happens later.
type played struct {
	at int64
	do func(now int64)
}

func newPlay(nodes int, seed uint64) *play {
	p := &play{rng: rand.New(rand.NewPCG(seed, 0)), names: manyNames(nodes)}
	p.panels = [][]string{p.names[:1+p.rng.IntN(nodes)]}
	for _, name := range p.names {
		r := &player{State: New(name, func() {}), since: -testSecond, granted: make(map[string]int64)}
		r.SetKnown(p.names, 0)
		p.seat(r, 0)
		p.nodes = append(p.nodes, r)
	}
	return p
}

func (p *play) seat(r *player, now int64) {
	s := Seats{Panel: wire.PanelID{Number: uint64(r.number) + 1}, Witnesses: p.panels[r.number]}
	for _, w := range s.Witnesses {
		granted, has := r.granted[w]
		if !has {
			granted = never
		}
		s.Granted = append(s.Granted, granted)
	}
	r.SetSeats(s, now)
}

// step has one thing happen now, and what is due.
func (p *play) step(silenced int, now int64) {
	from, to := p.rng.IntN(len(p.nodes)), p.rng.IntN(len(p.nodes))
	asker, witness := p.nodes[from], p.nodes[to]
	switch {
	case p.rng.IntN(30) == 0:
		p.agree(now)
	case p.rng.IntN(8) == 0:
		p.adopt(asker, now)
	case from == to:
		asker.judged(asker.self, now, p.names, asker.silentAmong(p.names, now), now)
	case p.rng.IntN(4) == 0:
		p.soon(now, func(at int64) {
			silent := witness.silentAmong(p.names, at)
			p.soon(at, func(at int64) { asker.judged(witness.self, now, p.names, silent, at) })
		})
	case from != silenced || p.rng.IntN(40) == 0:
		p.ping(asker, witness, now)
	}
	for i := 0; i < len(p.later); i++ {
		if next := p.later[i]; next.at <= now {
			p.later = slices.Delete(p.later, i, i+1)
			next.do(now)
			i--
		}
	}
}

func (p *play) soon(now int64, do func(now int64)) {
	p.later = append(p.later, played{now + p.rng.Int64N(1+p.rng.Int64N(700))*testMs, do})
}

// ping plays a ping, which a witness with a later panel refuses [NewerPanelRefuses].
func (p *play) ping(from, to *player, sent int64) {
	number := from.number
	p.soon(sent, func(now int64) {
		if to.pinged(from.self, now) || number < to.number {
			return
		}
		p.soon(now, func(now int64) {
			from.granted[to.self] = max(from.granted[to.self], sent)
			from.answered(to.self, sent, now)
		})
	})
}

// agree adds a panel when more than half of the witnesses of the last one adopted that 500 ms ago [NextPanelWaits].
func (p *play) agree(now int64) {
	last := len(p.panels) - 1
	waited := func(r *player) bool { return r.number == last && now-r.since >= int64(AnswerAge) }
	if !p.most(last, waited) {
		return
	}
	next := slices.Clone(p.panels[last])
	name := p.names[p.rng.IntN(len(p.names))]
	i, is := slices.BinarySearch(next, name)
	switch {
	case !is:
		next = slices.Insert(next, i, name)
	case len(next) > 1:
		next = slices.Delete(next, i, i+1)
	}
	p.panels = append(p.panels, next)
}

// adopt has a node take over the next panel, or, when it has no quorum, perhaps the last one, where that is confirmed.
func (p *play) adopt(r *player, now int64) {
	last := len(p.panels) - 1
	switch {
	case r.number == last:
		return
	case !r.IsFull(now) && p.rng.IntN(2) == 0 && p.most(last, func(r *player) bool { return r.number == last }):
		r.number = last
	default:
		r.number++
	}
	r.since = now
	p.seat(r, now)
}

// most reports whether that is so of more than half of the witnesses of a panel.
func (p *play) most(number int, is func(*player) bool) bool {
	n := 0
	for _, r := range p.nodes {
		if slices.Contains(p.panels[number], r.self) && is(r) {
			n++
		}
	}
	return 2*n > len(p.panels[number])
}

func BenchmarkIsFull(b *testing.B) {
	r := New("a", func() {})
	seat(r, 0, "a", "b")
	r.answered("b", 1, 1)
	for b.Loop() {
		if !r.IsFull(2) {
			b.Fatal("not full")
		}
	}
}

func BenchmarkAnswered(b *testing.B) {
	for _, n := range []int{5, 31} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			names := manyNames(n)
			r := New(names[0], func() {})
			seat(r, 0, names...)
			b.ReportAllocs()
			for i := int64(0); b.Loop(); i++ {
				r.answered(names[1+i%int64(n-1)], i, i)
			}
		})
	}
}

// A member that becomes a witness has been pinged by nobody while it was none. It gives the others the time to, before it says that they are
// silent: it would refuse their pings for a second.
func TestNewWitnessesGiveOthersTimeToPing(t *testing.T) {
	r := New("a", func() {})
	r.running(0)
	r.SetKnown([]string{"a", "b"}, 0)
	seat(r, 0, "b")
	for now := int64(0); now <= 2000*testMs; now += 100 * testMs {
		r.running(now)
	}
	seat(r, 2000*testMs, "a", "b")
	assert.Empty(t, r.silentAmong([]string{"b"}, 2400*testMs))
	assert.Empty(t, r.missed(2300*testMs))
	for now := 2000 * testMs; now <= 2500*testMs; now += 100 * testMs {
		r.running(now)
	}
	assert.Equal(t, []string{"b"}, r.silentAmong([]string{"b"}, 2500*testMs))
}
