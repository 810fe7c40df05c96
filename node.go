package peerlimit

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"math/bits"
	"net"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/peerlimit/peerlimit/internal/quorum"
	"github.com/peerlimit/peerlimit/internal/ring"
	"github.com/peerlimit/peerlimit/internal/rule"
	"github.com/peerlimit/peerlimit/internal/wire"
	"github.com/peerlimit/peerlimit/transport"
)

// Node is one member of a cluster that shares limits. A process needs one. It is safe for concurrent use.
type Node struct {
	settings *settings // not embedded: with Config's fields, the secrets would be the node's, and with its methods, its text
	identity string    // settings.identity
	log      *slog.Logger
	began    time.Time // the monotonic clock counts from here
	closed   atomic.Bool

	table    *table   // copies of partitions; where this node holds, it decides by them for the cluster
	alone    *table   // buckets for deciding alone
	hot      *hotKeys // of other holders; nil when leases and remembered denials are both off
	rules    *rule.Rules
	counters counters
	events   *events

	refusedRequests, refusedConnections *refusals

	server     *transport.Server
	client     *transport.Client
	membership *membership
	route      atomic.Pointer[route]
	samplers   atomic.Pointer[[]*sampler] // nil when nobody samples; changed with mu held

	reach      *quorum.State  // whether this node may decide in full, and who is lost
	evidence   *quorum.Prober // what keeps reach fresh
	keeper     *keeper        // acquires partitions
	replicator *replicator    // sends what is held to the standbys
	reporter   *reporter      // has what was spent by shares charged where it belongs

	replicaMemories sync.Pool // of *ReplicaMemory

	// mu guards the fields below; it is held for a look-up or an update of them, and nothing else.
	mu       sync.Mutex
	limiters map[string]*Limiter
	changed  chan struct{} // closed and replaced when members or links change

	// knownMu guards known, and makes one step of comparing it and setting reach's.
	knownMu sync.Mutex
	known   uint64 // generation of the known set that reach has

	// Only rebuild uses these, in membership's one goroutine.
	peers   map[string]*peer  // that route refers to, so that a peer stays the same through ring changes
	members map[string]Member // of the last view, to tell what changed
	rings   ring.Builder

	unproved []memberInfo // of the last view: there are links to them as well

	quorumLost atomic.Bool // and not regained; what was told of it is true

	stop    chan struct{}      // closed to end the goroutines below
	halt    context.CancelFunc // likewise
	running sync.WaitGroup     // of the sweepers, the keeper, the replicator and the reporter
	ended   chan struct{}      // closed when Close has ended
	endErr  error              // what it returned; set before ended is closed
}

// startJoinTimeout bounds how long Start waits for the first attempt to join.
const startJoinTimeout = 5 * time.Second

// Start starts a node and returns after its first attempt to join the seeds of cfg, at most 5 seconds later, whether or
// not that succeeded: it goes on trying. The node takes and decides from then on. An error matches [ErrInvalidConfig] or
// wraps the network's, such as that an address is in use. The node must be ended by [Node.Leave] or [Node.Close].
func Start(cfg Config) (*Node, error) {
	s, err := cfg.resolve()
	if err != nil {
		return nil, err
	}
	n := &Node{
		settings: s, identity: s.identity, log: s.Logger.With(slog.String("node", s.identity)), began: time.Now(),
		table: newTable(s.MaxKeys), alone: newTable(s.MaxKeys), rules: rule.New(),
		limiters: make(map[string]*Limiter), peers: make(map[string]*peer), members: make(map[string]Member),
		changed: make(chan struct{}), stop: make(chan struct{}), ended: make(chan struct{}),
	}
	n.refusedRequests, n.refusedConnections = &refusals{log: n.log}, &refusals{log: n.log}
	n.reach = quorum.New(s.identity, n.lapse)
	n.table.longestTurn = max(minLongestTurn, s.MaxWait)
	n.table.fullUntil, n.table.replicates, n.table.piece = &n.reach.FullUntil, s.ReplicaInterval > 0, s.pieces.replica
	n.hot = newHotKeys(n.table.seed, !s.NoLeases, !s.NoDenialCache)
	n.keeper, n.replicator, n.reporter = newKeeper(n), newReplicator(n), newReporter(s.identity)
	n.evidence = quorum.NewProber(n.reach, n.witnessing(), func() { n.membership.again() })
	n.route.Store(&route{ring: n.rings.Build(nil)})
	n.events = startEvents(s.OnEvent, n.log)
	if err := n.listen(); err != nil {
		_ = n.shutDown()
		return nil, err
	}
	n.startGoroutines()
	timer := time.NewTimer(startJoinTimeout)
	defer timer.Stop()
	select {
	case <-n.membership.firstJoin:
	case <-timer.C:
	}
	return n, nil
}

