package quorum

import (
	"context"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/peerlimit/peerlimit/internal/signal"
	"github.com/peerlimit/peerlimit/internal/wire"
)

const (
	// askEvery is how often witnesses are asked about one that stays suspect. What they say counts for verdictAge, so
	// two requests in a row may fail.
	askEvery = 300 * time.Millisecond

	// eagerAsks is how many requests about a new suspect come with every tick: the first is too early by design, and
	// the verdict should not wait for askEvery when it is due.
	eagerAsks = 4

	// suspectFor is how long a member stays suspect that no witness misses any more. A witness names those it misses in every pong.
	suspectFor  = 500 * time.Millisecond
	maxSuspects = 512

	// maxCalls is how many pings, and how many verdict requests, may be on their way to one witness. Each ends within
	// AnswerAge, and one begins with every tick.
	maxCalls = 6

	// hintAge is for how long the hint in a pong is not computed anew: it is the same for everyone.
	hintAge = 20 * time.Millisecond
)

// IO is what quorum needs of the node. Calls must end when their context does.
type IO struct {
	Now   func() int64 // nanoseconds of the monotonic clock
	Ping  func(ctx context.Context, witness string, p wire.Ping) (wire.Pong, error)
	Judge func(ctx context.Context, witness string, v wire.VerdictRequest) (wire.Verdict, error)

	// Learn takes in a witness's word for names. When it returns, reach.SetKnown has been called.
	Learn func(witness string, p *wire.Pong)

	// Meet takes in that a member has been heard itself [ForgottenLearnedAgain].
	Meet func(name string)

	// Settled takes in that there is another panel, or quorum where there was none.
	Settled func()

	Known func() Told
}

// Told is what a node tells others of the names that it knows.
type Told struct {
	Digest   uint64   // of all that it counts
	Names    []string // sorted
	Doubtful []string // those of names to ask the witnesses about, whoever misses them

	Lost func() []wire.LostName // those of names that are lost
}

// Prober pings the witnesses, and asks them about members that somebody misses, for as long as it runs. It answers the
// pings and requests of others, too.
type Prober struct {
	reach     *State
	agreement *Agreement
	io        IO
	seating   sync.Mutex // makes asking for the panel and taking it in one step

	// onLost is called, on one goroutine, when the set of lost members has changed. It must return soon.
	onLost func()

	ctx    context.Context // of all calls; ends with close
	cancel context.CancelFunc
	owned  sync.WaitGroup // the loop and the calls
	wake   signal.Signal  // capacity 1: something changed, look before the next tick

	lookAgain atomic.Bool // with wake: look what the agreement on panels has to do
	pingAll   atomic.Bool // with wake: ping those that were pinged already as well

	hint atomic.Pointer[missedHint]

	// Parting says that this node has begun to say goodbye, and is nobody's witness any more: others may already judge
	// without it.
	Parting atomic.Bool

	mu       sync.Mutex // guards suspects and calls; held for map look-ups only
	suspects map[string]suspect
	calls    map[string]*callsTo
}

// suspect is a member that somebody misses, or that is doubtful.
type suspect struct {
	missedAt  int64 // when that was last said; never: not yet
	doubtedAt int64 // when it was last doubtful; never: not yet
	askedAt   int64 // never: not yet
	asks      int   // since it is missed
}

// lately reports whether an instant is not longer ago than a suspect stays one.
func lately(at, now int64) bool { return at != never && now-at < int64(suspectFor) }

// callsTo counts what is on its way to one witness, and knows whether it answered last.
type callsTo struct {
	pings, verdicts int
	answers         bool
}

// missedHint is what pongs say, as of that time. It is not changed.
type missedHint struct {
	at    int64
	names []string
}

