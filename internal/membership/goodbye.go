package membership

import (
	"cmp"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"syscall"
	"time"
)

// ErrUnheard means that a goodbye was confirmed by nobody, although there are members that stay, or may be there.
var ErrUnheard = errors.New("peerlimit: the goodbye was confirmed by nobody")

const (
	// maxTelling is how many members are told at once, and maxTold how many are told at all, picked at random: each costs a
	// push/pull of the whole member list. Gossip tells the others.
	maxTelling = 8
	maxTold    = 16

	// tellInterval is after what time a member that could not be told is told again.
	tellInterval = 100 * time.Millisecond
)

// SayLast sets what others are told as the last word of this node, with its goodbye. It is called before Leave.
func (m *Membership) SayLast(word []byte) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.lastWord = []LastWord{{m.identity, word}}
}

// Leave says goodbye, so that others know at once that this node has left and has not failed. It returns nil when a member
// that stays has confirmed it, and all others were told, or enough of them, or gossip has sent it often enough to reach them; or
// when nobody stays. Those do not stay that have left, are leaving, or refuse connections; nor, of the failed, those in dead, of
// which a majority knows. Otherwise the error matches ErrUnheard: after the timeout, which must be positive, or when none but failed
// members are left and each was tried. Nothing is joined any more. A second call does nothing. The membership must still be
// closed, later, to let others ask for what they missed.
func (m *Membership) Leave(timeout time.Duration, dead map[string]bool) error {
	m.mu.Lock()
	if m.closed {
		m.mu.Unlock()
		return ErrClosed
	}
	again := m.left
	m.left = true
	words := m.lastWord
	m.departing.Add(1)
	m.mu.Unlock()
	defer m.departing.Done()
	if again {
		return nil
	}
	m.haltJoins()

	sent := make(chan struct{})
	m.goodbyes.QueueBroadcast(newGoodbye(departure{m.identity, tombstoneMemory}, words, func() { close(sent) }))
	// memberlist marks this node as one that has left, and then waits for what never comes when all others leave as well: only the
	// first is wanted. What it returns is that it has not waited.
	_ = m.list.Leave(time.Nanosecond)
	f := farewell{
		Membership: m, dead: dead, sent: sent, results: make(chan farewellResult, maxTelling),
		busy: make(map[string]bool), told: make(map[string]bool), absent: make(map[string]bool), failed: make(map[string]bool),
		reason: errors.New("no answer in time"),
	}
	return f.say(timeout)
}

// farewell is a goodbye while it is said. Its fields belong to the goroutine that calls say.
type farewell struct {
	*Membership
	dead    map[string]bool
	sent    chan struct{} // closed when gossip has sent it often enough
	results chan farewellResult

	busy   map[string]bool // are being told
	told   map[string]bool // have confirmed, and stay
	absent map[string]bool // do not stay
	failed map[string]bool // could not be told
	reason error           // why the last one could not

	answered int // of those that were told, whether they stay or not
}

// farewellResult is what came of telling one member.
type farewellResult struct {
	name string
	err  error
	stay bool // it has confirmed, and stays
}

// say tells members until Leave's condition holds.
func (f *farewell) say(timeout time.Duration) error {
	deadline, again := time.NewTimer(timeout), time.NewTicker(tellInterval)
	defer deadline.Stop()
	defer again.Stop()
	sent := false
	for {
		open := f.open()
		if len(open) == 0 || (sent || f.toldEnough()) && f.verdict() == nil {
			return f.verdict()
		}
		f.tell(open)
		select {
		case r := <-f.results:
			f.note(r)
		case <-f.viewed:
		case <-again.C:
			f.retry()
		case <-f.sent:
			f.sent, sent = nil, true
		case <-deadline.C:
			return f.verdict()
		}
	}
}

// open returns the members that are still to be told: those that stay until they have confirmed, others until each was tried
// once. Of those that are leaving too nobody expects that they confirm, but they wait for this node as long as they do not know.
func (f *farewell) open() (open []Info) {
	for _, i := range f.View().List() {
		switch {
		case i.Self, f.told[i.Name], f.absent[i.Name], f.dead[i.Name], !i.Gossip.IsValid():
		case i.State != Alive && f.failed[i.Name]:
		default:
			open = append(open, i)
		}
	}
	return open
}

// toldEnough reports whether nobody else is told but by gossip.
func (f *farewell) toldEnough() bool { return f.answered >= maxTold && len(f.busy) == 0 }

// tell begins to tell some of those that are open, and returns. Close waits for what it has begun.
func (f *farewell) tell(open []Info) {
	rand.Shuffle(len(open), func(i, k int) { open[i], open[k] = open[k], open[i] })
	slices.SortStableFunc(open, func(a, b Info) int { return cmp.Compare(a.State, b.State) }) // those that are alive first
	for _, i := range open {
		if len(f.busy) >= maxTelling {
			return
		}
		enough := f.answered
		if i.State == Alive {
			enough = len(f.told)
		}
		if f.busy[i.Name] || f.failed[i.Name] || enough+len(f.busy) >= maxTold {
			continue
		}
		f.busy[i.Name] = true
		f.running.Go(func() {
			// A push/pull: the member has read all that this node knows, its own leaving too, before it answers; and this node knows
			// from the answer whether the member is leaving itself.
			err := f.join(i.Gossip)
			f.results <- farewellResult{i.Name, err, err == nil && f.stays(i.Name)}
		})
	}
}

// note takes in what came of telling a member.
func (f *farewell) note(r farewellResult) {
	delete(f.busy, r.name)
	if r.err == nil {
		f.answered++
	}
	switch {
	case r.stay:
		f.told[r.name] = true
	case r.err == nil, isRefused(r.err):
		f.absent[r.name] = true
	default:
		f.failed[r.name], f.reason = true, r.err
	}
}

// retry has those that stay and could not be told be told again.
func (f *farewell) retry() {
	for _, i := range f.View().Members {
		if i.State == Alive {
			delete(f.failed, i.Name)
		}
	}
}

// verdict returns nil when a member that stays has confirmed, or when no member is left that counts this node.
func (f *farewell) verdict() error {
	var missing []string
	for _, i := range f.View().Members {
		if !i.Self && i.State != Leaving && !f.absent[i.Name] && !f.dead[i.Name] {
			missing = append(missing, fmt.Sprintf("%s (%s)", i.Name, i.State))
		}
	}
	if len(missing) == 0 || len(f.told) > 0 {
		return nil
	}
	text := strings.Join(missing[:min(len(missing), 3)], ", ")
	if more := len(missing) - 3; more > 0 {
		text += fmt.Sprintf(" and %d more", more)
	}
	return fmt.Errorf("%w: %s, which may still be there, will take this node for failed: %w", ErrUnheard, text, f.reason)
}

// stays reports whether a member neither leaves nor has left, as far as gossip knows this very moment.
func (m *Membership) stays(name string) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	node := m.nodes[name]
	gone := node != nil && (!node.gone.IsZero() || node.State == Leaving)
	return !gone && !m.roster.hasLeft(name, time.Now())
}

// isRefused reports whether nothing listens where a member was. memberlist has the cause only as text.
func isRefused(err error) bool { return strings.Contains(err.Error(), syscall.ECONNREFUSED.Error()) }
