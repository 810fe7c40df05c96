//go:build linux

package chaos

import (
	"cmp"
	"fmt"
	"math"
	"slices"
	"strings"
	"time"

	"github.com/peerlimit/peerlimit"
	"github.com/peerlimit/peerlimit/internal/oracle"
)

const (
	// unreplicated is how much of the past a sudden end may lose: an interval of replication, and as long again until the
	// standby's acknowledgement is there, on a machine where nine processes share two processors.
	unreplicated = 5 * peerlimit.DefaultReplicaInterval

	// fullAgain is how soon after the end of one of five nodes the whole limit must be given out again.
	fullAgain = time.Second

	sample = 100 * time.Millisecond
)

// inTime is how long a decision may take, and what the machine takes for a request anyway comes to it.
func (s *scenario) inTime() time.Duration {
	return 2*cmp.Or(s.rpcTimeout, peerlimit.DefaultRPCTimeout) + 50*time.Millisecond
}

// allowance is what may be admitted in a window of length w: factor times B + R·w, and extra tokens; or, when it is by event, what sudden
// events may have made forgotten counts in no window. That is stricter where many follow each other: each allows something only in windows
// that contain it.
type allowance struct {
	factor, extra float64
	byEvent       bool
}

// judge makes the result of what was recorded.
func judge(r *run, records []record) Result {
	s := r.scenario
	result := Result{
		Scenario: s.name, Guarantee: s.guarantee, Program: *program, Nodes: s.nodes,
		Started: time.Now().UTC().Format(time.RFC3339),
	}
	end := r.began
	for _, c := range records {
		end = max(end, c.end)
		r.judgeCall(&result, c)
	}
	result.Seconds = (end - r.began).Seconds()
	for _, e := range r.events {
		result.Events = append(result.Events, Event{AtMS: milliseconds(e.at - r.began), Text: e.text})
	}
	hot := r.judgeKeys(&result, "saturated", s.hot, records, end, func(key string) bool { return strings.HasPrefix(key, "hot") })
	r.judgeKeys(&result, "exhausted", scarce, records, end, func(key string) bool { return strings.HasPrefix(key, "scarce") })
	if result.Failed > 0 {
		result.violate("%d of %d calls failed; the first: %s", result.Failed, result.Calls, result.FirstFailed)
	}
	if bound := milliseconds(s.inTime()) + result.NoiseMS; result.SlowestMS > bound {
		result.violate("a decision took %.0f ms; promised are %v, and %.0f ms is what requests without a decision took", result.SlowestMS, s.inTime(), result.NoiseMS)
	}
	if s.fullRate {
		took := hot.fullRateAfter(r.lastSudden(), end, s.hot.rate)
		if took == forever {
			result.violate("the whole limit was not given out again")
		} else {
			ms := milliseconds(took)
			result.FullRateMS = &ms
			if took > fullAgain {
				result.violate("the whole limit was given out again after %.0f ms; promised are %v", ms, fullAgain)
			}
		}
	}
	r.judgeCalm(&result, hot)
	r.judgeShares(&result, records)
	r.judgeNewcomers(&result)
	r.lookForStandstills(&result, records)
	return result
}

func (r *Result) violate(format string, values ...any) {
	r.Violations = append(r.Violations, fmt.Sprintf(format, values...))
}

func milliseconds(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }

// judgeCall counts a call, if the node it was sent to was there all the time.
func (r *run) judgeCall(result *Result, c record) {
	for _, a := range r.absent {
		if a.node == c.node && c.end >= a.from && c.start <= a.to {
			return
		}
	}
	took := milliseconds(c.end - c.start)
	switch c.status {
	case "alive":
		result.NoiseMS = max(result.NoiseMS, took)
		return
	case "failed", "broken":
		if result.Failed++; result.Failed == 1 {
			result.FirstFailed = fmt.Sprintf("%s at %.0f ms: %s", c.node, milliseconds(c.start-r.began), c.why)
		}
	}
	result.Calls++
	result.SlowestMS = max(result.SlowestMS, took)
}

// served are the times at which takes were admitted.
type served []time.Duration

