package peerlimit

import (
	"context"
	"math"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/peerlimit/peerlimit/internal/oracle"
)

// turn is one step of a run of takes, waits, reservations and cancels.
type turn struct {
	after time.Duration // since the step before
	kind  turnKind
	cost  float64
	which int           // of the reservations to cancel
	until time.Duration // a wait is given up after that long, or is told that it will be
	told  bool
}

type turnKind int

const (
	turnTake turnKind = iota
	turnTakeAll
	turnReserve
	turnCancel
	turnWait
	turnKinds
)

// admitted is spending that came through.
type admitted struct {
	at   time.Duration
	cost float64
}

// logarithmically draws from low to high, every order of magnitude as likely as the next.
func logarithmically(low, high float64) *rapid.Generator[float64] {
	return rapid.Map(rapid.Float64Range(math.Log(low), math.Log(high)), func(e float64) float64 {
		return min(max(math.Exp(e), low), high)
	})
}

func drawTurn(t *rapid.T) turn {
	return turn{
		after: time.Duration(rapid.OneOf(rapid.Just(0.0), logarithmically(1, 1e10)).Draw(t, "after")),
		kind:  turnKind(rapid.IntRange(0, int(turnKinds)-1).Draw(t, "kind")),
		cost:  rapid.Float64Range(0.05, 20).Draw(t, "cost"),
		which: rapid.IntRange(0, 100).Draw(t, "which"),
		until: time.Duration(logarithmically(1e6, 1e10).Draw(t, "until")),
		told:  rapid.Bool().Draw(t, "told"),
	}
}

// runTurns does what the steps say and returns what came through, in order of time.
func runTurns(t *testing.T, limits []Limit, steps []turn) []admitted {
	b := mustNewBucket(t, limits...)
	began := time.Now()
	var (
		mu       sync.Mutex // guards passed
		passed   []admitted
		reserved []*Reservation
		costs    = make(map[*Reservation]float64)
	)
	pass := func(in time.Duration, cost float64) {
		mu.Lock()
		defer mu.Unlock()
		passed = append(passed, admitted{at: time.Since(began) + in, cost: cost})
	}
	for _, s := range steps {
		time.Sleep(s.after)
		cost := min(s.cost, b.set.SmallestBurst())
		switch s.kind {
		case turnTakeAll:
			if left := b.Peek().Remaining; left > 0 && b.set.Fits(left) {
				cost = left
			}
			fallthrough
		case turnTake:
			if d, err := b.Take(cost); err == nil && d.Allowed {
				pass(d.Delay, cost)
			}
		case turnReserve:
			if r, err := b.Reserve(cost); err == nil {
				reserved = append(reserved, r)
				costs[r] = cost
			}
		case turnCancel:
			if len(reserved) > 0 {
				i := s.which % len(reserved)
				reserved[i].Cancel()
				reserved = slices.Delete(reserved, i, i+1)
			}
		case turnWait:
			ctx, cancel := context.WithCancel(t.Context())
			if s.told {
				ctx, cancel = context.WithTimeout(t.Context(), s.until)
			}
			stop := time.AfterFunc(s.until, cancel)
			go func() {
				defer stop.Stop()
				defer cancel()
				if b.WaitN(ctx, cost) == nil {
					pass(0, cost)
				}
			}()
			synctest.Wait()
		}
	}
	time.Sleep(11 * time.Second) // until the last wait has passed or was given up
	synctest.Wait()
	for _, r := range reserved {
		passed = append(passed, admitted{at: r.due.Sub(began), cost: costs[r]})
	}
	slices.SortStableFunc(passed, func(a, b admitted) int { return int(a.at - b.at) })
	return passed
}

// In no window do more tokens come through than the burst and what the rate adds: whatever is taken, waited for,
// reserved and cancelled. A reservation counts when its turn comes; one that was cancelled, and a wait that was given up,
// not at all.
func TestTurnsNeverExceedTheLimit(t *testing.T) {
	anyLimit := rapid.Custom(func(t *rapid.T) Limit {
		l := PerSecond(rapid.Float64Range(0.1, 100).Draw(t, "tokens")).WithBurst(rapid.Float64Range(1, 20).Draw(t, "burst"))
		if rapid.IntRange(0, 3).Draw(t, "leaky") == 0 {
			l = l.Leaky()
		}
		return l
	})
	rapid.Check(t, func(rt *rapid.T) {
		limits := rapid.SliceOfN(anyLimit, 1, 3).Draw(rt, "limits")
		steps := rapid.SliceOfN(rapid.Custom(drawTurn), 1, 60).Draw(rt, "steps")
		var passed []admitted
		synctest.Test(t, func(t *testing.T) { passed = runTurns(t, limits, steps) })
		for _, l := range limits {
			judge := oracle.New(oracle.Limit{Tokens: l.Tokens, Period: l.Period, Burst: l.core().Capacity()})
			for _, p := range passed { // instants are rounded to the nanosecond
				judge.Admit(oracle.Take{Start: p.at, End: p.at + 1, Cost: p.cost})
			}
			require.Zero(rt, judge.Report().Excess, "%v: %+v", l, judge.Report())
		}
	})
}
