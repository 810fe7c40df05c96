package peerlimit

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/memberlist"
	"github.com/peerlimit/peerlimit/internal/wire"
)

// Member is one node of the cluster as the node that was asked sees it.
type Member struct {
	// Name is the identity of the process: Config.Name, a dash and eight random hexadecimal digits. It is unique and
	// never comes back; a restarted process has another one.
	Name string

	// Addr is where gossip reaches it, "host:port".
	Addr string

	// RPCAddr is where takes reach it, "host:port".
	RPCAddr string

	// State is what is known of it.
	State MemberState

	// Self is set for the node that was asked.
	Self bool
}

// MemberState says whether a member takes part.
type MemberState uint8

const (
	// MemberAlive is a member like any other. It is the zero value.
	MemberAlive MemberState = iota

	// MemberSuspect is a member that gossip has not given up and that this node gets no answer from.
	MemberSuspect

	// MemberLeaving is a member that is handing over what it owns before it goes.
	MemberLeaving

	// MemberLost is a member that gossip has given up without a goodbye: it crashed, or is cut off. It is listed as long
	// as limits are still divided by it; see Config.SplitMemory.
	MemberLost
)

var memberStateNames = [...]string{"alive", "suspect", "leaving", "lost"}

// String returns "alive", "suspect", "leaving" or "lost".
func (s MemberState) String() string {
	if int(s) < len(memberStateNames) {
		return memberStateNames[s]
	}
	return fmt.Sprintf("MemberState(%d)", uint8(s))
}

// membership is this node's part in gossip: it makes the node known, keeps it in touch with all others, and knows who
// they are. Its goroutines are watch, which alone makes views, and the joiner's.
type membership struct {
	// firstJoin is closed when every seed has been tried once, whatever came of it, or the membership was closed. The view
	// then shows whom that has met.
	firstJoin chan struct{}

	identity  string
	log       *slog.Logger
	list      *memberlist.Memberlist
	gate      *gossipGate
	joiner    *joiner
	onChange  func(*memberView)
	changed   chan struct{} // capacity 1: a view is to be made
	force     atomic.Bool   // and told of even if it is the same
	young     atomic.Bool   // known.young, to be looked at often
	goodbyes  memberlist.TransmitLimitedQueue
	current   atomic.Pointer[memberView]
	names     atomic.Pointer[knownNames] // changed with mu held
	stop      context.CancelFunc         // ends watch and the joiner
	haltJoins context.CancelFunc         // ends the joiner
	running   sync.WaitGroup             // watch and the joiner
	departing sync.WaitGroup             // calls to leave; not added to once closed is set

	// mu guards what follows. memberlist takes it under its own lock, so memberlist must not be called under it, and
	// nothing else that could wait.
	mu     sync.Mutex
	nodes  map[string]*gossipNode // those that memberlist has not given up, or only just, and this node
	known  *knownSet
	own    metadata
	left   bool // leave was called
	closed bool
}

// gossipNode is a copy of what memberlist knows of a member. Its own struct, which it hands out by pointer, is written to
// under a lock that nobody outside of it can take.
type gossipNode struct {
	memberInfo
	fault error     // why its metadata cannot be used; it takes no part then
	told  bool      // and that this was logged
	gone  time.Time // when memberlist gave it up; zero while it has not
}

// goodbyeGrace is how long a member that memberlist has given up counts as before, because the goodbye that tells leaving
// from failing may still be on its way: it travels in the same packets, but on its own. Two rounds of gossip and some. By
// then a failure has been under investigation for five seconds or more.
const goodbyeGrace = 500 * time.Millisecond

// maxAnnounce bounds how long it is waited for an announcement to have been sent often enough: 8 to 32 times by the size of
// the cluster, to three members every 100 ms. That takes 0.8 s with two members, 0.3 s with five, 1.1 s with 1,000.
const maxAnnounce = 3 * time.Second

// startMembership binds the gossip address and starts gossip and the joining of seeds, which it does not wait for.
// rpcAddr is where this node serves takes. onChange is given every view: the first, of this node alone, before
// startMembership returns, and then, from one goroutine, each that differs from the one before; where changes come fast
// it is one for several. It must not call close. The caller must close what is returned.
func startMembership(s *settings, rpcAddr netip.AddrPort, onChange func(*memberView)) (*membership, error) {
	return startMembershipWith(s, rpcAddr, onChange, net.DefaultResolver)
}

