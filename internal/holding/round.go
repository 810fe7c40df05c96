package holding

import (
	"context"
	"slices"
	"sync"

	"github.com/peerlimit/peerlimit/internal/wire"
)

// Round is one attempt of this node to acquire partitions, under a ballot of its own [ResponsesOfThisRoundOnly].
type Round struct {
	Ballot wire.Ballot
	Ctx    context.Context // ends with the round
	End    context.CancelFunc
	Parts  []uint16

	// Gone are the members that were lost when the round began, and those that had left or been forgotten: an answer may
	// name one of them. They need not answer, as long as they stay gone. If one does not, or another goes, what depends on
	// it begins again [GoneFixedForRound, TombstoneFixedForRound].
	Gone map[string]bool

	// mu guards the fields below. It is taken with a partition's mu held, and nothing is taken under it.
	mu         sync.Mutex
	peers      []string // the members that must answer: all of the roster, and those named by a response; it only grows
	AskedUpTo  int      // so many of them are being asked; the rest refresh returns
	RosterSeen uint64   // generation of the roster that peers has all of
}

// NewRound returns a round of all that a node knows. departed are the members that it knows to have left or been forgotten,
// and lost says which of the others are lost; the round keeps departed.
func NewRound(ctx context.Context, ballot wire.Ballot, known Roster, departed map[string]bool, lost func(string) bool) *Round {
	r := &Round{Ballot: ballot, Gone: departed, RosterSeen: known.Generation()}
	r.Ctx, r.End = context.WithCancel(ctx) // #nosec G118 -- the keeper that begins a round ends it
	for _, name := range known.Asked() {
		if name != ballot.By {
			r.peers = append(r.peers, name)
			if lost(name) {
				r.Gone[name] = true
			}
		}
	}
	return r
}

// Peers returns the members that must answer, as far as they are known.
func (r *Round) Peers() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.peers)
}

// AskAll returns the peers of the round so far, which are about to be asked. refresh returns the peers that come after them.
func (r *Round) AskAll() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.AskedUpTo = len(r.peers)
	return slices.Clone(r.peers)
}

// Attempt is a round's part in one partition. It is guarded by the partition's mu.
type Attempt struct {
	Round        *Round
	answered     []uint64       // a bit for each of the round's peers that said "not holding"
	LikelyHolder string         // the member that probably holds: takes are passed on to it meanwhile
	stages       map[int]*stage // copies that come in pieces, by the number of the peer that sends them
	Debts        []wire.Debt    // what the members that answered have spent by shares: to be charged before the first decision
	Charged      int            // so many of them are, in the copy that is here now
	Transferred  wire.Version   // of a copy that was given and is all here, to be held when they are charged; zero while there is none
}

// stage is a copy that a peer sends in pieces, as far as they have come. Only the last partition of an answer can be cut
// short, and the next request begins with it: so a peer has one stage for each goroutine that asks it, and seldom more.
type stage struct {
	kind    wire.ReplyKind
	version wire.Version
	next    uint32 // where the next piece begins

	// Content is what has been made of the pieces, by the package that takes them in: nil before the first.
	Content any
}

// Of reports whether the attempt is one of the round.
func (a *Attempt) Of(r *Round) bool { return a != nil && a.Round == r }

// Index returns the number of a peer in the round, which it becomes part of if it was not: it must answer from now on.
func (r *Round) Index(peer string) int {
	r.mu.Lock()
	defer r.mu.Unlock()
	i := slices.Index(r.peers, peer)
	if i < 0 {
		i = len(r.peers)
		r.peers = append(r.peers, peer)
	}
	return i
}

func (a *Attempt) HasAnswered(index int) bool {
	return index/64 < len(a.answered) && a.answered[index/64]>>(index%64)&1 == 1
}

func (a *Attempt) SetAnswered(index int) {
	for index/64 >= len(a.answered) {
		a.answered = append(a.answered, 0)
	}
	a.answered[index/64] |= 1 << (index % 64)
}