// NewProber returns a prober that is not started. It makes the calls of the agreement's.
func NewProber(r *State, agreement *Agreement, io IO, onLost func()) *Prober {
	ctx, cancel := context.WithCancel(context.Background())
	e := &Prober{reach: r, agreement: agreement, io: io, onLost: onLost, ctx: ctx, cancel: cancel, wake: signal.New(),
		suspects: make(map[string]suspect), calls: make(map[string]*callsTo)}
	agreement.begin = func(call func(context.Context)) { e.owned.Go(func() { call(e.ctx) }) }
	return e
}

// Start begins to ping. It may be called once.
func (e *Prober) Start() { e.owned.Go(e.run) }

// Close ends all calls and returns when nothing runs any more. Pings are still answered.
func (e *Prober) Close() {
	e.cancel()
	e.owned.Wait()
}

// LookAgain tells that reach.SetKnown was called, or that a member can be asked that could not: witnesses that have not
// answered yet need not wait for the next tick.
func (e *Prober) LookAgain() { e.lookNow() }

func (e *Prober) lookNow() {
	e.wake.Send()
}

func (e *Prober) run() {
	ticker := time.NewTicker(pingInterval)
	defer ticker.Stop()
	var lost []string // as onLost was last told
	e.tick()
	for {
		now := e.io.Now()
		e.askAboutSuspects(now)
		if is := e.reach.LostNames(now); !slices.Equal(is, lost) {
			lost = is
			e.onLost()
		}
		select {
		case <-e.ctx.Done():
			return
		case <-ticker.C:
			e.tick()
		case <-e.wake:
			e.doubt(e.io.Known().Doubtful, e.io.Now()) // a newcomer's rounds wait for those that it was told of
			if e.lookAgain.Swap(false) && e.agreement.Tick(e.io.Now()) {
				e.adopted()
			}
			e.pingWitnesses(!e.pingAll.Swap(false), e.agreement.io.Linked())
		}
	}
}

// tick does what is due every pingInterval.
func (e *Prober) tick() {
	now := e.io.Now()
	e.reach.running(now)
	e.reach.Check(now) // a lapse ends holding even when nobody takes
	linked := e.agreement.io.Linked()
	if e.agreement.tick(linked, now) {
		e.io.Settled()
	}
	e.Seat()
	e.pingWitnesses(false, linked)
	e.suspect(e.reach.missed(now), now)
	e.doubt(e.io.Known().Doubtful, now)
}

// pingWitnesses pings all witnesses, or only those that were never pinged, and of those that are linked some more. It changes the order
// of linked.
func (e *Prober) pingWitnesses(onlyNew bool, linked []Candidate) {
	if e.Parting.Load() {
		return // who hears it again would take the goodbye for one that was made up
	}
	witnesses, _ := e.reach.currentWitnesses()
	witnesses = append(slices.Clone(witnesses), e.agreement.Targets(linked, e.io.Now())...)
	slices.Sort(witnesses)
	witnesses = slices.Compact(witnesses)
	e.mu.Lock()
	defer e.mu.Unlock()
	for w, c := range e.calls {
		if c.pings+c.verdicts == 0 {
			if _, is := slices.BinarySearch(witnesses, w); !is {
				delete(e.calls, w)
			}
		}
	}
	for _, w := range witnesses {
		if w == e.reach.self {
			continue
		}
		c := e.callsTo(w)
		if c.pings >= maxCalls || onlyNew && (c.answers || c.pings > 0) {
			continue
		}
		c.pings++
		e.owned.Go(func() { e.ping(w, c) })
	}
}

// callsTo returns what is on its way to one witness, with mu held.
func (e *Prober) callsTo(witness string) *callsTo {
	c := e.calls[witness]
	if c == nil {
		c = new(callsTo)
		e.calls[witness] = c
	}
	return c
}

