package peerlimit

import (
	"slices"
	"strings"
	"time"

	"github.com/peerlimit/peerlimit/internal/ring"
	"github.com/peerlimit/peerlimit/transport"
)

// Status is what a node knows of itself and the others at one moment, for people who look into how it is; see package
// statuspage. What is only to be counted is in Stats.
type Status struct {
	Time    time.Time // of this status
	Started time.Time // when the node started
	Self    Member

	// Majority says that this node hears from more than half of its witnesses. Without, it decides by shares.
	Majority bool

	// Acquiring is how many partitions are this node's by the ring and not with it yet. Takes on their keys are passed on,
	// or wait a moment.
	Acquiring int

	Members  []MemberStatus  // this node among them, by name
	Seeds    []SeedStatus    // those of Config.Join, in their order
	Limiters []LimiterStatus // those of Stats.Limiters, by name
	Events   []Event         // the last 64, the latest first
	Stats    Stats
}

// SeedStatus is an entry of Config.Join.
type SeedStatus struct {
	Seed   string // as it was configured
	Joined bool   // there is a member at each of its addresses, or it is this node

	// Reason says why it is not joined and what to set, and Err what was found: a text that may repeat what the other side has
	// sent. Both are empty when it is joined, and until it was tried.
	Reason string
	Err    string
}

// MemberStatus is a member as this node sees it.
type MemberStatus struct {
	Member

	// Link is the state of the connection to it; [transport.LinkUnknown] for this node itself.
	Link transport.LinkState

	// Witness says that this node pings it for quorum that it is heard, and Quorum how long ago the last ping was sent
	// that it has answered: a tenth of a second as a rule; after half a second it does not count. It is -1 when there was none.
	Witness  bool
	Evidence time.Duration

	Partitions int // it owns, by the ring of this node, of 4,093
}

// LimiterStatus is a limiter of this node.
type LimiterStatus struct {
	Name   string
	Limits []Limit // none for one from [Node.LimiterFunc]
	LimiterStats
}

// Status returns what this node knows now. It takes a fraction of a millisecond.
func (n *Node) Status() Status {
	now := n.now()
	s := Status{
		Time: time.Now(), Started: n.began, Self: n.Self(), Majority: n.reach.IsFull(now), Stats: n.Stats(), Events: n.events.latest(),
	}
	s.Acquiring = max(0, s.Stats.PartitionsOwned-s.Stats.PartitionsHeld)
	owned := make(map[string]int)
	owners := n.route.Load().ring
	for part := range uint16(ring.Partitions) {
		owned[owners.Owner(part)]++
	}
	evidence := n.reach.AnswerAges(now)
	for _, m := range n.Members() {
		status := MemberStatus{Member: m, Partitions: owned[m.Name], Evidence: -1}
		if !m.Self {
			status.Link = n.client.State(m.Name)
			if age, ok := evidence[m.Name]; ok {
				status.Witness, status.Evidence = true, age
			}
		}
		s.Members = append(s.Members, status)
	}
	seeds, _ := n.membership.Seeds()
	for _, seed := range seeds {
		status := SeedStatus{Seed: seed.Text, Joined: seed.Joined, Reason: seed.Fault.String()}
		if seed.Err != nil {
			status.Err = seed.Err.Error()
		}
		s.Seeds = append(s.Seeds, status)
	}
	for _, l := range n.limiters.All() {
		status := LimiterStatus{Name: l.name, LimiterStats: s.Stats.Limiters[l.name]}
		if l.rule != nil {
			status.Limits = limitsOf(l.rule.Set.Limits)
		}
		s.Limiters = append(s.Limiters, status)
	}
	slices.SortFunc(s.Limiters, func(a, b LimiterStatus) int { return strings.Compare(a.Name, b.Name) })
	return s
}

// LimiterNamed returns the limiter of that name that this node has, if there is one: one that is held, or that was asked for lately; see
// [Node.Limiter].
func (n *Node) LimiterNamed(name string) (l *Limiter, ok bool) {
	found := n.limiters.Find(name)
	if found == nil {
		return nil, false
	}
	return &found.plain, true
}
