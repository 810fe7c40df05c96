package main

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"
)

// act is something that is done to the cluster, at a part of the run's duration.
type act struct {
	at float64
	do func(d *demo, ctx context.Context, joining *sync.WaitGroup) error
}

// acts leave time between them, so that each can be seen by itself: others take over from a dead node within a second, and
// gossip takes some more to be sure of it. They lie beside whole seconds of the default duration, so that a line of the
// output is either before or after.
var acts = []act{
	{0.16, (*demo).killOwner},
	{0.61, (*demo).startAnother},
	{0.785, (*demo).retireOwner},
}

// act does what is to be done, until ctx ends.
func (d *demo) act(ctx context.Context) {
	var joining sync.WaitGroup
	defer joining.Wait()
	for _, a := range acts {
		timer := time.NewTimer(time.Duration(a.at*float64(d.options.duration)) - d.clock.elapsed())
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return
		}
		err := d.alone(ctx, func() error { return a.do(d, ctx, &joining) })
		if err != nil && ctx.Err() == nil {
			d.fault(err)
		}
	}
}

// alone does something to the nodes while nothing else is done to them.
func (d *demo) alone(ctx context.Context, do func() error) error {
	select {
	case d.acting <- struct{}{}:
		defer func() { <-d.acting }()
		return do()
	case <-ctx.Done():
		return ctx.Err()
	}
}

// hottest is the key that is asked for most.
func hottest() string { return demands[0].key }

// killOwner kills the owner of the hottest key.
func (d *demo) killOwner(ctx context.Context, _ *sync.WaitGroup) error {
	p, err := d.ownerOf(ctx, hottest())
	if err != nil {
		return err
	}
	return d.kill(p, "the owner of "+hottest())
}

// kill ends a node with SIGKILL.
func (d *demo) kill(p *process, role string) error {
	d.timeline.begin(killed, p.name)
	d.narrator.did("KILL %s, %s: SIGKILL to process %d", p.name, role, p.cmd.Process.Pid)
	if err := p.kill(); err != nil {
		return fmt.Errorf("killing %s: %w", p.name, err)
	}
	return nil
}

// startAnother adds a node. It gets requests when it is ready, which may be after this returns, but not after joining: a
// newcomer that still takes the dead node for a member waits for it.
func (d *demo) startAnother(ctx context.Context, joining *sync.WaitGroup) error {
	d.timeline.begin(started, d.nextName())
	p, err := d.startNode()
	if err != nil {
		return err
	}
	d.narrator.did("START %s as process %d, which joins the others", p.name, p.cmd.Process.Pid)
	if err := d.waitUp(ctx, p); err != nil {
		return err
	}
	joining.Go(func() { d.admit(ctx, p) })
	return nil
}

// admit has requests sent to a node when it is ready.
func (d *demo) admit(ctx context.Context, p *process) {
	switch err := d.waitReady(ctx, p); {
	case p.fate.Load() != alive: // something else was done to it meanwhile
	case err == nil:
		d.narrator.came("%s is ready at %s and gets requests, too", p.name, p.info.HTTP)
		d.driver.add(p)
	case ctx.Err() == nil:
		d.fault(err)
	}
}

// retireOwner asks the owner of the hottest key to leave. In a short run the owner may still be the killed node, for all
// the others know; then the oldest leaves.
func (d *demo) retireOwner(ctx context.Context, _ *sync.WaitGroup) error {
	p, err := d.ownerOf(ctx, hottest())
	role := "the owner of " + hottest()
	if errors.Is(err, errOwnerGone) {
		p, role, err = d.live()[0], "the oldest", nil
	}
	if err != nil {
		return err
	}
	return d.retire(p, role)
}

// retire asks a node to leave, as a rolling deploy does: no more requests, then SIGTERM.
func (d *demo) retire(p *process, role string) error {
	d.driver.drop(p)
	d.timeline.begin(retired, p.name)
	d.narrator.did("LEAVE %s, %s: it gets no more requests, and SIGTERM", p.name, role)
	if err := p.askToLeave(); err != nil {
		return fmt.Errorf("asking %s to leave: %w", p.name, err)
	}
	return nil
}
