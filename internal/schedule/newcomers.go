package schedule

import (
	"slices"
	"time"

	"github.com/peerlimit/peerlimit"
)

// Judging splits during which nodes start, and two clusters that were founded apart.

// In a split during which nodes start that reach one side only, at most one side decides in full, and each other member by a share of
// 1/N, N the members that it has ever met. The old holder, when it is not on that side, goes on until its quorum lapses.
func (r *Run) newcomersAllowance(e event, k *keyRun, l peerlimit.Limit) float64 {
	if r.s.foundsApart(e) {
		return grown(l, e.lasts+rejoin) // nothing is promised until the two are one: it is a limit for each
	}
	part, apart, members := r.s.parted(e)
	tokens := part*grown(l, e.lasts+rejoin) + k.wholeTokens(l, apart, members)
	if r.s.cutBefore(e) || !r.s.hasMajority(e) {
		return tokens + grown(l, quorumLasts)
	}
	return tokens + r.minorityAllowance(e, k, l, r.s.largestSide(e))
}

// foundsApart reports whether a split has a side of none but nodes that start while it lasts.
func (s *Schedule) foundsApart(e event) bool { return len(s.sidesAt(e, e.at)) < len(e.sides) }

// unmet reports whether two clusters that were founded apart may not be one yet.
func (s *Schedule) unmet(at time.Duration) bool {
	return slices.ContainsFunc(s.events, func(e event) bool {
		return e.kind == split && s.foundsApart(e) && e.at <= at && at <= e.end()+rejoin
	})
}

// cutBefore reports whether the sides of a split were cut off from each other a moment before, some of them, or still are: then the
// smaller side may be the one that has a majority, of those that were left.
func (s *Schedule) cutBefore(e event) bool {
	return slices.ContainsFunc(s.events, func(other event) bool {
		return other.kind == split && other.at < e.at && other.end()+rejoin >= e.at
	})
}

// deciding returns the side of a split that decides in full, as far as can be said: the largest one. Where that is none, or may be another
// one, it is the smallest one, beside which most may be given out by shares.
func (s *Schedule) deciding(e event) []int {
	if s.hasMajority(e) && !s.cutBefore(e) {
		return s.largestSide(e)
	}
	return slices.MinFunc(s.sidesAt(e, e.at), func(a, b []int) int { return len(a) - len(b) })
}

// parted returns what part of a limit may be given out during a split by shares, beside the whole limit of the side that decides: 1/N for
// each member that is apart, and for each newcomer that reaches only such. It also returns how many those are, of how many in all.
func (s *Schedule) parted(e event) (part float64, apart, members int) {
	deciding := s.deciding(e)
	for _, side := range s.sidesAt(e, e.at) {
		members += len(side)
	}
	apart = members - len(deciding)
	part = float64(apart) / float64(members)
	for _, side := range e.sides {
		if slices.Contains(side, deciding[0]) && s.hasMajority(e) && !s.cutBefore(e) {
			continue
		}
		for _, i := range side {
			if !s.startedAt(i, e.at) {
				apart++
				members++
				part += 1 / float64(members)
			}
		}
	}
	return min(1, part), apart, members
}

// together reports whether a split leaves two nodes on one side.
func (e event) together(a, b int) bool {
	return slices.ContainsFunc(e.sides, func(side []int) bool { return slices.Contains(side, a) && slices.Contains(side, b) })
}

// hasMajority reports whether one side of a split is more than half of those that were there on any of them when it began, and so
// decides in full.
func (s *Schedule) hasMajority(e event) bool {
	all := 0
	for _, side := range s.sidesAt(e, e.at) {
		all += len(side)
	}
	return 2*len(s.largestSide(e)) > all && e.at >= s.witnessedAt(all)
}

// witnessedAt returns when so many members that start together are witnesses, all of them or all but one. Each step takes 600 ms, and
// some are for counting the members. Schedules that follow from no seed begin with that.
func (s *Schedule) witnessedAt(members int) time.Duration {
	if s.seed == 0 {
		return 0
	}
	return time.Second + time.Duration(members)*700*time.Millisecond
}

// mayDecide returns the sides of a split that may be the one that decides in full. Of an even number one member is no witness, so half of
// them may be the majority. While the members are becoming witnesses it may be any side.
func (s *Schedule) mayDecide(e event) (sides [][]int) {
	all := s.sidesAt(e, e.at)
	members := 0
	for _, side := range all {
		members += len(side)
	}
	for _, side := range all {
		if 2*len(side) >= members || e.at < s.witnessedAt(members) || s.cutBefore(e) {
			sides = append(sides, side)
		}
	}
	return sides
}
