package quorum

import (
	"math"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/peerlimit/peerlimit/internal/panel"
	"github.com/peerlimit/peerlimit/internal/wire"
)

// Quorum and loss.
//
// Members agree on numbered panels of at most 31 witnesses: internal/panel has the rules, and docs/internals/panels.md the reasons.
// A node has a quorum, and may decide in full, while more than half of the witnesses of its panel have lately answered its pings
// [PanelDecides]. A member is lost to a node when more than half of the witnesses of that node's panel say that the member sends
// no pings. Within one origin no member has a quorum at an instant at which it is lost to another that has one, too. A node that is
// behind may call members lost that have a quorum: a node that acquires without them needs a quorum at that instant as well. Under one panel:
//
//   - Two majorities of a panel share a witness. It gave the member a quorum, and it said that the member is silent.
//   - The witness said so at an instant e at which the last ping it had received was 500 ms old. A ping is sent before
//     it is received, and quorum ages from the sending: what the witness answered before e has lapsed at e.
//   - From e on the witness refuses the member's pings for 1 s. What it said counts for 1 s from the sending of the
//     request, which was before e: as long as it counts, no new quorum comes from this witness.
//
// Under two panels:
//
//   - Panels of neighbouring numbers differ by one witness at most, so their majorities share a witness as well. Whether a ping
//     counts is up to the witness, and not to the panel: the same ages and refusals hold.
//   - Majorities of n and n+2 need not share a witness. But a majority of n+1 has accepted n+2, and shares a witness with every
//     majority of n. That witness refuses members at n from when it adopts n+1, and accepts n+2 not less than 500 ms later:
//     what it gave them has lapsed by then [NewerPanelRefuses, NextPanelWaits].
//   - A quorum from before a change of panels counts for 500 ms at most [OldPanelCountsOn]; its answers age as ever.
//   - A goodbye leaves a witness out 500 ms after it was heard: what that witness answered has lapsed, and it says nothing more.
//
// Each of these spans is measured by one clock, so nothing depends on how clocks of two nodes compare, except that they
// run equally fast.
const (
	pingInterval = 100 * time.Millisecond
	AnswerAge    = panel.AnswerAge        // how long an answer is quorum, from the sending of its ping
	silentAfter  = 500 * time.Millisecond // not less than AnswerAge: see above
	refusalTime  = time.Second
	verdictAge   = time.Second // not more than refusalTime: see above

	// missedAfter is when a witness begins to hint that somebody should be asked about. It is less than silentAfter so
	// that all are asking when the verdict is due.
	missedAfter = 400 * time.Millisecond
	maxMissed   = 64 // names in one hint

	// watchGap is how long a node may not have run before it forgives all others their silence. What came meanwhile is
	// still to be read: without this, a process that was paused would refuse everyone's pings for a second.
	watchGap = 250 * time.Millisecond

	// maxUnknown bounds how many names that are not known a witness remembers pings and refusals of.
	maxUnknown = 1024
)

// Ballots count the rounds of a cluster: each is one above the highest that its asker has heard of, and a node that has heard of
// few hears of all with the first response. A million rounds a second do not come to CountableBallots in eight years. One
// that is above, and above what is heard of by more than BallotLeap, was not counted: it is a fault, and outbidding it
// would leave no number to outbid the next one with.
const (
	CountableBallots = 1 << 48
	BallotLeap       = 1 << 32
)

// never is an instant before all others.
const never = math.MinInt64

// State is what a node knows about which members reach each other: its own quorum, and what witnesses said about others; and, as a
// witness, the members that pinged it. It reads no clock: times are nanoseconds of the node's monotonic clock.
type State struct {
	self string

	// FullUntil is when the quorum lapses. It is changed with Lapsing held only.
	FullUntil atomic.Int64

	// Lapses counts the lapses. It is raised before onLapse is called. A caller that read IsFull before taking a partition's lock
	// can compare it with an earlier value under that lock, and so tell that no sweep has been past.
	Lapses atomic.Uint64

	// Heard is the highest ballot number heard of.
	Heard atomic.Uint64

	// onLapse ends all holding. When it returns, nothing is held on quorum from before. It is called with Lapsing held,
	// and must not call SetSeats, Check or answered.
	onLapse func()

	// Lapsing makes taking in an answer, ending what lapsed and moving FullUntil one step. It is apart from mu, and
	// locked before it, because onLapse waits for partitions: a goroutine that has one of those locked may still ask which members are lost.
	Lapsing    sync.Mutex
	swept      bool  // onLapse has been called since FullUntil lapsed, or nothing was ever held; guarded by Lapsing
	graceUntil int64 // the quorum that there was under the panel before counts until then; guarded by Lapsing

	mu        sync.Mutex       // guards everything below; held for a few map look-ups only
	known     []string         // sorted, with self: the members that are watched and asked about
	panel     wire.PanelID     // the one whose witnesses these are; zero: none yet
	majority  int              // how many witnesses are more than half; at least 1, so that nobody has a quorum of none
	witnesses []string         // sorted, at most panel.MaxWitnesses
	answers   []int64          // of each witness: when the last ping that it answered was sent; self: always
	watch     map[string]watch // as a witness; has every known name but self, and others for as long as it matters

	// words has what witnesses said: of a known name, which witness, and when it was asked.
	words map[string]map[string]int64

	watchedAt    int64 // when the node was last seen to run
	watchedSince int64 // since when it has been running without a gap, and a witness: others ping none that is not
}

