package membership

import (
	"context"
	"errors"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/memberlist"
	"github.com/peerlimit/peerlimit/internal/signal"
)

// Membership is this node's part in gossip: it makes the node known, keeps it in touch with all others, and knows which there
// are. Its goroutines are watch, which alone makes views, and the joiner's.
type Membership struct {
	firstJoin chan struct{} // see TriedSeeds
	identity  string
	log       *slog.Logger
	list      *memberlist.Memberlist
	gossip    gossipTransport
	gate      *gossipGate
	silencer  silencer // of all logs
	joiner    *joiner
	onChange  func(*View)
	changed   signal.Signal // capacity 1: a view is to be made
	viewed    signal.Signal // a view was made; for Leave
	forced    atomic.Bool   // and told of even if it is the same
	goodbyes  memberlist.TransmitLimitedQueue
	current   atomic.Pointer[View]
	published atomic.Pointer[Roster] // changed with mu held
	living    context.Context        // of watch and the joiner, and
	stop      context.CancelFunc     // ends them
	joining   context.Context        // of the joiner, and
	haltJoins context.CancelFunc     // ends it
	running   sync.WaitGroup         // watch, the joiner, and what a Leave has begun
	departing sync.WaitGroup         // calls of AnnounceLeaving and Leave; not added to once closed is set
	ended     chan struct{}          // closed when Close has ended
	endErr    error                  // what it returned; set before ended is closed

	// mu guards what follows. memberlist takes it under its own lock, so memberlist must not be called under it, and
	// nothing else that could wait.
	mu     sync.Mutex
	nodes  map[string]*gossipNode // those that memberlist has not given up, or only just, and this node
	roster *rosterSet
	own    metadata
	left   bool // leave was called

	lastWord   []LastWord // what this node says last, once it has left
	heardWords []LastWord // those of others that no view has told yet

	closed bool
}

// gossipNode is a copy of what memberlist knows of a member. Its own struct, which it hands out by pointer, is written to
// under a lock that nobody outside of it can take.
type gossipNode struct {
	Info
	fault error     // why its metadata cannot be used; it takes no part then
	told  bool      // and that this was logged
	gone  time.Time // when memberlist gave it up; zero while it has not
}

// goodbyeGrace is how long a member that memberlist has given up counts as before, because the goodbye that tells leaving
// from failing may still be on its way: it travels in the same packets, but on its own. Two rounds of gossip and some. By
// then a failure has been under investigation for five seconds or more.
const goodbyeGrace = 500 * time.Millisecond

// New binds the gossip address and starts memberlist, which meets nobody by itself. An error wraps the network's or matches
// ErrAdvertise. The caller must close the membership, whether or not it starts it.
func New(c Config) (*Membership, error) {
	quiet := newSilencer(c.Logger.Handler())
	c.Logger = slog.New(quiet)
	logger := gossipLogger(c.Logger)
	gossip, err := listenGossip(&c, logger)
	if err != nil {
		return nil, err
	}
	m, err := newOfOne(&c, gossip)
	if err == nil {
		m.list, err = createGossip(&c, gossip, m, logger)
	}
	if err != nil {
		err = errors.Join(err, gossip.Shutdown())
		quiet.close()
		return nil, err
	}
	m.gossip, m.silencer = gossip, quiet
	if c.Resolver == nil {
		c.Resolver = net.DefaultResolver
	}
	m.joiner = newJoiner(m, m.log, c.Seeds, []netip.AddrPort{gossip.bound(), m.Self().Gossip}, c.Resolver)
	return m, nil
}

// Start tells the first view, of this node alone, and begins to join the seeds, which it does not wait for. onChange is given
// every view: the first before Start returns, and then, from one goroutine, each that differs from the one before; where
// changes come fast it is one for several. It must not call Close. Start is called once.
func (m *Membership) Start(onChange func(*View)) {
	m.onChange = onChange
	onChange(m.View())
	m.running.Go(func() { m.joiner.run(m.joining) })
	m.running.Go(func() { m.watch(m.living) })
}

