package panel

import (
	"cmp"
	"slices"
	"time"

	"github.com/cespare/xxhash/v2"
)

// When a witness proposes. All are times for which something has been so; to be late is safe.
const (
	turnPause    = 200 * time.Millisecond           // between the witnesses: mostly the first one's proposal is through by then
	pendingPause = 200 * time.Millisecond           // for a proposal that another has begun
	missedPause  = time.Second                      // of a witness that is missed
	heardPause   = time.Second                      // of a member that could be one
	adoptedPause = AnswerAge + 100*time.Millisecond // of the panel: the other witnesses, who hear of it with their next pings, would refuse
	fewPause     = 300 * time.Millisecond           // the same, while there are fewer than three witnesses and no death can be borne
	fewerPause   = time.Second                      // of members that are fewer than the panel says
	evenPause    = 2 * time.Second                  // of an even panel that nobody can be added to

	maxBackPause = time.Minute // for one that was removed and is there
	forgetAfter  = 10 * time.Minute
	maxRemovals  = 64
)

// Removal remembers that a witness was removed. One that comes back is added after 1 s, and later with each time.
type Removal struct {
	Times int
	At    int64
}

// Member is what a witness sees of another member.
type Member struct {
	Name        string
	HeardSince  int64 // since when its pings come, that name a panel of this origin, and it answers; Never: it does not
	MissedSince int64 // since when its pings are missed; Never: they are not
	Serving     bool  // it answers takes
	Leaving     bool
	HandedOver  bool // it is leaving and holds nothing any more
	Goodbye     bool
}

// gone reports whether a witness should not be one any more.
func (m *Member) gone(now int64, turn time.Duration) bool {
	return m.Goodbye || m.Leaving && m.HandedOver || m.MissedSince != Never && since(m.MissedSince, now) >= missedPause+turn
}

// View is what a witness sees when it looks whether to propose something.
type View struct {
	HasQuorum  bool
	Leaving    bool // this member is leaving
	HandedOver bool

	Others []Member // witnesses and all others with names, without this member

	// Members is how many members there are by this member's knowledge, CountedSince since when it has known of so many.
	Members      int
	CountedSince int64

	// Met are panels of other origins whose members were met over a link.
	Met []Panel
}

func since(t, now int64) time.Duration {
	if t == Never {
		return -1
	}
	return time.Duration(now - t)
}

// Wish returns the panel that this witness proposes now, if any: of all that is due the first in the order of the code. The k-th of
// the witnesses that are there waits k times 200 ms longer than the first, so that they seldom outbid each other. It is a preference
// only: whatever is proposed, by whom and when, is safe.
func (s *State) Wish(v View, now int64) (next Panel, wishes bool) {
	if !v.HasQuorum || s.mayTakePart(s.Panel.ID()) != nil {
		return Panel{}, false
	}
	if s.Since != Never && since(s.Since, now) < adoptedPause {
		return Panel{}, false
	}
	others := make(map[string]*Member, len(v.Others))
	for i := range v.Others {
		others[v.Others[i].Name] = &v.Others[i]
	}
	turn := s.turn(others)
	answers := func(w string) bool { return others[w] != nil && others[w].HeardSince != Never }
	if p := s.pending(); p.exists() && s.answered(p.Panel, answers, now) { // else a majority may know nothing of it
		return p.Panel, since(s.PendingSince, now) >= pendingPause+turn
	}
	if next, ends := s.endFor(v.Met); ends {
		return next, true
	}
	candidates := s.candidates(v, now, turn)
	if len(candidates) > 0 && s.isToBeReplaced(v, others) {
		return s.Panel.With(candidates[0]), true
	}
	if next, is := s.withoutOneGone(v, others, answers, now, turn); is {
		return next, true
	}
	if len(candidates) > 0 && s.roomFor(len(candidates)) {
		return s.Panel.With(candidates[0]), true
	}
	if s.Panel.Number == 1 && !slices.ContainsFunc(v.Others, func(m Member) bool { return m.HeardSince != Never }) {
		return Panel{}, false // a founder alone: to count strangers would establish its origin
	}
	if v.Members > s.Panel.Members || v.Members < s.Panel.Members && since(v.CountedSince, now) >= fewerPause+turn {
		if p := s.Panel.Counting(v.Members); p.Members != s.Panel.Members {
			return p, true
		}
	}
	return s.demotion(v, others, candidates, now, turn)
}

// turn returns by how much longer than the first witness this one waits.
func (s *State) turn(others map[string]*Member) time.Duration {
	k := 0
	for _, w := range s.Panel.Witnesses {
		if w == s.Self {
			break
		}
		if m := others[w]; m != nil && m.MissedSince == Never {
			k++
		}
	}
	return time.Duration(k) * turnPause
}