// startGoroutines starts what runs as long as the node.
func (n *Node) startGoroutines() {
	ctx, halt := context.WithCancel(context.Background())
	n.halt = halt
	n.keeper.step(ctx) // a node that is alone holds everything before Start returns
	n.evidence.Start()
	n.running.Go(func() { n.keeper.run(ctx) })
	n.running.Go(func() { n.replicator.run(ctx) })
	n.running.Go(func() { n.reportSpent(ctx) })
	n.running.Go(func() { n.forgetNames(ctx) })
	if n.hot != nil {
		n.running.Go(func() { n.hot.run(ctx, n.now, n.giveBack) })
	}
	for _, t := range []*table{n.table, n.alone} {
		n.running.Go(func() { t.sweepForever(n.stop, n.now) })
	}
}

// lapse ends all that needs fresh evidence. reach calls it before evidence can count again, so that no take is decided
// with new evidence and an old holding.
func (n *Node) lapse() {
	ended := 0
	for part := range uint16(ring.Partitions) {
		p := &n.table.partitions[part]
		p.mu.Lock()
		if p.holding.holds {
			ended++
		}
		p.holding.lapse()
		p.forgetChanges()
		n.table.noteHolding(part, p)
		p.mu.Unlock()
	}
	if ended > 0 {
		n.counters.quorumLosses.Add(1)
		n.quorumLost.Store(true)
		n.events.emit(EventQuorumLost, "", fmt.Sprintf("%d partitions are decided by shares", ended))
	}
	n.keeper.wake()
}

// quorumFull notes that this node's evidence is fresh.
func (n *Node) quorumFull() {
	if n.quorumLost.Load() && n.quorumLost.CompareAndSwap(true, false) {
		n.events.emit(EventQuorumRegained, "", "it acquires again what it owns")
	}
}

// holdingChanged is called when this node has begun or ceased to hold something.
func (n *Node) holdingChanged() {
	n.replicator.wake()
	n.wakeWaiters()
}

// listen opens the node's sockets: takes first, because gossip tells others where they are served.
func (n *Node) listen() (err error) {
	network := n.settings.Network
	if network == nil {
		network = transport.TCP{}
	}
	n.server, err = transport.Listen(transport.ServerConfig{
		Network: network, Addr: n.settings.rpc.String(), Cluster: n.settings.Cluster, Self: n.identity,
		MinVersion: wire.ProtocolMin, MaxVersion: wire.ProtocolMax, Handler: n.handle, Logger: n.log,
		WrapConn: n.settings.encryption.WrapServer(), OnRefused: n.refusedConnection,
	})
	if err != nil {
		return fmt.Errorf("peerlimit: RPCAddr %s: %w", n.settings.rpc, err)
	}
	n.client = transport.NewClient(transport.ClientConfig{
		Network: network, Cluster: n.settings.Cluster, Self: n.identity,
		MinVersion: wire.ProtocolMin, MaxVersion: wire.ProtocolMax, OnLink: n.linkChanged,
		WrapConn: n.settings.encryption.WrapClient(),
	})
	bound, err := boundAddr(n.server.Addr())
	if err != nil {
		return err
	}
	n.membership, err = startMembership(n.settings, bound, n.rebuild)
	return err
}

func boundAddr(addr net.Addr) (netip.AddrPort, error) {
	bound, err := netip.ParseAddrPort(addr.String())
	if err != nil {
		return netip.AddrPort{}, fmt.Errorf("peerlimit: RPCAddr: the network listens on %q, which is not an IP address and port: %w", addr, err)
	}
	return netip.AddrPortFrom(bound.Addr().Unmap(), bound.Port()), nil
}

// Limiter returns the limiter of that name with 1 to 8 limits. Asked again with the same limits it returns one on the same
// buckets; with others the error matches [ErrNameTaken]. Other errors match [ErrInvalidName], [ErrInvalidLimit] or
// [ErrClosed]. Nodes may differ in their limits, as they do during a rolling deploy: each take is judged by the limits it
// brings.
func (n *Node) Limiter(name string, limits ...Limit) (*Limiter, error) {
	if err := validateName(name); err != nil {
		return nil, err
	}
	inner := coreLimits(nil, limits)
	if err := validateLimits(inner); err != nil {
		return nil, fmt.Errorf("limiter %q: %w", name, err)
	}
	if err := n.rules.Keep(name); err != nil {
		return nil, err
	}
	r, err := n.rules.Find(wire.AppendRule(nil, name, inner))
	if err != nil {
		return nil, err
	}
	return n.register(&Limiter{node: n, name: name, rule: r, policy: n.settings.Fallback, counts: new(decisionCounts)})
}

