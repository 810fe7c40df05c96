package limit

import (
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/peerlimit/peerlimit/internal/oracle"
)

// plainQueue is what turns are judged by: a queue, and an ideal bucket whose level drains at the rate. It is charged for whoever
// is first at the moment at which there is room.
type plainQueue struct {
	rate, burst float64 // a nanosecond; tokens
	level       float64
	at          float64 // nanoseconds
	waiting     []plainTurn
	served      []uint64
}

type plainTurn struct {
	number uint64
	cost   float64
}

// due returns when the first of the queue has its turn.
func (q *plainQueue) due() float64 {
	if len(q.waiting) == 0 {
		return math.Inf(1)
	}
	return q.at + math.Max(0, (q.level+q.waiting[0].cost-q.burst)/q.rate)
}

// until serves whoever has a turn by now.
func (q *plainQueue) until(now float64) {
	for q.due() <= now {
		q.drain(q.due())
		q.level += q.waiting[0].cost
		q.served = append(q.served, q.waiting[0].number)
		q.waiting = q.waiting[1:]
	}
	q.drain(now)
}

func (q *plainQueue) drain(at float64) {
	q.level, q.at = math.Max(0, q.level-(at-q.at)*q.rate), at
}

// take takes cost if there is room for it behind all that wait.
func (q *plainQueue) take(cost float64) bool {
	ahead := q.level
	for _, t := range q.waiting {
		ahead += t.cost
	}
	if len(q.waiting) > 0 || ahead+cost > q.burst*(1+1e-9) {
		return false
	}
	q.level += cost
	return true
}

func (q *plainQueue) leave(number uint64) bool {
	i := slices.IndexFunc(q.waiting, func(t plainTurn) bool { return t.number == number })
	if i < 0 {
		return false
	}
	q.waiting = slices.Delete(q.waiting, i, i+1)
	return true
}

// awaited is a state that is waited at, and who has been served.
type awaited struct {
	State
	set    *Set
	count  uint64
	served []uint64
}

func (a *awaited) serve(now int64) (next int64) {
	granted, next := a.Serve(now)
	for _, t := range granted {
		a.served = append(a.served, t.ID.Number)
	}
	return next
}

// wait enters the queue, and returns the turn and whether it was denied.
func (a *awaited) wait(cost float64, now int64) (turn *Turn, denied bool) {
	a.count++
	turn = &Turn{ID: TurnID{Number: a.count}, Since: now}
	a.serve(now)
	d := a.Await(&Request{Set: a.set, Cost: cost, Total: cost, Reserve: true, MaxDelay: math.MaxInt64}, turn, now)
	if turn.Granted {
		a.served = append(a.served, turn.ID.Number)
	}
	return turn, !d.Allowed
}