// newOfOne returns a membership that knows this node alone, before gossip.
func newOfOne(c *Config, t gossipTransport) (*Membership, error) {
	gossip, err := advertisedGossip(c, t)
	if err != nil {
		return nil, err
	}
	m := &Membership{
		identity:  c.Name,
		log:       c.Logger.With("component", "membership"),
		gate:      t.gate(),
		changed:   signal.New(),
		viewed:    signal.New(),
		firstJoin: make(chan struct{}),
		ended:     make(chan struct{}),
		nodes:     make(map[string]*gossipNode),
		own:       metadata{protocolMin: c.ProtocolMin, protocolMax: c.ProtocolMax, rpcPort: c.RPC.Port()},
	}
	// Without an AdvertiseAddr, takes may be served on another interface than gossip.
	if host := c.RPC.Addr(); !c.Advertise.Addr().IsValid() && !host.IsUnspecified() && host != gossip.Addr() {
		m.own.rpcHost = host
	}
	self := m.describe(c.Name, gossip, m.own)
	m.nodes[c.Name] = &gossipNode{Info: self}
	m.roster = newRosterSet(self, c.ExpectMembers, len(c.Seeds), c.Fate)
	m.goodbyes.NumNodes = func() int { return m.View().Reachable }
	m.publishRosterLocked()
	m.current.Store(newView([]Info{self}, nil, m.Roster(), 1))
	m.living, m.stop = context.WithCancel(context.Background())
	m.joining, m.haltJoins = context.WithCancel(m.living)
	return m, nil
}

// describe returns a member from what it says of itself.
func (m *Membership) describe(name string, gossip netip.AddrPort, meta metadata) Info {
	host := meta.rpcHost
	if !host.IsValid() {
		host = gossip.Addr()
	}
	rpc := netip.AddrPortFrom(host, meta.rpcPort)
	state := Alive
	if meta.leaving {
		state = Leaving
	}
	return Info{
		Name: name, Gossip: gossip, RPC: rpc, State: state, Self: name == m.identity,
		ProtocolMin: meta.protocolMin, ProtocolMax: meta.protocolMax,
	}
}

// View returns the cluster as it is now. The result is never nil and never changed.
func (m *Membership) View() *View { return m.current.Load() }

// Self returns this node as others see it.
func (m *Membership) Self() Info {
	self, _ := m.View().find(m.identity)
	return self
}

// wake asks for a new view. It does not wait.
func (m *Membership) wake() {
	m.changed.Send()
}

// Renotify has onChange called even if the view stays the same: something else that depends on it has changed.
func (m *Membership) Renotify() {
	m.forced.Store(true)
	m.wake()
}

// Roster returns the members that a limit is divided by as they are now, which may be ahead of the view. The result is never
// nil.
func (m *Membership) Roster() *Roster { return m.published.Load() }

// publishRosterLocked makes Roster return what roster has. Called with mu held.
func (m *Membership) publishRosterLocked() (changed bool) {
	last := m.published.Load()
	if last == nil {
		last = &Roster{}
	}
	next := newRoster(m.roster, last.generation+1)
	if next.Divisor == last.Divisor && next.Expected == last.Expected && slices.Equal(next.Names, last.Names) && slices.Equal(next.Told, last.Told) &&
		slices.Equal(next.Hearsay, last.Hearsay) && slices.Equal(next.lost, last.lost) {
		return false
	}
	m.published.Store(next)
	return true
}

// Departed returns the names that have left or been given up, as far as that is remembered. The caller may change it.
func (m *Membership) Departed() map[string]bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	names := make(map[string]bool, len(m.roster.left)+len(m.roster.dead))
	for name := range m.roster.left {
		names[name] = true
	}
	for name := range m.roster.dead {
		names[name] = true
	}
	return names
}

// MergeNames takes in a member's word. It reports whether there was news, which Roster has then. It is called often, and mostly
// there is no news.
func (m *Membership) MergeNames(w *Word) (news bool) {
	known := m.Roster()
	if len(known.Hearsay) == 0 && !slices.ContainsFunc(w.Names, func(name string) bool { return !known.Has(name) }) {
		return false
	}
	return m.change(func(now time.Time) bool { return m.roster.mergeNames(w, now) })
}

