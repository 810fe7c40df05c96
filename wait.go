package peerlimit

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync/atomic"
	"time"

	"github.com/peerlimit/peerlimit/internal/limit"
	"github.com/peerlimit/peerlimit/internal/rule"
	"github.com/peerlimit/peerlimit/internal/waits"
	"github.com/peerlimit/peerlimit/internal/wire"
	"github.com/peerlimit/peerlimit/transport"
)

// Waiting. Those that wait stand in a queue at the bucket, which is with the holder of the key, and pay when their turn has come
// (see internal/limit/turns.go). A reservation is paid for when it is made, and keeps its turn whatever the others do.

// Reservation is a take that was granted for later. It is spent unless Cancel is called. It is safe for concurrent use.
type Reservation struct {
	due      time.Time
	decision Decision

	// cancel gives the tokens back; nil when there is nothing to give back.
	cancel    func()
	cancelled atomic.Bool
}

// Delay returns how long to wait from now until the reservation may be acted upon; 0 when it may be acted upon now.
func (r *Reservation) Delay() time.Duration { return max(0, time.Until(r.due)) }

// Decision returns what was decided when the reservation was made; its Delay is as of that moment.
func (r *Reservation) Decision() Decision { return r.decision }

// Cancel says that the reservation will not be used. Its tokens go back to the bucket. When something was taken or reserved
// behind it, that keeps its turn, and the turn of the cancelled reservation is the next caller's that waits or reserves; when
// all those behind it cancel too, everything goes back. Only the first call has an effect.
func (r *Reservation) Cancel() {
	if r.cancel != nil && !r.cancelled.Swap(true) {
		r.cancel()
	}
}

// sleep waits until the reservation is due or ctx ends; then it cancels the reservation and returns ctx.Err().
func (r *Reservation) sleep(ctx context.Context) error {
	wait := r.Delay()
	if wait == 0 {
		return nil
	}
	timer := time.NewTimer(wait)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		if r.Delay() == 0 { // both came at once: the turn has come
			return nil
		}
		r.Cancel()
		return ctx.Err()
	}
}

// turnWanted is what one that waits asks for.
type turnWanted struct {
	cost  float64
	total float64   // of all instalments that are still to come, this one among them
	end   time.Time // it fails immediately when the last of them would come later
}

// turnOf returns what a caller asks for that waits for at most maxWait, and until the deadline of ctx.
func turnOf(ctx context.Context, cost float64, maxWait time.Duration) turnWanted {
	w := turnWanted{cost: cost, total: cost, end: time.Now().Add(maxWait)}
	if deadline, ok := ctx.Deadline(); ok && deadline.Before(w.end) {
		w.end = deadline
	}
	return w
}

