package quorum

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/peerlimit/peerlimit/internal/panel"
	"github.com/peerlimit/peerlimit/internal/wire"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// reachNet carries pings and verdict requests between nodes of a test, 1 ms each way. It is made inside a synctest bubble.
type reachNet struct {
	t     *testing.T
	begin time.Time
	nodes []*reachNode
	calls sync.WaitGroup // deliveries

	mu  sync.Mutex
	rng *rand.Rand
	cut map[[2]string]bool // from, to: what is sent is swallowed
}

// reachNode is one node of the test.
type reachNode struct {
	*Prober
	net      *reachNet
	name     string
	asks     atomic.Bool // it agrees on panels with the others; otherwise its panel stays
	onLosts  atomic.Int64
	lastPing atomic.Int64 // when it last sent one

	// As verify saw it: whether it was full the last time, or ever, and the lapses it had when it was last full.
	wasFull, everFull bool
	lapsesAt          uint64

	mu     sync.Mutex
	known  []string
	paused chan struct{} // closed to go on; nil while it runs
}

// inReachNet runs a test with n nodes that know each other. The first of them are the witnesses of their panel, which stays. When
// there are none, each node knows itself only, and has founded a panel of itself; all agree on panels then.
func inReachNet(t *testing.T, n, witnesses int, seed uint64, test func(t *testing.T, w *reachNet)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		w := &reachNet{t: t, begin: time.Now(), rng: rand.New(rand.NewPCG(seed, 1)), cut: make(map[[2]string]bool)}
		names := manyNames(n)
		for i, name := range names {
			if witnesses > 0 {
				w.add(name, names, agreementOf(name, w.now, names[:witnesses]...))
				continue
			}
			w.add(name, names[i:i+1], NewAgreement(name, 0, AgreementIO{Needs: func() int { return 1 }}))
			w.nodes[i].asks.Store(true)
		}
		for _, node := range w.nodes {
			time.Sleep(time.Duration(w.rng.IntN(40)) * time.Millisecond) // their ticks are not in step
			node.Start()
		}
		defer w.close()
		test(t, w)
	})
}

// agree has all nodes agree on panels from now on.
func (w *reachNet) agree() {
	for _, n := range w.nodes {
		n.asks.Store(true)
	}
}

func (w *reachNet) close() {
	for _, n := range w.nodes {
		n.resume()
	}
	for _, n := range w.nodes {
		n.Close()
	}
	w.calls.Wait()
}

func (w *reachNet) now() int64 { return int64(time.Since(w.begin)) }

func (w *reachNet) add(name string, known []string, agreement *Agreement) {
	n := &reachNode{net: w, name: name, known: slices.Clone(known)}
	agreement.io = AgreementIO{
		Now: n.now, Ask: n.sendPanelRequest, Linked: n.linked, Count: func() int { return len(n.names()) }, Needs: agreement.io.Needs,
		Silent: func(name string) bool { return n.reach.Silent(name, n.now()) },
	}
	n.Prober = NewProber(New(name, func() {}), agreement, IO{
		Now: n.now, Ping: n.sendPing, Judge: n.sendQuestion, Learn: func(_ string, p *wire.Pong) { n.learn(p.Known) },
		Meet: func(name string) { n.learn([]string{name}) },
		Known: func() Told {
			return Told{Names: n.names(), Digest: n.digest(), Lost: func() []wire.LostName { return nil }}
		},
		Settled: func() {},
	}, func() { n.onLosts.Add(1) })
	n.reach.SetKnown(known, w.now())
	n.Seat()
	w.nodes = append(w.nodes, n)
}

// linked returns all that the node knows, when it is to agree on panels.
func (n *reachNode) linked() (linked []Candidate) {
	if !n.asks.Load() {
		return nil
	}
	for _, name := range n.names() {
		if name != n.name {
			linked = append(linked, Candidate{Name: name, Serving: true})
		}
	}
	return linked
}

// now is what a paused process may do: it reads the clock, and comes back with that much later.
func (n *reachNode) now() int64 {
	now := n.net.now()
	n.run()
	return now
}

// run returns when the node is not paused.
func (n *reachNode) run() {
	for {
		n.mu.Lock()
		paused := n.paused
		n.mu.Unlock()
		if paused == nil {
			return
		}
		<-paused
	}
}

func (n *reachNode) pause() {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.paused == nil {
		n.paused = make(chan struct{})
	}
}