// watch is what a witness remembers of one member.
type watch struct {
	ping        int64 // when it last pinged, or became known
	refuseUntil int64
}

// New returns the reach of a node that knows nobody and has no panel, not even one of itself alone: it is not full.
func New(self string, onLapse func()) *State {
	r := &State{self: self, onLapse: onLapse, swept: true, majority: 1, watch: make(map[string]watch),
		words: make(map[string]map[string]int64), watchedAt: never, watchedSince: never, graceUntil: never}
	r.FullUntil.Store(never)
	return r
}

// SetKnown takes in the names that count, sorted, with self in it. This node watches the known members as a witness, and asks the
// witnesses about them. It forgets what was said of others. Quorum is not judged by this set.
func (r *State) SetKnown(names []string, now int64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.known = slices.Clone(names)
	r.watchKnown(names, now)
	r.forgetUnknown(now)
	for name := range r.words {
		if !r.isKnown(name) {
			delete(r.words, name)
		}
	}
}

// Seats are the witnesses of a panel that count for quorum and loss.
type Seats struct {
	Panel     wire.PanelID
	Witnesses []string // sorted: those that have not said goodbye; none where the panel gives nobody a quorum
	Granted   []int64  // of each: when the last ping was sent that it has answered and not refused; never: none. This node's own is not looked at
}

// SetSeats takes in the panel by which quorum is judged from now on [PanelDecides]. The quorum that there was under the panel before
// counts until its answers have aged [OldPanelCountsOn], but for one of another origin.
func (r *State) SetSeats(s Seats, now int64) {
	r.Lapsing.Lock()
	defer r.Lapsing.Unlock()
	r.mu.Lock()
	another, otherOrigin := r.panel != s.Panel, r.panel.Origin != s.Panel.Origin
	if !another && slices.Equal(r.witnesses, s.Witnesses) {
		r.mu.Unlock()
		return
	}
	_, wasWitness := slices.BinarySearch(r.witnesses, r.self)
	if _, is := slices.BinarySearch(s.Witnesses, r.self); is && !wasWitness {
		r.watchedSince = now
	}
	r.panel, r.witnesses, r.answers = s.Panel, s.Witnesses, slices.Clone(s.Granted)
	for i, w := range s.Witnesses {
		if w == r.self {
			r.answers[i] = math.MaxInt64
		}
	}
	r.majority = len(s.Witnesses)/2 + 1
	until := r.quorumEnd()
	r.mu.Unlock()
	switch {
	case otherOrigin: // what is held on the quorum of another cluster ends: a member of this one may hold it
		r.FullUntil.Store(never)
		r.graceUntil = never
	case another:
		r.graceUntil = min(r.FullUntil.Load(), now+int64(AnswerAge))
	}
	r.moveEnd(until, now)
}

// watchKnown begins to watch names, with mu held: they must get the time to ping.
func (r *State) watchKnown(names []string, now int64) {
	for _, name := range names {
		if _, ok := r.watch[name]; !ok && name != r.self {
			r.watch[name] = watch{ping: now, refuseUntil: never}
		}
	}
}

// isKnown is knows, with mu held.
func (r *State) isKnown(name string) bool {
	_, is := slices.BinarySearch(r.known, name)
	return is
}

// knows reports whether it matters whether a member is lost.
func (r *State) knows(name string) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.isKnown(name)
}

// currentWitnesses returns the witnesses, which are not to be changed, and whether this node is one.
func (r *State) currentWitnesses() (names []string, selfIsOne bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	_, selfIsOne = slices.BinarySearch(r.witnesses, r.self)
	return r.witnesses, selfIsOne
}

