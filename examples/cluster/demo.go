package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/url"
	"os"
	"slices"
	"sync"
	"time"

	"github.com/peerlimit/peerlimit"
	"github.com/peerlimit/peerlimit/internal/oracle"
)

// demo is one run: it starts the nodes, sends the load, does the chaos, and judges.
type demo struct {
	options  options
	observer observer
	limit    oracle.Limit
	clock    *clock
	timeline *timeline
	recorder *recorder
	driver   *driver
	narrator *narrator
	control  *http.Client // for questions that are not load
	died     chan error   // capacity 1: the first node that ended by itself

	mu     sync.Mutex // guards what follows
	nodes  []*process // all that were ever started, in order
	faults []error    // what went wrong but for the load
}

// startTimeout bounds every step of starting nodes.
const startTimeout = 20 * time.Second

func newDemo(o options, out observer) *demo {
	d := &demo{
		options: o, observer: out, clock: new(clock), died: make(chan error, 1),
		limit:   oracle.Limit{Tokens: o.rate, Period: time.Second, Burst: o.burst},
		control: &http.Client{Timeout: startTimeout},
	}
	d.recorder = newRecorder(d.limit)
	d.driver = newDriver(d.clock, d.recorder, o.rate)
	d.narrator = newNarrator(out, d.clock, d.recorder, o.rate*float64(len(demands)))
	d.timeline = newTimeline(d.clock.elapsed, d.narrator.settled)
	return d
}

// run does everything, until the time is over, ctx ends or a node dies by itself. An error means that it did not come to
// the load.
func (d *demo) run(ctx context.Context) (verdict, error) {
	defer d.stopNodes()
	if err := d.startCluster(ctx); err != nil {
		return verdict{}, err
	}
	d.observer.Began(d.cast())

	d.clock.start()
	load, endLoad := context.WithTimeout(ctx, d.options.duration)
	defer endLoad()
	var narrating, acting sync.WaitGroup
	narrating.Go(d.narrator.run)
	acting.Go(func() { d.driver.run(load) })
	if d.options.chaos {
		acting.Go(func() { d.act(load) })
	}
	select {
	case <-load.Done():
	case err := <-d.died:
		d.fault(err)
		endLoad()
	}
	acting.Wait()
	end := d.clock.elapsed()
	d.narrator.stop()
	narrating.Wait()

	v := judge(evidence{
		limit: d.limit, duration: end, disturbances: d.disturbances(end), recorder: d.recorder, faults: d.faults,
	})
	d.observer.Judged(v)
	return v, nil
}

// fault notes that something went wrong.
func (d *demo) fault(err error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.faults = append(d.faults, err)
}

// disturbances returns what was done, and for the keys that a crash took the owner from what it may have cost them.
func (d *demo) disturbances(end time.Duration) []disturbance {
	all := d.timeline.finish(end)
	for i, x := range all {
		all[i].Moved = make(map[string]move) // the other one may still be being read, for a last event
		for key, m := range x.Moved {
			if x.Kind == killed {
				m.Resumed = d.recorder.resumed(key, x.Gone)
				m.Unsent = d.recorder.admittedIn(key, x.At-replicaInterval, min(x.Gone, x.Until))
			}
			all[i].Moved[key] = m
		}
	}
	return all
}

// startCluster starts the first nodes, and waits until they agree on who owns what.
func (d *demo) startCluster(ctx context.Context) error {
	for i := range d.options.nodes {
		d.timeline.expect(nodeName(i))
	}
	for range d.options.nodes {
		p, err := d.startNode()
		if err != nil {
			return err
		}
		if err := d.waitUp(ctx, p); err != nil {
			return err
		}
	}
	for _, p := range d.live() {
		if err := d.waitReady(ctx, p); err != nil {
			return err
		}
		d.driver.add(p)
	}
	select {
	case <-d.timeline.agreed:
		return nil
	case err := <-d.died:
		return err
	case <-time.After(startTimeout):
		return fmt.Errorf("the nodes do not agree on who owns the keys after %v", startTimeout)
	case <-ctx.Done():
		return ctx.Err()
	}
}

// nodeName is the name of the i-th node, counted from 0.
func nodeName(i int) string { return fmt.Sprintf("node-%d", i+1) }

// nextName is the name of the node that is started next.
func (d *demo) nextName() string {
	d.mu.Lock()
	defer d.mu.Unlock()
	return nodeName(len(d.nodes))
}