func (n *reachNode) resume() {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.paused != nil {
		close(n.paused)
		n.paused = nil
	}
}

func (n *reachNode) names() []string {
	n.mu.Lock()
	defer n.mu.Unlock()
	return slices.Clone(n.known)
}

func (n *reachNode) digest() uint64 {
	var sum uint64
	for _, name := range n.names() {
		for _, b := range []byte(name) {
			sum = sum*31 + uint64(b)
		}
	}
	return sum
}

func (n *reachNode) learn(names []string) {
	n.mu.Lock()
	known := slices.Compact(slices.Sorted(slices.Values(append(slices.Clone(n.known), names...))))
	same := len(known) == len(n.known)
	n.known = known
	n.mu.Unlock()
	if same {
		return
	}
	n.reach.SetKnown(known, n.now())
}

func (n *reachNode) sendPing(ctx context.Context, to string, p wire.Ping) (wire.Pong, error) {
	n.lastPing.Store(n.net.now())
	return sendIn(ctx, n, to, func(w *reachNode) wire.Pong { return w.OnPing(n.name, p) })
}

func (n *reachNode) sendQuestion(ctx context.Context, to string, v wire.VerdictRequest) (wire.Verdict, error) {
	return sendIn(ctx, n, to, func(w *reachNode) wire.Verdict { return w.OnVerdictRequest(v) })
}

func (n *reachNode) sendPanelRequest(ctx context.Context, to string, q wire.PanelRequest) (wire.PanelAnswer, error) {
	if !n.asks.Load() {
		return wire.PanelAnswer{}, errors.New("its panel stays")
	}
	return sendIn(ctx, n, to, func(w *reachNode) wire.PanelAnswer {
		a, _ := w.OnPanelRequest(n.name, &q)
		return a
	})
}

// sendIn delivers a call, even when the caller has given up, and its answer.
func sendIn[A any](ctx context.Context, from *reachNode, to string, handle func(*reachNode) A) (answer A, err error) {
	from.run()
	w := from.net
	answers := make(chan A, 1)
	w.calls.Go(func() {
		time.Sleep(time.Millisecond)
		if w.isCut(from.name, to) {
			return
		}
		receiver := w.find(to)
		receiver.run()
		a := handle(receiver)
		receiver.run()
		time.Sleep(time.Millisecond)
		if !w.isCut(to, from.name) {
			answers <- a
		}
	})
	select {
	case answer = <-answers:
	case <-ctx.Done():
		err = ctx.Err()
	}
	from.run()
	return answer, err
}

func (w *reachNet) find(name string) *reachNode {
	return w.nodes[slices.IndexFunc(w.nodes, func(n *reachNode) bool { return n.name == name })]
}

func (w *reachNet) isCut(from, to string) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.cut[[2]string{from, to}]
}

func (w *reachNet) setCut(from, to *reachNode, cut bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.cut[[2]string{from.name, to.name}] = cut
}

// verify checks what must hold at every instant: no node is full and lost to another that is full as well or has the same panel,
// and a node that was not full had a lapse before it was full again.
func (w *reachNet) verify() {
	now := w.now()
	for _, n := range w.nodes {
		full := n.reach.IsFull(now)
		if full && !n.wasFull && n.everFull {
			require.Greater(w.t, n.reach.Lapses.Load(), n.lapsesAt, "%s: a lapse was forgotten", n.name)
		}
		if n.wasFull = full; full {
			n.everFull, n.lapsesAt = true, n.reach.Lapses.Load()
			for _, other := range w.nodes {
				wrong := other.reach.Lost(n.name, now) && (other.reach.IsFull(now) || other.seatedBy() == n.seatedBy())
				require.False(w.t, wrong, "%s is full, and lost to %s", n.name, other.name)
			}
		}
	}
}

// seatedBy returns the panel that the node's quorum is judged by.
func (n *reachNode) seatedBy() wire.PanelID {
	n.reach.mu.Lock()
	defer n.reach.mu.Unlock()
	return n.reach.panel
}

// pass lets time pass, and verifies all the time.
func (w *reachNet) pass(d time.Duration) {
	for end := w.now() + int64(d); w.now() < end; {
		w.verify()
		time.Sleep(time.Millisecond)
	}
}

