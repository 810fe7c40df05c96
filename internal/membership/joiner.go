package membership

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"math/rand/v2"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/peerlimit/peerlimit/internal/signal"
)

const (
	// joinRetryMin and joinRetryMax bound the pause before what is missing is tried again; it doubles from one to the
	// other and is jittered down to half. Seeds that start a moment later are met within half a second. When a long split
	// ends every node on either side tries within 10 s, and the first that succeeds brings both sides together.
	joinRetryMin = 200 * time.Millisecond
	joinRetryMax = 10 * time.Second

	// seedCheckInterval is the pause while nothing is missing: names may by then have got further addresses.
	seedCheckInterval = 30 * time.Second

	// aliasInterval is for how long an address counts as joined when a node answered there that no member is at: it has
	// another address too, or the address is a load balancer's.
	aliasInterval = time.Minute

	// maxFailedPerRound and maxSeedsPerRound bound the addresses tried in one round, picked at random. Each that answers
	// costs a push/pull of the whole member list, each that does not a connection attempt. When 150 of 300 nodes lose the
	// other 150 that makes some 120 attempts a second among all of them. The first round alone tries every seed.
	maxFailedPerRound = 3
	maxSeedsPerRound  = 16

	// warmupRounds is in how many rounds after the start, or after a join, a member is asked for all it knows. When many
	// nodes start at once, the first of them to join a seed is told of the others by gossip alone, which may miss one.
	// Five rounds are 3 to 6 s.
	warmupRounds = 5

	// joinsAtOnce keeps one address that does not answer from holding up the others.
	joinsAtOnce = 4

	// lookupTimeout bounds one look-up of a seed, so that Start hears of the first attempt in time.
	lookupTimeout = 2 * time.Second
)

// joinable is what the joiner knows of and does to the cluster.
type joinable interface {
	// memberAt reports whether there is a member at that address, this node included.
	memberAt(netip.AddrPort) bool
	// failedAddrs returns the addresses of members that were lost and are still missed.
	failedAddrs() []netip.AddrPort
	// someMember returns the address of a member other than this node, picked at random; ok is false when there is none.
	someMember() (addr netip.AddrPort, ok bool)
	// otherSeeds is told how many seeds there are, this node not counted.
	otherSeeds(int)
	// join meets the node at an address.
	join(netip.AddrPort) error
}

// joiner keeps a node together with its cluster: it joins every seed until there is a member at its address, and lost
// members until they are members again or are not missed any more. It does that for as long as the node runs, because
// gossip forgets a dead member after 30 s and would never meet it again. One goroutine, run, does it all but the look-ups
// and the joins themselves, for which it waits.
type joiner struct {
	cluster  joinable
	log      *slog.Logger
	own      []netip.AddrPort // bound and advertised
	resolver Resolver
	wake     signal.Signal // capacity 1: something may be missing
	tried    chan struct{} // closed after the first round
	failed   atomic.Uint64 // look-ups and joins of seeds
	outcome  atomic.Pointer[[]SeedStatus]

	// The fields below belong to run.
	seeds   []*seedState
	others  int                          // last told to the cluster
	warmup  int                          // rounds in which a member is still to be asked
	aliases map[netip.AddrPort]time.Time // seeds at which a peer answered that is no member there, and when
}

// seedState is one of Config.Seeds, and what has become of it.
type seedState struct {
	Seed
	addrs  []netip.AddrPort // of the last look-up that succeeded
	lookup error            // of the last look-up
	failed *joinError       // of the last join that failed; nil when it is joined
	said   [Faults]bool     // what was logged since it was joined
}

// SeedStatus is what has become of a seed.
type SeedStatus struct {
	Text   string // as the user has written it
	Joined bool   // there is a member at each of its addresses, or it is this node
	Fault  Fault  // why not; NoFault while it was not tried
	Err    error
}

// newJoiner returns a joiner for seeds. own has every address by which this node is known to itself.
func newJoiner(cluster joinable, log *slog.Logger, seeds []Seed, own []netip.AddrPort, resolver Resolver) *joiner {
	j := &joiner{
		cluster:  cluster,
		log:      log,
		own:      own,
		resolver: resolver,
		wake:     signal.New(),
		tried:    make(chan struct{}),
		others:   len(seeds),
		warmup:   warmupRounds,
		aliases:  make(map[netip.AddrPort]time.Time),
	}
	for _, s := range seeds {
		j.seeds = append(j.seeds, &seedState{Seed: s})
	}
	j.publish(nil)
	return j
}

