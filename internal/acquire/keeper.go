package acquire

import (
	"context"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/peerlimit/peerlimit/internal/debt"
	"github.com/peerlimit/peerlimit/internal/holding"
	"github.com/peerlimit/peerlimit/internal/quorum"
	"github.com/peerlimit/peerlimit/internal/ring"
	"github.com/peerlimit/peerlimit/internal/rule"
	"github.com/peerlimit/peerlimit/internal/signal"
	"github.com/peerlimit/peerlimit/internal/store"
	"github.com/peerlimit/peerlimit/internal/wire"
)

// Acquiring: how a node comes to hold partitions, in every event: a join, a leave, a death, a lapse, a healed split. It
// asks the others in a round, first the node that probably holds, then everyone, and begins to hold when it is given
// the holder's copy, or when every member that is not gone has said "not holding". A timeout never makes a holder.

// Keeper acquires what this node should hold. Its goroutine, run, begins rounds and reviews them; for each node that is
// asked in a round another one asks. All of them end with run.
type Keeper struct {
	self        string
	log         *slog.Logger
	table       *store.Table
	reach       *quorum.State
	rules       *rule.Rules
	debts       *debt.Ledger
	others      Cluster
	now         func() int64
	answerBytes int // what one response has of copies, at most

	// leaving says that this node is going: it acquires nothing any more [LeavingAcquiresNothing], but anew what it holds.
	leaving atomic.Bool

	wakeUp signal.Signal // capacity 1: there may be something to do
	asking sync.WaitGroup

	// Counts of partitions gained; see Stats.
	given, fromReplica, empty atomic.Uint64

	// mu guards change. It is held for nothing else.
	mu     sync.Mutex
	change chan struct{} // closed and replaced when this node has begun or ceased to hold something

	notBefore [ring.Partitions]atomic.Int64 // when to try again where somebody else has a higher ballot
	nextTry   atomic.Int64                  // the last of these moments that was chosen

	rounds []*holding.Round // of run alone
}

const (
	// idleInterval is how often a node looks whether something is to be acquired even if nothing tells it to.
	idleInterval = 500 * time.Millisecond

	// evidencePoll is how often a node whose quorum is not fresh looks whether it is.
	evidencePoll = 10 * time.Millisecond

	// reviewInterval is how often running rounds are looked at when nothing else happens: verdicts appear and expire.
	reviewInterval = 20 * time.Millisecond

	// behindPause is the longest pause, after being told of a higher ballot; half of it is the shortest. Of two nodes
	// that outbid each other one must come through.
	behindPause = 30 * time.Millisecond
)

// Config is what acquiring works on.
type Config struct {
	Self        string // the node's name
	Log         *slog.Logger
	Table       *store.Table
	Reach       *quorum.State
	Rules       *rule.Rules
	Debts       *debt.Ledger
	Others      Cluster
	Now         func() int64 // the node's clock, in nanoseconds
	AnswerBytes int          // what one response has of copies, at most
}

// Cluster is what acquiring needs of the node around it, and of other members.
type Cluster interface {
	// Owns reports whether the ring names this node as the owner of a partition.
	Owns(part uint16) bool

	// PreviousOwner returns the other member that owned a partition before the ring changed, or "".
	PreviousOwner(part uint16) string

	// Acquired is called with a partition locked that this node has begun to hold.
	Acquired(part uint16)

	// Roster returns the members that this node knows. Told is what it tells others: names, and those of them that it only heard of.
	Roster() holding.Roster
	Told() (names []string, lost []wire.LostName)
	Departed() map[string]bool

	// Met takes in that a member has said something itself, and MergeNames the names that it has told.
	Met(member string)
	MergeNames(teller string, names []string, lost []wire.LostName)

	// Tell sends a member a request, on every other try by way of another one, and returns the response.
	Tell(ctx context.Context, to string, request []byte, timeout time.Duration, try int) ([]byte, error)

	// HasQuorum is called when quorum was found fresh, HoldingChanged when this node has begun or ceased to hold something, and
	// Gained with what it has begun to hold that nobody else did.
	HasQuorum()
	HoldingChanged()
	Gained(byTransfer, fromReplica, empty int)
}

func New(c Config) *Keeper {
	return &Keeper{
		self: c.Self, log: c.Log.With(slog.String("component", "keeper")), table: c.Table, reach: c.Reach, rules: c.Rules,
		debts: c.Debts, others: c.Others, now: c.Now, answerBytes: c.AnswerBytes,
		wakeUp: signal.New(), change: make(chan struct{}),
	}
}

