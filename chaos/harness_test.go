//go:build linux

package chaos

import (
	"bytes"
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// A harness that is killed takes everything with it that it has started or made, networks included.
func TestNothingIsLeftWhenTheHarnessIsKilled(t *testing.T) {
	self, err := os.Executable()
	require.NoError(t, err)
	for _, scenario := range []string{"KillTheOwner", "CutOneWay"} {
		t.Run(scenario, func(t *testing.T) {
			place, mark := t.TempDir(), fmt.Sprintf("CHAOS_MARK=%d-%s", os.Getpid(), scenario)
			harness := exec.Command(self, "-test.run=^TestScenarios$", "-chaos.run=^"+scenario+"$", "-chaos.node="+path(programs.node))
			harness.Env = append(os.Environ(), mark, "TMPDIR="+place)
			require.NoError(t, launch().start(harness, nil))
			ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
			defer cancel()
			killed := false
			defer func() {
				if !killed {
					_ = harness.Process.Kill()
					_ = harness.Wait()
				}
			}()
			err := poll(ctx, func() error {
				if marked := processesWith(mark); len(marked) < 1+3+drivers { // itself, nodes and drivers at least
					return fmt.Errorf("%d processes", len(marked))
				}
				return nil
			})
			if err != nil && scenario == "CutOneWay" {
				t.Skip("no networks can be made here")
			}
			require.NoError(t, err)
			require.NoError(t, harness.Process.Kill())
			_ = harness.Wait()
			killed = true
			assert.NoError(t, poll(ctx, func() error {
				if marked := processesWith(mark); len(marked) > 0 {
					return fmt.Errorf("processes %v are left", marked)
				}
				return nil
			}))
			left, err := filepath.Glob(filepath.Join(place, "*"))
			require.NoError(t, err)
			assert.Empty(t, left)
		})
	}
}

// processesWith returns the processes in whose environment something is written.
func processesWith(mark string) (pids []string) {
	all, _ := filepath.Glob("/proc/[0-9]*")
	for _, process := range all {
		if environment, err := os.ReadFile(filepath.Join(process, "environ")); err == nil && bytes.Contains(environment, []byte(mark)) {
			pids = append(pids, filepath.Base(process))
		}
	}
	return pids
}

func TestRecordsAreParsed(t *testing.T) {
	r, err := parseRecord("n1 hot 5 8 failed why it did")
	require.NoError(t, err)
	assert.Equal(t, record{node: "n1", key: "hot", start: 5, end: 8, status: "failed", why: "why it did"}, r)
	for _, line := range []string{"", "n1 hot 5 8", "n1 hot x 8 denied", "n1 hot 5 y denied", "n1 hot 8 5 denied", "n1 hot 5 8 dunno"} {
		_, err := parseRecord(line)
		assert.ErrorContains(t, err, "chaos: ", line)
	}
}

// The judge finds what is wrong with a run that is.
func TestTheJudgeFindsFault(t *testing.T) {
	const from = time.Hour // of a clock that has been running
	steady := func(gap time.Duration, until time.Duration) (records []record) {
		for at := time.Duration(0); at < until; at += gap {
			records = append(records, record{node: "n1", key: "hot", start: from + at, end: from + at, status: "allowed", why: "owner"})
		}
		return records
	}
	good := &scenario{nodes: 3, hot: limit{burst: 100, rate: 100}, allow: nothingMore, fullRate: true}
	kill := happened{at: from + 2*time.Second, sudden: true}
	for name, test := range map[string]struct {
		records []record
		absent  []absence
		finds   string // empty: no fault
	}{
		"nothing": {records: steady(10*time.Millisecond, 5*time.Second)},
		"too much": {
			records: steady(5*time.Millisecond, 5*time.Second), finds: "over-admitted",
		},
		"a failed call": {
			records: append(steady(10*time.Millisecond, 5*time.Second), record{node: "n2", key: "hot", start: from, end: from, status: "failed", why: "ouch"}),
			finds:   "ouch",
		},
		"a call to a node that is not there": {
			records: append(steady(10*time.Millisecond, 5*time.Second), record{node: "n2", key: "hot", start: from, end: from, status: "broken"}),
			absent:  []absence{{node: "n2", from: from, to: forever}},
		},
		"a slow decision": {
			records: append(steady(10*time.Millisecond, 5*time.Second), record{node: "n2", key: "hot", start: from, end: from + time.Second, status: "denied"}),
			finds:   "a decision took 1000 ms",
		},
		"a slow machine": {
			records: append(steady(10*time.Millisecond, 5*time.Second),
				record{node: "n2", key: "hot", start: from, end: from + time.Second, status: "denied"},
				record{node: "n2", key: "-", start: from, end: from + time.Second, status: "alive"}),
		},
		"a rate that does not come back":  {records: steady(10*time.Millisecond, 2*time.Second), finds: "not given out again"},
		"an exhausted key that is let in": {records: append(steady(10*time.Millisecond, 5*time.Second), exhausted(from, 11)...), finds: "scarce0: over-admitted"},
		"an exhausted key":                {records: append(steady(10*time.Millisecond, 5*time.Second), exhausted(from, 10)...)},
	} {
		t.Run(name, func(t *testing.T) {
			r := &run{scenario: good, began: from, events: []happened{kill}, absent: test.absent}
			result := judge(r, test.records)
			if test.finds == "" {
				assert.Empty(t, result.Violations)
				return
			}
			require.Len(t, result.Violations, 1)
			assert.Contains(t, result.Violations[0], test.finds)
		})
	}
}

func exhausted(from time.Duration, takes int) (records []record) {
	for i := range takes {
		at := from + time.Duration(i)*time.Millisecond
		records = append(records, record{node: "n1", key: "scarce0", start: at, end: at, status: "allowed"})
	}
	return records
}

// The judge finds what is wrong after members were replaced.
func TestTheJudgeFindsFaultInReplacements(t *testing.T) {
	const from, gap = time.Hour, 10 * time.Millisecond
	kill := happened{at: from + 2*time.Second, sudden: true}
	take := func(at time.Duration, origin string) record {
		return record{node: "n1", key: "hot", start: from + at, end: from + at, status: "allowed", why: origin}
	}
	// steady takes what flows in but for a pause, and a few more at one moment, after which they are not made up for.
	steady := func(pauseAt, pause time.Duration, origin string, moreAt time.Duration, more int) (records []record) {
		for at := time.Duration(0); at < 20*time.Second; at += gap {
			if at < pauseAt || at >= pauseAt+pause {
				records = append(records, take(at, "owner"))
			}
		}
		for range more {
			records = append(records, take(moreAt, origin))
		}
		return records
	}
	held, late := newcomer{node: &node{name: "n4"}, took: time.Second}, newcomer{node: &node{name: "n5"}, took: forever, lacks: "nothing"}
	for name, test := range map[string]struct {
		records   []record
		newcomers []newcomer
		unsettled []string
		finds     string // empty: no fault
	}{
		"nothing":                     {records: steady(0, 0, "owner", 0, 99), newcomers: []newcomer{held}},
		"a pause before all is calm":  {records: steady(4*time.Second, time.Second, "owner", 0, 99)},
		"a pause after that":          {records: steady(15*time.Second, 150*time.Millisecond, "owner", 0, 99), finds: "85.0 % of the limit's rate"},
		"what a kill forgets":         {records: steady(0, 0, "owner", 2*time.Second, 110)},
		"as much when nothing forgot": {records: steady(0, 0, "owner", 3*time.Second, 110), finds: "over-admitted"},
		"some by shares":              {records: steady(0, 0, "fallback", 0, 20)},
		"many by shares":              {records: steady(0, 0, "standby", 0, 30), finds: "shares decided 30 of 2030 takes"},
		"a newcomer that holds late":  {records: steady(0, 0, "owner", 0, 99), newcomers: []newcomer{held, late}, finds: "n5 did not hold"},
		"a dead member that counts":   {records: steady(0, 0, "owner", 0, 99), newcomers: []newcomer{held}, unsettled: []string{"n4 divides by 4"}, finds: "n4 divides by 4"},
	} {
		t.Run(name, func(t *testing.T) {
			s := &scenario{nodes: 3, hot: limit{burst: 100, rate: 100}, allow: lostByEach, calmAfter: 8 * time.Second, mostShares: 1}
			r := &run{scenario: s, began: from, over: from + 20*time.Second, events: []happened{kill}, newcomers: test.newcomers, unsettled: test.unsettled}
			result := judge(r, test.records)
			if test.finds == "" {
				assert.Empty(t, result.Violations)
				return
			}
			require.Len(t, result.Violations, 1)
			assert.Contains(t, result.Violations[0], test.finds)
		})
	}
}

// A driver asks no more and no longer than it may, and says so, whatever its harness does.
func TestADriversLoadIsBounded(t *testing.T) {
	for name, arguments := range map[string][]string{"takes": {"-most", "5"}, "100ms": {"-for", "100ms"}} {
		t.Run(name, func(t *testing.T) {
			var takes atomic.Int64
			server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				if r.URL.Path == "/take" {
					takes.Add(1)
				}
				_, _ = w.Write([]byte(`{"allowed":true}`))
			}))
			defer server.Close()
			d, err := startDriver(path(programs.driver), arguments...)
			require.NoError(t, err)
			defer d.kill()
			require.NoError(t, d.add(&node{name: "n1", http: strings.TrimPrefix(server.URL, "http://")}))
			time.Sleep(500 * time.Millisecond) // 50 takes without bounds
			_, err = d.finish()
			assert.ErrorContains(t, err, "still asked to go on after")
			assert.ErrorContains(t, err, name)
			if name == "takes" {
				assert.EqualValues(t, 5, takes.Load())
			}
		})
	}
}