// Whatever comes and leaves, and however late the queue is looked at: the same are served in the same order as by a plain queue
// in front of an ideal bucket, as soon, and the same is left in the bucket.
func TestTurnsAreThoseOfAPlainQueue(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		l := perSecond(rapid.Float64Range(0.5, 1000).Draw(rt, "rate"))
		l.Burst = rapid.Float64Range(1, 20).Draw(rt, "burst")
		set := NewSet([]Limit{l})
		now := int64(0)
		a := awaited{State: NewState(set, now), set: set}
		plain := plainQueue{rate: l.Tokens / float64(time.Second), burst: l.Burst}
		for range rapid.IntRange(1, 80).Draw(rt, "steps") {
			now += int64(rapid.OneOf(rapid.Just(0.0), rapid.Float64Range(0, 3e9/l.Tokens), rapid.Float64Range(0, 3e10/l.Tokens)).Draw(rt, "later"))
			if margin := float64(10 * time.Microsecond); math.Abs(plain.due()-float64(now)) < margin {
				now += int64(2 * margin) // who is first at one moment is not what is asked here
			}
			for plain.until(float64(now)); math.Abs(plain.due()-float64(now)) < 1e4; plain.until(float64(now)) {
				now += 2e4
			}
			switch step := rapid.SampledFrom([]string{"wait", "wait", "wait", "leave", "take", "look", "ask again"}).Draw(rt, "step"); step {
			case "wait":
				cost := rapid.Float64Range(0.01, l.Burst).Draw(rt, "cost")
				if plain.level+cost > l.Burst*(1-1e-6) && plain.level+cost < l.Burst*(1+1e-6) {
					continue
				}
				_, denied := a.wait(cost, now)
				require.False(rt, denied)
				plain.waiting = append(plain.waiting, plainTurn{a.count, cost})
				plain.until(float64(now))
			case "leave":
				number := rapid.Uint64Range(1, max(1, a.count)).Draw(rt, "who")
				a.serve(now)
				require.Equal(rt, plain.leave(number), a.LeaveTurn(TurnID{Number: number}, 0, now))
				plain.until(float64(now))
			case "take":
				cost := rapid.Float64Range(0.01, l.Burst).Draw(rt, "cost")
				a.serve(now)
				if math.Abs(plain.level+cost-l.Burst) > 1e-6*l.Burst {
					d := a.Decide(&Request{Set: set, Cost: cost}, now)
					require.Equal(rt, plain.take(cost), d.Allowed, "nobody overtakes")
				}
			case "look":
				next := a.serve(now)
				if len(plain.waiting) > 0 {
					require.InDelta(rt, plain.due(), float64(next), 1e3)
				}
			case "ask again":
				if len(plain.waiting) > 0 {
					a.serve(now)
					turn := &Turn{ID: TurnID{Number: plain.waiting[0].number}, Since: now, Waited: 0}
					d := a.Await(&Request{Set: set, Cost: plain.waiting[0].cost, Reserve: true}, turn, now)
					require.True(rt, d.Allowed && !turn.Granted, "it keeps its place")
				}
			}
		}
		a.serve(now)
		require.Equal(rt, plain.served, a.served)
		require.Equal(rt, len(plain.waiting), a.Waiting())
		require.InDelta(rt, plain.level, a.LevelAt(0, now), 1e-5*l.Burst)
	})
}

// turnsRun is a run of waits, reservations, cancels, debts, refunds and changes of the limit at one bucket, in which the queue is
// looked at whenever a turn comes.
type turnsRun struct {
	rt       *rapid.T
	a        awaited
	now      int64
	judge    *oracle.Oracle
	reserved []reservedTurn
	waiting  map[uint64]float64
	admitted float64 // since somebody waits, turns that were reserved among it
}

type reservedTurn struct {
	undo *Undo
	due  int64
	cost float64
}

func (r *turnsRun) admit(at int64, cost float64) {
	r.judge.Admit(oracle.Take{Start: time.Duration(at), End: time.Duration(at) + 1, Cost: cost})
}

// until lets time pass, and gives turns when they come.
func (r *turnsRun) until(end int64) {
	for {
		next := r.serve()
		if next > end {
			break
		}
		require.Greater(r.rt, next, r.now)
		r.pass(next)
	}
	r.pass(end)
	r.serve()
}

// pass lets time pass, in which the turns come that were reserved.
func (r *turnsRun) pass(end int64) {
	for _, turn := range r.reserved {
		if turn.due > r.now && turn.due <= end {
			r.admitted += turn.cost
		}
	}
	r.now = end
}

func (r *turnsRun) serve() (next int64) {
	granted, next := r.a.Serve(r.now)
	for _, t := range granted {
		r.admit(r.now, t.Cost)
		r.admitted += t.Cost
		delete(r.waiting, t.ID.Number)
	}
	return next
}

func (r *turnsRun) wait(cost float64) {
	r.until(r.now)
	turn, denied := r.a.wait(cost, r.now)
	switch {
	case denied:
	case turn.Granted:
		r.admit(r.now, cost)
	default:
		r.waiting[turn.ID.Number] = cost
	}
}

func (r *turnsRun) reserve(cost float64) {
	r.until(r.now)
	d, u := r.a.Reserve(&Request{Set: r.a.set, Cost: cost, Total: cost, Reserve: true, MaxDelay: math.MaxInt64}, r.now)
	if d.Allowed {
		r.reserved = append(r.reserved, reservedTurn{u, after(r.now, d.Delay), cost})
	}
}

// open returns how many turns are reserved that have not come.
func (r *turnsRun) open() (count int) {
	for _, turn := range r.reserved {
		if turn.due > r.now {
			count++
		}
	}
	return count
}