// quorumEnd returns until when more than half of the witnesses are fresh, with mu held.
func (r *State) quorumEnd() int64 {
	if len(r.answers) < r.majority {
		return never
	}
	var sorted [panel.MaxWitnesses]int64
	n := copy(sorted[:], r.answers)
	slices.Sort(sorted[:n])
	switch oldest := sorted[n-r.majority]; oldest {
	case never, math.MaxInt64:
		return oldest
	default:
		return oldest + int64(AnswerAge)
	}
}

// moveEnd makes until the end of the quorum, with Lapsing held. If the quorum has lapsed, or does by this, what is
// held on it ends first: no take can see a new end together with an old holding.
func (r *State) moveEnd(until, now int64) {
	until = max(until, r.graceUntil)
	old := r.FullUntil.Load()
	if now >= old || now >= until {
		r.FullUntil.Store(min(old, until)) // nobody takes this for quorum, and those that look at it need not wait
		r.sweep()
	}
	r.FullUntil.Store(until)
	if now < until {
		r.swept = false
	}
}

// sweep calls onLapse unless that was done for this lapse, with Lapsing held.
func (r *State) sweep() {
	r.graceUntil = never
	if !r.swept {
		r.Lapses.Add(1)
		r.onLapse()
		r.swept = true
	}
}

// IsFull reports whether there is quorum. The only witness of its panel always has it.
func (r *State) IsFull(now int64) bool { return now < r.FullUntil.Load() }

// Check is IsFull, and when it returns false, onLapse has returned for the lapse.
func (r *State) Check(now int64) bool {
	if r.IsFull(now) {
		return true
	}
	r.Lapsing.Lock()
	defer r.Lapsing.Unlock()
	if r.IsFull(now) {
		return true
	}
	r.sweep()
	return false
}

// answered takes in that a witness answered the ping sent at that time, and did not refuse it.
func (r *State) answered(witness string, sent, now int64) {
	r.Lapsing.Lock()
	defer r.Lapsing.Unlock()
	r.mu.Lock()
	i, ok := slices.BinarySearch(r.witnesses, witness)
	if ok {
		r.answers[i] = max(r.answers[i], sent)
	}
	until := r.quorumEnd()
	r.mu.Unlock()
	r.moveEnd(until, now)
}

// running tells that the node is running now. When it has not been for a while, all others are forgiven their silence.
func (r *State) running(now int64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.watchedAt == never || now-r.watchedAt > int64(watchGap) {
		r.watchedSince = now
	}
	r.watchedAt = max(r.watchedAt, now)
}

// pinged takes in a ping, as a witness. A refused one is no quorum, but the pinger is not silent: it is refused while
// this witness's "no ping" may still count [SilentAfterNoPing].
func (r *State) pinged(from string, now int64) (refused bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	w, ok := r.watch[from]
	if !ok {
		if !r.roomForUnknown(now) {
			return true
		}
		w = watch{ping: never, refuseUntil: never}
	}
	w.ping = max(w.ping, now)
	r.watch[from] = w
	return now < w.refuseUntil
}

// silentAmong says, as a witness, which of names have not pinged for silentAfter, or never, which is said of names it has
// not heard of as well [WitnessSpeaksOfUnknown], and refuses their pings from now on, for refusalTime
// [SilentAfterNoPing]. To say it of less is always safe.
func (r *State) silentAmong(names []string, now int64) []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	var silent []string
	for _, name := range names {
		w, ok := r.watch[name]
		switch {
		case name == r.self:
			continue
		case ok && !r.quietFor(w, silentAfter, now):
			continue
		case !ok && !r.roomForUnknown(now):
			continue
		case !ok:
			w = watch{ping: never, refuseUntil: never}
		}
		w.refuseUntil = max(w.refuseUntil, now+int64(refusalTime))
		r.watch[name] = w
		silent = append(silent, name)
	}
	return silent
}

// quietFor reports whether a member has not pinged for so long while this node was running, with mu held.
func (r *State) quietFor(w watch, d time.Duration, now int64) bool {
	last := w.ping
	if last == never {
		return true
	}
	return now-max(last, r.watchedSince) >= int64(d)
}

// roomForUnknown reports whether one more name that is not known can be remembered, with mu held.
func (r *State) roomForUnknown(now int64) bool {
	if most := len(r.known) - 1 + maxUnknown; len(r.watch) >= most {
		r.forgetUnknown(now)
		return len(r.watch) < most
	}
	return true
}

// Silent reports, as a witness, whether a member has not pinged for silentAfter while this node was running.
func (r *State) Silent(name string, now int64) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	w, ok := r.watch[name]
	return !ok || r.quietFor(w, silentAfter, now)
}

// forgetUnknown forgets of those not known what makes no difference any more, with mu held.
func (r *State) forgetUnknown(now int64) {
	for name, w := range r.watch {
		if now >= w.refuseUntil && r.quietFor(w, silentAfter, now) && !r.isKnown(name) {
			delete(r.watch, name)
		}
	}
}