// ping pings one witness, and takes in what it answers.
func (e *Prober) ping(witness string, c *callsTo) {
	ctx, cancel := context.WithTimeout(e.ctx, AnswerAge)
	defer cancel()
	sent, panel := e.io.Now(), e.agreement.ID()
	p, err := e.io.Ping(ctx, witness, wire.Ping{Heard: e.reach.Heard.Load(), Digest: e.io.Known().Digest, Panel: panel})
	e.mu.Lock()
	c.pings--
	c.answers = err == nil
	e.mu.Unlock()
	if err != nil {
		return // silence is what counts, and the witnesses of the silent one see to it
	}
	e.reach.Hear(p.Heard)
	e.io.Meet(witness)
	if len(p.Known) > 0 {
		// Before the answer counts: a node that has a quorum acquires, and asks all that it knows.
		e.io.Learn(witness, &p)
		e.lookNow()
	}
	now := e.io.Now()
	adopted, look := e.agreement.Answered(witness, panel, sent, &p, now)
	if look {
		adopted = e.agreement.Tick(now) || adopted // a newcomer joins within some round trips
	}
	if adopted {
		e.adopted()
	}
	if !p.Refused {
		had := e.reach.IsFull(now)
		e.reach.answered(witness, sent, now)
		if !had && e.reach.IsFull(now) {
			e.io.Settled()
		}
	}
	e.suspect(p.Silent, now)
}

// suspect takes in that members are missed. Those that were not lately are asked about at once, and often until the verdict is due.
func (e *Prober) suspect(names []string, now int64) {
	e.noteSuspects(names, func(s *suspect) (ask bool) {
		if ask = !lately(s.missedAt, now); ask {
			s.askedAt, s.asks = never, 0
		}
		s.missedAt = now
		return ask
	})
}

// doubt takes in that members are doubtful.
func (e *Prober) doubt(names []string, now int64) {
	e.noteSuspects(names, func(s *suspect) (ask bool) {
		s.doubtedAt = now
		return s.askedAt == never
	})
}

// noteSuspects notes something of those of some members about whom it matters, and has the loop look when one is to be asked about.
func (e *Prober) noteSuspects(names []string, note func(s *suspect) (ask bool)) {
	look := false
	for _, name := range names {
		if name == e.reach.self || !e.reach.knows(name) {
			continue
		}
		e.mu.Lock()
		s, is := e.suspects[name]
		if !is {
			s = suspect{missedAt: never, doubtedAt: never, askedAt: never}
		}
		if is || len(e.suspects) < maxSuspects {
			look = note(&s) || look
			e.suspects[name] = s
		}
		e.mu.Unlock()
	}
	if look {
		e.lookNow()
	}
}

// dueSuspects returns those to ask about now, and forgets those that are not suspect any more.
func (e *Prober) dueSuspects(now int64) (due []string) {
	e.mu.Lock()
	defer e.mu.Unlock()
	for name, s := range e.suspects {
		pause := askEvery
		if lately(s.missedAt, now) && s.asks < eagerAsks {
			pause = pingInterval
		}
		switch {
		case !lately(s.missedAt, now) && !lately(s.doubtedAt, now) || !e.reach.knows(name):
			delete(e.suspects, name)
		case s.askedAt == never || now-s.askedAt >= int64(pause-pingInterval/4): // ticks are not exact
			s.askedAt = now
			s.asks++
			e.suspects[name] = s
			due = append(due, name)
		}
	}
	slices.Sort(due)
	return due
}

// askAnew has all suspects be asked about at once: there are other witnesses.
func (e *Prober) askAnew() {
	e.mu.Lock()
	defer e.mu.Unlock()
	for name, s := range e.suspects {
		s.askedAt, s.asks = never, 0
		e.suspects[name] = s
	}
}