// LimiterFunc returns a limiter whose limits depend on the key, such as a customer's tier. limits is called on every
// take and must be fast; what it returns is validated, and an empty or invalid result is an error of that call that
// matches [ErrInvalidLimit]. A name can be given to one LimiterFunc only, because functions cannot be compared; otherwise
// the error matches [ErrNameTaken], and else as for Limiter.
func (n *Node) LimiterFunc(name string, limits func(ctx context.Context, key string) []Limit) (*Limiter, error) {
	if err := validateName(name); err != nil {
		return nil, err
	}
	if limits == nil {
		return nil, fmt.Errorf("%w: limiter %q has no function", ErrInvalidLimit, name)
	}
	if err := n.rules.Keep(name); err != nil {
		return nil, err
	}
	return n.register(&Limiter{node: n, name: name, limits: limits, policy: n.settings.Fallback, counts: new(decisionCounts)})
}

func (n *Node) register(l *Limiter) (*Limiter, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.closed.Load() {
		return nil, ErrClosed
	}
	old := n.limiters[l.name]
	if old == nil {
		n.limiters[l.name] = l
		return l, nil
	}
	if old.rule == nil || l.rule == nil || !slices.Equal(old.rule.Set.Limits, l.rule.Set.Limits) {
		return nil, fmt.Errorf("%w: %q is in use with other limits", ErrNameTaken, l.name)
	}
	return old, nil
}

// WaitReady returns when this node sees at least that many members alive, itself among them, can reach each of them, and
// holds all that is its own and nothing that is another's; less than 1 counts as 1. It returns an error that wraps ctx.Err()
// when ctx ends first, or matches [ErrClosed]. When it has returned on all members, each key is decided about by one of them.
func (n *Node) WaitReady(ctx context.Context, members int) error {
	for {
		n.mu.Lock()
		changed := n.changed
		n.mu.Unlock()
		ready := n.readiness()
		switch {
		case n.closed.Load():
			return ErrClosed
		case ready.members >= members && ready.linked == ready.members && ready.acquiring == 0 && ready.surplus == 0:
			return nil
		}
		select {
		case <-changed:
		case <-n.stop:
			return ErrClosed
		case <-ctx.Done():
			return fmt.Errorf("peerlimit: %d of %d members are ready, %d linked, %d partitions are being acquired, and %d handed over: %w",
				ready.members, members, ready.linked, ready.acquiring, ready.surplus, ctx.Err())
		}
	}
}

// readiness is how much of the cluster a node has come together with.
type readiness struct {
	members   int // on the ring
	linked    int // of those, that this node can send takes to; itself among them
	acquiring int // partitions that are this node's and that it does not hold
	surplus   int // partitions that it holds and that are another's: when two clusters have met, that one may hold them as well
}

func (n *Node) readiness() (ready readiness) {
	r := n.route.Load()
	ready.members = len(r.peers)
	for _, p := range r.peers {
		if p == nil || n.linked(p) {
			ready.linked++
		}
	}
	ready.acquiring, ready.surplus = n.acquiring(r)
	return ready
}

// acquiring returns how many partitions the ring names this node for that it does not hold, and how many it holds that the
// ring names another one for.
func (n *Node) acquiring(r *route) (missing, surplus int) {
	full := n.reach.IsFull(n.now())
	for part := range uint16(ring.Partitions) {
		switch mine, holds := r.owner(part) == nil, n.table.holds(part); {
		case mine && !(full && holds):
			missing++
		case !mine && holds:
			surplus++
		}
	}
	return missing, surplus
}

// Self returns this node as other members see it.
func (n *Node) Self() Member { return n.membership.self() }

// Members returns the members this node sees, itself among them, sorted by name.
func (n *Node) Members() []Member {
	members := n.membership.view().list()
	for i := range members {
		m := &members[i]
		if m.State != MemberAlive || m.Self {
			continue
		}
		switch n.client.State(m.Name) {
		case transport.LinkSuspect, transport.LinkDown:
			m.State = MemberSuspect
		}
	}
	return members
}