// AddHeardFrom takes in that a member has proved itself: it has pinged or asked this node, or answered it, or a link
// to it has come up. It reports whether Roster has changed.
func (m *Membership) AddHeardFrom(name string) (news bool) {
	if known := m.Roster(); known.hasProved(name) && !known.IsLost(name) {
		return false
	}
	news = m.change(func(now time.Time) bool { return m.roster.addHeardFrom(name, now) })
	m.wake()
	return news
}

// change changes the roster, and reports whether Roster is different then.
func (m *Membership) change(roster func(now time.Time) (news bool)) (news bool) {
	m.mu.Lock()
	news = roster(time.Now()) && m.publishRosterLocked()
	m.mu.Unlock()
	if news {
		m.wake()
	}
	return news
}

// watch makes a new view whenever something has changed or is to be forgotten, until ctx ends.
func (m *Membership) watch(ctx context.Context) {
	tried := m.joiner.tried
	defer func() {
		if tried != nil {
			close(m.firstJoin)
		}
	}()
	timer := time.NewTimer(m.refresh())
	defer timer.Stop()
	for {
		firstRoundOver := false
		select {
		case <-ctx.Done():
			return
		case <-m.changed:
		case <-timer.C:
		case <-tried:
			tried, firstRoundOver = nil, true
		}
		again := m.refresh()
		if firstRoundOver {
			close(m.firstJoin)
		}
		timer.Reset(again)
	}
}

// refresh makes a view of gossip and the roster as they are now, and tells when it differs from the last. It returns after what time the next
// one is due even if nothing happens.
func (m *Membership) refresh() (again time.Duration) {
	now := time.Now()
	m.mu.Lock()
	alive, strangers, again := m.aliveLocked(now)
	m.roster.update(alive, now)
	members := append(m.roster.presentMembers(), m.roster.failedMembers()...)
	unproved := slices.Clone(m.roster.unproved)
	m.publishRosterLocked()
	known, words := m.Roster(), m.heardWords
	m.heardWords = nil
	givenUp := m.roster.givenUp
	m.roster.givenUp = nil
	_, reachable := m.roster.divisor()
	if at, ok := m.roster.nextExpiry(now); ok {
		again = min(again, at.Sub(now))
	}
	m.mu.Unlock()

	for _, s := range strangers {
		m.log.Warn("ignoring member with unreadable metadata, is its version compatible?", "member", s.Name, "addr", s.Gossip, "err", s.fault)
	}
	next := newView(members, unproved, known, reachable)
	next.LastWords, next.GivenUp = words, givenUp
	last := m.View()
	if forced := m.forced.Swap(false); forced || !next.equal(last) || len(words) > 0 {
		m.current.Store(next)
		if slices.ContainsFunc(last.Members, func(i Info) bool {
			after, ok := next.find(i.Name)
			return !ok || after.State == Failed && i.State != Failed
		}) {
			m.joiner.hurry()
		}
		m.onChange(next)
		m.viewed.Send()
	}
	return again
}

// aliveLocked drops the members that are gone and returns the others, then those whose metadata was found to be unusable
// since it was last called, and after what time the next one is to be dropped, at most an hour. Called with mu held.
func (m *Membership) aliveLocked(now time.Time) (alive []Info, strangers []gossipNode, again time.Duration) {
	alive, again = make([]Info, 0, len(m.nodes)), time.Hour
	for name, node := range m.nodes {
		left := m.roster.hasLeft(name, now)
		if !node.gone.IsZero() {
			rest := goodbyeGrace - now.Sub(node.gone)
			if left || rest <= 0 {
				delete(m.nodes, name)
				continue
			}
			again = min(again, rest)
		}
		switch {
		case left: // and gossip is late
		case node.fault == nil:
			alive = append(alive, node.Info)
		case !node.told:
			node.told = true
			strangers = append(strangers, *node)
		}
	}
	return alive, strangers, again
}

// memberAt reports whether gossip has a member at that address, this node included.
func (m *Membership) memberAt(addr netip.AddrPort) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, node := range m.nodes {
		if node.Gossip == addr {
			return true
		}
	}
	return false
}

// failedAddrs returns where lost members were.
func (m *Membership) failedAddrs() []netip.AddrPort {
	var addrs []netip.AddrPort
	for _, i := range m.View().Members {
		if i.State == Failed {
			addrs = append(addrs, i.Gossip)
		}
	}
	return addrs
}