// Stage says whether a piece of a peer's copy that was asked for from a place on is to be taken in: then it returns what the
// piece belongs to. last says that nothing of the copy is missing after it.
//
// A piece is taken only where it continues those before it: asked for where they end, of the same kind and version
// [PieceContinues]. If the peer's copy is another one by now, what has come of it is void, and the next request begins anew.
// Two goroutines may ask one peer for the same; whatever was taken in already changes nothing.
func (a *Attempt) Stage(peer int, from uint32, piece *wire.PartitionReply) (s *stage, last bool) {
	s = a.stages[peer]
	same := s != nil && s.kind == piece.Kind && s.version == piece.Version
	switch {
	case from == 0 && !same:
		s = &stage{kind: piece.Kind, version: piece.Version}
	case s == nil || s.next != from:
		return nil, false
	case !same, piece.Next != 0 && piece.Next <= from:
		delete(a.stages, peer)
		return nil, false
	}
	if s.next = piece.Next; s.next == 0 {
		delete(a.stages, peer)
		return s, true
	}
	if a.stages == nil {
		a.stages = make(map[int]*stage)
	}
	a.stages[peer] = s
	return s, false
}

// Continue returns where a request to a peer goes on: where the pieces that have come of its copy end, or 0.
func (a *Attempt) Continue(peer int) uint32 {
	if s := a.stages[peer]; s != nil {
		return s.next
	}
	return 0
}

// DropOutdone drops the pieces of copies that are not above one that is here, whole: they are not needed any more. A copy that
// was given is above all.
func (a *Attempt) DropOutdone(v wire.Version) {
	for peer, s := range a.stages {
		if s.kind == wire.ReplyNotHolding && !v.Below(s.version) {
			delete(a.stages, peer)
		}
	}
}

// Roster is the members that this node knows, at one moment.
type Roster interface {
	Generation() uint64       // another one for each roster
	Asked() []string          // the members that must answer in a round
	IsAsked(name string) bool // whether that one must
}

// Complete reports whether all of the round's peers have answered or are gone. A member that has become known since the
// round began must answer too; review makes it a peer.
func (r *Round) Complete(a *Attempt, known Roster, lost func(string) bool) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.RosterSeen != known.Generation() {
		return false
	}
	for i, name := range r.peers {
		if a.HasAnswered(i) {
			continue
		}
		if !r.Gone[name] || !lost(name) && known.IsAsked(name) {
			return false
		}
	}
	return true
}

// Refresh makes members that have become known part of the round, and returns the peers that nobody asks yet: those, and
// members named by a response. It also returns the numbers of those peers of which it is no longer true what the round began
// with: that they were lost, or that they were not.
func (r *Round) Refresh(known Roster, self string, lost func(string) bool) (news []string, changed []int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, name := range known.Asked() {
		if name != self && !slices.Contains(r.peers, name) {
			r.peers = append(r.peers, name)
		}
	}
	news = slices.Clone(r.peers[r.AskedUpTo:])
	r.AskedUpTo = len(r.peers)
	r.RosterSeen = known.Generation()
	for i, name := range r.peers {
		buried := !known.IsAsked(name)
		if isLost := lost(name); r.Gone[name] && !isLost && !buried || !r.Gone[name] && (isLost || buried) {
			changed = append(changed, i)
		}
	}
	return news, changed
}

// KeepDebts adds reports to those to charge when the attempt succeeds. A peer that answers twice brings them twice.
func (a *Attempt) KeepDebts(reports []wire.Debt) {
	for i := range reports {
		q := &reports[i]
		known := false
		for j := range a.Debts {
			known = known || a.Debts[j].Member == q.Member && a.Debts[j].Seq == q.Seq
		}
		if !known {
			a.Debts = append(a.Debts, *q)
		}
	}
}
