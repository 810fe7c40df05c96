package sim

import (
	"context"
	"net"
	"net/netip"
	"os"
	"sync"
	"syscall"
	"time"
)

// Dialling, as Linux does it by default: ask again after 1, 2, 4 … s, and give
// up at the seventh silence in a row, 127 s after the start.
const (
	firstDialWait = time.Second
	dialAttempts  = 7
)

// A dialing is one Dial on its way. Guarded by the network's lock.
type dialing struct {
	host          *Host
	local, remote netip.AddrPort
	there, back   *link
	attempts      int
	client        *conn // set when the far kernel has accepted
	refused       bool
	answered      bool // a response has arrived: client or refused
	silent        bool // gave up
	changed       sync.Cond

	request, answer, retry event
}

// Dial opens a stream to addr, "ip:port", which takes one round trip. Nobody
// listening there gives syscall.ECONNREFUSED; a silent address (cut off,
// powered off, never started, backlog full) is waited for until ctx ends, or
// for 127 s and then syscall.ETIMEDOUT. Names are not resolved.
func (h *Host) Dial(ctx context.Context, addr string) (net.Conn, error) {
	fail := func(err error) (net.Conn, error) {
		return nil, &net.OpError{Op: "dial", Net: "tcp", Addr: textAddr{"tcp", addr}, Err: err}
	}
	remote, err := parseAddr(addr)
	if err != nil {
		return fail(err)
	}
	if !remote.Addr().IsValid() || remote.Addr().IsUnspecified() {
		remote = netip.AddrPortFrom(h.machine.addr, remote.Port())
	}
	d := &dialing{host: h, remote: remote}
	d.changed.L = &h.net.mu
	if stop := d.watch(ctx); stop != nil {
		defer stop()
	}
	client, err := d.run(ctx)
	if err != nil {
		return fail(err)
	}
	return client, nil
}

// watch wakes the dialing when ctx ends. The returned function, nil when ctx
// never ends, returns when nothing of the watching is left.
func (d *dialing) watch(ctx context.Context) (stop func()) {
	if ctx.Done() == nil {
		return nil
	}
	woken := make(chan struct{})
	cancel := context.AfterFunc(ctx, func() {
		defer close(woken)
		d.host.net.mu.Lock()
		defer d.host.net.mu.Unlock()
		d.changed.Broadcast()
	})
	return func() {
		if !cancel() {
			<-woken
		}
	}
}

// run asks and waits for the outcome.
func (d *dialing) run(ctx context.Context) (*conn, error) {
	h := d.host
	h.net.mu.Lock()
	defer h.net.mu.Unlock()
	if h.dead {
		return nil, net.ErrClosed
	}
	h.sockets[d] = struct{}{}
	defer d.end()
	for {
		switch {
		case h.dead:
			return nil, net.ErrClosed
		case ctx.Err() != nil:
			d.giveBack()
			return nil, ctx.Err()
		case h.frozen:
		case d.attempts == 0:
			d.start()
		case d.silent:
			d.giveBack()
			return nil, os.NewSyscallError("connect", syscall.ETIMEDOUT)
		case d.answered && d.refused:
			return nil, os.NewSyscallError("connect", syscall.ECONNREFUSED)
		case d.answered:
			return d.client, nil
		}
		d.changed.Wait()
	}
}

// start sends the first request.
func (d *dialing) start() {
	h := d.host
	port := h.machine.freePort(func(p uint16) bool { return h.machine.streams[p] != nil })
	d.local = netip.AddrPortFrom(h.machine.addr, port)
	d.there = h.net.link(d.local.Addr(), d.remote.Addr())
	d.back = h.net.link(d.remote.Addr(), d.local.Addr())
	d.request.fire = d.requestArrives
	d.answer.fire = d.answerArrives
	d.retry.fire = d.ask
	d.ask()
}

// ask sends a request and sets the time for the next.
func (d *dialing) ask() {
	if d.attempts == dialAttempts {
		d.silent = true
		d.changed.Broadcast()
		return
	}
	clock := &d.host.net.clock
	now := clock.now()
	clock.set(&d.retry, now+firstDialWait<<d.attempts)
	d.attempts++
	// A request that is still under way over a slow link is not overtaken.
	if fate := d.there.roll(); d.there.open() && !fate.lost && d.request.slot == 0 {
		clock.set(&d.request, now+fate.latency)
	}
}

// requestArrives is the far kernel's side: it refuses, ignores, or accepts
// before its process knows. A repeated request gets the same connection.
func (d *dialing) requestArrives() {
	if !d.there.open() || !d.back.open() {
		return
	}
	l := d.there.to.streams[d.remote.Port()]
	d.refused = d.client == nil && l == nil
	if d.client == nil && l != nil {
		if len(l.waiting) >= backlog {
			return
		}
		client, server := newConnPair(d.host, l.host, d.local, d.remote, d.there, d.back)
		d.client = client
		l.waiting = append(l.waiting, server)
		l.ready.Broadcast()
	}
	if fate := d.back.roll(); !fate.lost && d.answer.slot == 0 {
		clock := &d.host.net.clock
		clock.set(&d.answer, clock.now()+fate.latency)
	}
}

func (d *dialing) answerArrives() {
	if d.back.open() {
		d.answered = true
		d.host.net.clock.cancel(&d.retry)
		d.changed.Broadcast()
	}
}

// GiveBack resets a connection that the far kernel has made for nobody.
func (d *dialing) giveBack() {
	if d.client != nil {
		d.client.abort()
	}
}

// end takes the dialing out of everything that knows it.
func (d *dialing) end() {
	delete(d.host.sockets, d)
	for _, e := range []*event{&d.request, &d.answer, &d.retry} {
		d.host.net.clock.cancel(e)
	}
}

func (d *dialing) wake() { d.changed.Broadcast() }

// die leaves the connection, if there is one, to the host: it is its socket.
func (d *dialing) die(bool) { d.changed.Broadcast() }
