package main

import (
	"bytes"
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
)

// demo is one run: it starts the nodes, sends the load, does the chaos, and judges.
type demo struct {
	options  options
	observer observer
	clock    *clock
	timeline *timeline
	recorder *recorder
	driver   *driver
	narrator *narrator
	control  *http.Client  // for requests that are not load
	died     chan error    // capacity 1: the first node that ended by itself
	acting   chan struct{} // capacity 1: holds something while something is done to the nodes
	orders   chan order    // what somebody who looks at the page wants done

	mu     sync.Mutex      // guards what follows
	limit  peerlimit.Limit // of each key
	since  time.Duration   // when it became that
	load   float64         // multiplies what is asked for
	apart  []string        // the nodes on the smaller side of a split; none when the network is whole
	nodes  []*process      // all that were ever started, in order
	faults []error         // what went wrong but for the load
}

// startTimeout bounds every step of starting nodes.
const startTimeout = 20 * time.Second

func newDemo(o options, out observer) *demo {
	d := &demo{
		options: o, observer: out, clock: new(clock), died: make(chan error, 1), acting: make(chan struct{}, 1), orders: make(chan order),
		limit:   peerlimit.PerSecond(o.rate).WithBurst(o.burst),
		load:    1,
		control: &http.Client{Timeout: startTimeout},
	}
	d.recorder = newRecorder(d.limit)
	d.driver = newDriver(d.clock, d.recorder, o.rate)
	d.narrator = newNarrator(out, d.clock, d.recorder, d.allKeysLimit)
	d.timeline = newTimeline(d.clock.elapsed, d.narrator.settled)
	return d
}

// show has the run shown to another observer as well.
func (d *demo) show(o observer) {
	d.observer = audience{d.observer, o}
	d.narrator.observer = d.observer
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
	if d.options.page != "" {
		acting.Go(func() { d.obeyAll(load) })
	}
	select {
	case <-load.Done():
	case err := <-d.died:
		d.fault(err)
		endLoad()
	}
	acting.Wait()
	d.narrator.stop()
	narrating.Wait()

	v := judge(d.evidence())
	d.observer.Judged(v)
	return v, nil
}

// allKeysLimit is what the limits of all keys allow together, per second.
func (d *demo) allKeysLimit() float64 {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.limit.Tokens * float64(len(demands))
}

// evidence is what there is to be judged, up to now.
func (d *demo) evidence() evidence {
	now := d.clock.elapsed()
	e := evidence{to: now, disturbances: d.disturbances(now), recorder: d.recorder.judged()}
	e.reports = d.timeline.told() // after what was recorded: a node reports before it answers
	d.mu.Lock()
	defer d.mu.Unlock()
	e.limit, e.from, e.faults, e.anyLoad = d.limit, d.since, slices.Clone(d.faults), d.options.page != ""
	return e
}

// fault notes that something went wrong.
func (d *demo) fault(err error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.faults = append(d.faults, err)
}

// disturbances returns what was done, and for the keys that a crash took the owner from what it may have cost them.
func (d *demo) disturbances(end time.Duration) []disturbance {
	all := d.timeline.until(end)
	for i, x := range all {
		if x.Kind == split || x.Kind == woken {
			all[i].Until = min(x.Until+linksUp, end)
		}
		for key, m := range x.Moved {
			switch x.Kind {
			case killed, frozen:
				m.Resumed = d.recorder.resumed(key, x.Gone)
				m.Unsent = d.recorder.admittedIn(key, x.At-replicaInterval, min(x.Gone, x.Until))
			case split:
				m.Unsent = d.recorder.admittedIn(key, x.At-replicaInterval, x.At+quorumLasts)
			}
			x.Moved[key] = m
		}
	}
	return all
}

// linksUp is how long after all agree on a ring those that were apart have connections to each other again, with some to
// spare: so long they may decide by their shares.
const linksUp = 2 * time.Second

// startCluster starts the first nodes, and waits until they agree on the owners.
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
		return fmt.Errorf("the nodes do not agree on the owners of the keys after %v", startTimeout)
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

func (d *demo) currentLimit() peerlimit.Limit {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.limit
}

// startNode starts the next node, and does not wait for it to be up.
func (d *demo) startNode() (*process, error) {
	limit := d.currentLimit()
	config := nodeConfig{
		Cluster: fmt.Sprintf("peerlimit-demo-%d", os.Getpid()), // nodes of another run are not let in, whatever their ports
		Name:    d.nextName(), Rate: limit.Tokens, Burst: limit.Burst, Keys: keyNames(),
		Log:      slog.LevelError, // what else is to be told the narrator tells
		Cuttable: d.options.page != "",
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

// ownerOf asks a node for the owner of a key.
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

// instruct tells a node to do something.
func (d *demo) instruct(ctx context.Context, p *process, path string, what any) error {
	body, err := json.Marshal(what)
	if err != nil {
		return err
	}
	return d.exchange(ctx, http.MethodPost, p, path, body, nil)
}

// ask makes an HTTP request that is not load. The answer may be nil.
func (d *demo) ask(ctx context.Context, p *process, path string, answer any) error {
	return d.exchange(ctx, http.MethodGet, p, path, nil, answer)
}

func (d *demo) exchange(ctx context.Context, method string, p *process, path string, body []byte, answer any) error {
	request, err := http.NewRequestWithContext(ctx, method, p.info.HTTP+path, bytes.NewReader(body)) // #nosec G704 -- an address that a child of ours printed
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
	case r.Event != nil:
		d.timeline.heard(p.name, *r.Event, d.clock.of(r.Event.Time))
		if d.isNews(p, *r.Event) {
			d.narrator.hear(p.name, *r.Event)
		}
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
