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

	"github.com/peerlimit/peerlimit/internal/wire"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

const (
	testMs     = int64(time.Millisecond)
	testSecond = int64(time.Second)
)

// reachOf returns the reach of "a" that knows names since 0, and counts the calls of onLapse.
func reachOf(names ...string) (r *State, lapses *int) {
	lapses = new(int)
	r = New("a", func() { *lapses++ })
	r.SetKnown(names, len(names), 0)
	return r, lapses
}

func TestAloneIsAlwaysFull(t *testing.T) {
	r := New("a", func() { t.Error("nothing was held") })
	assert.False(t, r.Check(5))
	r.SetKnown([]string{"a"}, 1, 5)
	assert.True(t, r.IsFull(5) && r.Check(1<<62))
}

func TestExpectedMembersAreSilentWitnesses(t *testing.T) {
	r := New("a", func() {})
	r.SetKnown([]string{"a", "b"}, 5, 0)
	r.answered("b", 10, 11)
	assert.False(t, r.IsFull(12), "two of five")
	r.SetKnown([]string{"a", "b", "c"}, 5, 20)
	r.answered("c", 20, 21)
	assert.True(t, r.IsFull(22), "the response of b still counts")
	r.SetKnown([]string{"a"}, 2, 23)
	assert.False(t, r.IsFull(24))
}

func TestEvidenceAgesFromSending(t *testing.T) {
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
	r.SetKnown([]string{"a", "b", "c"}, 3, now)
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
	r.SetKnown([]string{"a", "b", "c", "d", "e"}, 5, now)
	assert.True(t, r.IsFull(now), "c answered, too")
	now += int64(AnswerAge)
	r.answered("b", now-1, now)
	r.answered("c", now-1, now)
	assert.Equal(t, 3, lapses)
	assert.True(t, r.IsFull(now))
	r.SetKnown([]string{"a", "d", "e"}, 3, now)
	assert.Equal(t, 4, lapses, "its witnesses are gone")
	r.SetKnown([]string{"a", "b", "c"}, 3, now)
	assert.False(t, r.Check(now), "what they said is forgotten with them")
	assert.Equal(t, 4, lapses)
}

// A new witness gets the time for its first answer, but not more than the quorum has that there was without it.
func TestNewWitnessesGetGrace(t *testing.T) {
	lapses := 0
	r := New("a", func() { lapses++ })
	r.SetKnown([]string{"a"}, 1, 0)
	require.True(t, r.IsFull(math.MaxInt64-1), "alone")

	now := int64(time.Hour)
	r.SetKnown([]string{"a", "b"}, 2, now)
	assert.True(t, r.IsFull(now+int64(AnswerAge)-1))
	assert.False(t, r.IsFull(now+int64(AnswerAge)))
	for i := range 4 { // one join after another does not extend it
		r.SetKnown([]string{"a", "b", "c", "d", "e", "f"}[:3+i], 3+i, now+int64(i)*100*testMs)
		r.answered("b", now, now+int64(i)*100*testMs+1)
	}
	assert.True(t, r.IsFull(now+int64(AnswerAge)-1))
	assert.False(t, r.IsFull(now+int64(AnswerAge)))
	require.Zero(t, lapses)

	now += int64(AnswerAge)
	assert.False(t, r.Check(now))
	assert.Equal(t, 1, lapses)
	r.SetKnown([]string{"a", "b", "c", "d", "e", "f", "g"}, 7, now+1)
	assert.False(t, r.IsFull(now+1), "what has lapsed gets no grace")
}

