package main

import (
	"fmt"
	"math"
	"slices"
	"time"

	"github.com/peerlimit/peerlimit"
	"github.com/peerlimit/peerlimit/peerlimittest"
)

// term is a part of what may be admitted beyond B + R·w, and why.
type term struct {
	Tokens float64
	Why    string
}

// allowance is what peerlimit may admit for one key beyond B + R·w because of one disturbance. It is the whole difference
// between what a window with the disturbance may hold and one without.
//
// A node that joins or leaves takes over, or hands over, all that was spent: nothing more is admitted. A crash, or a node that
// stops, takes with it what the node had decided and not yet sent to the node that replaces it. That is no more than what
// was admitted of the key within one ReplicaInterval before, as far as the driver saw it; the owner on the smaller side of a
// split goes on until it has lost quorum. When the standby goes with it, the key may begin full. A node that is cut off
// decides by its share of the limit, and when no side has a majority every node does. So does a node that reports, without
// anything done to it, that it reaches no holder of a key.
func allowance(d disturbance, key string, limit peerlimit.Limit) []term {
	var terms []term
	if m := d.Moved[key]; m.Unsent > 0 {
		when := "within " + seconds(replicaInterval) + " before it"
		switch d.Kind {
		case split:
			when = "until " + seconds(quorumLasts) + " after it"
		case degraded:
			when = "until it lost quorum"
		}
		terms = append(terms, term{float64(m.Unsent), "admitted " + when})
	}
	if d.StandbyToo[key] {
		terms = append(terms, term{limit.Burst, "because owner and standby went together"})
	}
	if m := d.Moved[key]; m.ByShare > 0 {
		terms = append(terms, term{m.ByShare, fmt.Sprintf("as its share, 1 of %d", d.Of)})
	}
	whole := allowed(limit, d.Until-d.At)
	switch {
	case d.Kind.isSudden() && d.Stranded:
		terms = append(terms, term{whole, "because nobody had a majority"})
	case d.Kind == split:
		terms = append(terms, term{shares(limit, d.Until-d.At, d.Apart, d.Of), fmt.Sprintf("as the shares of %d of %d", d.Apart, d.Of)})
	case d.Kind == woken:
		terms = append(terms, term{shares(limit, d.Until-d.At, 1, d.Of), fmt.Sprintf("as its share, 1 of %d, until all agree", d.Of)})
	}
	return terms
}

// shares is what some of as many members may give out by their shares in a window. Where the burst is less than a token for each
// member, some of them have a whole one.
func shares(limit peerlimit.Limit, w time.Duration, some, of int) float64 {
	given := allowed(limit, w) * float64(some) / float64(of)
	if each := limit.Burst / float64(of); each < 1 {
		given += min(float64(some), math.Floor(limit.Burst)) * (1 - each)
	}
	return given
}

// quorumLasts is for how long an owner that is cut off may go on: half a second, and what it takes to cut it off.
const quorumLasts = 600 * time.Millisecond

func sum(terms []term) float64 {
	total := 0.0
	for _, t := range terms {
		total += t.Tokens
	}
	return total
}

// minServed is the part of what an ideal bucket would have admitted that a key must get while more than its rate is asked
// for and nothing concerns it. What is lacking would be exactness bought by starving.
const minServed = 0.9

// minDemand is how many times the limit must be asked for in a second that counts for minServed.
const minDemand = 1.2

// evidence is what a run leaves behind.
type evidence struct {
	limit        peerlimit.Limit
	from, to     time.Duration // the part of the run with that limit
	anyLoad      bool          // nobody has promised to ask for more than the limit
	disturbances []disturbance
	*recorder    // which nothing is added to any more
	reports
	faults []error // what the demo could not do, and nodes that ended by themselves
}

// verdict says for a run what was admitted, what was allowed, and what was wrong.
type verdict struct {
	Limit    peerlimit.Limit
	From, To time.Duration // the part of the run with that limit
	Keys     []keyVerdict
	Extras   []extra
	Calls    int
	CutOff   int // calls cut off by the kill
	Failed   int
	Problems []string // not of one key
}

// keyVerdict is the verdict on one key.
type keyVerdict struct {
	Key      string
	Run      span
	Worst    span    // what broke the guarantee most, or else what exceeded B + R·w most
	Served   float64 // what was admitted in Steady seconds, in parts of what an ideal bucket would have
	Steady   int
	Problems []string
}

// cause tells a disturbance, for people.
func (d *disturbance) cause() string {
	switch {
	case d.Kind == degraded && d.Unreached == "":
		return d.Node + " lost quorum"
	case d.Kind == degraded:
		return d.Node + " did not reach " + d.Unreached
	}
	return string(d.Kind) + " of " + d.Node
}

// extra is what is allowed for one key because of one disturbance.
type extra struct {
	Key string
	disturbance
	Terms []term
}

// span is a window of the run, and what was admitted for a key in it.
type span struct {
	From, To time.Duration
	Admitted float64
	Bound    float64 // B + R·w
	Extra    float64 // allowed for what was done in it
}

// excess is how much more was admitted than allowed; negative when less.
func (s span) excess() float64 { return s.Admitted - s.Bound - s.Extra }