// Stats returns what the node has seen so far.
func (n *Node) Stats() Stats {
	r := n.route.Load()
	view := n.membership.view()
	c := &n.counters
	s := Stats{
		Members: len(r.peers), Known: view.known, Reachable: view.reachable,
		RingChanges: c.ringChanges.Load(),
		ReplicaLag:  n.replicator.lag(n.now()),
		HasQuorum:   n.reach.IsFull(n.now()), QuorumLosses: c.quorumLosses.Load(), Degraded: c.degraded.Load(),
		MaxKeys: n.settings.MaxKeys, Keys: int(n.table.keys.Load()), DegradedKeys: int(n.alone.keys.Load()), Evicted: n.table.evicted.Load(),
		Served: c.served.Load(), PassedOn: c.passedOn.Load(),
		Refused:         c.refused.Load() + n.membership.gate.malformed.Load(),
		Unauthenticated: c.strangers.Load() + n.membership.gate.strangers.Load(),
		Timeouts:        c.timeouts.Load(), Unreachable: c.unreachable.Load(), Overloaded: c.overloaded.Load(),
		RequestTimes: c.questionTimes.histogram(),
		LostRefunds:  c.lostRefunds.Load(), DroppedDebts: n.reporter.lost.Load(), EventsDropped: n.events.dropped.Load(),
		Limiters: make(map[string]LimiterStats),
	}
	n.countPartitions(&s, r)
	n.countLinks(&s, r)
	s.LeasesGranted, s.LeasesExpired, s.TokensLeased, s.TokensUsed, s.TokensReturned = n.table.leases.sums()
	n.mu.Lock()
	defer n.mu.Unlock()
	for name, l := range n.limiters {
		s.Limiters[name] = l.counts.snapshot()
	}
	return s
}

// countPartitions fills in what the node owns, holds and has gained.
func (n *Node) countPartitions(s *Stats, r *route) {
	full := n.reach.IsFull(n.now())
	for part := range uint16(ring.Partitions) {
		if r.owner(part) == nil {
			s.PartitionsOwned++
		}
		if full && n.table.holds(part) {
			s.PartitionsHeld++
		}
	}
	s.AcquiredByTransfer, s.AcquiredFromReplica, s.AcquiredEmpty = n.keeper.given.Load(), n.keeper.fromReplica.Load(), n.keeper.empty.Load()
}

// now is the node's clock: nanoseconds on the monotonic clock since it started. No other clock decides anything.
func (n *Node) now() int64 { return int64(time.Since(n.began)) }

// memberFor returns the owner of a partition as a Member.
func (n *Node) memberFor(partition uint16) Member { return n.memberOf(n.route.Load().owner(partition)) }

// memberOf returns a peer as a Member; nil is this node.
func (n *Node) memberOf(p *peer) Member {
	if p == nil {
		return n.Self()
	}
	for _, m := range n.Members() {
		if m.Name == p.Name {
			return m
		}
	}
	return Member{Name: p.Name, RPCAddr: p.Addr, State: MemberLost} // gone since the route was made
}

// rebuild makes a new route from the whole member list, and from who is lost. membership calls it from one goroutine
// after every change.
func (n *Node) rebuild(view *memberView) {
	n.tellChanges(view)
	n.reckonWith(&view.knownNames)
	old, unproved := n.peers, n.unproved
	n.peers = n.connectPeers(view)
	n.unproved = view.unproved
	n.reroute(view)
	for name, p := range old {
		if n.peers[name] == nil { // and no route leads there any more
			n.disconnect(name)
			n.parted(p)
		}
	}
	for i := range unproved {
		n.disconnect(unproved[i].Name)
	}
	n.evidence.LookAgain() // there are routes to them now
	n.keeper.wake()
	n.replicator.lookAgain()
	n.wakeWaiters()
}

// learn takes in a member's word for names. When it returns, evidence, verdicts and rounds reckon with it.
func (n *Node) learn(w *word) {
	if n.membership.learn(w, n.reach.IsFull(n.now())) {
		n.reckonWith(n.membership.everyone())
	}
}

// meet takes in that a member has proved itself to this node.
func (n *Node) meet(name string) {
	if n.membership.meet(name) {
		n.reckonWith(n.membership.everyone())
	}
}