// TestNoTakeSeesNewEvidenceWithOldHolding lapses and renews quorum while others take.
func TestNoTakeSeesNewEvidenceWithOldHolding(t *testing.T) {
	var r *State
	var clock, heldSince atomic.Int64 // heldSince: 0 when nothing is held
	r = New("a", func() { heldSince.Store(0) })
	r.SetKnown([]string{"a", "b"}, 2, 1)
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

func TestWitnessesAreTheSmallestHashes(t *testing.T) {
	var names []string
	for i := range 100 {
		names = append(names, fmt.Sprintf("node-%02d", i))
	}
	all := chooseWitnesses(names)
	require.Len(t, all, maxWitnesses)
	require.True(t, slices.IsSorted(all))
	for i := range 60 {
		fewer := slices.Delete(slices.Clone(names), i, i+1)
		changed := 0
		for _, w := range chooseWitnesses(fewer) {
			if !slices.Contains(all, w) {
				changed++
			}
		}
		assert.LessOrEqual(t, changed, 1, "one less replaces one at most")
	}
	r := New("zz", func() {})
	r.SetKnown(append(names, "zz"), 101, 0)
	witnesses, selfIsOne := r.currentWitnesses()
	need := 16
	if selfIsOne {
		need = 15
	}
	for _, w := range witnesses {
		if w != "zz" {
			require.Equal(t, need <= 0, r.IsFull(1))
			r.answered(w, 1, 1)
			need--
		}
	}
	assert.True(t, r.IsFull(1))
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
	names := []string{"a"}
	for i := range 150 {
		names = append(names, fmt.Sprintf("m%03d", i))
	}
	r := New("m000", func() {})
	r.SetKnown(names[:30], 30, 0)
	require.Empty(t, r.missed(399*testMs))
	assert.Len(t, r.missed(400*testMs), 29)
	r.SetKnown(names, len(names), 0)
	r.self = chooseWitnesses(names)[0] // to be a witness of them
	named := make(map[string]bool)
	for tick := range int64(4) {
		missed := r.missed(testSecond + tick*int64(pingInterval))
		require.Len(t, missed, maxMissed)
		for _, name := range missed {
			named[name] = true
		}
	}
	assert.Len(t, named, 150)
	r.self = "not a witness"
	assert.Empty(t, r.missed(testSecond))
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
	r.SetKnown([]string{"a", "b", "c", "d"}, 4, 600)
	assert.False(t, r.Lost("e", 600), "it is not known")
	assert.Empty(t, r.LostNames(600))
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
// the driver: whatever is asked of which node and when, none is full while lost to another.
func TestMajoritiesNeverContradict(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		n := rapid.IntRange(2, 5).Draw(t, "nodes")
		rng := rand.New(rand.NewPCG(rapid.Uint64().Draw(t, "seed"), 0))
		var names []string
		for i := range n {
			names = append(names, string(rune('a'+i)))
		}
		var nodes []*State
		for _, name := range names {
			r := New(name, func() {})
			r.SetKnown(names, n+rng.IntN(2), 0)
			nodes = append(nodes, r)
		}
		type event struct {
			at int64
			do func(now int64)
		}
		var later []event
		delay := func() int64 { return rng.Int64N(1+rng.Int64N(700)) * testMs }
		silenced := rng.IntN(n) // it pings rarely
		for now := int64(0); now < 8*testSecond; now += 10 * testMs {
			from, to := rng.IntN(n), rng.IntN(n)
			asker, witness, sent := nodes[from], nodes[to], now
			switch {
			case from == to:
				asker.judged(names[from], now, names, asker.silentAmong(names, now), now)
			case rng.IntN(4) == 0:
				later = append(later, event{now + delay(), func(now int64) {
					silent := witness.silentAmong(names, now)
					later = append(later, event{now + delay(), func(now int64) { asker.judged(names[to], sent, names, silent, now) }})
				}})
			case from != silenced || rng.IntN(40) == 0:
				later = append(later, event{now + delay(), func(now int64) {
					if !witness.pinged(names[from], now) {
						later = append(later, event{now + delay(), func(now int64) { asker.answered(names[to], sent, now) }})
					}
				}})
			}
			for i := 0; i < len(later); i++ {
				if later[i].at <= now {
					later[i].do(now)
					later = slices.Delete(later, i, i+1)
					i--
				}
			}
			for i, r := range nodes {
				for _, other := range nodes {
					if r.IsFull(now) && other.Lost(names[i], now) {
						t.Fatalf("at %v %s is full, and lost to %s", time.Duration(now), names[i], other.self)
					}
				}
			}
		}
	})
}

func BenchmarkIsFull(b *testing.B) {
	r := New("a", func() {})
	r.SetKnown([]string{"a", "b"}, 2, 0)
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
			var names []string
			for i := range n {
				names = append(names, fmt.Sprintf("member-%04d", i))
			}
			r := New(names[0], func() {})
			r.SetKnown(names, n, 0)
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
	ms := int64(time.Millisecond)
	r := New("a", func() {})
	r.running(0)
	r.SetKnown([]string{"a", "b"}, 2, 0)
	id := wire.PanelID{Origin: wire.Origin{Name: "b"}, Number: 1}
	r.SetSeats(Seats{Panel: id, Witnesses: []string{"b"}, Granted: []int64{never}}, 0)
	for now := int64(0); now <= 2000*ms; now += 100 * ms {
		r.running(now)
	}
	id.Number++
	r.SetSeats(Seats{Panel: id, Witnesses: []string{"a", "b"}, Granted: []int64{never, never}}, 2000*ms)
	assert.Empty(t, r.silentAmong([]string{"b"}, 2400*ms))
	assert.Empty(t, r.missed(2300*ms))
	for now := 2000 * ms; now <= 2500*ms; now += 100 * ms {
		r.running(now)
	}
	assert.Equal(t, []string{"b"}, r.silentAmong([]string{"b"}, 2500*ms))
}
