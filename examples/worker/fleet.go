package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"time"

	"github.com/peerlimit/peerlimit"
)

// thirdParty stands for an API somewhere. It only counts: one with a quota would refuse what is too much.
type thirdParty struct {
	mu    sync.Mutex // guards calls
	calls int
}

// call is one request to it.
func (p *thirdParty) call() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.calls++
}

// outcome is how many jobs each worker did.
type outcome struct {
	byNode  [][]int // by node and worker
	calls   int     // as the third party saw it
	elapsed time.Duration
}

// work does so many jobs, with so many workers for each limiter, and returns when all are done or one has failed.
func work(ctx context.Context, limiters []*peerlimit.Limiter, workers, jobs int) (outcome, error) {
	began := time.Now()
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	queue := make(chan int)
	var all sync.WaitGroup
	all.Go(func() { // ends with ctx, or when the last job was fetched
		defer close(queue)
		for job := range jobs {
			select {
			case queue <- job:
			case <-ctx.Done():
				return
			}
		}
	})

	api := new(thirdParty)
	done := outcome{byNode: make([][]int, len(limiters))}
	for i, limiter := range limiters {
		done.byNode[i] = make([]int, workers)
		for worker := range workers {
			all.Go(func() {
				n, err := doJobs(ctx, limiter, queue, api)
				done.byNode[i][worker] = n
				if err != nil {
					cancel(err) // the others need not go on
				}
			})
		}
	}
	all.Wait()
	done.calls, done.elapsed = api.calls, time.Since(began)
	if err := context.Cause(ctx); err != nil && !errors.Is(err, context.Canceled) {
		return done, err
	}
	return done, ctx.Err()
}

// doJobs is one worker: it fetches jobs, and calls the third party for each when its turn has come. Turns come in the order
// in which workers began to wait, on whatever node they are.
func doJobs(ctx context.Context, limiter *peerlimit.Limiter, queue <-chan int, api *thirdParty) (done int, err error) {
	for job := range queue {
		if err := limiter.Wait(ctx, "our-account"); err != nil {
			return done, fmt.Errorf("job %d: %w", job, err)
		}
		api.call()
		done++
	}
	return done, nil
}

// print writes a table, and fails when the third party was called more often than its quota allows.
func (o outcome) print(out io.Writer, limit peerlimit.Limit) error {
	for i, workers := range o.byNode {
		sum := 0
		for _, n := range workers {
			sum += n
		}
		fmt.Fprintf(out, "node-%d  %5d jobs, by worker %v\n", i, sum, workers)
	}
	allowed := limit.Burst + limit.Tokens*o.elapsed.Seconds()
	fmt.Fprintf(out, "the third party was called %d times in %v; its quota allows %.0f\n",
		o.calls, o.elapsed.Round(time.Millisecond), allowed)
	if float64(o.calls) > allowed {
		return fmt.Errorf("%d calls, more than the quota allows", o.calls)
	}
	return nil
}