// endFor returns the last panel of this origin, if a cluster was met that stays.
func (s *State) endFor(met []Panel) (Panel, bool) {
	stays := s.Panel
	for _, p := range met {
		era := p.Origin.Era
		if p.Origin == s.Panel.Origin || p.Ends() || p.Check() != nil || era > s.Panel.Origin.Era && era-s.Panel.Origin.Era > MaxLeap {
			continue
		}
		if Stays(p, stays) {
			stays = p
		}
	}
	if stays.Origin == s.Panel.Origin {
		return Panel{}, false
	}
	return s.Panel.EndingFor(stays.Origin), true
}

// withoutOneGone returns the panel without the first witness that is to be removed and can be: without one that leaves too early,
// those that are dead could be the half of the rest [ProposedPanelAnswers].
func (s *State) withoutOneGone(v View, others map[string]*Member, answers func(string) bool, now int64, turn time.Duration) (Panel, bool) {
	for _, w := range s.Panel.Witnesses {
		m := others[w]
		leaves := w == s.Self && v.Leaving && v.HandedOver
		if !leaves && (w == s.Self || m == nil || !m.gone(now, turn)) {
			continue
		}
		if next := s.Panel.Without(w); len(next.Witnesses) > 0 && s.answered(next, answers, now) {
			return next, true
		}
	}
	return Panel{}, false
}

// candidates returns the members that could be added, the lowest hash first.
func (s *State) candidates(v View, now int64, turn time.Duration) (names []string) {
	pause := heardPause
	if len(s.Panel.Witnesses) < 3 {
		pause = fewPause
	}
	for i := range v.Others {
		m := &v.Others[i]
		if s.Panel.Has(m.Name) || !m.Serving || m.Leaving || m.Goodbye || m.MissedSince != Never {
			continue
		}
		if since(m.HeardSince, now) >= max(pause, s.backPause(m.Name, now))+turn {
			names = append(names, m.Name)
		}
	}
	slices.SortFunc(names, ByHash)
	return names
}

func ByHash(a, b string) int {
	return cmp.Or(cmp.Compare(xxhash.Sum64String(a), xxhash.Sum64String(b)), cmp.Compare(a, b))
}

// roomFor reports whether a witness may be added. Panels stay odd: two are added, one after the other, or none [OddPanels]. One of
// two that come together is of no use: more than half of four is three.
func (s *State) roomFor(candidates int) bool {
	n := len(s.Panel.Witnesses)
	if n >= MaxWitnesses {
		return false
	}
	return n%2 == 0 || candidates > 1 && n+2 <= MaxWitnesses
}

// isToBeReplaced reports whether a witness should be added before those that are leaving are removed: else the panel would be even
// afterwards, of two perhaps, and the next death would take the majority [OddPanels].
func (s *State) isToBeReplaced(v View, others map[string]*Member) bool {
	n := len(s.Panel.Witnesses)
	leaving := 0
	for _, w := range s.Panel.Witnesses {
		if m := others[w]; w == s.Self && v.Leaving || m != nil && m.Leaving && !m.Goodbye && m.MissedSince == Never {
			leaving++
		}
	}
	return leaving > 0 && n < MaxWitnesses && (n-leaving)%2 == 0
}

// demotion returns the panel without its last witness by hash, when it has been even for long and all answer [OddPanels].
func (s *State) demotion(v View, others map[string]*Member, candidates []string, now int64, turn time.Duration) (Panel, bool) {
	n := len(s.Panel.Witnesses)
	if n%2 == 1 || len(candidates) > 0 || s.Since != Never && since(s.Since, now) < evenPause+turn {
		return Panel{}, false
	}
	for _, w := range s.Panel.Witnesses {
		if m := others[w]; w != s.Self && (m == nil || m.HeardSince == Never || m.MissedSince != Never || m.Leaving) || v.Leaving {
			return Panel{}, false
		}
	}
	return s.Panel.Without(slices.MaxFunc(s.Panel.Witnesses, ByHash)), true
}

// backPause returns how long a member must have been heard that was removed before.
func (s *State) backPause(name string, now int64) time.Duration {
	r, was := s.Removed[name]
	if !was || now-r.At > int64(forgetAfter) {
		return 0
	}
	return min(maxBackPause, time.Second<<min(r.Times, 6))
}

// noteRemovals remembers the witnesses that p does not have any more.
func (s *State) noteRemovals(p Panel, now int64) {
	if p.Origin != s.Panel.Origin {
		return
	}
	for name, r := range s.Removed {
		if now-r.At > int64(forgetAfter) {
			delete(s.Removed, name)
		}
	}
	for _, w := range s.Panel.Witnesses {
		if p.Has(w) {
			continue
		}
		if s.Removed == nil {
			s.Removed = make(map[string]Removal)
		}
		if r, again := s.Removed[w]; again || len(s.Removed) < maxRemovals {
			s.Removed[w] = Removal{Times: r.Times + 1, At: now}
		}
	}
}
