package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/peerlimit/peerlimit"
)

// command is what somebody who looks at the page wants done.
type command struct {
	Do    string  `json:"do"`    // one of those in commands
	Node  string  `json:"node"`  // of those about one
	Rate  float64 `json:"rate"`  // of limit
	Burst float64 `json:"burst"` // of limit
	Load  float64 `json:"load"`  // of load: by what the demand is multiplied
}

// commands are what can be done. Each is done alone.
var commands = map[string]func(d *demo, ctx context.Context, c command, joining *sync.WaitGroup) error{
	"kill":   (*demo).killNode,
	"freeze": (*demo).freezeNode,
	"wake":   (*demo).wakeNode,
	"retire": (*demo).retireNode,
	"start":  (*demo).startNew,
	"split":  (*demo).splitNetwork,
	"heal":   (*demo).healNetwork,
	"limit":  (*demo).changeLimit,
	"load":   (*demo).changeLoad,
}

// ErrRefused is matched by the error of a command that cannot be done as things are, or makes no sense.
var errRefused = errors.New("refused")

func refused(format string, values ...any) error {
	return fmt.Errorf("%w: %s", errRefused, fmt.Sprintf(format, values...))
}

const (
	maxLive = maxNodes + 1
	maxLoad = 10
)

// order is a command on its way.
type order struct {
	command
	done chan error // capacity 1: what came of it
}

// orderTimeout is for how long an order waits for those before it.
const orderTimeout = 10 * time.Second

// order has a command obeyed.
func (d *demo) order(ctx context.Context, c command) error {
	ctx, cancel := context.WithTimeout(ctx, orderTimeout)
	defer cancel()
	o := order{c, make(chan error, 1)}
	select {
	case d.orders <- o:
		return <-o.done
	case <-ctx.Done():
		return refused("nothing is done before the load begins and after it ends, and now something else takes long")
	}
}

// obeyAll obeys orders, one after the other, until ctx ends.
func (d *demo) obeyAll(ctx context.Context) {
	var joining sync.WaitGroup
	defer joining.Wait()
	for {
		select {
		case o := <-d.orders:
			o.done <- d.obey(ctx, o.command, &joining)
		case <-ctx.Done():
			return
		}
	}
}

// obey does what somebody wants done. What is still joining when it returns is waited for by joining.
func (d *demo) obey(ctx context.Context, c command, joining *sync.WaitGroup) error {
	do, ok := commands[c.Do]
	if !ok {
		return refused("do is %q; there is no such command", c.Do)
	}
	return d.alone(ctx, func() error { return do(d, ctx, c, joining) })
}

// named returns the live node of a command that takes one away, if enough are left without it.
func (d *demo) named(c command) (*process, error) {
	live := d.live()
	i := slices.IndexFunc(live, func(p *process) bool { return p.name == c.Node })
	switch {
	case i < 0:
		return nil, refused("node is %q, which is not running", c.Node)
	case len(live) == 1:
		return nil, refused("%s is the last one: start another before", c.Node)
	}
	return live[i], d.whole()
}

// whole returns an error while the network is split.
func (d *demo) whole() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if len(d.apart) > 0 {
		return refused("the network is split: heal it before")
	}
	return nil
}

// role tells what a node is, for people.
func (d *demo) role(p *process) string {
	var owns []string
	for _, key := range keyNames() {
		if d.timeline.owner(key) == p.name {
			owns = append(owns, key)
		}
	}
	if len(owns) == 0 {
		return "which owns none of the keys"
	}
	return "the owner of " + list(owns)
}

func (d *demo) killNode(_ context.Context, c command, _ *sync.WaitGroup) error {
	p, err := d.named(c)
	if err != nil {
		return err
	}
	return d.kill(p, d.role(p))
}

func (d *demo) retireNode(_ context.Context, c command, _ *sync.WaitGroup) error {
	p, err := d.named(c)
	if err != nil {
		return err
	}
	return d.retire(p, d.role(p))
}

// freezeNode stops a node where it is, as a suspended virtual machine is. A client that has sent it requests gives up on them.
func (d *demo) freezeNode(_ context.Context, c command, _ *sync.WaitGroup) error {
	p, err := d.named(c)
	if err != nil {
		return err
	}
	d.timeline.begin(frozen, p.name)
	d.narrator.did("FREEZE %s, %s: SIGSTOP to process %d", p.name, d.role(p), p.cmd.Process.Pid)
	if err := p.freeze(); err != nil {
		return fmt.Errorf("freezing %s: %w", p.name, err)
	}
	d.timeline.gone(p.name)
	d.driver.abandon(p)
	return nil
}