// Wake asks for a look at what there is to do. It does not wait.
func (k *Keeper) Wake() {
	k.wakeUp.Send()
}

// Changed returns a channel that is closed when this node has begun or ceased to hold something after the call.
func (k *Keeper) Changed() <-chan struct{} {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.change
}

// Announce wakes all callers that wait for Changed.
func (k *Keeper) Announce() {
	k.mu.Lock()
	defer k.mu.Unlock()
	close(k.change)
	k.change = make(chan struct{})
}

// Run acquires until ctx ends.
func (k *Keeper) Run(ctx context.Context) {
	defer k.asking.Wait()
	timer := time.NewTimer(k.Step(ctx))
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			for _, r := range k.rounds {
				r.End()
			}
			return
		case <-k.wakeUp:
		case <-timer.C:
		}
		timer.Reset(k.Step(ctx))
	}
}

// Step does all there is to do now and returns when to look again at the latest.
func (k *Keeper) Step(ctx context.Context) time.Duration {
	now := k.now()
	full := k.reach.Check(now)
	k.review(now)
	again := evidencePoll
	if full {
		k.others.HasQuorum()
		var wanted []uint16
		if wanted, again = k.wanted(now); len(wanted) > 0 {
			k.begin(ctx, wanted, now)
		}
	}
	if len(k.rounds) > 0 {
		return min(again, reviewInterval)
	}
	return again
}

// wanted returns the partitions to acquire now, and after what time there may be others.
func (k *Keeper) wanted(now int64) (parts []uint16, again time.Duration) {
	again = idleInterval
	leaving := k.leaving.Load()
	for part := range uint16(ring.Partitions) {
		owner := k.others.Owns(part) && !leaving
		if t := k.table; !t.IsChallenged(part) && (!owner || t.Holds(part)) {
			continue // as most are, most of the time: no need to lock them
		}
		p := k.table.Lock(part)
		want := k.wants(&p.Holding, owner)
		p.Unlock()
		switch wait := k.notBefore[part].Load() - now; {
		case !want:
		case wait > 0:
			again = min(again, time.Duration(wait))
		default:
			parts = append(parts, part)
		}
	}
	return parts, again
}

// wants reports whether a round should be begun: the ring names this node and it does not hold, or its standby has refused
// a replica. The latter also when this node is leaving, which otherwise acquires nothing: it could not hand over. The model
// has such a leaver go on replicating instead, its RefusedLeaverReplicates; either way it meets any other holder.
func (k *Keeper) wants(h *holding.Holding, owner bool) bool {
	return h.Attempt == nil && (h.Challenged || owner && !h.Holds)
}

// newRound returns a round of all that this node knows, with a ballot above all that it has heard of.
func (k *Keeper) newRound(ctx context.Context, known holding.Roster, now int64) *holding.Round {
	ballot := wire.Ballot{Number: k.reach.Heard.Load() + 1, By: k.self}
	r := holding.NewRound(ctx, ballot, known, k.others.Departed(), func(name string) bool { return k.reach.Lost(name, now) })
	k.reach.Hear(r.Ballot.Number)
	return r
}

// begin starts a round for the partitions that are still wanted.
func (k *Keeper) begin(ctx context.Context, parts []uint16, now int64) {
	known := k.others.Roster()
	r := k.newRound(ctx, known, now)
	first := make(map[string][]uint16) // by the member to ask first
	var gained gains                   // of what nobody has to be asked about
	for _, part := range parts {
		began := false
		k.table.InSteps(part, func(p *store.Partition) (more bool) {
			h := &p.Holding
			if !began {
				if !k.wants(h, k.others.Owns(part) && !k.leaving.Load()) || !h.Promised.Below(r.Ballot) {
					return false
				}
				began = true
				h.Begin(r)
				r.Parts = append(r.Parts, part)
			}
			if more = h.Attempt.Of(r) && k.takeOver(part, p, r, &gained); !more && h.Attempt.Of(r) {
				askee := k.others.PreviousOwner(part)
				if h.Holds || r.Gone[askee] || !known.IsAsked(askee) {
					askee = "" // or it was on a ring by mistake
				}
				h.Attempt.LikelyHolder = askee
				first[askee] = append(first[askee], part)
			}
			return more
		})
	}
	k.rounds = append(k.rounds, r)
	peers := r.AskAll()
	for peer, group := range first {
		k.asking.Go(func() { k.askFirst(r, peer, peers, group) })
	}
	k.report(&gained)
}

