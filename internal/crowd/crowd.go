// Package crowd is callers that come at random, wait, and lose patience: for tests of how many of them are served. It measures
// time as a test's bubble does, so it is for package testing/synctest.
package crowd

import (
	"context"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"
)

// Crowd says how many callers come, and how long they wait.
type Crowd struct {
	Rate     float64       // callers a second, on average; they come independently of each other
	Patience time.Duration // how long each waits, on average; the times are exponential
	Length   time.Duration // how long callers come
	Seed     uint64

	// HangUp cancels the context of a caller when its patience ends, which nobody knows before, as when the client of a server
	// goes away. Otherwise the context has a deadline from the beginning.
	HangUp bool
}

// Result counts what became of the callers.
type Result struct {
	Came    int // in all
	Served  int // while callers came
	Late    int // served afterwards
	GaveUp  int // their context ended
	Refused int // any other error

	length time.Duration
}

// PerSecond returns how many were served a second.
func (r Result) PerSecond() float64 { return float64(r.Served) / r.length.Seconds() }

// Run has the callers come and returns when all have gone. wait is what one of them does, the i-th that came.
func (c Crowd) Run(ctx context.Context, wait func(ctx context.Context, i int) error) Result {
	random := rand.New(rand.NewPCG(c.Seed, 1)) // #nosec G404 -- a test's
	end := time.Now().Add(c.Length)
	var served, late, gaveUp, refused atomic.Int64
	var callers sync.WaitGroup
	came := 0
	for ; ; came++ {
		time.Sleep(time.Duration(random.ExpFloat64() / c.Rate * float64(time.Second)))
		if !time.Now().Before(end) {
			break
		}
		patience, number := time.Duration(random.ExpFloat64()*float64(c.Patience)), came
		callers.Go(func() {
			ctx, cancel := c.patient(ctx, patience)
			defer cancel()
			switch err := wait(ctx, number); {
			case err == nil && time.Now().Before(end):
				served.Add(1)
			case err == nil:
				late.Add(1)
			case ctx.Err() != nil:
				gaveUp.Add(1)
			default:
				refused.Add(1)
			}
		})
	}
	callers.Wait()
	return Result{
		Came: came, Served: int(served.Load()), Late: int(late.Load()), GaveUp: int(gaveUp.Load()), Refused: int(refused.Load()),
		length: c.Length,
	}
}

// patient returns the context of a caller that waits so long.
func (c Crowd) patient(ctx context.Context, patience time.Duration) (context.Context, context.CancelFunc) {
	if !c.HangUp {
		return context.WithTimeout(ctx, patience)
	}
	ctx, cancel := context.WithCancel(ctx)
	timer := time.AfterFunc(patience, cancel)
	return ctx, func() { timer.Stop(); cancel() }
}