// startNode starts the next node, and does not wait for it to be up.
func (d *demo) startNode() (*process, error) {
	config := nodeConfig{
		Cluster: fmt.Sprintf("peerlimit-demo-%d", os.Getpid()), // nodes of another run are strangers, whatever their ports
		Name:    d.nextName(), Rate: d.options.rate, Burst: d.options.burst, Keys: keyNames(),
		Log: slog.LevelError, // what else is to be told the narrator tells
	}
	for _, p := range d.live() {
		if config.Seeds = append(config.Seeds, p.info.Gossip); len(config.Seeds) == 2 {
			break // one more than needed, for the case that the first is ending
		}
	}
	p, err := startProcess(config, d.onReport, d.onEnd)
	if err != nil {
		return nil, err
	}
	d.mu.Lock()
	d.nodes = append(d.nodes, p)
	d.mu.Unlock()
	return p, nil
}

// waitUp returns when a node serves.
func (d *demo) waitUp(ctx context.Context, p *process) error {
	timer := time.NewTimer(startTimeout)
	defer timer.Stop()
	select {
	case <-p.ready:
		return nil
	case <-p.ended:
		return p.failure()
	case <-timer.C:
		return fmt.Errorf("%s is not up after %v", p.name, startTimeout)
	case <-ctx.Done():
		return ctx.Err()
	}
}

// live returns the nodes that nothing was done to, in the order in which they were started.
func (d *demo) live() []*process {
	d.mu.Lock()
	defer d.mu.Unlock()
	var live []*process
	for _, p := range d.nodes {
		if p.fate.Load() == alive {
			live = append(live, p)
		}
	}
	return live
}

// waitReady returns when a node sees all that are alive, and reaches them.
func (d *demo) waitReady(ctx context.Context, p *process) error {
	path := fmt.Sprintf("/ready?members=%d", len(d.live()))
	return d.ask(ctx, p, path, nil)
}

// ownerOf asks a node who owns a key.
func (d *demo) ownerOf(ctx context.Context, key string) (*process, error) {
	live := d.live()
	var answer ownerAnswer
	if err := d.ask(ctx, live[0], "/owner?key="+url.QueryEscape(key), &answer); err != nil {
		return nil, err
	}
	for _, p := range live {
		if p.name == answer.Owner {
			return p, nil
		}
	}
	return nil, fmt.Errorf("%w: %s says that %s is with %q", errOwnerGone, live[0].name, key, answer.Owner)
}

var errOwnerGone = errors.New("the owner is not there any more")

// ask makes an HTTP request that is not load. The answer may be nil.
func (d *demo) ask(ctx context.Context, p *process, path string, answer any) error {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, p.info.HTTP+path, nil) // #nosec G704 -- an address that a child of ours printed
	if err != nil {
		return err
	}
	response, err := d.control.Do(request) // #nosec G704 -- an address that a child of ours printed
	if err != nil {
		return fmt.Errorf("asking %s: %w", p.name, err)
	}
	defer response.Body.Close()
	if response.StatusCode/100 != 2 {
		return fmt.Errorf("asking %s: %s answers %s", p.name, path, response.Status)
	}
	if answer == nil {
		return nil
	}
	return json.NewDecoder(response.Body).Decode(answer)
}

// onReport is told what a node reports.
func (d *demo) onReport(p *process, r nodeReport) {
	switch {
	case r.View != nil:
		d.timeline.update(p.name, *r.View)
	case r.Event != nil && d.isNews(p, *r.Event):
		d.narrator.hear(p.name, *r.Event)
	}
}

// isNews reports whether what a node noticed is worth telling: not how the cluster came together, how the world looks to a
// node that goes, that a newcomer finds the others, or that the connection to one that leaves is closed.
func (d *demo) isNews(p *process, e nodeEvent) bool {
	switch {
	case d.clock.elapsed() == 0, p.fate.Load() != alive:
		return false
	case e.Kind == peerlimit.EventMemberJoined:
		return d.timeline.isStarting(e.Member)
	case e.Kind == peerlimit.EventLinkDown:
		return !d.isLeaving(e.Member)
	}
	return true
}

func (d *demo) isLeaving(name string) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return slices.ContainsFunc(d.nodes, func(p *process) bool { return p.name == name && p.fate.Load() == leaving })
}

// onEnd is told when a process is gone.
func (d *demo) onEnd(p *process) {
	d.timeline.gone(p.name)
	if err := p.failure(); err != nil {
		select {
		case d.died <- err:
		default: // one is enough
		}
	}
}

// cast describes the nodes.
func (d *demo) cast() []castMember {
	var cast []castMember
	for _, p := range d.live() {
		m := castMember{Name: p.name, PID: p.cmd.Process.Pid, URL: p.info.HTTP}
		for _, key := range keyNames() {
			if d.timeline.owner(key) == p.name {
				m.Owns = append(m.Owns, key)
			}
		}
		cast = append(cast, m)
	}
	return cast
}

// stopNodes ends all processes and returns when they are gone.
func (d *demo) stopNodes() {
	d.mu.Lock()
	nodes := d.nodes
	d.mu.Unlock()
	var stopping sync.WaitGroup
	for _, p := range nodes {
		stopping.Go(p.stop)
	}
	stopping.Wait()
}