// cancel cancels a reservation whose turn has not come.
func (r *turnsRun) cancel(which int) {
	r.until(r.now)
	open := slices.DeleteFunc(slices.Clone(r.reserved), func(t reservedTurn) bool { return t.due <= r.now || t.undo == nil })
	if len(open) == 0 {
		return
	}
	gone := open[which%len(open)]
	r.reserved = slices.DeleteFunc(r.reserved, func(t reservedTurn) bool { return t == gone })
	r.a.CancelReserved(*gone.undo, r.now)
}

func (r *turnsRun) leave(who uint64) {
	r.until(r.now)
	if r.a.LeaveTurn(TurnID{Number: who}, 0, r.now) {
		delete(r.waiting, who)
	}
}

// end waits for all turns, and returns what is judged.
func (r *turnsRun) end() oracle.Report {
	r.until(r.now + int64(time.Hour))
	require.Empty(r.rt, r.waiting)
	require.Zero(r.rt, r.a.Waiting())
	for _, turn := range r.reserved {
		r.admit(turn.due, turn.cost)
	}
	return r.judge.Report()
}

// Whatever waits, reserves, cancels, leaves and is charged, and however the limit changes: in no window w more comes through than
// the burst and what the rate adds.
func TestTurnsNeverExceedTheLargerOfTheLimits(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		draw := func(label string) Limit {
			l := perSecond(rapid.Float64Range(1, 100).Draw(rt, label+" rate"))
			l.Burst = rapid.Float64Range(1, 20).Draw(rt, label+" burst")
			if rapid.IntRange(0, 3).Draw(rt, label+" leaky") == 0 {
				l.Algorithm = LeakyBucket
			}
			return l
		}
		one, two := draw("one"), draw("two")
		two.Algorithm = one.Algorithm
		sets := []*Set{NewSet([]Limit{one}), NewSet([]Limit{two})}
		least := math.Min(one.Burst, two.Burst)
		allowed := oracle.Limit{Tokens: math.Max(one.Tokens, two.Tokens), Period: time.Second, Burst: math.Max(one.Capacity(), two.Capacity())}
		r := turnsRun{rt: rt, a: awaited{State: NewState(sets[0], 0), set: sets[0]}, judge: oracle.New(allowed), waiting: make(map[uint64]float64)}
		mixed := false // some wait under one limit, and some under the other
		for range rapid.IntRange(1, 60).Draw(rt, "steps") {
			if len(r.waiting) == 0 {
				mixed = false
			}
			r.until(r.now + int64(rapid.OneOf(rapid.Just(0.0), rapid.Float64Range(0, 1e7), rapid.Float64Range(0, 1e9)).Draw(rt, "later")))
			cost := rapid.Float64Range(0.05, least).Draw(rt, "cost")
			switch rapid.SampledFrom([]string{"wait", "wait", "wait", "reserve", "reserve", "cancel", "cancel", "leave", "take", "debt", "limit"}).Draw(rt, "step") {
			case "wait":
				r.wait(cost)
			case "reserve": // as below
				if len(r.waiting) == 0 || !mixed {
					r.reserve(cost)
				}
			case "cancel":
				r.cancel(rapid.IntRange(0, 100).Draw(rt, "which"))
			case "leave":
				r.leave(rapid.Uint64Range(1, r.a.count+1).Draw(rt, "who"))
			case "take":
				if d := r.a.Decide(&Request{Set: r.a.set, Cost: cost}, r.now); d.Allowed {
					r.admit(after(r.now, d.Delay), cost)
				}
			case "debt":
				r.a.Spend(r.a.set, cost, r.now)
			case "limit": // turns that are fixed already stay as they are, and overlap with those under other limits
				if r.open() > 0 || r.a.Holes() > 0 {
					continue
				}
				r.a.set = sets[rapid.IntRange(0, 1).Draw(rt, "which limit")]
				mixed = len(r.waiting) > 0
			}
		}
		report := r.end()
		require.Zero(rt, report.Excess, "%+v", report)
	})
}