// until lets time pass until a condition holds, and returns how long that was.
func (w *reachNet) until(limit time.Duration, what string, condition func() bool) time.Duration {
	w.t.Helper()
	begin := w.now()
	for !condition() {
		require.Less(w.t, w.now()-begin, int64(limit), what)
		w.pass(time.Millisecond)
	}
	return time.Duration(w.now() - begin)
}

func (w *reachNet) allFull(nodes ...*reachNode) bool {
	return !slices.ContainsFunc(nodes, func(n *reachNode) bool { return !n.reach.IsFull(w.now()) })
}

// lostTo reports whether the victim is lost to all of the nodes.
func (w *reachNet) lostTo(victim *reachNode, nodes ...*reachNode) bool {
	return !slices.ContainsFunc(nodes, func(n *reachNode) bool { return !n.reach.Lost(victim.name, w.now()) })
}

// noneLost reports whether nobody is lost to any of the nodes.
func (w *reachNet) noneLost(nodes ...*reachNode) bool {
	return !slices.ContainsFunc(nodes, func(n *reachNode) bool { return len(n.reach.LostNames(w.now())) > 0 })
}

func TestTheDeadAreLostInTime(t *testing.T) {
	for seed := range uint64(25) {
		inReachNet(t, 5, 5, seed, func(t *testing.T, w *reachNet) {
			w.until(time.Second, "all are full", func() bool { return w.allFull(w.nodes...) })
			w.pass(700*time.Millisecond + time.Duration(seed)*4*time.Millisecond)
			require.True(t, w.noneLost(w.nodes...))
			victim, others := w.nodes[0], w.nodes[1:]
			victim.pause()
			w.until(time.Second, "it is lost", func() bool { return w.lostTo(victim, others...) })
			assert.Less(t, time.Duration(w.now()-victim.lastPing.Load()), 750*time.Millisecond)
			w.pass(5 * time.Millisecond)
			for _, n := range others {
				assert.EqualValues(t, 1, n.onLosts.Load())
			}
			for range 30 {
				w.pass(100 * time.Millisecond)
				require.True(t, w.lostTo(victim, others...), "it stays lost")
				require.True(t, w.allFull(others...), "the others are not disturbed")
			}
		})
	}
}

func TestWhoWasPausedLapsesAndComesBack(t *testing.T) {
	inReachNet(t, 5, 5, 1, func(t *testing.T, w *reachNet) {
		w.pass(time.Second)
		victim, others := w.nodes[2], slices.Concat(w.nodes[:2], w.nodes[3:])
		victim.pause()
		w.pass(3 * time.Second)
		require.True(t, w.lostTo(victim, others...))
		require.Zero(t, victim.reach.Lapses.Load(), "it does nothing while it is paused")
		victim.resume()
		w.until(600*time.Millisecond, "nobody calls it lost", func() bool { return w.noneLost(w.nodes...) })
		w.until(1200*time.Millisecond, "it is full again", func() bool { return w.allFull(victim) })
		assert.EqualValues(t, 1, victim.reach.Lapses.Load())
		assert.True(t, w.allFull(others...))
		for range 20 {
			w.pass(100 * time.Millisecond)
			require.True(t, w.allFull(w.nodes...) && w.noneLost(w.nodes...))
		}
		for _, n := range others {
			assert.EqualValues(t, 2, n.onLosts.Load(), "lost, and lost no longer")
		}
	})
}

// TestPausedWitnessRefusesNobody freezes a witness together with its network, so that no pings wait for it: what could
// not arrive is no silence.
func TestPausedWitnessRefusesNobody(t *testing.T) {
	for seed := range uint64(10) {
		inReachNet(t, 3, 3, seed, func(t *testing.T, w *reachNet) {
			w.pass(time.Second)
			witness := w.nodes[0]
			freeze := func(cut bool) {
				for _, n := range w.nodes[1:] {
					w.setCut(n, witness, cut)
				}
			}
			freeze(true)
			w.pass(5 * time.Millisecond)
			witness.pause()
			w.pass(1900*time.Millisecond + time.Duration(seed)*10*time.Millisecond)
			freeze(false)
			witness.resume()
			for range 1000 {
				w.pass(time.Millisecond)
				witness.reach.mu.Lock()
				for name, watched := range witness.reach.watch {
					assert.EqualValues(t, never, watched.refuseUntil, "%s was refused", name)
				}
				witness.reach.mu.Unlock()
			}
		})
	}
}

