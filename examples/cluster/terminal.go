package main

import (
	"fmt"
	"io"
	"maps"
	"math"
	"slices"
	"strings"
	"time"

	"github.com/peerlimit/peerlimit"
)

// terminal shows a run as lines of text, at most 100 columns wide.
type terminal struct {
	out     io.Writer
	options options
	nodes   []string // the columns
	seen    map[string]bool
}

func newTerminal(out io.Writer, o options) *terminal {
	t := &terminal{out: out, options: o, seen: make(map[string]bool)}
	for i := range o.nodes {
		t.nodes = append(t.nodes, nodeName(i))
	}
	if o.chaos {
		t.nodes = append(t.nodes, nodeName(o.nodes)) // which will be started
	}
	return t
}

// shownOrigins have a column each; others are told at the end of a line.
var shownOrigins = []string{
	peerlimit.OriginLocal.String(), peerlimit.OriginRemote.String(), peerlimit.OriginFallback.String(),
}

// printf is all that writes. Names and errors come from other processes: none of them says what the terminal does.
func (t *terminal) printf(format string, args ...any) {
	fmt.Fprint(t.out, shownLines(fmt.Sprintf(format, args...)))
}

// Began implements observer: it prints what is going to happen, and the head of the columns.
func (t *terminal) Began(cast []castMember) {
	o := t.options
	t.printf("%s with ONE limit per key: %s requests/s, bursts of %s. No Redis, no coordinator.\n",
		plural(o.nodes, "process"), amount(o.rate), amount(o.burst))
	fate := "Nothing happens to the nodes."
	if o.chaos {
		fate = "One is killed, one added, one retired."
	}
	t.printf("Load: %s requests/s (%s), to all in turn. %s\n\n", amount(o.offered()), strings.Join(keyNames(), ", "), fate)
	for _, m := range cast {
		t.seen[m.Name] = true
		owns := ""
		if len(m.Owns) > 0 {
			owns = "  owns " + list(m.Owns)
		}
		t.printf("  %s  pid %-7d %s%s\n", m.Name, m.PID, m.URL, owns)
	}
	t.heads()
}

// Widths of the columns.
const (
	timeWidth     = 7
	offeredWidth  = 8
	admittedWidth = 9
	limitWidth    = 7
	totalsWidth   = offeredWidth + admittedWidth + limitWidth
	wideNode      = 7 // "node-1" and a space
	smallNode     = 5 // "n1"
	roomyNodes    = 6 // so many wide columns fit
)

func (t *terminal) nodeWidth() int {
	if len(t.nodes) <= roomyNodes {
		return wideNode
	}
	return smallNode
}

// heads prints two lines: what groups of columns mean, and the columns' names.
func (t *terminal) heads() {
	t.printf("\n%*s  %s  %s  %s\n", timeWidth, "", group(totalsWidth-2, "per second"),
		group(len(t.nodes)*t.nodeWidth()-1, "admitted, by the node asked", "admitted by", "by"),
		group(originsWidth()-2, "by origin"))
	t.printf("%*s%*s%*s%*s ", timeWidth, "time", offeredWidth, "offered", admittedWidth, "admitted", limitWidth, "limit")
	for _, name := range t.nodes {
		if t.nodeWidth() == smallNode {
			name = strings.Replace(name, "node-", "n", 1)
		}
		t.printf("%*s", t.nodeWidth(), name)
	}
	for _, origin := range shownOrigins {
		t.printf("%*s", originWidth(origin), origin)
	}
	t.printf("\n")
}

func originWidth(origin string) int { return max(len(origin), 5) + 2 }

func originsWidth() int {
	width := 0
	for _, origin := range shownOrigins {
		width += originWidth(origin)
	}
	return width
}