func startMembershipWith(s *settings, rpcAddr netip.AddrPort, onChange func(*memberView), resolver resolver) (*membership, error) {
	logger := gossipLogger(s.Logger)
	gossip, err := listenGossip(s, logger)
	if err != nil {
		return nil, err
	}
	m, err := newMembership(s, gossip, rpcAddr, onChange)
	if err == nil {
		m.list, err = createGossip(s, gossip, m, logger)
	}
	if err != nil {
		return nil, errors.Join(err, gossip.Shutdown())
	}
	onChange(m.view())
	ctx, stop := context.WithCancel(context.Background())
	m.stop = stop
	joinCtx, haltJoins := context.WithCancel(ctx)
	m.haltJoins = haltJoins
	m.joiner = newJoiner(m, m.log, s.Join, []netip.AddrPort{gossip.bound(), m.selfInfo().gossip}, resolver)
	m.running.Go(func() { m.joiner.run(joinCtx) })
	m.running.Go(func() { m.watch(ctx) })
	return m, nil
}

// newMembership returns a membership of one, before gossip.
func newMembership(s *settings, t gossipTransport, rpcAddr netip.AddrPort, onChange func(*memberView)) (*membership, error) {
	gossip, err := advertisedGossip(s, t)
	if err != nil {
		return nil, err
	}
	m := &membership{
		identity:  s.identity,
		log:       s.Logger.With("component", "membership"),
		gate:      t.gate(),
		onChange:  onChange,
		changed:   make(chan struct{}, 1),
		firstJoin: make(chan struct{}),
		nodes:     make(map[string]*gossipNode),
		own:       metadata{protocolMin: wire.ProtocolMin, protocolMax: wire.ProtocolMax, rpcPort: rpcAddr.Port()},
	}
	// Without an AdvertiseAddr, takes may be served on another interface than gossip.
	if host := rpcAddr.Addr(); !s.advertise.Addr().IsValid() && !host.IsUnspecified() && host != gossip.Addr() {
		m.own.rpcHost = host
	}
	self := m.describe(s.identity, gossip, m.own)
	m.nodes[s.identity] = &gossipNode{memberInfo: self}
	m.known = newKnownSet(self, s.ExpectMembers, len(s.Join), s.SplitMemory)
	m.young.Store(m.known.young)
	m.goodbyes.NumNodes = func() int { return m.view().reachable }
	m.noteKnownLocked()
	m.current.Store(newView([]memberInfo{self}, nil, m.everyone(), 1))
	return m, nil
}

// describe returns a member from what it says of itself.
func (m *membership) describe(name string, gossip netip.AddrPort, meta metadata) memberInfo {
	host := meta.rpcHost
	if !host.IsValid() {
		host = gossip.Addr()
	}
	rpc := netip.AddrPortFrom(host, meta.rpcPort)
	state := MemberAlive
	if meta.leaving {
		state = MemberLeaving
	}
	return memberInfo{
		Member:      Member{Name: name, Addr: gossip.String(), RPCAddr: rpc.String(), State: state, Self: name == m.identity},
		gossip:      gossip,
		rpc:         rpc,
		protocolMin: meta.protocolMin,
		protocolMax: meta.protocolMax,
	}
}

// view returns the cluster as it is now. The result is never nil and never changed.
func (m *membership) view() *memberView { return m.current.Load() }

// self returns this node as others see it.
func (m *membership) self() Member { return m.selfInfo().Member }

func (m *membership) selfInfo() memberInfo {
	self, _ := m.view().find(m.identity)
	return self
}

// wake asks for a new view. It does not wait.
func (m *membership) wake() {
	select {
	case m.changed <- struct{}{}:
	default:
	}
}

// again has onChange called even if the view stays the same: something else that depends on it has changed.
func (m *membership) again() {
	m.force.Store(true)
	m.wake()
}

// everyone returns the known set as it is now, which may be ahead of the view. The result is never nil.
func (m *membership) everyone() *knownNames { return m.names.Load() }