// hurry tells that a member was lost or has left, so that something may be missing. It does not wait.
func (j *joiner) hurry() {
	j.wake.Send()
}

// run joins until ctx ends, and then until the joins under way have ended.
func (j *joiner) run(ctx context.Context) {
	pause := joinRetryMin
	for first := true; ctx.Err() == nil; first = false {
		complete := j.round(ctx, first)
		if first {
			close(j.tried)
		}
		wait, woken := pause, (<-chan struct{})(nil)
		if complete {
			pause = joinRetryMin
			wait, woken = seedCheckInterval, j.wake
		} else {
			pause = min(2*pause, joinRetryMax)
		}
		timer := time.NewTimer(wait/2 + rand.N(wait/2)) // #nosec G404 -- only spreads attempts
		select {
		case <-timer.C:
		case <-woken:
		case <-ctx.Done():
		}
		timer.Stop()
	}
}

// round tries what is missing, once, and reports whether nothing is missing then. The first round tries every seed.
func (j *joiner) round(ctx context.Context, first bool) (complete bool) {
	j.lookUp(ctx)
	maps.DeleteFunc(j.aliases, func(_ netip.AddrPort, at time.Time) bool { return time.Since(at) >= aliasInterval })
	j.countOthers()

	seeds := j.missingSeeds()
	if !first {
		seeds = pick(maxSeedsPerRound, seeds)
	}
	joined := j.joinSeeds(ctx, seeds)
	joined = j.joinFailed(ctx) || joined
	if ctx.Err() != nil {
		return false
	}
	if joined {
		j.warmup = warmupRounds
	} else if j.warmup > 0 {
		j.warmup--
		j.askMember()
	}
	j.logSeeds()
	return j.warmup == 0 && len(j.missingSeeds()) == 0 && len(j.cluster.failedAddrs()) == 0 &&
		!slices.ContainsFunc(j.seeds, func(s *seedState) bool { return s.addrs == nil })
}

// lookUp looks up every seed that is a name. One that fails keeps the addresses that it had.
func (j *joiner) lookUp(ctx context.Context) {
	atOnce(len(j.seeds), func(i int) {
		s := j.seeds[i]
		var ips []netip.Addr
		if ip, err := netip.ParseAddr(s.Host); err == nil {
			ips = []netip.Addr{ip}
		} else {
			ctx, cancel := context.WithTimeout(ctx, lookupTimeout)
			defer cancel()
			if ips, s.lookup = j.resolver.LookupNetIP(ctx, "ip", s.Host); s.lookup != nil {
				j.failed.Add(1)
				return
			}
		}
		s.lookup, s.addrs = nil, nil
		if len(ips) == 0 {
			s.lookup = errNoAddresses
		}
		for _, ip := range ips {
			// memberlist knows no zones.
			s.addrs = append(s.addrs, netip.AddrPortFrom(ip.Unmap().WithZone(""), s.Port))
		}
	})
}

// countOthers tells the cluster how many seeds there are. A name without addresses counts as one.
func (j *joiner) countOthers() {
	others := make(map[netip.AddrPort]bool)
	unknown := 0
	for _, s := range j.seeds {
		if s.addrs == nil {
			unknown++
		}
		for _, addr := range s.addrs {
			if !j.isOwn(addr) {
				others[addr] = true
			}
		}
	}
	if n := unknown + len(others); n != j.others {
		j.others = n
		j.cluster.otherSeeds(n)
	}
}

func (j *joiner) isOwn(addr netip.AddrPort) bool {
	return slices.ContainsFunc(j.own, func(own netip.AddrPort) bool {
		return addr == own || own.Addr().IsUnspecified() && addr.Addr().IsLoopback() && addr.Port() == own.Port()
	})
}

// errNoAddresses is of a name that is known and has no address.
var errNoAddresses = errors.New("the name has no addresses")

// seedAddr is one address of a seed.
type seedAddr struct {
	*seedState
	addr netip.AddrPort
}

// missingSeeds returns the seeds without a member at them.
func (j *joiner) missingSeeds() []seedAddr {
	var missing []seedAddr
	for _, s := range j.seeds {
		for _, addr := range s.addrs {
			if _, alias := j.aliases[addr]; !alias && !j.isOwn(addr) && !j.cluster.memberAt(addr) {
				missing = append(missing, seedAddr{s, addr})
			}
		}
	}
	return missing
}