// someMember returns the gossip address of another member, picked at random.
func (m *Membership) someMember() (addr netip.AddrPort, ok bool) {
	others := slices.DeleteFunc(slices.Clone(m.View().Members), func(i Info) bool {
		return i.Self || i.State == Failed
	})
	if len(others) == 0 {
		return netip.AddrPort{}, false
	}
	return others[rand.N(len(others))].Gossip, true // #nosec G404 -- any will do
}

// otherSeeds takes in how many seeds there are, this node not counted.
func (m *Membership) otherSeeds(n int) {
	m.mu.Lock()
	m.roster.seeds = n
	m.mu.Unlock()
	m.wake()
}

// join meets the node at addr: both learn of everyone the other knows.
func (m *Membership) join(addr netip.AddrPort) error {
	at := addr.String()
	m.gate.attempts.begin(at)
	_, err := m.list.Join([]string{at})
	failed := m.gate.attempts.end(at)
	switch {
	case err == nil:
		return nil
	case failed == nil:
		return &joinError{FaultOther, err}
	}
	m.gate.met[failed.fault].Add(1)
	return failed
}

// TriedSeeds is closed when every seed has been tried once, whatever came of it, or the membership was closed. The view then
// shows the members that were met.
func (m *Membership) TriedSeeds() <-chan struct{} { return m.firstJoin }

// Refused returns how many packets and streams of gossip made no sense, and how many were not this cluster's.
func (m *Membership) Refused() (malformed, unauthenticated uint64) {
	return m.gate.malformed.Load(), m.gate.strangers.Load()
}

// Met returns how many times this node met a peer of another cluster, and one that has not its secret, by gossip that came or
// that it began.
func (m *Membership) Met() (otherCluster, otherSecret uint64) {
	for f := range Faults {
		switch {
		case f.IsCluster():
			otherCluster += m.gate.met[f].Load()
		case f.IsSecret():
			otherSecret += m.gate.met[f].Load()
		}
	}
	return otherCluster, otherSecret
}

// Seeds returns what has become of each seed, in their order; failed is how many look-ups and joins of them have failed.
func (m *Membership) Seeds() (seeds []SeedStatus, failed uint64) {
	return *m.joiner.outcome.Load(), m.joiner.failed.Load()
}

// AnnounceLeaving tells that this node is going to leave, so that others take over what it owns: by gossip, and up to maxTold
// members over a stream, because packets may be lost. It waits for neither. The error is ErrClosed or nil. A second call does
// nothing.
func (m *Membership) AnnounceLeaving() error {
	m.mu.Lock()
	if m.closed {
		m.mu.Unlock()
		return ErrClosed
	}
	already := m.own.leaving
	m.own.leaving = true
	m.departing.Add(1)
	m.mu.Unlock()
	defer m.departing.Done()
	if !already {
		// It waits for what never comes when all others leave as well, so it is given no time for that. What it returns is
		// that it has not waited.
		_ = m.list.UpdateNode(time.Nanosecond)
		m.running.Go(m.tellLeaving)
	}
	return nil
}

// tellLeaving exchanges everything with some members.
func (m *Membership) tellLeaving() {
	others := slices.DeleteFunc(slices.Clone(m.View().Members), func(i Info) bool { return i.Self || i.State != Alive })
	others = pick(maxTold, others)
	atOnce(len(others), func(i int) {
		if m.living.Err() == nil {
			if err := m.join(others[i].Gossip); err != nil {
				m.log.Debug("gossip with member failed", "addr", others[i].Gossip, "err", err)
			}
		}
	})
}

// Close ends gossip at once, without a goodbye if Leave was not called. It waits for a Leave that is under way, and for all
// goroutines of this package; those of memberlist end with it, and reach nothing any more. It can be called more than once,
// and returns what the first call returned.
func (m *Membership) Close() error {
	m.mu.Lock()
	again := m.closed
	m.closed = true
	m.mu.Unlock()
	if again {
		<-m.ended
		return m.endErr
	}
	defer close(m.ended)
	m.stop()
	m.departing.Wait()
	m.endErr = endGossip(m.gossip, m.list)
	m.running.Wait()
	m.silencer.close()
	return m.endErr
}