// noteKnownLocked makes everyone return what known has. Called with mu held.
func (m *membership) noteKnownLocked() (changed bool) {
	last := m.names.Load()
	if last == nil {
		last = &knownNames{}
	}
	next := newKnownNames(m.known, last.generation+1)
	if next.known == last.known && slices.Equal(next.names, last.names) && slices.Equal(next.doubted, last.doubted) &&
		slices.Equal(next.told, last.told) && slices.Equal(next.hearsay, last.hearsay) {
		return false
	}
	m.names.Store(next)
	return true
}

// departed returns the names that have left or been forgotten, as far as that is remembered. The caller may change it.
func (m *membership) departed() map[string]bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	names := make(map[string]bool, len(m.known.left)+len(m.known.forgotten))
	for name := range m.known.left {
		names[name] = true
	}
	for name := range m.known.forgotten { // none of them is known: see knownSet.update
		names[name] = true
	}
	return names
}

// learn takes in a member's word, of which full says whether this node has evidence. When it returns, everyone has what was
// news, which it reports. It is called often, and mostly there is no news.
func (m *membership) learn(w *word, full bool) (news bool) {
	known := m.everyone()
	if len(known.hearsay) == 0 && len(known.told) == len(known.names) &&
		!slices.ContainsFunc(w.names, func(name string) bool { return !known.isKnown(name) }) {
		return false
	}
	return m.change(func(now time.Time) bool { return m.known.learn(w, full, now) })
}

// meet takes in that a member has proved itself: it has pinged or asked this node, or answered it, or a link to it has come
// up.
func (m *membership) meet(name string) (news bool) {
	if known := m.everyone(); known.isKnown(name) && known.hasProved(name) {
		return false
	}
	news = m.change(func(now time.Time) bool { return m.known.meet(name, now) })
	m.wake()
	return news
}

// settled takes in that this node has evidence together with others.
func (m *membership) settled() {
	if m.young.Load() {
		m.change(func(now time.Time) bool { m.known.settled(now); return true })
	}
}

// change changes what is known, and reports whether everyone is different then.
func (m *membership) change(known func(now time.Time) (news bool)) (news bool) {
	m.mu.Lock()
	news = known(time.Now()) && m.noteKnownLocked()
	m.young.Store(m.known.young)
	m.mu.Unlock()
	if news {
		m.wake()
	}
	return news
}

// watch makes a new view whenever something has changed or is to be forgotten, until ctx ends.
func (m *membership) watch(ctx context.Context) {
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

// refresh makes a view of what is known now, and tells when it differs from the last. It returns after what time the next
// one is due even if nothing happens.
func (m *membership) refresh() (again time.Duration) {
	now := time.Now()
	m.mu.Lock()
	alive, strangers, again := m.aliveLocked(now)
	m.known.update(alive, now)
	members := append(m.known.presentMembers(), m.known.lostMembers()...)
	unproved := slices.Clone(m.known.unproved)
	m.noteKnownLocked()
	m.young.Store(m.known.young)
	known := m.everyone()
	_, reachable := m.known.reach()
	if at, ok := m.known.nextExpiry(); ok {
		again = min(again, at.Sub(now))
	}
	m.mu.Unlock()

	for _, s := range strangers {
		m.log.Warn("ignoring member with unreadable metadata, is its version compatible?", "member", s.Name, "addr", s.Addr, "err", s.fault)
	}
	next := newView(members, unproved, known, reachable)
	last := m.view()
	if forced := m.force.Swap(false); forced || !next.equal(last) {
		m.current.Store(next)
		if slices.ContainsFunc(last.members, func(i memberInfo) bool {
			after, ok := next.find(i.Name)
			return !ok || after.State == MemberLost && i.State != MemberLost
		}) {
			m.joiner.hurry()
		}
		m.onChange(next)
	}
	return again
}

// aliveLocked drops the members that are gone and returns the others, then those whose metadata was found to be unusable
// since it was last called, and after what time the next one is to be dropped, at most an hour. Called with mu held.
func (m *membership) aliveLocked(now time.Time) (alive []memberInfo, strangers []gossipNode, again time.Duration) {
	alive, again = make([]memberInfo, 0, len(m.nodes)), time.Hour
	for name, node := range m.nodes {
		left := m.known.hasLeft(name, now)
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
			alive = append(alive, node.memberInfo)
		case !node.told:
			node.told = true
			strangers = append(strangers, *node)
		}
	}
	return alive, strangers, again
}