// review looks after the running rounds: it drops what has ended, asks members that have become known or were named by an
// answer, and begins again what depends on a member that has gone or come back since the round began.
func (k *Keeper) review(now int64) {
	known := k.others.Roster()
	k.rounds = slices.DeleteFunc(k.rounds, func(r *holding.Round) bool {
		news, changed := r.Refresh(known, k.self, func(name string) bool { return k.reach.Lost(name, now) })
		r.Parts = k.reviewParts(r, changed)
		for _, peer := range news {
			parts := r.Parts
			k.asking.Go(func() { k.askUntilAnswered(r.Ctx, r, peer, parts) })
		}
		if len(r.Parts) > 0 {
			return false
		}
		r.End()
		return true
	})
}

// reviewParts abandons the attempts that cannot succeed any more and returns the partitions of the others. Those that
// are complete start: a verdict may have been all that was missing.
func (k *Keeper) reviewParts(r *holding.Round, changed []int) (open []uint16) {
	var gained gains
	for _, part := range r.Parts {
		k.table.InSteps(part, func(p *store.Partition) (more bool) {
			h := &p.Holding
			a := h.Attempt
			if !a.Of(r) {
				return false
			}
			owner := k.others.Owns(part) && !k.leaving.Load()
			depends := slices.ContainsFunc(changed, func(i int) bool { return !a.HasAnswered(i) })
			if depends || !owner && !h.Holds {
				h.Abandon()
			} else if more = k.takeOver(part, p, r, &gained); !more && h.Attempt.Of(r) {
				open = append(open, part)
			}
			return more
		})
	}
	k.report(&gained)
	return open
}

// gains counts what came of answers.
type gains struct {
	given, fromReplica, empty int
	renewed                   int // were held all along
}

// add counts a partition that nobody else held.
func (g *gains) add(held, hadCopy bool) {
	switch {
	case held:
		g.renewed++
	case hadCopy:
		g.fromReplica++
	default:
		g.empty++
	}
}

// report counts what was gained and wakes what waits for it.
func (k *Keeper) report(g *gains) {
	total := g.given + g.fromReplica + g.empty
	if total+g.renewed == 0 {
		return
	}
	k.given.Add(uint64(g.given))
	k.fromReplica.Add(uint64(g.fromReplica))
	k.empty.Add(uint64(g.empty))
	k.Announce()
	k.others.HoldingChanged()
	if total == 0 {
		return
	}
	k.others.Gained(g.given, g.fromReplica, g.empty)
}

// Postpone lets somebody with a higher ballot go first. It is called before, or under the same lock as, what makes this
// node want to acquire: the keeper must not see that there is something to acquire before it sees that it is to wait.
//
// What is postponed at about the same time is tried again at the same moment, and so in one round: hundreds of partitions
// that are contended for would otherwise be as many rounds, each of which asks everyone.
func (k *Keeper) Postpone(part uint16) {
	now := k.now()
	at := k.nextTry.Load()
	if at < now+int64(behindPause/2) {
		at = now + int64(behindPause/2+rand.N(behindPause/2)) // #nosec G404 -- only spreads rounds
		k.nextTry.Store(at)                                   // should another moment be chosen meanwhile, both are tried
	}
	k.notBefore[part].Store(at)
	k.Wake()
}

// Describe says what keeps this node from holding a partition, for people.
func (k *Keeper) Describe(part uint16, now int64) string {
	p := k.table.Lock(part)
	defer p.Unlock()
	h := &p.Holding
	var b strings.Builder
	fmt.Fprintf(&b, "promised %v, transferred %v, ", h.Promised, h.Transfer)
	a := h.Attempt
	if a == nil {
		fmt.Fprintf(&b, "no attempt, next one in %v", time.Duration(k.notBefore[part].Load()-now))
		return b.String()
	}
	fmt.Fprintf(&b, "ballot %v, probably held by %q:", a.Round.Ballot, a.LikelyHolder)
	for i, name := range a.Round.Peers() {
		fmt.Fprintf(&b, " %s answered=%v gone=%v lost=%v", name, a.HasAnswered(i), a.Round.Gone[name], k.reach.Lost(name, now))
	}
	return b.String()
}

// Gained returns how many partitions this node has begun to hold so far: by transfer, from replicas, and empty.
func (k *Keeper) Gained() (byTransfer, fromReplica, empty uint64) {
	return k.given.Load(), k.fromReplica.Load(), k.empty.Load()
}

// Leave ends acquiring what is not held, forever: the node is leaving.
func (k *Keeper) Leave() {
	k.leaving.Store(true)
	k.Wake()
}
