package peerlimit

import (
	"cmp"
	"fmt"
	"strings"
)

// election is an attempt to acquire partitions. Later attempts have higher ones; the name makes each the attempt of one
// asker only. The zero value is below all others and stands for none.
type election struct {
	number uint64
	by     string // the asker
}

func (e election) compare(o election) int {
	return cmp.Or(cmp.Compare(e.number, o.number), strings.Compare(e.by, o.by))
}

func (e election) below(o election) bool { return e.compare(o) < 0 }

// String returns the election as "number of name".
func (e election) String() string { return fmt.Sprintf("%d of %s", e.number, e.by) }

// version is the version of a copy of a partition. A copy with a higher version replaces one with a lower; nothing is
// ever merged. Election and gifts are the term: the election under which the copy was last acquired without a holder
// to give it, and how often it has been given since. The zero value is below all others: no copy.
type version struct {
	seq      uint64 // counts the holder's changes; the last of what is compared
	election election
	gifts    uint32
	holder   string // who decided by it
}

func (v version) compare(o version) int {
	return cmp.Or(v.election.compare(o.election), cmp.Compare(v.gifts, o.gifts), strings.Compare(v.holder, o.holder),
		cmp.Compare(v.seq, o.seq))
}

func (v version) below(o version) bool { return v.compare(o) < 0 }

// Bounds of what a version counts. Members refuse one that is beyond them, and a holder that has come half the way acquires
// anew, which begins both counts from zero. By counting, nobody gets there: a version that does was in a message that is
// wrong.
const (
	maxGifts = 1 << 31
	maxSeq   = 1 << 62

	// seqLeap is more changes than a message can be behind.
	seqLeap = 1 << 32
)

// worn reports whether the counts of a version are so high that the holder is to acquire anew.
func (v version) worn() bool { return v.gifts >= maxGifts/2 || v.seq >= maxSeq/2 }

// nextSeq returns with which seq the copy goes on in a new term.
func (v version) nextSeq() uint64 {
	if v.worn() {
		return 0
	}
	return v.seq
}

// sameTerm reports whether both are versions of one holder's one term: they differ in seq at most.
func (v version) sameTerm(o version) bool {
	return v.election == o.election && v.gifts == o.gifts && v.holder == o.holder
}