// memberAt reports whether gossip has a member at that address, this node included.
func (m *membership) memberAt(addr netip.AddrPort) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, node := range m.nodes {
		if node.gossip == addr {
			return true
		}
	}
	return false
}

// lostAddrs returns where lost members were.
func (m *membership) lostAddrs() []netip.AddrPort {
	var addrs []netip.AddrPort
	for _, i := range m.view().members {
		if i.State == MemberLost {
			addrs = append(addrs, i.gossip)
		}
	}
	return addrs
}

// someMember returns the gossip address of another member, picked at random.
func (m *membership) someMember() (addr netip.AddrPort, ok bool) {
	others := slices.DeleteFunc(slices.Clone(m.view().members), func(i memberInfo) bool {
		return i.Self || i.State == MemberLost
	})
	if len(others) == 0 {
		return netip.AddrPort{}, false
	}
	return others[rand.N(len(others))].gossip, true // #nosec G404 -- any will do
}

// otherSeeds takes in how many seeds there are, this node not counted.
func (m *membership) otherSeeds(n int) {
	m.mu.Lock()
	m.known.seeds = n
	m.mu.Unlock()
	m.wake()
}

// join meets the node at addr: both learn of everyone the other knows.
func (m *membership) join(addr netip.AddrPort) error {
	_, err := m.list.Join([]string{addr.String()})
	return err
}

// setLeaving tells the cluster that this node is going to leave, so that others take over what it owns. It waits until
// that has been sent often enough to reach everyone, at most 3 s or until the deadline of ctx. An error means that it was
// not, or not yet: gossip goes on with it.
func (m *membership) setLeaving(ctx context.Context) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	m.mu.Lock()
	closed, already := m.closed, m.own.leaving
	m.own.leaving = true
	m.mu.Unlock()
	if closed {
		return ErrClosed
	}
	if already {
		return nil
	}
	timeout := maxAnnounce
	if deadline, ok := ctx.Deadline(); ok {
		// memberlist takes zero and less for "for ever".
		timeout = max(min(timeout, time.Until(deadline)), time.Nanosecond)
	}
	if err := m.list.UpdateNode(timeout); err != nil {
		return fmt.Errorf("peerlimit: announcing the leave: %w", err)
	}
	return nil
}

// leave says goodbye, so that others know at once that this node has left and has not failed, and waits until that has
// been sent often enough to reach everyone, or for the timeout, which must be positive. Nothing is joined any more. A
// second call does nothing. The membership must still be closed, later, to let others ask for what they missed.
func (m *membership) leave(timeout time.Duration) error {
	m.mu.Lock()
	if m.closed {
		m.mu.Unlock()
		return ErrClosed
	}
	again := m.left
	m.left = true
	remember := m.known.tombstoneMemory()
	m.departing.Add(1)
	m.mu.Unlock()
	defer m.departing.Done()
	if again {
		return nil
	}
	m.haltJoins()

	deadline := time.NewTimer(timeout)
	defer deadline.Stop()
	sent := make(chan struct{})
	m.goodbyes.QueueBroadcast(newGoodbye(departure{m.identity, remember}, m.everyone().told, func() { close(sent) }))
	err := m.list.Leave(timeout)
	if err == nil && m.list.NumMembers() > 0 {
		select {
		case <-sent:
		case <-deadline.C:
			err = errors.New("timeout")
		}
	}
	if err != nil {
		return fmt.Errorf("peerlimit: saying goodbye: %w", err)
	}
	return nil
}

// close ends gossip at once, without a goodbye if leave was not called, and waits for all of its goroutines: mostly at
// once; a second, or several while the node takes itself to be unwell, when somebody is being probed in vain. It waits
// for a leave that is under way, too. It can be called more than once.
func (m *membership) close() error {
	m.mu.Lock()
	m.closed = true
	m.mu.Unlock()
	m.stop()
	m.departing.Wait()
	err := m.list.Shutdown()
	m.running.Wait()
	return errors.Join(err, awaitGossipEnd(m.identity))
}