// While somebody waits no token is wasted, whatever is reserved, cancelled and left meanwhile: one turn comes after the other.
func TestNoTokenIsWastedWhileSomebodyWaits(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		l := perSecond(100)
		l.Burst = float64(rapid.IntRange(1, 5).Draw(rt, "burst"))
		set := NewSet([]Limit{l})
		r := turnsRun{
			rt: rt, a: awaited{State: NewState(set, 0), set: set}, waiting: make(map[uint64]float64),
			judge: oracle.New(oracle.Limit{Tokens: l.Tokens, Period: l.Period, Burst: l.Burst}),
		}
		for range int(l.Burst) {
			require.True(rt, r.a.Decide(&Request{Set: set, Cost: 1}, 0).Allowed)
		}
		for range rapid.IntRange(0, 20).Draw(rt, "reserved before") {
			r.reserve(1)
		}
		r.wait(1)
		for range rapid.IntRange(1, 150).Draw(rt, "steps") {
			r.until(r.now + int64(rapid.SampledFrom([]time.Duration{0, time.Millisecond, 4 * time.Millisecond, 15 * time.Millisecond}).Draw(rt, "later")))
			if len(r.waiting) == 0 {
				break
			}
			switch rapid.SampledFrom([]string{"wait", "wait", "reserve", "cancel", "leave"}).Draw(rt, "step") {
			case "wait":
				r.wait(1)
			case "reserve":
				r.reserve(1)
			case "cancel":
				r.cancel(rapid.IntRange(0, 100).Draw(rt, "which"))
			case "leave":
				if len(r.waiting) > 1 {
					r.leave(rapid.Uint64Range(1, r.a.count+1).Draw(rt, "who"))
				}
			}
			if len(r.waiting) > 0 {
				require.GreaterOrEqual(rt, r.admitted, math.Floor(float64(r.now-int64(time.Microsecond))*l.Tokens/1e9),
					"%v waiting at %v", len(r.waiting), time.Duration(r.now))
			}
		}
	})
}

// However many wait and in whatever order they leave, what is left is as if none had come.
func TestAQueueThatAllHaveLeftLeavesNothing(t *testing.T) {
	for seed := range uint64(5) {
		set := NewSet([]Limit{perSecond(1)})
		s := NewState(set, 0)
		require.True(t, s.Decide(&Request{Set: set, Cost: 1}, 0).Allowed)
		before := s.Clone()
		a := awaited{State: s, set: set}
		const waiters = 5000
		for range waiters {
			turn, denied := a.wait(1, 1)
			require.False(t, denied || turn.Granted)
		}
		random := rand.New(rand.NewPCG(seed, seed))
		for _, i := range random.Perm(waiters) {
			require.True(t, a.LeaveTurn(TurnID{Number: uint64(i) + 1}, 0, 2))
		}
		assert.Equal(t, before, a.State)
	}
}

// One that asked again stays when what it left is what it asked for before.
func TestAnEarlierLeaveIsNotForALaterTurn(t *testing.T) {
	set := NewSet([]Limit{perSecond(1)})
	a := awaited{State: NewState(set, 0), set: set}
	a.wait(1, 0)
	turn, _ := a.wait(1, 0)
	again := &Turn{ID: turn.ID, Waited: time.Second}
	require.True(t, a.Await(&Request{Set: set, Cost: 1, Reserve: true, MaxDelay: time.Hour}, again, 1).Allowed)
	assert.False(t, a.LeaveTurn(turn.ID, 0, 1))
	assert.Equal(t, 1, a.Waiting())
	assert.True(t, a.LeaveTurn(turn.ID, time.Second, 1))
	assert.Zero(t, a.Waiting())
}

// Those that wait longest go first, wherever they have waited before.
func TestWhoHasWaitedElsewhereGoesBefore(t *testing.T) {
	set := NewSet([]Limit{perSecond(1)})
	a := awaited{State: NewState(set, 0), set: set}
	a.wait(1, 0)
	request := Request{Set: set, Cost: 1, Reserve: true, MaxDelay: time.Hour}
	for _, since := range []int64{5, 3, 4, 1, 2} {
		r := request
		require.True(t, a.Await(&r, &Turn{ID: TurnID{Number: uint64(since) + 100}, Since: since}, 10).Allowed)
	}
	a.served = nil
	a.serve(int64(10 * time.Second))
	assert.Equal(t, []uint64{101, 102, 103, 104, 105}, a.served)
}