// missed returns known members that have not pinged this witness for a while: a hint that it is time to ask for
// verdicts. When they are too many for one hint, later ones name others.
func (r *State) missed(now int64) []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	if _, ok := slices.BinarySearch(r.witnesses, r.self); !ok {
		return nil // nobody is to ping it
	}
	var missed []string
	for _, name := range r.known {
		if name != r.self && r.quietFor(r.watch[name], missedAfter, now) {
			missed = append(missed, name)
		}
	}
	if len(missed) <= maxMissed {
		return missed
	}
	turn := now / int64(pingInterval) % int64(len(missed)) * maxMissed % int64(len(missed))
	return slices.Concat(missed[turn:], missed[:turn])[:maxMissed]
}

// judged takes in a verdict that a witness gave when it was asked at that time. It replaces what the witness said before.
func (r *State) judged(witness string, sent int64, asked, silent []string, now int64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, name := range asked {
		if word, ok := r.words[name][witness]; ok && word <= sent && !slices.Contains(silent, name) {
			delete(r.words[name], witness)
		}
	}
	if _, ok := slices.BinarySearch(r.witnesses, witness); !ok || now-sent >= int64(verdictAge) {
		return
	}
	for _, name := range silent {
		if name == r.self || !r.isKnown(name) {
			continue
		}
		if r.words[name] == nil {
			r.words[name] = make(map[string]int64)
		}
		word, ok := r.words[name][witness]
		if !ok || word < sent {
			r.words[name][witness] = sent
		}
	}
}

// Lost reports whether more than half of the witnesses have lately said that name is silent.
func (r *State) Lost(name string, now int64) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.isLost(name, now)
}

// isLost is Lost, with mu held.
func (r *State) isLost(name string, now int64) bool {
	words := r.words[name]
	if len(words) < r.majority {
		return false
	}
	saying := 0
	for _, w := range r.witnesses {
		if sent, ok := words[w]; ok && now-sent < int64(verdictAge) {
			saying++
		}
	}
	return saying >= r.majority
}

// LostNames returns the lost members, sorted, and forgets what does not count any more.
func (r *State) LostNames(now int64) []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	var lost []string
	for name, words := range r.words {
		if r.isLost(name, now) {
			lost = append(lost, name)
		}
		for w, sent := range words {
			if now-sent >= int64(verdictAge) {
				delete(words, w)
			}
		}
		if len(words) == 0 {
			delete(r.words, name)
		}
	}
	slices.Sort(lost)
	return lost
}

// AnswerAges returns for each witness but this node how long ago the last ping was sent that it has answered; -1 when there
// was none.
func (r *State) AnswerAges(now int64) map[string]time.Duration {
	r.mu.Lock()
	defer r.mu.Unlock()
	ages := make(map[string]time.Duration, len(r.witnesses))
	for i, name := range r.witnesses {
		switch {
		case name == r.self:
		case r.answers[i] == never:
			ages[name] = -1
		default:
			ages[name] = time.Duration(now - r.answers[i])
		}
	}
	return ages
}

// Reachable returns how many members are within reach, this node among them: those whose answers are fresh. Where not all
// known members are witnesses, it is as many in proportion.
func (r *State) Reachable(now int64) int {
	r.mu.Lock()
	defer r.mu.Unlock()
	fresh, self := 0, 1
	for _, sent := range r.answers {
		switch {
		case sent == math.MaxInt64:
			self = 0 // it is among them
			fresh++
		case sent != never && now-sent < int64(AnswerAge):
			fresh++
		}
	}
	if all := len(r.known); all > len(r.witnesses) && len(r.witnesses) > 0 {
		return max(1, fresh*all/len(r.witnesses))
	}
	return max(1, fresh+self)
}

// Hear takes in a ballot number, and reports whether it is one that a member can have come to by counting. One that is
// not is heard of no further, so that it is neither outbid nor passed on. One that is not far beyond that is approached: the
// limits of two members differ by as much as what they have heard of, so one may have believed it.
func (r *State) Hear(ballot uint64) (believed bool) {
	for {
		heard := r.Heard.Load()
		next, most := heard, max(CountableBallots, heard+min(BallotLeap, math.MaxUint64-heard))
		switch {
		case ballot <= most:
			next = max(heard, ballot)
		case heard < CountableBallots: // a member that joins where that number has been reached finds the others there
			next = CountableBallots
		case ballot-heard <= CountableBallots:
			next = most
		}
		if next == heard || r.Heard.CompareAndSwap(heard, next) {
			return ballot <= next
		}
	}
}