// Sampled implements observer.
func (t *terminal) Sampled(s sample) {
	perSecond := func(n int) string { return short(float64(n) / s.Interval.Seconds()) }
	t.printf("%*s%*s%*s%*s ", timeWidth, fmt.Sprintf("%.1f s", s.At.Seconds()),
		offeredWidth, perSecond(s.Offered), admittedWidth, perSecond(s.Admitted), limitWidth, short(s.Limit))
	for _, name := range t.nodes {
		t.printf("%*s", t.nodeWidth(), t.nodeCell(s, name, perSecond))
	}
	for _, origin := range shownOrigins {
		t.printf("%*s", originWidth(origin), perSecond(s.ByOrigin[origin]))
	}
	for _, origin := range slices.Sorted(maps.Keys(s.ByOrigin)) {
		if !slices.Contains(shownOrigins, origin) {
			t.printf(" +%s %s", perSecond(s.ByOrigin[origin]), origin)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(s.ByNode)) { // started on the page, beyond what fits
		if !slices.Contains(t.nodes, name) {
			t.printf(" %s %s", strings.Replace(name, "node-", "n", 1), perSecond(s.ByNode[name]))
		}
	}
	t.printf("\n")
}

// nodeCell is what a node has admitted; nothing before it is there, a dash when it answers nothing.
func (t *terminal) nodeCell(s sample, name string, perSecond func(int) string) string {
	if n := s.ByNode[name]; n > 0 {
		t.seen[name] = true
		return perSecond(n)
	}
	if t.seen[name] {
		return "-"
	}
	return ""
}

// Happened implements observer.
func (t *terminal) Happened(e event) {
	mark := "  "
	if e.Done {
		mark = ">>"
	}
	t.paragraph(fmt.Sprintf("%*s  %s ", timeWidth, fmt.Sprintf("%.1f s", e.At.Seconds()), mark), e.Text)
}

// Judged implements observer.
func (t *terminal) Judged(v verdict) {
	when := fmt.Sprintf("after %.1f s", v.To.Seconds())
	switch {
	case v.From > 0:
		when = fmt.Sprintf("from %.1f s to %.1f s", v.From.Seconds(), v.To.Seconds())
	case v.To < t.options.duration:
		when += " (ended early)"
	}
	t.printf("\nVERDICT %s, with B = %s and R = %s per second\n", when, amount(v.Limit.Burst), amount(v.Limit.Tokens))
	t.printf("A window of w seconds may admit B + R·w for each key, plus extra for what a crash forgets and\n")
	t.printf("shares give out. All windows were checked; the worst is the furthest above B + R·w.\n\n")
	t.printf("%-15s%s  %s\n", "", group(27, "whole run"), group(41, "worst window"))
	t.printf("%-8s%-6s%10s%9s%9s%15s%10s%9s%9s%13s\n", "", "key",
		"admitted", "B + R·w", "extra", "seconds", "admitted", "B + R·w", "extra", "undisturbed")
	for _, k := range v.Keys {
		t.key(k)
	}
	t.printf("\n")
	for _, x := range v.Extras {
		t.extra(x)
	}
	if len(v.Extras) == 0 {
		t.printf("no extra: nothing that was admitted can have been forgotten\n")
	}
	t.ending(v)
}

func (t *terminal) key(k keyVerdict) {
	word := "HELD"
	if len(k.Problems) > 0 {
		word = "BROKEN"
	}
	served := "-"
	if k.Steady > 0 {
		served = fmt.Sprintf("%.0f %% served", min(100, 100*k.Served)) // the rest is burst that was left
	}
	t.printf("%-8s%-6s%10s%9s%9s", word, k.Key, amount(k.Run.Admitted), amount(k.Run.Bound), "+"+amount(k.Run.Extra))
	t.printf("%15s", fmt.Sprintf("%.1f to %.1f", k.Worst.From.Seconds(), k.Worst.To.Seconds()))
	t.printf("%10s%9s%9s%13s\n", amount(k.Worst.Admitted), amount(k.Worst.Bound), "+"+amount(k.Worst.Extra), served)
}

// extra explains what is allowed beyond B + R·w.
func (t *terminal) extra(x extra) {
	var parts []string
	for _, term := range x.Terms {
		if n := amount(term.Tokens); n != "0" {
			parts = append(parts, n+" "+term.Why)
		}
	}
	t.paragraph(fmt.Sprintf("extra   %-6s+%-6s ", x.Key, amount(sum(x.Terms))),
		x.cause()+": "+strings.Join(parts, " + "))
}

// ending prints what was wrong, and the one line that counts.
func (t *terminal) ending(v verdict) {
	t.printf("%d calls: %d cut off by the kill, %d failed.\n", v.Calls, v.CutOff, v.Failed)
	for _, p := range v.Problems {
		t.printf("BROKEN  %s\n", p)
	}
	for _, k := range v.Keys {
		for _, p := range k.Problems {
			t.printf("BROKEN  %s: %s\n", k.Key, p)
		}
	}
	if v.held() {
		t.printf("HELD    No window of any key admitted more than allowed.\n")
	}
}

const maxColumns = 100

// amount writes a number of tokens, with a decimal where it matters.
func amount(x float64) string {
	if math.Abs(x) >= 100 {
		return fmt.Sprintf("%.0f", x)
	}
	return strings.TrimSuffix(fmt.Sprintf("%.1f", x), ".0")
}

// short writes a number in at most four characters.
func short(x float64) string {
	switch {
	case x >= 9999.5:
		return fmt.Sprintf("%.0fk", x/1000)
	case x >= 9.95 || x == math.Trunc(x):
		return fmt.Sprintf("%.0f", x)
	}
	return fmt.Sprintf("%.1f", x)
}

// seconds writes a duration with two digits or so.
func seconds(d time.Duration) string {
	if d < time.Second {
		return fmt.Sprintf("%d ms", d.Milliseconds())
	}
	return fmt.Sprintf("%.1f s", d.Seconds())
}

func plural(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	if strings.HasSuffix(what, "s") {
		what += "e"
	}
	return fmt.Sprintf("%d %ss", n, what)
}

func list(names []string) string {
	if len(names) < 2 {
		return strings.Join(names, "")
	}
	return strings.Join(names[:len(names)-1], ", ") + " and " + names[len(names)-1]
}

// group is the head of several columns: the first of the texts that fits, in the middle of a rule.
func group(width int, texts ...string) string {
	for _, text := range texts {
		if rule := width - len(text) - len("  "); rule > 0 {
			return strings.Repeat("-", rule/2) + " " + text + " " + strings.Repeat("-", rule-rule/2)
		}
	}
	return strings.Repeat("-", width)
}

// paragraph prints text after a head, and what does not fit into the line below it.
func (t *terminal) paragraph(head, text string) {
	for _, line := range wrap(text, maxColumns-len(head)) {
		t.printf("%s%s\n", head, line)
		head = strings.Repeat(" ", len(head))
	}
}

// wrap breaks text into lines between words.
func wrap(text string, width int) []string {
	var lines []string
	line := ""
	for _, word := range strings.Fields(text) {
		if line != "" && len(line)+1+len(word) > width {
			lines, line = append(lines, line), ""
		}
		if line != "" {
			line += " "
		}
		line += word
	}
	return append(lines, line)
}