// joinSeeds joins those that are still missing when their turn comes, in random order: mostly the first that succeeds
// brings in all others. It reports whether one did.
func (j *joiner) joinSeeds(ctx context.Context, seeds []seedAddr) (joined bool) {
	seeds = pick(len(seeds), seeds)
	results := make([]error, len(seeds))
	answered := make([]bool, len(seeds))
	atOnce(len(seeds), func(i int) {
		if ctx.Err() == nil && !j.cluster.memberAt(seeds[i].addr) {
			results[i] = j.cluster.join(seeds[i].addr)
			answered[i] = results[i] == nil
		}
	})
	for i, s := range seeds {
		if results[i] != nil {
			s.note(s.addr, results[i])
			j.failed.Add(1)
		}
		if answered[i] && !j.cluster.memberAt(s.addr) {
			j.aliases[s.addr] = time.Now()
		}
	}
	return slices.Contains(answered, true)
}

// joinFailed joins a few of the members that were lost and are not seeds, and reports whether one answered. Most of them are
// dead, so a failure says nothing new.
func (j *joiner) joinFailed(ctx context.Context) (joined bool) {
	lost := slices.DeleteFunc(j.cluster.failedAddrs(), func(addr netip.AddrPort) bool {
		return slices.ContainsFunc(j.seeds, func(s *seedState) bool { return slices.Contains(s.addrs, addr) })
	})
	lost = pick(maxFailedPerRound, lost)
	answered := make([]bool, len(lost))
	atOnce(len(lost), func(i int) {
		if ctx.Err() != nil || j.cluster.memberAt(lost[i]) {
			return
		}
		err := j.cluster.join(lost[i])
		answered[i] = err == nil
		j.log.Debug("tried the address of a failed member", "addr", lost[i], "err", err)
	})
	return slices.Contains(answered, true)
}

// askMember exchanges everything with some member.
func (j *joiner) askMember() {
	if addr, ok := j.cluster.someMember(); ok {
		if err := j.cluster.join(addr); err != nil {
			j.log.Debug("gossip with member failed", "addr", addr, "err", err)
		}
	}
}

// note takes in that a join of one of the seed's addresses has failed.
func (s *seedState) note(addr netip.AddrPort, err error) {
	fault := FaultOther
	var known *joinError
	if errors.As(err, &known) {
		fault = known.fault
	}
	s.failed = &joinError{fault, fmt.Errorf("%s: %w", addr, err)}
}

// logSeeds logs why a seed is not joined, each reason once, and when it is joined after that.
func (j *joiner) logSeeds() {
	missing := j.missingSeeds()
	j.publish(missing)
	for i, status := range *j.outcome.Load() {
		s := j.seeds[i]
		switch {
		case !status.Joined && status.Fault != NoFault && !s.said[status.Fault]:
			s.said[status.Fault] = true
			j.log.Warn("cannot join seed, retrying", "seed", s.Text, "reason", status.Fault.String(), "err", status.Err)
		case status.Joined && s.said != [Faults]bool{}:
			j.log.Info("seed joined", "seed", s.Text)
			s.said = [Faults]bool{}
		}
	}
}

// publish has Membership.Seeds return what is known now.
func (j *joiner) publish(missing []seedAddr) {
	outcome := make([]SeedStatus, len(j.seeds))
	for i, s := range j.seeds {
		status := SeedStatus{Text: s.Text}
		switch {
		case s.addrs == nil && s.lookup != nil:
			status.Fault, status.Err = FaultLookup, s.lookup
		case s.addrs == nil: // not tried
		case !slices.ContainsFunc(missing, func(m seedAddr) bool { return m.seedState == s }):
			status.Joined, s.failed = true, nil
		case s.failed != nil:
			status.Fault, status.Err = s.failed.fault, s.failed.cause
		}
		outcome[i] = status
	}
	j.outcome.Store(&outcome)
}

// pick returns up to n of items, chosen and ordered at random.
func pick[T any](n int, items []T) []T {
	items = slices.Clone(items)
	rand.Shuffle(len(items), func(i, k int) { items[i], items[k] = items[k], items[i] })
	return items[:min(n, len(items))]
}

// atOnce calls do(0) to do(n-1), joinsAtOnce at a time, and returns when all have returned.
func atOnce(n int, do func(i int)) {
	var next atomic.Int64
	var workers sync.WaitGroup
	for range min(n, joinsAtOnce) {
		workers.Go(func() {
			for i := int(next.Add(1)) - 1; i < n; i = int(next.Add(1)) - 1 {
				do(i)
			}
		})
	}
	workers.Wait()
}
