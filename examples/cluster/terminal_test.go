package main

import (
	"bytes"
	"errors"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/peerlimit/peerlimit"
)

// show prints a run of the greatest numbers there can be.
func show(o options) string {
	var out bytes.Buffer
	terminal := newTerminal(&out, o)
	var cast []castMember
	for i := range o.nodes {
		cast = append(cast, castMember{Name: nodeName(i), PID: 4194303, URL: "http://127.0.0.1:65535", Owns: keyNames()})
	}
	terminal.Began(cast)
	s := sample{At: 599 * time.Second, Interval: time.Second, Limit: 30000, counts: newCounts()}
	s.Offered, s.Admitted = 80000, 79999
	for i := range o.nodes + 1 {
		s.ByNode[nodeName(i)] = 79999
	}
	for _, origin := range shownOrigins {
		s.ByOrigin[origin] = 79999
	}
	terminal.Sampled(s)
	terminal.Happened(event{At: 599 * time.Second, Done: true, Text: strings.Repeat("something happened to node-1, ", 10)})

	e := testCase{add: map[time.Duration]int{0: 50}}.evidence()
	for _, kind := range []disturbanceKind{killed, started, retired} {
		e.disturbances = append(e.disturbances, disturb(kind, 4, 9.5, true))
	}
	terminal.Judged(judge(e))
	return out.String()
}

func TestOutputFitsTheTerminal(t *testing.T) {
	for _, o := range []options{
		{nodes: 5, rate: 10000, burst: 1000000, chaos: true, duration: maxDuration},
		{nodes: maxNodes, rate: 10000, burst: 1000000, chaos: true, duration: maxDuration},
		{nodes: 1, rate: 0.5, burst: 1, duration: maxDuration},
	} {
		assertFits(t, show(o))
	}
}

func TestColumnsAreAligned(t *testing.T) {
	lines := strings.Split(show(options{nodes: 3, rate: 100, burst: 50, chaos: true, duration: testRun}), "\n")
	for i, line := range lines {
		if !strings.Contains(line, "offered") {
			continue
		}
		assert.Len(t, lines[i-1], len(line), "groups over heads")
		assert.Len(t, lines[i+1], len(line), "numbers under heads")
		return
	}
	t.Fatal("there is no head")
}

func TestVerdictIsTold(t *testing.T) {
	out := show(options{nodes: 3, rate: testRate, burst: testBurst, chaos: true, duration: testRun})
	assert.Contains(t, out, "BROKEN  alice ")
	assert.Contains(t, out, "HELD    carol ")
	assert.Contains(t, out, "BROKEN  alice: 50.0 more admitted than allowed from 0.000 s to 0.000 s")
	assert.Contains(t, out, "extra   alice +2      kill of node-1: 2 admitted within 20 ms before it\n")
	assert.NotContains(t, out, "No window of any key")
}

func TestShortNumbersFitFourCharacters(t *testing.T) {
	for x, want := range map[float64]string{
		0: "0", 0.04: "0.0", 3: "3", 9.94: "9.9", 9.96: "10", 9999: "9999", 9999.6: "10k", 79999: "80k",
	} {
		require.LessOrEqual(t, len(want), 4)
		assert.Equal(t, want, short(x), "%v", x)
	}
}

// What nodes and errors say is shown, and never obeyed: any process of this machine can say it to a node.
func TestTheTerminalObeysNobody(t *testing.T) {
	var out bytes.Buffer
	terminal := newTerminal(&out, options{nodes: 1})
	terminal.Happened(event{Text: "api\x1b[2J\u202e is a member now"})
	terminal.Sampled(sample{Interval: time.Second, counts: counts{ByNode: map[string]int{"n\u009b31m": 1}, ByOrigin: map[string]int{"o\x1b": 1}}})
	terminal.ending(verdict{Problems: []string{"it answers \x1b]0;x\a\xff"}})
	for _, text := range []string{`api\x1b[2J\u202e is a member now`, `n\u009b31m`, `o\x1b`, `it answers \x1b]0;x\a\xff`} {
		assert.Contains(t, out.String(), text)
	}
	assert.NotContains(t, out.String(), "\x1b")
	assert.True(t, utf8.ValidString(out.String()))

	p := &process{name: "node-1", ended: make(chan struct{}), err: errors.New("exit status 2")}
	p.log.text = []byte("panic: x\x1b[2J\n\ngoroutine 1\n\tmain.go")
	assert.ErrorContains(t, p.failure(), "words:\npanic: x\\x1b[2J\n\ngoroutine 1\n\tmain.go")
	assert.Equal(t, []event{{Text: `api\x1b[2J is a member now (1 node)`}}, shownEvents(notice{peerlimit.EventMemberJoined, "api\x1b[2J", []string{"node-1"}, gains{}}))
}

// shownEvents is what an observer, and with it the page, is shown of a notice.
func shownEvents(x notice) []event {
	w := &watcher{}
	n := newNarrator(w, new(clock), newRecorder(peerlimit.Limit{Tokens: 1, Period: time.Second, Burst: 1}), func() float64 { return 1 })
	n.take(&entry{notice: &x})
	n.show(never)
	return w.events
}

// watcher keeps the events that it is shown.
type watcher struct{ events []event }

func (*watcher) Began([]castMember) {}
func (*watcher) Sampled(sample)     {}
func (*watcher) Judged(verdict)     {}
func (w *watcher) Happened(e event) { w.events = append(w.events, e) }