// askAboutSuspects asks all witnesses, itself among them when it is one, about the suspects for which it is time.
func (e *Prober) askAboutSuspects(now int64) {
	names := e.dueSuspects(now)
	if len(names) == 0 {
		return
	}
	witnesses, selfIsOne := e.reach.currentWitnesses()
	if selfIsOne {
		e.reach.judged(e.reach.self, now, names, e.reach.silentAmong(names, now), now)
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	for _, w := range witnesses {
		if w == e.reach.self {
			continue
		}
		c := e.callsTo(w)
		if c.verdicts >= maxCalls {
			continue
		}
		c.verdicts++
		e.owned.Go(func() { e.ask(w, names, c) })
	}
}

// ask asks one witness for a verdict, and takes it in.
func (e *Prober) ask(witness string, names []string, c *callsTo) {
	ctx, cancel := context.WithTimeout(e.ctx, AnswerAge)
	defer cancel()
	sent := e.io.Now()
	v, err := e.io.Judge(ctx, witness, wire.VerdictRequest{Heard: e.reach.Heard.Load(), Names: names})
	e.mu.Lock()
	c.verdicts--
	e.mu.Unlock()
	if err != nil {
		return
	}
	e.reach.Hear(v.Heard)
	e.reach.judged(witness, sent, names, v.Silent, e.io.Now())
	e.lookNow()
}

// OnPing answers a ping. A member that gets quorum from this node is known to it when the answer leaves [PingAddsToRoster].
func (e *Prober) OnPing(from string, p wire.Ping) wire.Pong {
	if e.Parting.Load() {
		return wire.Pong{Refused: true, Heard: e.reach.Heard.Load(), Digest: p.Digest}
	}
	now := e.io.Now()
	e.reach.Hear(p.Heard)
	refused := e.reach.pinged(from, now)
	if !refused {
		e.io.Meet(from)
		if !e.reach.knows(from) {
			refused = true // it has left
		}
	}
	known := e.io.Known()
	answer := wire.Pong{Refused: refused, Heard: e.reach.Heard.Load(), Digest: known.Digest, Silent: e.missedLately(now), HasQuorum: e.reach.IsFull(now)}
	if answer.Digest != p.Digest {
		answer.Known, answer.Lost = known.Names, known.Lost()
	}
	var look bool
	if answer.Panel, look = e.agreement.Pinged(from, p.Panel, now); look {
		e.lookAgain.Store(true)
		e.lookNow()
	}
	if e.agreement.Refuses(p.Panel, now) { // [NewerPanelRefuses]
		answer.Refused = true
	}
	return answer
}

// missedLately returns the members that this witness misses, as of hintAge ago at most.
func (e *Prober) missedLately(now int64) []string {
	h := e.hint.Load()
	if h == nil || now-h.at >= int64(hintAge) || now < h.at {
		h = &missedHint{at: now, names: e.reach.missed(now)}
		e.hint.Store(h)
	}
	return h.names
}

// OnVerdictRequest answers as a witness. The silent are refused from the moment at which they are said to be.
func (e *Prober) OnVerdictRequest(v wire.VerdictRequest) wire.Verdict {
	now := e.io.Now()
	e.reach.Hear(v.Heard)
	e.reach.running(now) // after a pause this may come before the next tick
	return wire.Verdict{Silent: e.reach.silentAmong(v.Names, now), Heard: e.reach.Heard.Load()}
}

// OnPanelRequest answers another member's request to agree on a panel.
func (e *Prober) OnPanelRequest(from string, q *wire.PanelRequest) (wire.PanelAnswer, bool) {
	if e.Parting.Load() {
		return wire.PanelAnswer{}, false
	}
	answer, adopted := e.agreement.OnRequest(from, q)
	if adopted {
		e.adopted()
	}
	return answer, true
}

// adopted has quorum judged by another panel, and asks its witnesses at once: what is left of the quorum before does not last.
func (e *Prober) adopted() {
	e.Seat()
	e.io.Settled()
	e.askAnew()
	e.pingAll.Store(true)
	e.lookNow()
}

// Seat has quorum judged by the panel as it is now. It is called before Start as well: a node that is alone has quorum from then on.
func (e *Prober) Seat() {
	e.seating.Lock()
	defer e.seating.Unlock()
	now := e.io.Now()
	e.reach.SetSeats(e.agreement.Seats(now), now)
}