// reckonWith makes a known set the one that evidence is judged by, unless a newer one is.
func (n *Node) reckonWith(known *knownNames) {
	n.knownMu.Lock()
	if known.generation > n.known {
		n.known = known.generation
		n.reach.SetKnown(known.names, known.known, n.now())
		n.reach.SetDoubted(known.doubted, n.now())
	}
	n.knownMu.Unlock()
	n.evidence.LookAgain()
	n.keeper.wake()
}

// disconnect ends the link to a name that is neither a peer nor to prove itself.
func (n *Node) disconnect(name string) {
	unproved := func(m memberInfo) bool { return m.Name == name }
	if n.peers[name] == nil && !slices.ContainsFunc(n.unproved, unproved) {
		n.client.Disconnect(name)
	}
}

// connectPeers returns the other members, each with a link. One that is leaving keeps its link while it is there:
// answers may still be on their way. So does one that is lost: it may come back.
func (n *Node) connectPeers(view *memberView) map[string]*peer {
	peers := make(map[string]*peer, len(view.members))
	for _, m := range view.unproved {
		n.client.Connect(transport.Peer{Name: m.Name, Addr: m.RPCAddr})
	}
	for i := range view.members {
		m := &view.members[i]
		if m.Self {
			continue
		}
		p := n.peers[m.Name]
		if p == nil || p.Addr != m.RPCAddr {
			moved := &peer{Peer: transport.Peer{Name: m.Name, Addr: m.RPCAddr}}
			if p != nil {
				moved.degradedAt.Store(p.degradedAt.Load()) // what began with the old address ends with the new one
			}
			p = moved
		}
		peers[m.Name] = p
		n.client.Connect(p.Peer)
	}
	return peers
}

// reroute makes a new route when the owners or those that can be asked have changed. Who is lost owns nothing, although
// gossip takes longer to give it up.
func (n *Node) reroute(view *memberView) {
	now := n.now()
	names := slices.DeleteFunc(slices.Clone(view.ringNames()), func(name string) bool { return n.reach.Lost(name, now) })
	old := n.route.Load()
	sameOwners := slices.Equal(old.ring.Members(), names)
	if sameOwners && maps.Equal(old.others, n.peers) {
		return
	}
	next := &route{ring: old.ring, peers: make([]*peer, len(names)), others: n.peers}
	if !sameOwners {
		next.ring = n.rings.Build(names)
		if wrong := next.ring.Disagreements(); wrong > 0 {
			n.log.Error("ring library disagrees with this version, standbys may be wrong; report this", slog.Int("partitions", wrong))
		}
		n.keeper.notePrevious(old.ring, next.ring)
	}
	for i, name := range names {
		next.peers[i] = n.peers[name] // nil for this node
	}
	n.route.Store(next)
	if !n.settings.NoLeases {
		n.table.members.Store(int64(len(names)))
	}
	if sameOwners {
		return
	}
	n.counters.ringChanges.Add(1)
	detail := fmt.Sprintf("%d members own keys", len(names))
	if len(names) == 1 {
		detail = "1 member owns all keys"
	}
	n.events.emit(EventRing, "", detail)
}

// tellChanges emits an event for every member that came, went or changed since the last view.
func (n *Node) tellChanges(view *memberView) {
	current := make(map[string]Member, len(view.members))
	for i := range view.members {
		m := view.members[i].Member
		current[m.Name] = m
		old, known := n.members[m.Name]
		switch {
		case known && old.State == m.State:
		case m.State == MemberLeaving:
			n.events.emit(EventMemberLeaving, m.Name, m.Addr)
		case m.State == MemberLost:
			n.events.emit(EventMemberFailed, m.Name, m.Addr)
		case !known || old.State == MemberLost:
			n.events.emit(EventMemberJoined, m.Name, m.Addr)
		}
	}
	for name, m := range n.members {
		// A member that has failed is listed while it counts.
		switch _, still := current[name]; {
		case still:
		case m.State == MemberLost:
			n.events.emit(EventMemberForgotten, name, m.Addr)
		default:
			n.events.emit(EventMemberLeft, name, m.Addr)
		}
	}
	n.members = current
}

// linkChanged is told by the transport, from a link's own goroutine.
func (n *Node) linkChanged(change transport.LinkChange) {
	switch change.State {
	case transport.LinkUp:
		n.meet(change.Peer.Name)
		n.events.emit(EventLinkUp, change.Peer.Name, change.Peer.Addr)
		n.evidence.LookAgain()
		n.keeper.wake()
	default:
		detail := change.State.String()
		if change.Err != nil {
			detail = change.Err.Error()
		}
		line := eventLines[EventLinkDown]
		if change.State == transport.LinkSuspect {
			line = lineSuspect
		}
		n.events.emitAs(line, EventLinkDown, change.Peer.Name, detail)
		n.keeper.wake()
	}
	n.wakeWaiters()
}

