package peerlimit

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/peerlimit/peerlimit/internal/acquire"
	"github.com/peerlimit/peerlimit/internal/debt"
	"github.com/peerlimit/peerlimit/internal/hotkeys"
	"github.com/peerlimit/peerlimit/internal/intern"
	"github.com/peerlimit/peerlimit/internal/linklog"
	"github.com/peerlimit/peerlimit/internal/membership"
	"github.com/peerlimit/peerlimit/internal/quorum"
	"github.com/peerlimit/peerlimit/internal/replicate"
	"github.com/peerlimit/peerlimit/internal/ring"
	"github.com/peerlimit/peerlimit/internal/rule"
	"github.com/peerlimit/peerlimit/internal/seldom"
	"github.com/peerlimit/peerlimit/internal/store"
	"github.com/peerlimit/peerlimit/internal/waits"
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

	table    *store.Table   // copies of partitions; where this node holds, it decides by them for the cluster
	alone    *store.Table   // buckets for deciding alone
	hot      *hotkeys.Cache // of other holders; nil when leases and remembered denials are both off
	rules    *rule.Rules
	limiters *intern.Table[namedLimiter] // that somebody holds, or that were asked for lately
	waits    waits.Waits                 // callers that wait for a turn, at whatever node
	counters counters
	events   *events

	refusedRequests    *seldom.Log
	refusedConnections [membership.Faults]*seldom.Log // by what is wrong with the peer

	server     *transport.Server
	client     *transport.Client
	membership *membership.Membership
	route      atomic.Pointer[route]
	samplers   atomic.Pointer[[]*sampler] // nil when nobody samples; changed with mu held

	reach      *quorum.State // whether this node may decide in full, and which members are lost
	prober     *quorum.Prober
	agreement  *quorum.Agreement     // what keeps reach fresh
	others     others                // how the other members are spoken with
	history    *ring.History         // which member owned what before
	keeper     *acquire.Keeper       // acquires partitions
	replicator *replicate.Replicator // sends what is held to the standbys
	reporter   *debt.Ledger          // has what was spent by shares charged where it belongs

	// mu guards the fields below; it is held for a look-up or an update of them, and nothing else.
	mu      sync.Mutex
	changed chan struct{} // closed and replaced when members or links change

	// rosterMu guards rosterGeneration, and makes one step of comparing it and setting reach's.
	rosterMu         sync.Mutex
	rosterGeneration uint64 // of the roster that reach has

	// Only rebuild uses these, in membership's one goroutine.
	peers map[string]*peer // that route refers to, so that a peer stays the same through ring changes
	told  *membership.View // the last view, to tell what changed; nil before the first
	rings ring.Builder

	unproved []membership.Info // of the last view: there are links to them as well

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
// not that succeeded: it goes on trying. The node takes and decides from then on. An error matches [ErrInvalidConfig], or
// names the field whose address cannot be listened at and wraps the network's error, such as that it is in use. The node must be ended by [Node.Leave] or [Node.Close].
func Start(cfg Config) (*Node, error) {
	s, err := cfg.resolve()
	if err != nil {
		return nil, err
	}
	n := &Node{
		settings: s, identity: s.identity, log: s.Logger.With(slog.String("node", s.identity)), began: time.Now(),
		alone: store.New(store.Config{MaxKeys: s.MaxKeys}), rules: rule.New(max(leastRules, s.MaxKeys/keysPerRule)),
		limiters: intern.New[namedLimiter](idleLimiters), peers: make(map[string]*peer),
		changed: make(chan struct{}), stop: make(chan struct{}), ended: make(chan struct{}),
	}
	n.refusedRequests, n.refusedConnections = seldom.New(n.log), newRefusals(n.log)
	n.reach = quorum.New(s.identity, n.lapse)
	n.table = store.New(store.Config{
		MaxKeys: s.MaxKeys, FullUntil: &n.reach.FullUntil, Replicates: s.ReplicaInterval > 0, LongestTurn: s.MaxWait, Piece: s.pieces.replica,
		Self: s.identity, WakeHere: n.waits.Tell,
	})
	n.hot = hotkeys.New(!s.NoLeases, !s.NoDenialCache)
	n.others = others{n}
	n.history = ring.NewHistory(s.identity, n.now)
	n.reporter = debt.New(s.identity, n.table, n.rules, n.counts, n.now)
	n.keeper = acquire.New(acquire.Config{
		Self: s.identity, Log: n.log, Table: n.table, Reach: n.reach, Rules: n.rules, Debts: n.reporter, Others: n.others,
		Now: n.now, AnswerBytes: s.pieces.answer,
	})
	n.replicator = replicate.New(replicate.Config{
		Self: s.identity, Log: n.log, Table: n.table, Reach: n.reach, Rules: n.rules, Others: n.others, Now: n.now, Interval: s.ReplicaInterval,
	})
	n.agreement = quorum.NewAgreement(s.identity, n.began.UnixNano(), witnesses{n}.agreeing())
	n.prober = quorum.NewProber(n.reach, n.agreement, witnesses{n}.witnessing(), func() { n.membership.Renotify() })
	n.route.Store(&route{ring: n.rings.Build(nil)})
	n.events = startEvents(s.OnEvent, n.log)
	if err := n.listen(); err != nil {
		_ = n.shutDown()
		return nil, err
	}
	n.startGoroutines()
	n.server.Serve() // and not before: what answers needs the membership, the client, and the partitions held
	timer := time.NewTimer(startJoinTimeout)
	defer timer.Stop()
	select {
	case <-n.membership.TriedSeeds():
	case <-timer.C:
	}
	n.prober.Seat() // it may have found out that its only seed is itself
	return n, nil
}