func TestSplitLeavesTheMajorityFull(t *testing.T) {
	inReachNet(t, 5, 5, 2, func(t *testing.T, w *reachNet) {
		w.pass(time.Second)
		minority, majority := w.nodes[:2], w.nodes[2:]
		split := func(cut bool) {
			for _, a := range minority {
				for _, b := range majority {
					w.setCut(a, b, cut)
					w.setCut(b, a, cut)
				}
			}
		}
		split(true)
		w.until(750*time.Millisecond, "the minority is lost", func() bool {
			return w.lostTo(minority[0], majority...) && w.lostTo(minority[1], majority...)
		})
		for range 20 {
			w.pass(100 * time.Millisecond)
			require.True(t, w.allFull(majority...) && !w.allFull(minority[0]) && !w.allFull(minority[1]))
			require.True(t, w.noneLost(minority...), "two are no majority")
		}
		split(false)
		w.until(1700*time.Millisecond, "it heals", func() bool { return w.allFull(w.nodes...) && w.noneLost(w.nodes...) })
		w.pass(time.Second)
		require.True(t, w.allFull(w.nodes...) && w.noneLost(w.nodes...))
	})
}

func TestOneWayCuts(t *testing.T) {
	inReachNet(t, 3, 3, 3, func(t *testing.T, w *reachNet) {
		w.pass(time.Second)
		victim, others := w.nodes[0], w.nodes[1:]
		for _, n := range others {
			w.setCut(victim, n, true)
		}
		w.until(750*time.Millisecond, "nobody hears it", func() bool { return w.lostTo(victim, others...) })
		for _, n := range others {
			w.setCut(victim, n, false)
			w.setCut(n, victim, true)
		}
		w.pass(2 * time.Second)
		assert.False(t, w.allFull(victim), "no answer arrives")
		assert.EqualValues(t, 1, victim.reach.Lapses.Load(), "a lapse is noticed without answers")
		assert.True(t, w.noneLost(others...), "its pings do")
		assert.True(t, w.allFull(others...))
	})
}

// NewerPanelRefuses
func TestPingsUnderAnotherPanelAreRefused(t *testing.T) {
	names := manyNames(3)
	e := lonelyProber(names, nil)
	id := e.agreement.ID()
	refused := func(from string, id wire.PanelID) bool { return e.OnPing(from, wire.Ping{Panel: id}).Refused }
	assert.False(t, refused(names[1], id))
	id.Number--
	assert.True(t, refused(names[1], id), "it is behind")
	assert.Equal(t, e.agreement.Panel(), panel.Panel(e.OnPing(names[1], wire.Ping{Panel: id}).Panel.Panel), "it is told")
	id.Number += 2
	assert.False(t, refused(names[1], id), "this node is behind")
	id.Origin.Name = "other"
	assert.True(t, refused(names[1], id))
	assert.True(t, refused(names[1], wire.PanelID{}), "a version without panels")
	assert.True(t, refused("unknown", e.agreement.ID()))
	assert.False(t, e.reach.Silent(names[1], e.io.Now()), "its pings are heard all the same")
	e.Parting.Store(true)
	assert.True(t, refused(names[1], e.agreement.ID()))
}

func TestDoubtAboutTheWellChangesNothing(t *testing.T) {
	inReachNet(t, 5, 5, 4, func(t *testing.T, w *reachNet) {
		w.pass(time.Second)
		for range 30 {
			w.nodes[0].suspect([]string{w.nodes[1].name, w.nodes[2].name, "stranger", w.nodes[0].name}, w.nodes[0].io.Now())
			w.pass(33 * time.Millisecond)
			require.True(t, w.allFull(w.nodes...) && w.noneLost(w.nodes...))
		}
		w.pass(time.Second)
		w.nodes[0].Prober.mu.Lock()
		defer w.nodes[0].Prober.mu.Unlock()
		assert.Empty(t, w.nodes[0].suspects)
	})
}