// wakeNode lets a node go on. It believes that no time has passed.
func (d *demo) wakeNode(ctx context.Context, c command, joining *sync.WaitGroup) error {
	p := d.find(c.Node)
	if p == nil || p.fate.Load() != stopped {
		return refused("node is %q, which is not frozen", c.Node)
	}
	if err := d.whole(); err != nil {
		return err
	}
	d.timeline.begin(woken, p.name)
	d.narrator.did("WAKE %s: SIGCONT to process %d", p.name, p.cmd.Process.Pid)
	if err := p.wake(); err != nil {
		return fmt.Errorf("waking %s: %w", p.name, err)
	}
	limit := d.currentLimit() // it may have been changed
	if err := d.instruct(ctx, p, "/limit", limitOrder{limit.Tokens, limit.Burst}); err != nil {
		return err
	}
	joining.Go(func() { d.admit(ctx, p) })
	return nil
}

func (d *demo) startNew(ctx context.Context, _ command, joining *sync.WaitGroup) error {
	if n := len(d.live()); n >= maxLive {
		return refused("there are %d nodes already", n)
	}
	if err := d.whole(); err != nil {
		return err
	}
	return d.startAnother(ctx, joining)
}

// splitNetwork cuts the smaller half off from the others, the owner of the hottest key among them.
func (d *demo) splitNetwork(ctx context.Context, _ command, _ *sync.WaitGroup) error {
	live := d.live()
	if len(live) < 3 {
		return refused("there are %d nodes; a split needs 3, so that one side is smaller", len(live))
	}
	if err := d.whole(); err != nil {
		return err
	}
	owner := d.timeline.owner(hottest())
	slices.SortStableFunc(live, func(a, b *process) int { return boolean(b.name == owner) - boolean(a.name == owner) })
	smaller, larger := live[:(len(live)-1)/2], live[(len(live)-1)/2:]
	names := namesOf(smaller)
	d.mu.Lock()
	d.apart = names
	d.mu.Unlock()
	d.timeline.begin(split, names...)
	d.narrator.did("SPLIT: nothing passes between %s and the others; clients still reach all", list(names))
	return errors.Join(d.cut(ctx, smaller, larger), d.cut(ctx, larger, smaller))
}

// cut has nodes refuse what goes to others.
func (d *demo) cut(ctx context.Context, nodes, from []*process) error {
	var o cutOrder
	for _, p := range from {
		o.Addresses = append(o.Addresses, p.info.Gossip, p.info.RPC)
	}
	var errs []error
	for _, p := range nodes {
		errs = append(errs, d.instruct(ctx, p, "/cut", o))
	}
	return errors.Join(errs...)
}

func (d *demo) healNetwork(ctx context.Context, _ command, _ *sync.WaitGroup) error {
	d.mu.Lock()
	apart := d.apart
	d.mu.Unlock()
	if len(apart) == 0 {
		return refused("the network is not split")
	}
	d.narrator.did("HEAL: all nodes reach each other again")
	err := d.cut(ctx, d.live(), nil)
	d.mu.Lock()
	d.apart = nil
	d.mu.Unlock()
	d.timeline.healed()
	return err
}

// changeLimit changes the limit of all keys. What was admitted until now is judged by the old one, and what is asked for
// from when all nodes know the new one by that. In between each node takes the one it knows, and nothing is judged.
func (d *demo) changeLimit(ctx context.Context, c command, _ *sync.WaitGroup) error {
	o := options{nodes: 1, rate: c.Rate, burst: c.Burst, duration: minDuration}
	if err := o.validate(); err != nil {
		return refused("%s", strings.TrimPrefix(err.Error(), "-"))
	}
	limit := peerlimit.PerSecond(c.Rate).WithBurst(c.Burst)
	before := judge(d.evidence())
	if !before.held() {
		d.fault(fmt.Errorf("the limit until %.1f s was not held", before.To.Seconds()))
	}
	d.narrator.judged(before)
	d.recorder.judgeBy(limit, never)
	d.narrator.did("LIMIT: %s requests/s for each key, bursts of %s", amount(c.Rate), amount(c.Burst))
	var errs []error
	for _, p := range d.live() {
		errs = append(errs, d.instruct(ctx, p, "/limit", limitOrder{c.Rate, c.Burst}))
	}
	now := d.clock.elapsed()
	d.mu.Lock()
	d.limit, d.since = limit, now
	d.mu.Unlock()
	d.recorder.judgeBy(limit, now)
	d.driver.setRate(c.Rate)
	return errors.Join(errs...)
}

func (d *demo) changeLoad(_ context.Context, c command, _ *sync.WaitGroup) error {
	if !(c.Load >= 0) || c.Load > maxLoad {
		return refused("load is %v; it must be from 0 to %d", c.Load, maxLoad)
	}
	d.mu.Lock()
	d.load = c.Load
	d.mu.Unlock()
	d.narrator.did("LOAD: %s times what it was at the beginning", amount(c.Load))
	d.driver.setLoad(c.Load)
	return nil
}

// find returns the node of a name that was ever started, or nil.
func (d *demo) find(name string) *process {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, p := range d.nodes {
		if p.name == name {
			return p
		}
	}
	return nil
}

func namesOf(nodes []*process) []string {
	names := make([]string, len(nodes))
	for i, p := range nodes {
		names[i] = p.name
	}
	return names
}

func boolean(b bool) int {
	if b {
		return 1
	}
	return 0
}