// wakeWaiters makes every WaitReady look again.
func (n *Node) wakeWaiters() {
	n.mu.Lock()
	defer n.mu.Unlock()
	close(n.changed)
	n.changed = make(chan struct{})
}

// Leave goes in an orderly way: it announces that the node is leaving, so that the others take over what it holds, waits
// until all of it is safe with them, answers or passes on what still arrives, and then closes. It takes work until it
// returns. When ctx ends first it goes at once, and the error wraps ctx.Err() and says what was not handed over. Either
// way the node is closed afterwards. Alone in its cluster, a node has nobody to hand over to, and nothing to wait for.
func (n *Node) Leave(ctx context.Context) error {
	if n.closed.Load() {
		return n.Close()
	}
	err := n.retire(ctx)
	return errors.Join(err, n.Close())
}

// lingerTime is how long a leaving node goes on answering when all is handed over: several rounds of gossip, so that the
// last to hear that it is leaving has heard.
const lingerTime = time.Second

// leaveInterval is how often a leaving node looks whether it can go.
const leaveInterval = 20 * time.Millisecond

// retire announces the leave and stays until everything is handed over and nobody should be asking any more.
func (n *Node) retire(ctx context.Context) error {
	if len(n.route.Load().others) == 0 {
		return nil // nobody to tell
	}
	began := time.Now()
	n.keeper.leaving.Store(true)
	n.keeper.wake()
	announced := n.membership.setLeaving(ctx)
	ticker := time.NewTicker(leaveInterval)
	defer ticker.Stop()
	for {
		held, kept := n.notHandedOver(ctx)
		if held+kept == 0 && time.Since(began) >= lingerTime || len(n.route.Load().ring.Members()) == 0 {
			return nil
		}
		select {
		case <-ticker.C:
		case <-n.stop: // somebody called Close
			return nil
		case <-ctx.Done():
			return leaveError(ctx.Err(), announced, held, kept)
		}
	}
}

// leaveError says what a leave that was cut short has left undone.
func leaveError(cause, announced error, held, kept int) error {
	switch {
	case announced != nil:
		return fmt.Errorf("peerlimit: leaving was not announced to all, %d partitions were not handed over: %w", held, announced)
	case held+kept > 0:
		return fmt.Errorf("peerlimit: left before everything was handed over: %d partitions were still held, %d copies still needed: %w",
			held, kept, cause)
	}
	return fmt.Errorf("peerlimit: left before everybody had heard of it: %w", cause)
}

// notHandedOver returns how many partitions this node still holds, and how many copies it keeps that nobody has said are
// safe elsewhere.
func (n *Node) notHandedOver(ctx context.Context) (held, kept int) {
	for i := range n.table.held {
		held += bits.OnesCount64(n.table.held[i].Load())
	}
	return held, n.settleCopies(ctx)
}

// announceTimeout bounds how long Close tells others that the node is going: gossip needs about a second for a thousand.
const announceTimeout = 3 * time.Second

// Close goes at once. Others are told, so they need not find out, but nothing is handed over. It waits for the node's
// goroutines, is idempotent and returns what the first call returned. Calls on limiters return [ErrClosed] from its
// beginning.
func (n *Node) Close() error {
	if !n.closed.CompareAndSwap(false, true) {
		<-n.ended // not a sync.Once: that would be a lock held across everything below
		return n.endErr
	}
	defer close(n.ended)
	n.keeper.leaving.Store(true)
	n.evidence.Parting.Store(true)
	var errs []error
	if err := n.membership.leave(announceTimeout); err != nil {
		errs = append(errs, fmt.Errorf("peerlimit: the end was not announced to all: %w", err))
	}
	n.endErr = errors.Join(append(errs, n.shutDown())...)
	return n.endErr
}

// shutDown ends whatever was started, in the order in which parts depend on each other.
func (n *Node) shutDown() error {
	var errs []error
	n.evidence.Close()
	if n.membership != nil {
		errs = append(errs, n.membership.close())
	}
	if n.server != nil {
		errs = append(errs, n.server.Close())
	}
	if n.client != nil {
		errs = append(errs, n.client.Close())
	}
	close(n.stop)
	if n.halt != nil {
		n.halt()
	}
	n.running.Wait()
	n.events.close()
	return errors.Join(errs...)
}