// startGoroutines starts what runs as long as the node.
func (n *Node) startGoroutines() {
	ctx, halt := context.WithCancel(context.Background())
	n.halt = halt
	n.prober.Seat()
	n.keeper.Step(ctx) // a node that is alone holds everything before Start returns
	n.prober.Start()
	n.running.Go(func() { n.keeper.Run(ctx) })
	n.running.Go(func() { n.replicator.Run(ctx) })
	n.running.Go(func() { n.reporter.Run(ctx, n.others) })
	n.running.Go(func() { n.forgetUnused(ctx) })
	n.running.Go(func() { n.events.links.Run(ctx) })
	if n.hot != nil {
		n.running.Go(func() { n.hot.Run(ctx, n.now, n.returnLeases) })
	}
	n.running.Go(func() { n.table.ServeTurns(n.stop, n.now, n.others.wake) })
	for _, t := range []*store.Table{n.table, n.alone} {
		n.running.Go(func() { t.SweepForever(n.stop, n.now) })
	}
}

// lapse ends all that needs fresh quorum. reach calls it before quorum can count again, so that no take is decided
// with new quorum and an old holding.
func (n *Node) lapse() {
	ended := n.table.LapseAll()
	if ended > 0 {
		n.counters.quorumLosses.Add(1)
		n.quorumLost.Store(true)
		n.events.emit(EventQuorumLost, "", fmt.Sprintf("%d partitions are decided by shares", ended))
	}
	n.keeper.Wake()
}

// quorumFull notes that this node's quorum is fresh.
func (n *Node) quorumFull() {
	if n.quorumLost.Load() && n.quorumLost.CompareAndSwap(true, false) {
		n.events.emit(EventQuorumRegained, "", "it acquires again what it owns")
	}
}

// holdingChanged is called when this node has begun or ceased to hold something.
func (n *Node) holdingChanged() {
	n.replicator.Wake()
	n.wakeWaiters()
}