// The callers of a node that is not heard of leave, and those behind them move up as of then.
func TestTurnsOfANodeThatIsNotHeardOfExpire(t *testing.T) {
	set := NewSet([]Limit{{Tokens: 1, Period: time.Second, Burst: 1}})
	a := awaited{State: NewState(set, 0), set: set}
	a.wait(1, 0)
	request := Request{Set: set, Cost: 1, Reserve: true, MaxDelay: time.Hour}
	for i := range uint64(20) {
		r := request
		a.Await(&r, &Turn{ID: TurnID{Node: "gone", Number: i}}, 0)
	}
	alive := &Turn{ID: TurnID{Node: "alive"}, Since: 1}
	r := request
	a.Await(&r, alive, 1)
	for second := range 10 {
		r := request
		now := int64(second) * int64(time.Second)
		a.serve(now)
		if !alive.Granted {
			a.Await(&r, &Turn{ID: alive.ID, Since: 1}, now)
		}
	}
	assert.True(t, alive.Granted)
	assert.Len(t, a.served, 1+5+1, "five of those that are gone, in five seconds")
	assert.Zero(t, a.Waiting())
}

// Those that are not heard of leave wherever they stand, and long before their turn: they would seem to be ahead of others.
func TestTurnsThatAreNotHeardOfAreSwept(t *testing.T) {
	set := NewSet([]Limit{perHour(1)})
	a := awaited{State: NewState(set, 0), set: set}
	a.wait(1, 0)
	await := func(turn *Turn, now int64) time.Duration {
		return a.Await(&Request{Set: set, Cost: 1, Reserve: true, MaxDelay: 1000 * time.Hour}, turn, now).Delay
	}
	first := &Turn{ID: TurnID{Node: "alive"}}
	await(first, 0)
	for i := range uint64(20) {
		await(&Turn{ID: TurnID{Node: "gone", Number: i}}, 1)
	}
	next := int64(0)
	for now := int64(0); now < int64(20*time.Second); now = next {
		await(first, now)
		if next = a.serve(now); next > now+int64(TurnExpiry) {
			t.Fatalf("it is looked at after %v next", time.Duration(next-now))
		}
	}
	assert.Equal(t, 1, a.Waiting())
	assert.InDelta(t, 2*time.Hour, await(&Turn{ID: TurnID{Node: "alive", Number: 2}}, next), float64(time.Minute))
}

// What is dismissed leaves no trace, and all others keep their order.
func TestDismiss(t *testing.T) {
	set := NewSet([]Limit{perSecond(1)})
	a := awaited{State: NewState(set, 0), set: set}
	a.wait(1, 0)
	before := a.State.Clone()
	request := Request{Set: set, Cost: 1, Reserve: true, MaxDelay: time.Hour}
	for i := range uint64(9) {
		r := request
		a.Await(&r, &Turn{ID: TurnID{Node: fmt.Sprint(i % 3), Number: i}, Since: int64(i)}, 9)
	}
	gone := a.Dismiss("0", 10)
	assert.Len(t, gone, 3)
	assert.Equal(t, 6, a.Waiting())
	a.served = nil
	a.serve(int64(2*time.Second) + 1)
	assert.Equal(t, []uint64{1, 2}, a.served)
	assert.Len(t, a.Dismiss("", int64(2*time.Second)+1), 4)
	assert.False(t, a.HasTurns())
	a.Advance(int64(time.Minute))
	before.Advance(int64(time.Minute))
	assert.Equal(t, before, a.State)
}

// Beyond so many none may wait. One that waits already, and one whose turn has come, is not refused.
func TestMoreThanMaxTurnsAreRefused(t *testing.T) {
	set := NewSet([]Limit{perSecond(1)})
	a := awaited{State: NewState(set, 0), set: set}
	for range MaxTurns + 1 {
		_, denied := a.wait(1, 0)
		require.False(t, denied)
	}
	require.Equal(t, MaxTurns, a.Waiting())
	request := Request{Set: set, Cost: 1, Reserve: true, MaxDelay: math.MaxInt64}
	turn := &Turn{ID: TurnID{Node: "n"}}
	d := a.Await(&request, turn, 0)
	assert.True(t, !d.Allowed && turn.Full)
	assert.InDelta(t, MaxTurns+1, d.RetryAfter.Seconds(), 1, "when its turn would have come")
	again := &Turn{ID: TurnID{Number: 5}}
	request = Request{Set: set, Cost: 1, Reserve: true, MaxDelay: math.MaxInt64}
	assert.True(t, a.Await(&request, again, 0).Allowed)

	fresh := awaited{State: NewState(set, 0), set: set}
	request = Request{Set: set, Cost: 1, Reserve: true}
	full := &Turn{NoRoom: true}
	assert.True(t, fresh.Await(&request, full, 0).Allowed && full.Granted && !full.Full, "it need not wait")
	request = Request{Set: set, Cost: 1, Reserve: true, MaxDelay: time.Hour}
	full = &Turn{NoRoom: true}
	d = fresh.Await(&request, full, 0)
	assert.True(t, !d.Allowed && full.Full)
	assert.Equal(t, time.Second, d.RetryAfter)
}