// judgeKeys judges every key of a kind by itself.
func (r *run) judgeKeys(result *Result, kind string, l limit, records []record, end time.Duration, is func(key string) bool) (all served) {
	keys := Keys{Kind: kind, Burst: l.burst, Rate: l.rate, SampleMS: int(sample / time.Millisecond)}
	samples := int((end-r.began)/sample) + 1
	keys.Offered, keys.Served = make([]int, samples), make([]int, samples)
	byKey := make(map[string][]record)
	for _, c := range records {
		if !is(c.key) {
			continue
		}
		keys.Offered[(c.start-r.began)/sample]++
		if c.status != "allowed" {
			continue
		}
		keys.Served[(c.end-r.began)/sample]++
		byKey[c.key] = append(byKey[c.key], c)
		all = append(all, c.end)
	}
	keys.Number = len(byKey)
	law := oracle.Limit{Tokens: l.rate, Period: time.Second, Burst: l.burst}
	under := 0.0
	for key, admitted := range byKey {
		o := r.oracleOf(law, admitted)
		allowed := r.scenario.allow(r, l, admitted)
		report := o.Report()
		judged := o
		if allowed.byEvent {
			judged = r.oracleOf(law, slices.DeleteFunc(slices.Clone(admitted), r.forgotten))
			allowed.extra = forgottenIn(r, report.Worst, admitted)
		}
		if report.Excess > keys.Over || keys.Allowed == 0 {
			keys.Admitted, keys.Allowed, keys.Over = report.Worst.Admitted, report.Worst.Allowed, report.Excess
			keys.OverAllowed = (allowed.factor-1)*report.Worst.Allowed + allowed.extra
		}
		if !judged.Against(law.Times(allowed.factor)).Within(allowed.tolerated()) {
			result.violate("%s: over-admitted: %v; allowed are %.3f times that and %.1f tokens%s", key, report, allowed.factor, allowed.extra, r.shares(admitted))
		}
		under = math.Max(under, 100*(1-float64(len(admitted))/law.Allowed(end-r.began)))
	}
	if kind == "saturated" {
		keys.UnderPercent = under
	}
	result.Keys = append(result.Keys, keys)
	return all
}

// tolerated is what a window may have too much of, of the takes that are judged.
func (a allowance) tolerated() float64 {
	if a.byEvent {
		return 0 // what is allowed is not among them
	}
	return a.extra
}

// oracleOf returns an ideal bucket that has seen what was admitted.
func (r *run) oracleOf(law oracle.Limit, admitted []record) *oracle.Oracle {
	o := oracle.New(law)
	for _, c := range admitted {
		o.Admit(oracle.Take{Start: c.start - r.began, End: c.end - r.began, Cost: 1})
	}
	return o
}

// shares lists the takes of a key that a share of the limit admitted.
func (r *run) shares(admitted []record) string {
	var b strings.Builder
	for _, c := range admitted {
		if c.byShare() {
			fmt.Fprintf(&b, "; a share (%s) at %s, %.0f to %.0f ms", c.why, c.node, milliseconds(c.start-r.began), milliseconds(c.end-r.began))
		}
	}
	return b.String()
}

// lost is how many tokens of a key were admitted so short before a sudden event that nobody else may know of them.
func (r *run) lost(admitted []record) (tokens float64) {
	for _, e := range r.events {
		for _, c := range admitted {
			if e.forgets(c) {
				tokens++
			}
		}
	}
	return tokens
}

// forgets reports whether a take was admitted so short before the event that nobody else may know of it.
func (e happened) forgets(c record) bool {
	return e.sudden && c.end >= e.at-unreplicated && c.start <= e.at
}

// forgotten reports whether any event may have made a take forgotten.
func (r *run) forgotten(c record) bool {
	return slices.ContainsFunc(r.events, func(e happened) bool { return e.forgets(c) })
}

// forgottenIn is how many of the takes that lie in a window events may have made forgotten.
func forgottenIn(r *run, w oracle.Window, admitted []record) (tokens float64) {
	for _, c := range admitted {
		if c.start-r.began >= w.From && c.end-r.began <= w.To && r.forgotten(c) {
			tokens++
		}
	}
	return tokens
}

func (r *run) lastSudden() (at time.Duration) {
	for _, e := range r.events {
		if e.sudden {
			at = max(at, e.at)
		}
	}
	return at
}

// fullRateAfter returns how long after an instant the rate was whole again: from when on half a second gave out nineteen
// twentieths of what flows in in that time.
func (s served) fullRateAfter(at, end time.Duration, rate float64) time.Duration {
	const step, window = 10 * time.Millisecond, 500 * time.Millisecond
	for from := at; from+window <= end; from += step {
		count := 0
		for _, when := range s {
			if when >= from && when < from+window {
				count++
			}
		}
		if float64(count) >= 0.95*rate*window.Seconds() {
			return from - at
		}
	}
	return forever
}