func TestPingsMakeNodesKnown(t *testing.T) {
	inReachNet(t, 4, 0, 5, func(t *testing.T, w *reachNet) {
		require.True(t, w.allFull(w.nodes...), "each is alone")
		for _, n := range w.nodes[1:] {
			n.learn([]string{w.nodes[0].name}) // as from a seed
		}
		w.until(time.Second, "all know all", func() bool {
			return !slices.ContainsFunc(w.nodes, func(n *reachNode) bool { return len(n.names()) != 4 })
		})
		w.until(time.Second, "all are of one origin", func() bool {
			return !slices.ContainsFunc(w.nodes, func(n *reachNode) bool {
				return n.agreement.ID().Origin != w.nodes[0].agreement.ID().Origin
			})
		})
		w.until(50*time.Millisecond, "all are full", func() bool { return w.allFull(w.nodes...) })
		for _, n := range w.nodes {
			assert.LessOrEqual(t, n.reach.Lapses.Load(), uint64(1), "what it held alone ends when it joins the others")
		}
		w.pass(3 * time.Second)
		assert.True(t, w.allFull(w.nodes...) && w.noneLost(w.nodes...))
		assert.Len(t, w.nodes[0].agreement.Panel().Witnesses, 3, "panels stay odd")
	})
}

func TestPanelsFollowEachOtherWithoutALapse(t *testing.T) {
	inReachNet(t, 5, 3, 7, func(t *testing.T, w *reachNet) {
		w.pass(time.Second)
		w.agree()
		panelIs := func(nodes []*reachNode, witnesses ...*reachNode) bool {
			return !slices.ContainsFunc(nodes, func(n *reachNode) bool {
				return !slices.EqualFunc(n.agreement.Panel().Witnesses, witnesses, func(name string, w *reachNode) bool { return name == w.name })
			})
		}
		w.until(5*time.Second, "learners become witnesses", func() bool { return panelIs(w.nodes, w.nodes...) })
		w.nodes[0].pause()
		w.nodes[1].pause()
		others := w.nodes[2:]
		w.until(5*time.Second, "the dead are removed", func() bool { return panelIs(others, others...) })
		for _, n := range others {
			assert.Zero(t, n.reach.Lapses.Load())
		}
		w.nodes[0].resume()
		w.until(3*time.Second, "it is a learner", func() bool { return w.allFull(w.nodes[0]) && panelIs(w.nodes[:1], others...) })
		assert.EqualValues(t, 1, w.nodes[0].reach.Lapses.Load())
		assert.True(t, w.allFull(others...) && w.lostTo(w.nodes[1], others...))
	})
}

func TestLargeClusterHasFewWitnesses(t *testing.T) {
	inReachNet(t, 60, panel.MaxWitnesses, 6, func(t *testing.T, w *reachNet) {
		time.Sleep(2 * time.Second) // those started last were missed at first
		require.True(t, w.allFull(w.nodes...) && w.noneLost(w.nodes...))
		witness, learner := w.nodes[0], w.nodes[59]
		witness.pause()
		learner.pause()
		others := w.nodes[1:59]
		time.Sleep(800 * time.Millisecond)
		w.verify()
		assert.True(t, w.lostTo(witness, others...) && w.lostTo(learner, others...))
		assert.True(t, w.allFull(others...))
	})
}

// TestNeverFullAndLost pauses nodes and cuts links at random, in both directions apart from each other, under one panel and while
// panels are agreed on.
func TestNeverFullAndLost(t *testing.T) {
	seeds := uint64(24)
	if testing.Short() {
		seeds = 4
	}
	losses, panels := 0, uint64(0)
	for seed := range seeds {
		n := 2 + int(seed%5)
		inReachNet(t, n, n, seed, func(t *testing.T, w *reachNet) {
			losses += w.disturb(25)
			w.until(2*time.Second, "all is well again", func() bool { return w.allFull(w.nodes...) && w.noneLost(w.nodes...) })
		})
		inReachNet(t, n, n/2+1, seed, func(t *testing.T, w *reachNet) {
			first := w.nodes[0].agreement.ID().Number
			w.agree()
			losses += w.disturb(25)
			w.until(3*time.Second, "all is well again", func() bool { return w.allFull(w.nodes...) && w.noneLost(w.nodes...) })
			panels += w.nodes[0].agreement.ID().Number - first
		})
	}
	assert.NotZero(t, losses, "the schedules are too tame to show anything")
	assert.Greater(t, panels, seeds, "panels change too seldom")
}