// broken reports whether more was admitted than allowed, by more than rounding.
func (s span) broken() bool { return s.excess() > rounding*(s.Bound+s.Extra) }

// held reports whether everything was as promised.
func (v verdict) held() bool {
	for _, k := range v.Keys {
		if len(k.Problems) > 0 {
			return false
		}
	}
	return len(v.Problems) == 0
}

// judge compares what was admitted with what is promised.
func judge(e evidence) verdict {
	e = e.withReports()
	v := verdict{
		Limit: e.limit, From: e.from, To: e.to, Calls: e.calls, CutOff: e.cutOff, Failed: e.failed,
	}
	for _, d := range demands {
		v.Keys = append(v.Keys, e.judgeKey(d.key))
		v.Extras = append(v.Extras, e.extras(d.key)...)
	}
	for _, err := range e.faults {
		v.Problems = append(v.Problems, shownLines(err.Error()))
	}
	if e.failed > 0 {
		v.Problems = append(v.Problems, fmt.Sprintf("%d of %d calls failed:", e.failed, e.calls))
		v.Problems = append(v.Problems, e.failures...)
	}
	return v
}

func (e evidence) judgeKey(key string) keyVerdict {
	k := keyVerdict{Key: key}
	k.Run = e.span(key, span{From: e.from, To: e.to, Admitted: e.judges[key].Admitted(), Bound: allowed(e.limit, e.to-e.from)})
	k.Worst = e.worst(key)
	if k.Worst.broken() {
		k.Problems = append(k.Problems, fmt.Sprintf("%.1f more admitted than allowed from %.3f s to %.3f s",
			k.Worst.excess(), k.Worst.From.Seconds(), k.Worst.To.Seconds()))
	}
	e.judgeServed(&k)
	return k
}

// extras returns what is allowed for one key beyond B + R·w.
func (e evidence) extras(key string) []extra {
	var extras []extra
	for _, d := range e.disturbances {
		if terms := allowance(d, key, e.limit); len(terms) > 0 && d.overlaps(e.from, e.to) {
			extras = append(extras, extra{key, d, terms})
		}
	}
	return extras
}

// span adds to a window what is allowed for what was done in it.
func (e evidence) span(key string, s span) span {
	for _, x := range e.extras(key) {
		if x.overlaps(s.From, s.To) {
			s.Extra += sum(x.Terms)
		}
	}
	return s
}

// worst returns the window that breaks the guarantee most; if none does, the one that exceeds B + R·w most. What is allowed
// because of a disturbance is allowed in every window that overlaps it, as what is given back is: so it is told to the
// judge as that, which then looks at all windows.
func (e evidence) worst(key string) span {
	lenient := e.judges[key].Clone()
	for _, x := range e.extras(key) {
		lenient.RefundBetween(instant(x.At), instant(x.Until), sum(x.Terms))
	}
	if most := e.span(key, spanOf(lenient.Worst())); most.broken() {
		return most
	}
	return e.span(key, spanOf(e.judges[key].Worst()))
}

// spanOf is a judge's window without what is allowed for what was done in it. Nothing was admitted in the zero one.
func spanOf(w peerlimittest.Window) span {
	if w.To.IsZero() {
		return span{}
	}
	return span{From: moment(w.From), To: moment(w.To), Admitted: w.Admitted, Bound: w.Allowed - w.Refunded}
}

// judgeServed checks that the key got its rate in the seconds in which it was asked for and nothing concerned it.
func (e evidence) judgeServed(k *keyVerdict) {
	quiet, admitted, due := 0, 0, 0
	for i, s := range e.seconds[k.Key] {
		if !e.isQuiet(k.Key, i) {
			continue
		}
		quiet++
		if s.answered >= int(minDemand*e.rate()) {
			k.Steady++
			admitted += s.admitted
			due += s.due
		}
	}
	switch {
	case quiet > 0 && k.Steady == 0 && !e.anyLoad:
		k.Problems = append(k.Problems, "too few requests were sent to tell anything: try a smaller -rate")
	case k.Steady > 0:
		k.Served = float64(admitted) / float64(max(due, 1))
		if float64(admitted) < minServed*float64(due)-1 { // the last token may not be whole yet
			k.Problems = append(k.Problems, fmt.Sprintf("only %d admitted in %d undisturbed seconds", admitted, k.Steady))
		}
	}
}

// isQuiet reports whether a key had nothing but its rate in the i-th second: no burst left, and an owner. What ends or cuts
// off a node takes the owner from its keys, and a node that decides by its share has none; a node that joins or leaves keeps no
// request waiting for long.
func (e evidence) isQuiet(key string, i int) bool {
	const used = time.Second // by then, a burst is
	to := time.Duration(i+1) * time.Second
	from := to - time.Second - used
	return from >= e.from && to <= e.to && !slices.ContainsFunc(e.disturbances, func(d disturbance) bool {
		m, moved := d.Moved[key]
		moved = moved && (d.Kind.isSudden() || d.Kind == degraded) || d.Stranded || d.Kind == split || d.Kind == woken
		return moved && d.At < to && from < max(d.Until, m.Resumed)
	})
}

// rate is the limit's, per second.
func (e evidence) rate() float64 { return inflow(e.limit, time.Second) }