// waitInTurn takes cost in instalments that the smallest burst allows and returns when the turn of the last has come. It fails
// immediately, having spent nothing, when that would be after the context's deadline or later than maxWait from now.
func waitInTurn(ctx context.Context, set *limit.Set, cost float64, maxWait time.Duration, await func(turnWanted) error) error {
	if err := validateCost(cost); err != nil {
		return err
	}
	instalment := set.SmallestBurst()
	if cost-instalment == cost {
		return fmt.Errorf("%w: cost %v is too many instalments of the burst, %v, to be counted", ErrExceedsBurst, cost, instalment)
	}
	if needed := set.Takes(cost); needed > maxWait {
		return fmt.Errorf("%w: cost %v takes %v even from a full bucket; at most %v is waited", ErrExceedsMaxWait, cost, needed, maxWait)
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	w := turnOf(ctx, cost, maxWait)
	for {
		w.cost = w.total
		if !set.Fits(w.cost) {
			w.cost = instalment
		}
		if err := await(w); err != nil {
			return err
		}
		if w.total -= w.cost; w.total <= 0 {
			return nil
		}
		if err := leak(ctx, set, w.cost); err != nil {
			return err
		}
		if err := ctx.Err(); err != nil && !time.Now().Equal(w.end) { // at the very deadline the last turn is still in time
			return err
		}
	}
}

// leak sleeps until part has left every leaky bucket of the set: a next instalment would find them full of the last.
func leak(ctx context.Context, set *limit.Set, part float64) error {
	r := Reservation{due: time.Now().Add(set.LeakTime(part))}
	return r.sleep(ctx)
}

// Waiting at a Limiter. The caller's node asks for a turn the way of every take. The holder decides immediately, or puts
// it into the bucket's queue and tells the node when its turn has come. A holder that ceases to be one tells all to ask again;
// each says how long it has waited, so that the order stays. While no holder can be reached a share decides; one that has
// nothing to give out is no reason to fail before the end.

const (
	// renewInterval is how often one that is queued asks again. The holder serves it for limit.TurnExpiry after that.
	renewInterval = time.Second

	// minAsk and maxAsk bound the time between two requests of one that is queued nowhere.
	minAsk = 10 * time.Millisecond
	maxAsk = time.Second

	// soonAgain is when one asks again that was told to: not all of them at one moment.
	soonAgain = time.Millisecond
)

// awaiting is a caller that waits for one turn.
type awaiting struct {
	limiter *Limiter
	rule    *rule.Rule
	key     string
	wanted  turnWanted
	began   int64
	wait    *waits.Wait
	waits   bool      // its turn was in time when it first asked
	at      canceller // where it is queued; nil when nowhere
	asked   wire.Turn // what it asked for last
	pause   time.Duration
}

// await waits for one turn at key's bucket.
func (l *Limiter) await(ctx context.Context, r *rule.Rule, key string, w turnWanted) (Decision, error) {
	n := l.node
	a := &awaiting{limiter: l, rule: r, key: key, wanted: w, began: n.now(), wait: n.waits.Begin(), pause: minAsk}
	d, err := a.run(ctx)
	if _, here := a.at.(localCanceller); here && err != nil {
		a.leave() // this node gives the turns that have come by now before
	}
	if last, granted := n.waits.End(a.wait); granted && err != nil {
		d, err = last.Decision, nil // both came together: the turn has come
	} else if err != nil {
		a.leave() // if its turn has come and this node has not heard of it, the tokens go back
	}
	if err == nil || errors.Is(err, ErrLimited) {
		l.decided(key, w.cost, &d)
	}
	return l.told(&d), err
}

// run returns when the turn has come, or why it will not.
func (a *awaiting) run(ctx context.Context) (limit.Decision, error) {
	n := a.limiter.node
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		changed, soon := n.watch(), false
		rep, err := a.ask(ctx)
		d := rep.Decision
		switch {
		case err != nil:
			return d, err
		case rep.isQueued():
			woken, told := a.toldMeanwhile()
			if woken.Granted {
				return woken.Decision, nil
			}
			soon = told
		case d.Allowed && d.Delay <= max(0, time.Until(a.wanted.end)):
			return d, a.sleep(ctx, &rep)
		case d.Allowed:
			a.giveBack(&rep) // it would come too late
		case rep.QueueFull && !a.waits:
			return d, queueFull(a.limiter.told(&d))
		case !byShare(&d) && !rep.QueueFull:
			return d, a.limiter.told(&d).Err()
		}
		timer.Reset(a.untilNext(&rep, soon))
		woken, err := a.sleepUntilWoken(ctx, timer.C, changed)
		if woken.Granted || err != nil {
			return woken.Decision, err
		}
		if time.Until(a.wanted.end) <= 0 {
			return a.tooLate(ctx)
		}
	}
}

// toldMeanwhile returns what it was told while it asked.
func (a *awaiting) toldMeanwhile() (woken wire.Wake, told bool) {
	select {
	case woken = <-a.wait.Woken:
		told = true
	default:
	}
	if woken.Granted {
		a.leaveAs(a.asked) // the node that answered may not know of that; one that does keeps what it was paid
	}
	return woken, told
}

// ask asks for the turn, or renews what was asked.
func (a *awaiting) ask(ctx context.Context) (reply, error) {
	l := a.limiter
	before := a.asked
	a.asked = a.turn()
	m := wire.Message{
		Kind: wire.KindAwait, Rule: a.rule.Encoded, Key: a.key, Cost: a.wanted.cost, Total: a.wanted.total,
		MaxDelay: max(0, time.Until(a.wanted.end)), Turn: a.asked,
	}
	if a.waits {
		m.MaxDelay = foreverWait // what is too late is found out at the end
	}
	rep, err := l.send(ctx, a.rule, &m)
	if err != nil {
		if a.at == nil {
			a.at = cancellerAtOwner(l.node, a.rule, a.key) // it may be queued there
		}
		return rep, err
	}
	at := rep.at
	if !rep.isQueued() {
		at = nil
	}
	if a.at != nil && a.at != at {
		a.leaveAs(before) // where it has asked again it stays
	}
	a.at, a.waits = at, a.waits || at != nil
	if rep.Status == wire.StatusQueued {
		a.pause = minAsk
	}
	return rep, err
}

// isQueued reports whether what asked stands in a queue.
func (r *reply) isQueued() bool { return r.Status == wire.StatusQueued || r.Status == wire.StatusUnmet }

func (a *awaiting) turn() wire.Turn {
	n := a.limiter.node
	return wire.Turn{Node: n.identity, Number: a.wait.Number, Waited: time.Duration(n.now() - a.began)}
}

// leave leaves the queue for good.
func (a *awaiting) leave() { a.leaveAs(a.turn()) }

// leaveAs leaves the queue, unless it has asked there since the turn was asked for.
func (a *awaiting) leaveAs(turn wire.Turn) {
	if a.at != nil {
		a.at.cancel(wire.Message{Kind: wire.KindLeaveTurn, Rule: a.rule.Encoded, Key: a.key, Turn: turn})
		a.at = nil
	}
}

