package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/url"
	"slices"
	"sync"
	"time"
)

// driver is the clients of the service: it sends requests at a steady pace, to all nodes in turn, and does not care what
// the answers are. When all its workers are busy it sends less.
type driver struct {
	clock    *clock
	recorder *recorder
	demands  []demand

	mu      sync.Mutex // guards what follows
	rate    float64    // of the limit, per second
	load    float64    // multiplies what is asked for
	targets []*target
	rounds  map[string][]*target // of each key: whose turn is still to come
}

// target is a node that requests are sent to, with connections of its own.
type target struct {
	node     *process
	client   *http.Client
	given    context.Context // ends when nobody waits for answers of it any more
	giveUp   context.CancelFunc
	inFlight sync.WaitGroup // added to under driver.mu while the target is in targets
}

const (
	// workers bounds the requests in flight: ten times what a loaded laptop needs for 10,000 a second.
	workers = 64

	// pace is how often due requests are sent: often enough for every node to see an even flow.
	pace = 5 * time.Millisecond

	// catchUp is how much delay is made up for: more is a machine that was suspended.
	catchUp = 100 * time.Millisecond

	// callTimeout is above the two RPC timeouts that a take may need at worst, so that to exceed it is a failure.
	callTimeout = 10 * time.Second
)

func newDriver(c *clock, r *recorder, rate float64) *driver {
	return &driver{clock: c, recorder: r, demands: demands, rate: rate, load: 1, rounds: make(map[string][]*target)}
}

// add makes a node one of those that requests are sent to.
func (d *driver) add(p *process) {
	t := &target{node: p, client: &http.Client{
		Timeout:   callTimeout,
		Transport: &http.Transport{MaxIdleConnsPerHost: workers, DisableCompression: true},
	}}
	t.given, t.giveUp = context.WithCancel(context.Background())
	d.mu.Lock()
	defer d.mu.Unlock()
	d.targets = append(d.targets, t)
}

// has reports whether requests are sent to a node.
func (d *driver) has(p *process) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return slices.ContainsFunc(d.targets, func(t *target) bool { return t.node == p })
}

// setRate changes the limit that the load is a multiple of, and setLoad by what all is multiplied.
func (d *driver) setRate(rate float64) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.rate = rate
}

func (d *driver) setLoad(load float64) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.load = load
}

// unit is how many requests a second a demand of one is.
func (d *driver) unit() float64 {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.rate * d.load
}

// drop sends nothing more to a node, and returns when all requests to it have been answered. It closes the connections:
// one that was opened and never used would keep a server that shuts down waiting.
func (d *driver) drop(p *process) {
	if t := d.remove(p); t != nil {
		t.inFlight.Wait()
		t.giveUp()
		t.client.CloseIdleConnections()
	}
}

// abandon sends nothing more to a node, and waits for no answer that is not there yet.
func (d *driver) abandon(p *process) {
	if t := d.remove(p); t != nil {
		t.giveUp()
		t.inFlight.Wait()
		t.client.CloseIdleConnections()
	}
}

// remove takes a node out of the targets; nil when it is none.
func (d *driver) remove(p *process) *target {
	d.mu.Lock()
	defer d.mu.Unlock()
	i := slices.IndexFunc(d.targets, func(t *target) bool { return t.node == p })
	if i < 0 {
		return nil
	}
	t := d.targets[i]
	d.targets = slices.Delete(d.targets, i, i+1)
	clear(d.rounds)
	return t
}

// next chooses the node whose turn it is for a key; nil when there is none. Its inFlight must be told when the call is
// over. Every node has one turn in a round, in an order that changes: with a fixed order that keeps step with the refill of
// the bucket, the same node would get all tokens.
func (d *driver) next(key string) *target {
	d.mu.Lock()
	defer d.mu.Unlock()
	if len(d.targets) == 0 {
		return nil
	}
	round := d.rounds[key]
	if len(round) == 0 {
		round = slices.Clone(d.targets)
		rand.Shuffle(len(round), func(i, j int) { round[i], round[j] = round[j], round[i] })
	}
	t := round[0]
	d.rounds[key] = round[1:]
	t.inFlight.Add(1)
	return t
}

// run sends requests until ctx ends, and returns when the last has been answered.
func (d *driver) run(ctx context.Context) {
	jobs := make(chan string, workers)
	var running sync.WaitGroup
	for range workers {
		running.Go(func() {
			for key := range jobs {
				d.request(key)
			}
		})
	}
	d.generate(ctx, jobs)
	close(jobs)
	running.Wait()
}

// generate puts requests that are due into jobs until ctx ends.
func (d *driver) generate(ctx context.Context, jobs chan<- string) {
	ticker := time.NewTicker(pace)
	defer ticker.Stop()
	due := make([]float64, len(d.demands))
	last := d.clock.elapsed()
	for {
		now := d.clock.elapsed()
		passed := min(now-last, catchUp)
		last = now
		unit := d.unit()
		for i, demand := range d.demands {
			due[i] += passed.Seconds() * demand.times * unit
			for ; due[i] >= 1; due[i]-- {
				select {
				case jobs <- demand.key:
				default: // all are busy
				}
			}
		}
		select {
		case <-ticker.C:
		case <-ctx.Done():
			return
		}
	}
}

// request asks the next node for a key, and notes what came of it. A node that cannot be reached any more is dropped, as
// a load balancer does; the request is not sent again.
func (d *driver) request(key string) {
	t := d.next(key)
	if t == nil {
		return
	}
	c := call{key: key, node: t.node.name, start: d.clock.elapsed()}
	var answer takeAnswer
	answer, c.err = t.take(key)
	c.end = d.clock.elapsed()
	c.admitted, c.origin = answer.Allowed, answer.Origin
	c.cutOff = c.err != nil && (t.node.fate.Load() != alive || t.given.Err() != nil)
	t.inFlight.Done()
	d.recorder.add(c)
	if c.cutOff {
		d.drop(t.node)
	}
}

// take makes one HTTP request. It is a POST, which net/http does not repeat by itself: a repeated take would be a second
// one.
func (t *target) take(key string) (takeAnswer, error) {
	var answer takeAnswer
	to := t.node.info.HTTP + "/take?key=" + url.QueryEscape(key)
	request, err := http.NewRequestWithContext(t.given, http.MethodPost, to, nil) // #nosec G704 -- an address that a child of ours printed
	if err != nil {
		return answer, err
	}
	response, err := t.client.Do(request) // #nosec G704 -- an address that a child of ours printed
	if err != nil {
		return answer, err
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body) // to the end: only then the connection is used again
	if err != nil {
		return answer, err
	}
	if response.StatusCode != http.StatusOK && response.StatusCode != http.StatusTooManyRequests {
		return answer, fmt.Errorf("status %s: %s", response.Status, body)
	}
	if err := json.Unmarshal(body, &answer); err != nil {
		return answer, err
	}
	if answer.Allowed != (response.StatusCode == http.StatusOK) {
		return answer, errors.New("status " + response.Status + " contradicts " + string(body))
	}
	return answer, nil
}
