package wire

import (
	"cmp"
	"fmt"
	"strings"
)

// Ballot is an attempt to acquire partitions. Later attempts have higher ones; the name makes each the attempt of one
// asker only. The zero value is below all others and stands for none.
type Ballot struct {
	Number uint64
	By     string // the asker
}

func (e Ballot) compare(o Ballot) int {
	return cmp.Or(cmp.Compare(e.Number, o.Number), strings.Compare(e.By, o.By))
}

func (e Ballot) Below(o Ballot) bool { return e.compare(o) < 0 }

// String returns the ballot as "number of name".
func (e Ballot) String() string { return fmt.Sprintf("%d of %s", e.Number, e.By) }

// Version is the version of a copy of a partition. A copy with a higher version replaces one with a lower; nothing is
// ever merged. Ballot and transfers are the term: the ballot under which the copy was last acquired without a holder
// to give it, and how often it has been given since. The zero value is below all others: no copy.
type Version struct {
	Seq       uint64 // counts the holder's changes; the last of what is compared
	Ballot    Ballot
	Transfers uint32
	Holder    string // the node that decides by it
}

func (v Version) compare(o Version) int {
	return cmp.Or(v.Ballot.compare(o.Ballot), cmp.Compare(v.Transfers, o.Transfers), strings.Compare(v.Holder, o.Holder),
		cmp.Compare(v.Seq, o.Seq))
}

func (v Version) Below(o Version) bool { return v.compare(o) < 0 }

// Bounds of what a version counts. Members refuse one that is beyond them, and a holder that has come half the way acquires
// anew, which begins both counts from zero. By counting, nobody gets there: a version that does was in a message that is
// wrong.
const (
	maxTransfers = 1 << 31
	MaxSeq       = 1 << 62

	// SeqLeap is more changes than a message can be behind.
	SeqLeap = 1 << 32
)

// Worn reports whether the counts of a version are so high that the holder is to acquire anew.
func (v Version) Worn() bool { return v.Transfers >= maxTransfers/2 || v.Seq >= MaxSeq/2 }

// NextSeq returns with which seq the copy goes on in a new term.
func (v Version) NextSeq() uint64 {
	if v.Worn() {
		return 0
	}
	return v.Seq
}

// SameTerm reports whether both are versions of one holder's one term: they differ in seq at most.
func (v Version) SameTerm(o Version) bool {
	return v.Ballot == o.Ballot && v.Transfers == o.Transfers && v.Holder == o.Holder
}