// listen binds the node's ports: that of takes first, because gossip tells others where they are served. Nothing is answered
// there before Start serves.
func (n *Node) listen() (err error) {
	network := n.settings.Network
	if network == nil {
		network = transport.TCP{}
	}
	n.server, err = transport.Bind(transport.ServerConfig{
		Network: network, Addr: n.settings.rpc.String(), Cluster: n.settings.Cluster, Self: n.identity,
		MinVersion: wire.ProtocolMin, MaxVersion: wire.ProtocolMax, Handler: server{n}.handle, Logger: n.log,
		WrapConn: n.settings.encryption.WrapServer(), OnRefused: server{n}.refusedConnection,
	})
	if err != nil {
		return n.settings.rpcError(err)
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
	if n.membership, err = membership.New(n.settings.membership(bound, witnesses{n}.fate())); err != nil {
		return membershipError(err)
	}
	n.membership.Start(n.rebuild) // with n.membership set: the links that a view makes use it
	return nil
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
//
// There may be any number of limiters, such as one for each tenant, and nothing has to be closed. A limiter works as long as it is
// held. The node forgets one that nobody holds, with its counts in [Stats] and its hold on the name, when it was not asked for in
// ten minutes and the garbage collector has run; of more than 16,384 such limiters, also those that were asked for longest ago.
// Buckets have nothing to do with that: a limiter of the same name that is made later goes on where it left off.
func (n *Node) Limiter(name string, limits ...Limit) (*Limiter, error) {
	if err := validateName(name); err != nil {
		return nil, err
	}
	if problem := problemOf(limits); problem != "" {
		return nil, fmt.Errorf("%w: limiter %q: %s", ErrInvalidLimit, name, problem)
	}
	r, err := n.rules.Find(wire.AppendRule(nil, name, coreLimits(nil, limits)))
	if err != nil {
		return nil, err
	}
	return n.register(name, r, nil)
}

// LimiterFunc returns a limiter whose limits depend on the key, such as a customer's tier. limits is called on every
// take and must be fast; what it returns is validated, and an empty or invalid result is an error of that call that
// matches [ErrInvalidLimit] and names the limiter and the key. There may be any number of different limits. A name can be given to
// one LimiterFunc only, because functions cannot be compared; otherwise the error matches [ErrNameTaken], and else as for Limiter.
func (n *Node) LimiterFunc(name string, limits func(ctx context.Context, key string) []Limit) (*Limiter, error) {
	if err := validateName(name); err != nil {
		return nil, err
	}
	if limits == nil {
		return nil, fmt.Errorf("%w: limiter %q has no function", ErrInvalidLimit, name)
	}
	return n.register(name, nil, limits)
}

// register returns the limiter of a name, made if there is none. It has static limits, those of r, or a function.
func (n *Node) register(name string, r *rule.Rule, limits func(context.Context, string) []Limit) (*Limiter, error) {
	if n.closed.Load() {
		return nil, ErrClosed
	}
	l := n.limiters.Find(name)
	if l == nil {
		made := &namedLimiter{node: n, name: name, rule: r, limits: limits}
		made.plain = Limiter{namedLimiter: made, policy: n.settings.Fallback}
		if l = n.limiters.Add(name, made); l == made {
			return &l.plain, nil
		}
	}
	if l.rule == nil || r == nil || !slices.Equal(l.rule.Set.Limits, r.Set.Limits) {
		return nil, fmt.Errorf("%w: this node already has %q with other limits; use LimiterFunc to change limits while it runs", ErrNameTaken, name)
	}
	return &l.plain, nil
}

// WaitReady returns when this node sees at least that many members alive, itself among them, can reach each of them, and
// holds all that is its own and nothing that is another's; less than 1 counts as 1. It returns an error that wraps ctx.Err()
// when ctx ends first, or matches [ErrClosed]. When it has returned on all members, each key is decided about by one of them.
func (n *Node) WaitReady(ctx context.Context, members int) error {
	for {
		n.mu.Lock()
		changed := n.changed
		n.mu.Unlock()
		ready := readinessOf(n)
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
			return fmt.Errorf("peerlimit: not ready: sees %d of %d members, connected to %d others; %d partitions to receive, %d to hand over: %w",
				ready.members, members, max(0, ready.linked-1), ready.acquiring, ready.surplus, ctx.Err())
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

func readinessOf(n *Node) (ready readiness) {
	r := n.route.Load()
	ready.members = len(r.peers)
	for _, p := range r.peers {
		if p == nil || n.others.linked(p) {
			ready.linked++
		}
	}
	ready.acquiring, ready.surplus = missingAndSurplus(n, r)
	return ready
}

// missingAndSurplus returns how many partitions the ring names this node for that it does not hold, and how many it holds that the
// ring names another one for.
func missingAndSurplus(n *Node, r *route) (missing, surplus int) {
	full := n.reach.IsFull(n.now())
	for part := range uint16(ring.Partitions) {
		switch mine, holds := r.owner(part) == nil, n.table.Holds(part); {
		case mine && !(full && holds):
			missing++
		case !mine && holds:
			surplus++
		}
	}
	return missing, surplus
}

// Self returns this node as other members see it.
func (n *Node) Self() Member { return memberFrom(n.membership.Self()) }

// Members returns the members this node sees, itself among them, sorted by name.
func (n *Node) Members() []Member {
	infos := n.membership.View().List()
	members := make([]Member, len(infos))
	for i := range members {
		members[i] = memberFrom(infos[i])
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
	view := n.membership.View()
	c := &n.counters
	malformed, unauthenticated := n.membership.Refused()
	held := n.table.Counts()
	s := Stats{
		Members: len(r.peers), Known: view.Divisor, Reachable: view.Reachable,
		RingChanges: c.ringChanges.Load(),
		ReplicaLag:  n.replicator.Lag(n.now()),
		HasQuorum:   n.reach.IsFull(n.now()), QuorumLosses: c.quorumLosses.Load(), Degraded: c.degraded.Load(),
		MaxKeys: n.settings.MaxKeys, Keys: held.Keys, DegradedKeys: n.alone.Counts().Keys, Evicted: held.Evicted,
		Waiting: n.waits.Len(), QueuedTurns: held.QueuedTurns,
		ServedTurns: held.ServedTurns, LeftTurns: held.LeftTurns, RefusedTurns: held.RefusedTurns,
		Served: c.served.Load(), PassedOn: c.passedOn.Load(),
		Refused:         c.refused.Load() + malformed,
		Unauthenticated: c.strangers.Load() + unauthenticated,
		Timeouts:        c.timeouts.Load(), Unreachable: c.unreachable.Load(), Overloaded: c.overloaded.Load(),
		LostRefunds: c.lostRefunds.Load(), DroppedDebts: n.reporter.Dropped(), EventsDropped: n.events.dropped.Load(),
		Limiters: make(map[string]LimiterStats),
	}
	countPartitions(n, &s, r)
	countLinks(n, &s, r)
	countSeeds(n, &s)
	s.RequestTimes.Bounds, s.RequestTimes.Counts, s.RequestTimes.Sum = c.questionTimes.Sums()
	s.LeasesGranted, s.LeasesExpired = held.LeasesGranted, held.LeasesExpired
	s.TokensLeased, s.TokensUsed, s.TokensReturned = held.TokensLeased, held.TokensUsed, held.TokensReturned
	for _, l := range n.limiters.All() {
		s.Limiters[l.name] = limiterStatsOf(&l.counts)
	}
	return s
}

// countPartitions fills in what the node owns, holds and has gained.
func countPartitions(n *Node, s *Stats, r *route) {
	full := n.reach.IsFull(n.now())
	for part := range uint16(ring.Partitions) {
		if r.owner(part) == nil {
			s.PartitionsOwned++
		}
		if full && n.table.Holds(part) {
			s.PartitionsHeld++
		}
	}
	s.AcquiredByTransfer, s.AcquiredFromReplica, s.AcquiredEmpty = n.keeper.Gained()
}

// counts reports whether a member is one that limits are divided by.
func (n *Node) counts(name string) bool { return n.membership.Roster().Has(name) }

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

// rebuild makes a new route from the whole member list, and from the members that are lost. membership calls it from one goroutine
// after every change.
func (n *Node) rebuild(view *membership.View) {
	n.tellChanges(view)
	n.hearLastWords(view)
	n.applyRoster(&view.Roster)
	old, unproved := n.peers, n.unproved
	n.peers = n.connectPeers(view)
	n.unproved = view.Unproved
	n.reroute(view)
	for name, p := range old {
		if n.peers[name] == nil { // and no route leads there any more
			n.disconnect(name)
			n.others.parted(p)
			n.table.DismissNode(name, n.now())
		}
	}
	for i := range unproved {
		n.disconnect(unproved[i].Name)
	}
	n.prober.LookAgain() // there are routes to them now
	n.keeper.Wake()
	n.replicator.LookAgain()
	n.wakeWaiters()
}

// mergeNames takes in a member's word for names. When it returns, quorum, verdicts and rounds reckon with it.
func (n *Node) mergeNames(w *membership.Word) {
	if n.membership.MergeNames(w) {
		n.applyRoster(n.membership.Roster())
	}
}

// addHeardFrom takes in that a member has proved itself to this node.
func (n *Node) addHeardFrom(name string) {
	if n.membership.AddHeardFrom(name) {
		n.applyRoster(n.membership.Roster())
	}
}

// applyRoster has this node watch, and ask the witnesses about, the members of a roster, unless it does so of a newer one already. Quorum is
// judged by the panel.
func (n *Node) applyRoster(known *membership.Roster) {
	n.rosterMu.Lock()
	if known.Generation() > n.rosterGeneration {
		n.rosterGeneration = known.Generation()
		n.reach.SetKnown(known.Names, n.now())
	}
	n.rosterMu.Unlock()
	n.prober.LookAgain()
	n.keeper.Wake()
}

// disconnect ends the link to a name that is neither a peer nor to prove itself.
func (n *Node) disconnect(name string) {
	unproved := func(m membership.Info) bool { return m.Name == name }
	if n.peers[name] == nil && !slices.ContainsFunc(n.unproved, unproved) {
		n.client.Disconnect(name)
	}
}

// connectPeers returns the other members, each with a link. One that is leaving keeps its link while it is there:
// answers may still be on their way. So does one that is lost: it may come back.
func (n *Node) connectPeers(view *membership.View) map[string]*peer {
	peers := make(map[string]*peer, len(view.Members))
	for _, m := range view.Unproved {
		n.client.Connect(transport.Peer{Name: m.Name, Addr: addrText(m.RPC)})
	}
	for i := range view.Members {
		m := &view.Members[i]
		if m.Self {
			continue
		}
		p, addr := n.peers[m.Name], addrText(m.RPC)
		if p == nil || p.Addr != addr {
			moved := &peer{Peer: transport.Peer{Name: m.Name, Addr: addr}}
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

// reroute makes a new route when the owners or those that can be asked have changed. A member that is lost owns nothing, although
// gossip takes longer to give it up.
func (n *Node) reroute(view *membership.View) {
	names := slices.DeleteFunc(slices.Clone(view.Owners()), view.IsLost)
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
		n.history.Note(old.ring, next.ring, n.table.HoldsAny())
	}
	for i, name := range names {
		next.peers[i] = n.peers[name] // nil for this node
	}
	n.route.Store(next)
	if !n.settings.NoLeases {
		n.table.LendTo(len(names))
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

// changeEvents are the events of the changes that a view shows.
var changeEvents = [...]EventKind{
	membership.Joined: EventMemberJoined, membership.BeganToLeave: EventMemberLeaving, membership.HasFailed: EventMemberFailed,
	membership.HasLeft: EventMemberLeft, membership.Forgotten: EventMemberForgotten,
}

// tellChanges emits an event for every member that came, went or changed since the last view.
func (n *Node) tellChanges(view *membership.View) {
	for _, c := range view.Since(n.told) {
		n.events.emit(changeEvents[c.Kind], c.Name, addrText(c.Gossip))
	}
	n.told = view
}

// linkChanged is told by the transport, from a link's own goroutine.
func (n *Node) linkChanged(change transport.LinkChange) {
	switch change.State {
	case transport.LinkUp:
		n.addHeardFrom(change.Peer.Name)
		n.events.emit(EventLinkUp, change.Peer.Name, change.Peer.Addr)
		n.prober.LookAgain()
		n.keeper.Wake()
	default:
		detail := change.State.String()
		if change.Err != nil {
			detail = change.Err.Error()
		}
		line := eventLines[EventLinkDown]
		if change.State == transport.LinkSuspect {
			line = eventLine(linklog.LineSilent)
		}
		n.events.emitAs(line, EventLinkDown, change.Peer.Name, detail)
		n.keeper.Wake()
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
// returns. When it returns nil, at least one member that stays has confirmed that this node has left, or nobody stays: to be the last,
// and to leave while all others do, is no error and takes no longer. When ctx ends first it goes at once, and the error wraps
// ctx.Err() and says what was not handed over. An error that matches [ErrUnheard] says that nobody has confirmed its goodbye,
// for 3 seconds at most after ctx has ended: others count this node as failed. Either way the node is closed afterwards.
func (n *Node) Leave(ctx context.Context) error {
	if n.closed.Load() {
		return n.Close()
	}
	dead := surelyFailed(n)
	err := n.retire(ctx)
	return errors.Join(err, closeBeside(n, dead))
}

// surelyFailed returns the members of which a majority knows that they have failed: no leaving node has to tell them.
// Without quorum this node may be the one that is cut off.
func surelyFailed(n *Node) map[string]bool {
	now := n.now()
	dead := make(map[string]bool)
	if !n.reach.IsFull(now) {
		return dead
	}
	for _, m := range n.membership.View().Members {
		if m.State == membership.Failed || n.reach.Lost(m.Name, now) {
			dead[m.Name] = true
		}
	}
	return dead
}

// lingerTime is how long a leaving node goes on answering when all is handed over: several rounds of gossip, so that the
// last to hear that it is leaving has heard.
const lingerTime = time.Second

// replacedTime is how long a leaving node waits to be replaced as a witness. It takes two steps of agreement, 1.2 s, and the steps of
// several that leave come one after the other. Goodbyes do as well, but where two witnesses go within half a second the rest may have no
// quorum for a tenth of one.
const replacedTime = 4 * time.Second

// leaveInterval is how often a leaving node looks whether it can go.
const leaveInterval = 20 * time.Millisecond

// retire announces the leave and stays until everything is handed over and nobody should be asking any more.
func (n *Node) retire(ctx context.Context) error {
	if len(n.route.Load().others) == 0 {
		return nil // nobody to tell
	}
	began := time.Now()
	n.keeper.Leave()
	n.agreement.Leave()
	if n.membership.AnnounceLeaving() != nil {
		return nil // somebody called Close
	}
	ticker := time.NewTicker(leaveInterval)
	defer ticker.Stop()
	for {
		held, kept := notHandedOver(ctx, n)
		done := time.Since(began) >= lingerTime
		if held+kept == 0 {
			n.agreement.HandOver()
			done = done && n.isReplaced(time.Since(began) >= replacedTime)
		}
		if held+kept == 0 && done || len(n.route.Load().ring.Members()) == 0 {
			return nil
		}
		select {
		case <-ticker.C:
		case <-n.stop: // somebody called Close
			return nil
		case <-ctx.Done():
			return leaveError(ctx.Err(), held, kept)
		}
	}
}

// leaveError says what a leave that was cut short has left undone.
func leaveError(cause error, held, kept int) error {
	if held+kept > 0 {
		return fmt.Errorf("peerlimit: Leave stopped early: %d partitions were not handed over, %d copies are still needed; the last decisions may be lost, as in a crash: %w",
			held, kept, cause)
	}
	return fmt.Errorf("peerlimit: Leave stopped early: everything was handed over, but some members may not know yet that this one has left: %w", cause)
}

// notHandedOver returns how many partitions this node still holds, and how many copies it keeps that nobody has said are
// safe elsewhere.
func notHandedOver(ctx context.Context, n *Node) (held, kept int) {
	held = n.table.HeldCount()
	return held, n.replicator.ReleaseCopies(ctx)
}

// goodbyeTimeout bounds how long Close waits for a member to confirm that this node has left. A member that is there answers
// within a round trip, or two when it has much to do.
const goodbyeTimeout = 3 * time.Second

// Close goes at once. Others are told, so they need not find out, but nothing is handed over. An error that matches
// [ErrUnheard] says that members stay, or may be there, and that none of them has confirmed it within 3 seconds. Close waits for
// the node's goroutines, is idempotent and returns what the first call returned. Calls on limiters return [ErrClosed] from its
// beginning.
func (n *Node) Close() error { return closeBeside(n, nil) }

// closeBeside is Close; dead are members that were known to have failed when this node began to leave, nil if it begins now.
func closeBeside(n *Node, dead map[string]bool) error {
	if !n.closed.CompareAndSwap(false, true) {
		<-n.ended // not a sync.Once: that would be a lock held across everything below
		return n.endErr
	}
	defer close(n.ended)
	if dead == nil {
		dead = surelyFailed(n)
	}
	n.keeper.Leave()
	n.prober.Parting.Store(true)
	goodbye := n.agreement.SayGoodbye()
	n.membership.SayLast(wire.AppendGoodbye(nil, &goodbye))
	errs := []error{membershipError(n.membership.Leave(goodbyeTimeout, dead))}
	n.endErr = errors.Join(append(errs, n.shutDown())...)
	return n.endErr
}

// shutDown ends whatever was started, in the order in which parts depend on each other.
func (n *Node) shutDown() error {
	var errs []error
	n.prober.Close()
	if n.membership != nil {
		errs = append(errs, n.membership.Close())
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