// untilNext returns how long to wait until the next request, which is soon when it was told to ask again: until the end at most.
func (a *awaiting) untilNext(rep *reply, soon bool) time.Duration {
	next := renewInterval
	switch {
	case soon:
		next = soonAgain
	case a.at == nil, rep.Status == wire.StatusUnmet:
		next = a.pause
		if retry := rep.Decision.RetryAfter; retry > 0 {
			next = max(min(retry, maxAsk), minAsk)
		}
		a.pause = min(2*a.pause, maxAsk)
	}
	return max(0, min(jittered(next), time.Until(a.wanted.end)))
}

// jittered returns a duration of up to a quarter more than d, so that those that begin together do not ask together.
func jittered(d time.Duration) time.Duration {
	return d + time.Duration(rand.Int64N(int64(d)/4+1)) // #nosec G404 -- nothing depends on it but the load
}

// sleepUntilWoken returns when it is time to ask again, or with the turn.
func (a *awaiting) sleepUntilWoken(ctx context.Context, timer <-chan time.Time, changed <-chan struct{}) (wire.Wake, error) {
	n := a.limiter.node
	for {
		select {
		case woken := <-a.wait.Woken:
			if !woken.Granted {
				return woken, a.sleepFor(ctx, jittered(soonAgain))
			}
			return woken, nil
		case <-timer:
			return wire.Wake{}, nil
		case <-changed:
			if a.at == nil || !a.at.inReach() {
				return wire.Wake{}, a.sleepFor(ctx, jittered(minAsk))
			}
			changed = n.watch()
		case <-ctx.Done():
			return wire.Wake{}, ctx.Err()
		case <-n.stop:
			return wire.Wake{}, ErrClosed
		}
	}
}

// sleep waits until the turn that was granted for later has come, and takes it back when ctx ends first.
func (a *awaiting) sleep(ctx context.Context, rep *reply) error {
	if rep.Decision.Delay <= 0 {
		return nil
	}
	err := a.sleepFor(ctx, rep.Decision.Delay)
	if err != nil {
		a.giveBack(rep)
	}
	return err
}

// giveBack takes back what was granted for later.
func (a *awaiting) giveBack(rep *reply) {
	if rep.Undo != nil && rep.at != nil {
		rep.at.cancel(wire.Message{Kind: wire.KindCancel, Rule: a.rule.Encoded, Key: a.key, Undo: rep.Undo})
	}
}

func (a *awaiting) sleepFor(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	case <-a.limiter.node.stop:
		return ErrClosed
	}
}

// tooLate is what a wait ends with that has lasted as long as it may.
func (a *awaiting) tooLate(ctx context.Context) (limit.Decision, error) {
	if deadline, ok := ctx.Deadline(); ok && !deadline.After(a.wanted.end) {
		<-ctx.Done() // now
		return limit.Decision{}, ctx.Err()
	}
	d := a.rule.Set.Refusal(a.wanted.cost)
	return d, a.limiter.told(&d).Err()
}

// byShare reports whether a decision was made without the holder.
func byShare(d *limit.Decision) bool {
	return d.Origin == limit.OriginStandby || d.Origin == limit.OriginFallback
}

// watch returns what is closed when members or links change, or what this node holds.
func (n *Node) watch() <-chan struct{} {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.changed
}

// noteUnmet has one that was queued here ask again soon when its node cannot be told that its turn has come: this one has not met
// it, or has no connection to it.
func (o others) noteUnmet(m *wire.Message, ans *wire.Response) {
	node := m.Turn.Node
	if ans.Status != wire.StatusQueued || node == o.node.identity {
		return
	}
	state := o.node.client.State(node)
	if o.node.route.Load().others[node] == nil || state != transport.LinkUp && state != transport.LinkSuspect {
		ans.Status = wire.StatusUnmet
	}
}

// wake tells a caller of another node that its turn has come, or to ask again. A node without a connection is not told: it has ended,
// or its callers ask again when it is linked. Callers that are told too much at once ask again in time.
func (o others) wake(w *wire.Wake) {
	n := o.node
	p := n.route.Load().others[w.Turn.Node]
	switch {
	case p == nil && !n.membership.Departed()[w.Turn.Node]:
		return // this node has not met it yet: its callers ask again soon
	case p != nil:
		if err := n.client.Post(p.Peer, wire.AppendWake(nil, w)); err == nil || errors.Is(err, transport.ErrBusy) {
			return
		}
	}
	n.table.DismissNode(w.Turn.Node, n.now())
}

// onWake takes in what a holder tells one that waits here.
func (s server) onWake(from string, request, response []byte) []byte {
	w, err := wire.DecodeWake(request)
	if err == nil && w.Turn.Node != s.node.identity {
		err = fmt.Errorf("%w: a turn of another node's", wire.ErrMalformed)
	}
	if err != nil {
		return s.refuse(response, from, err)
	}
	if w.Decision.Origin == limit.OriginLocal {
		w.Decision.Origin = limit.OriginRemote // local to the node that decided
	}
	s.node.waits.Tell(&w)
	return nil
}