// The turn of a reservation that was cancelled comes now: whoever asks has it, and the bucket is not charged twice.
func TestAHoleThatIsDueNowIsNotChargedAgain(t *testing.T) {
	set := NewSet([]Limit{perSecond(1)})
	s := NewState(set, 0)
	s.Decide(&Request{Set: set, Cost: 1}, 0)
	reserve := func() *Undo {
		_, u := s.Reserve(&Request{Set: set, Cost: 1, Total: 1, Reserve: true, MaxDelay: time.Hour}, 0)
		return u
	}
	first := reserve()
	reserve()
	s.CancelReserved(*first, 0)
	now := int64(time.Second)
	level := s.LevelAt(0, now)
	turn := new(Turn)
	s.Serve(now)
	d := s.Await(&Request{Set: set, Cost: 1, Total: 1, Reserve: true, MaxDelay: time.Hour}, turn, now)
	assert.True(t, d.Allowed && turn.Granted)
	assert.Equal(t, level, s.LevelAt(0, now))
	assert.Zero(t, s.Holes())
}

// Holes that were made for those that waited, and that nobody took, do not pile up.
func TestHolesOfThoseThatLeftAreBounded(t *testing.T) {
	set := NewSet([]Limit{perSecond(1000)})
	a := awaited{State: NewState(set, 0), set: set}
	a.Exhaust(set, 0)
	now := int64(0)
	for range 5000 {
		turn, _ := a.wait(1, now)
		a.Reserve(&Request{Set: set, Cost: 1, Total: 1, Reserve: true, MaxDelay: time.Hour}, now)
		a.LeaveTurn(turn.ID, 0, now)
		now += int64(2 * time.Millisecond)
		a.serve(now)
	}
	assert.Less(t, a.Holes(), 2*maxPassedHoles+2)
}

// A reservation comes behind waits under a lower limit and under its own: their turns are fixed then, and do not overlap.
func TestTurnsOfAnotherLimitDoNotOverlap(t *testing.T) {
	low, high := NewSet([]Limit{withBurst(perSecond(1), 1)}), NewSet([]Limit{withBurst(perSecond(1.5), 1)})
	a := awaited{State: NewState(low, 0), set: low}
	judge := oracle.New(oracle.Limit{Tokens: 1.5, Period: time.Second, Burst: 1})
	judge.Admit(oracle.Take{Cost: 1})
	for range 18 {
		a.wait(1, 0)
	}
	a.set = high
	for range 27 {
		a.wait(1, 0)
	}
	d, _ := a.Reserve(&Request{Set: high, Cost: 1, Total: 1, Reserve: true, MaxDelay: time.Hour}, 0)
	require.True(t, d.Allowed)
	judge.Admit(oracle.Take{Start: d.Delay, End: d.Delay + 1, Cost: 1})
	for now, served := int64(0), len(a.served); a.HasTurns(); {
		next := a.serve(now)
		for ; served < len(a.served); served++ {
			judge.Admit(oracle.Take{Start: time.Duration(now), End: time.Duration(now) + 1, Cost: 1})
		}
		now = next
	}
	assert.Len(t, a.served, 45)
	assert.Zero(t, judge.Report().Excess, "%+v", judge.Report())
}

// The turn of one that waits comes when a reservation before it is cancelled, not as of a moment before: what drains from then on
// counts once.
func TestATurnThatACancelMakesRoomForComesThen(t *testing.T) {
	set := NewSet([]Limit{withBurst(perSecond(1), 1)})
	a := awaited{State: NewState(set, 0), set: set}
	_, u := a.Reserve(&Request{Set: set, Cost: 1, Total: 1, Reserve: true, MaxDelay: time.Hour}, 0)
	turn, _ := a.wait(1, 1)
	now := int64(900 * time.Millisecond)
	a.serve(now)
	require.True(t, a.CancelReserved(*u, now))
	a.serve(now)
	require.True(t, turn.Granted)
	assert.InDelta(t, 1, a.LevelAt(0, now), 1e-9, "it is charged now")
}