// disturb pauses nodes and cuts links so many times, and then ends all of that. It returns how often somebody was lost.
func (w *reachNet) disturb(times int) (losses int) {
	heal := func() {
		w.mu.Lock()
		defer w.mu.Unlock()
		clear(w.cut)
	}
	for range times {
		a, b := w.nodes[w.rng.IntN(len(w.nodes))], w.nodes[w.rng.IntN(len(w.nodes))]
		switch w.rng.IntN(6) {
		case 0, 1:
			w.setCut(a, b, true)
		case 2:
			w.setCut(a, b, true)
			w.setCut(b, a, true)
		case 3:
			a.pause()
		case 4:
			b.resume()
			a.resume()
		default:
			heal()
		}
		w.pass(time.Duration(w.rng.IntN(900)) * time.Millisecond)
		if !w.noneLost(w.nodes...) {
			losses++
		}
	}
	heal()
	for _, node := range w.nodes {
		node.resume()
	}
	return losses
}

func BenchmarkPingAnswered(b *testing.B) {
	for _, n := range []int{5, 31, 300} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			names := manyNames(n)
			e := lonelyProber(names, nil)
			p := wire.Ping{Digest: 1, Panel: e.agreement.ID()}
			b.ReportAllocs()
			for i := 0; b.Loop(); i++ {
				e.OnPing(names[1+i%(n-1)], p)
			}
		})
	}
}

// BenchmarkPingSent is the pinging side: a context, the call, which costs nothing here, and taking in the answer.
func BenchmarkPingSent(b *testing.B) {
	names := manyNames(3)
	var e *Prober
	e = lonelyProber(names, func() wire.Pong { return wire.Pong{Digest: 1, Panel: wire.PanelWord{ID: e.agreement.ID()}} })
	c := new(callsTo)
	b.ReportAllocs()
	for b.Loop() {
		done := make(chan struct{})
		go func() {
			e.ping(names[1], c)
			close(done)
		}()
		<-done
	}
}

// BenchmarkTick is what a node does every pingInterval apart from its calls.
func BenchmarkTick(b *testing.B) {
	for _, n := range []int{5, 31, 300} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			e := lonelyProber(manyNames(n), nil)
			now := e.io.Now()
			for _, w := range e.agreement.Panel().Witnesses[1:] {
				e.agreement.Pinged(w, e.agreement.ID(), now)
				hear(e.agreement, w, e.agreement.ID(), now)
			}
			b.ReportAllocs()
			for b.Loop() {
				linked := e.agreement.io.Linked()
				e.agreement.tick(linked, now)
				e.Seat()
				e.agreement.Targets(linked, now)
			}
		})
	}
}

// lonelyProber returns the prober, not started, of the first of some members, of which up to 31 are witnesses. Its pings are answered at once.
func lonelyProber(names []string, answer func() wire.Pong) *Prober {
	begin := time.Now()
	now := func() int64 { return int64(time.Since(begin)) }
	r := New(names[0], func() {})
	r.SetKnown(names, now())
	a := agreementOf(names[0], now, names[:min(len(names), panel.MaxWitnesses)]...)
	a.io.Linked = func() (linked []Candidate) {
		for _, name := range names[1:] {
			linked = append(linked, Candidate{Name: name, Serving: true})
		}
		return linked
	}
	a.io.Count = func() int { return a.state.Panel.Members }
	e := NewProber(r, a, IO{
		Now: now, Known: func() Told { return Told{Digest: 1, Lost: func() []wire.LostName { return nil }} }, Meet: func(string) {}, Settled: func() {},
		Ping: func(context.Context, string, wire.Ping) (wire.Pong, error) { return answer(), nil },
	}, func() {})
	e.Seat()
	return e
}

// One that was told of is asked about now and then. When it is missed its verdict is due soon, and it is asked about with every tick.
func TestAMissedMemberIsAskedAboutOftenAlsoWhenItWasDoubtful(t *testing.T) {
	e := lonelyProber(manyNames(3), nil)
	x := manyNames(3)[2]
	due := func(from, to time.Duration, note func(names []string, now int64)) (asked int) {
		for now := from; now < to; now += pingInterval {
			note([]string{x}, int64(now))
			asked += len(e.dueSuspects(int64(now)))
		}
		return asked
	}
	assert.Equal(t, 4, due(0, 1200*time.Millisecond, e.doubt))
	assert.Equal(t, eagerAsks, due(1200*time.Millisecond, 1600*time.Millisecond, e.suspect))
	assert.Equal(t, 2, due(1600*time.Millisecond, 2200*time.Millisecond, e.suspect), "later less often")
	assert.Empty(t, e.dueSuspects(int64(3*time.Second)))
}
