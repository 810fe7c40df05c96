package quorum

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

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
	onLosts  atomic.Int64
	lastPing atomic.Int64 // when it last sent one

	// As verify saw it: whether it was full the last time, or ever, and the lapses it had when it was last full.
	wasFull, everFull bool
	lapsesAt          uint64

	mu     sync.Mutex
	known  []string
	paused chan struct{} // closed to go on; nil while it runs
}

// inReachNet runs a test with n nodes, each of which knows the first knows ones, or only itself when that is 0.
func inReachNet(t *testing.T, n, knows int, seed uint64, test func(t *testing.T, w *reachNet)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		w := &reachNet{t: t, begin: time.Now(), rng: rand.New(rand.NewPCG(seed, 1)), cut: make(map[[2]string]bool)}
		var names []string
		for i := range n {
			names = append(names, fmt.Sprintf("n%03d", i))
		}
		for i, name := range names {
			known := names[:knows]
			if knows == 0 {
				known = names[i : i+1]
			}
			w.add(name, known)
		}
		for _, node := range w.nodes {
			time.Sleep(time.Duration(w.rng.IntN(40)) * time.Millisecond) // their ticks are not in step
			node.Start()
		}
		defer w.close()
		test(t, w)
	})
}

// unlinked returns the agreement of a node that has no links to others, and so stays alone.
func unlinked(name string, now func() int64) *Agreement {
	return NewAgreement(name, 0, AgreementIO{
		Now: now, Linked: func() []Candidate { return nil }, Count: func() int { return 1 }, Needs: func() int { return 1 },
		Silent: func(string) bool { return true },
	})
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

func (w *reachNet) add(name string, known []string) {
	n := &reachNode{net: w, name: name}
	n.Prober = NewProber(New(name, func() {}), unlinked(name, n.now), IO{
		Now: n.now, Ping: n.sendPing, Judge: n.sendQuestion, Learn: func(_ string, p *wire.Pong) { n.learn(p.Known) },
		Meet: func(name string) { n.learn([]string{name}) },
		Known: func() Told {
			return Told{Names: n.names(), Digest: n.digest(), Lost: func() []wire.LostName { return nil }}
		},
		Adopted: func() {},
	}, func() { n.onLosts.Add(1) })
	n.known = slices.Clone(known)
	n.reach.SetKnown(known, len(known), w.now())
	w.nodes = append(w.nodes, n)
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
	n.reach.SetKnown(known, len(known), n.now())
}

func (n *reachNode) sendPing(ctx context.Context, to string, p wire.Ping) (wire.Pong, error) {
	n.lastPing.Store(n.net.now())
	return sendIn(ctx, n, to, func(w *reachNode) wire.Pong { return w.OnPing(n.name, p) })
}

func (n *reachNode) sendQuestion(ctx context.Context, to string, v wire.VerdictRequest) (wire.Verdict, error) {
	return sendIn(ctx, n, to, func(w *reachNode) wire.Verdict { return w.OnVerdictRequest(v) })
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

// verify checks what must hold at every instant: no node is lost to another and full, and a node that was not full had a lapse
// before it was full again.
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
				require.False(w.t, other.reach.Lost(n.name, now), "%s is full, and lost to %s", n.name, other.name)
			}
		}
	}
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
		assert.True(t, w.noneLost(others...), "its pings do")
		assert.True(t, w.allFull(others...))
	})
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
		w.until(50*time.Millisecond, "all are full", func() bool { return w.allFull(w.nodes...) })
		for _, n := range w.nodes {
			assert.Zero(t, n.reach.Lapses.Load(), "the quorum of a node that is alone counts until the newcomers have answered")
		}
		w.pass(2 * time.Second)
		assert.True(t, w.allFull(w.nodes...) && w.noneLost(w.nodes...))
	})
}

func TestLargeClusterHasFewWitnesses(t *testing.T) {
	inReachNet(t, 60, 60, 6, func(t *testing.T, w *reachNet) {
		time.Sleep(2 * time.Second) // those started last were missed at first
		require.True(t, w.allFull(w.nodes...) && w.noneLost(w.nodes...))
		is := func(n *reachNode) bool { _, is := n.reach.currentWitnesses(); return is }
		witness := slices.IndexFunc(w.nodes, is)
		common := slices.IndexFunc(w.nodes, func(n *reachNode) bool { return !is(n) })
		for _, victim := range []*reachNode{w.nodes[witness], w.nodes[common]} {
			victim.pause()
		}
		others := slices.DeleteFunc(slices.Clone(w.nodes), func(n *reachNode) bool {
			return n == w.nodes[witness] || n == w.nodes[common]
		})
		time.Sleep(800 * time.Millisecond)
		w.verify()
		assert.True(t, w.lostTo(w.nodes[witness], others...) && w.lostTo(w.nodes[common], others...))
		assert.True(t, w.allFull(others...))
	})
}

// TestNeverFullAndLost pauses nodes and cuts links at random, in both directions apart from each other.
func TestNeverFullAndLost(t *testing.T) {
	seeds := uint64(24)
	if testing.Short() {
		seeds = 4
	}
	losses := 0
	for seed := range seeds {
		n := 2 + int(seed%5)
		inReachNet(t, n, n, seed, func(t *testing.T, w *reachNet) {
			for range 25 {
				a, b := w.nodes[w.rng.IntN(n)], w.nodes[w.rng.IntN(n)]
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
					w.mu.Lock()
					clear(w.cut)
					w.mu.Unlock()
				}
				w.pass(time.Duration(w.rng.IntN(900)) * time.Millisecond)
				if !w.noneLost(w.nodes...) {
					losses++
				}
			}
			w.mu.Lock()
			clear(w.cut)
			w.mu.Unlock()
			for _, node := range w.nodes {
				node.resume()
			}
			w.until(2*time.Second, "all is well again", func() bool { return w.allFull(w.nodes...) && w.noneLost(w.nodes...) })
		})
	}
	assert.NotZero(t, losses, "the schedules are too tame to show anything")
}

func BenchmarkPingAnswered(b *testing.B) {
	for _, n := range []int{5, 31, 300} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			var names []string
			for i := range n {
				names = append(names, fmt.Sprintf("member-%04d", i))
			}
			begin := time.Now()
			r := New(names[0], func() {})
			now := func() int64 { return int64(time.Since(begin)) }
			r.SetKnown(names, n, now())
			e := NewProber(r, unlinked(names[0], now), IO{
				Now: now, Known: func() Told { return Told{Digest: 1} }, Meet: func(string) {},
			}, func() {})
			b.ReportAllocs()
			for i := 0; b.Loop(); i++ {
				e.OnPing(names[1+i%(n-1)], wire.Ping{Digest: 1})
			}
		})
	}
}

// BenchmarkPingSent is the pinging side: a context, the call, which costs nothing here, and taking in the answer.
func BenchmarkPingSent(b *testing.B) {
	begin := time.Now()
	r := New("a", func() {})
	r.SetKnown([]string{"a", "b", "c"}, 3, 0)
	now := func() int64 { return int64(time.Since(begin)) }
	e := NewProber(r, unlinked("a", now), IO{
		Now:   now,
		Ping:  func(context.Context, string, wire.Ping) (wire.Pong, error) { return wire.Pong{}, nil },
		Known: func() Told { return Told{Digest: 1} }, Meet: func(string) {},
	}, func() {})
	c := new(callsTo)
	b.ReportAllocs()
	for b.Loop() {
		done := make(chan struct{})
		go func() {
			e.ping("b", c)
			close(done)
		}()
		<-done
	}
}
