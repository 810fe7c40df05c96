package main

import (
	"bytes"
	"fmt"
	"strings"

	"github.com/peerlimit/peerlimit/chaos"
)

const introduction = `# Chaos

What happens to a limit when the processes that share it are killed, stopped, replaced and cut off from each other: real processes, real
sockets, real signals. Each scenario drives one saturated key, asked for two to three times as often as its limit lets flow in, and 40 keys
of ten an hour that are exhausted before anything happens, from two other processes that record every call; one ideal bucket per key judges
the merged records. *Over* is by how much the worst window of any length exceeds B + R·w, of the worst key; *allowed* is what
[guarantees.md](guarantees.md) allows for what was done. A scenario fails when it is exceeded, when a call to a node that was there got no
decision, or when a decision took longer than two RPC timeouts and 50 ms, and what the slowest request without a decision took.

All of it is made anew by

    chaos/report.sh

`

// gubernatorVersion is the one that chaos/gubernator is built with.
const gubernatorVersion = "v2.16.0"

// document returns docs/chaos.md.
func document(scenarios []scenario, machine string) []byte {
	var b bytes.Buffer
	b.WriteString(introduction)
	if machine != "" {
		fmt.Fprintf(&b, "%s\n\n", machine)
	}
	b.WriteString("## What peerlimit kept\n\n")
	b.WriteString("| scenario | nodes | over, saturated key | over, exhausted keys | allowed over | less than B + R·w in all | failed calls | slowest decision | slowest other request | full rate again |\n")
	b.WriteString("|---|---|---|---|---|---|---|---|---|---|\n")
	for _, s := range scenarios {
		for i := range s.results {
			if r := &s.results[i]; r.Program == own {
				row(&b, r)
			}
		}
	}
	beside(&b, scenarios)
	for _, s := range scenarios {
		section(&b, s)
	}
	return b.Bytes()
}

func row(b *bytes.Buffer, r *chaos.Result) {
	hot, scarce := keys(r, "saturated"), keys(r, "exhausted")
	full := "–"
	if r.FullRateMS != nil {
		full = fmt.Sprintf("%.0f ms", *r.FullRateMS)
	}
	fmt.Fprintf(b, "| [%s](#%s) | %d | %s | %s | %s; %s | %s | %d of %d | %.0f ms | %.0f ms | %s |\n",
		r.Scenario, strings.ToLower(r.Scenario), r.Nodes, over(hot), over(scarce), allowedOver(hot), allowedOver(scarce), under(hot),
		r.Failed, r.Calls, r.SlowestMS, r.NoiseMS, full)
}

// over says what was admitted beyond the limit.
func over(k *chaos.Keys) string {
	switch {
	case k == nil:
		return "–"
	case k.Over <= 0:
		return "0"
	}
	return fmt.Sprintf("%.1f tokens (%.1f %%)", k.Over, 100*k.Over/k.Allowed)
}

func allowedOver(k *chaos.Keys) string {
	if k == nil {
		return "–"
	}
	return fmt.Sprintf("%.1f", k.OverAllowed)
}

func under(k *chaos.Keys) string {
	if k == nil {
		return "–"
	}
	return fmt.Sprintf("%.1f %%", k.UnderPercent)
}

// beside sets the programs side by side where more than one was run.
func beside(b *bytes.Buffer, scenarios []scenario) {
	headed := false
	for _, s := range scenarios {
		if len(s.results) < 2 {
			continue
		}
		if !headed {
			b.WriteString("\n## Beside others\n\n")
			b.WriteString("The same service, drivers and judge, with another limiter in the service: Gubernator " + gubernatorVersion + " as its documentation has it, with its defaults and its leaky bucket (`chaos/gubernator`). Over and under are of the worst key.\n\n")
			b.WriteString("| scenario | program | over, saturated key | over, exhausted keys | less than B + R·w in all | failed calls | slowest decision | full rate again |\n")
			b.WriteString("|---|---|---|---|---|---|---|---|\n")
			headed = true
		}
		for i := range s.results {
			r := &s.results[i]
			full := "–"
			switch {
			case r.FullRateMS != nil:
				full = fmt.Sprintf("%.0f ms", *r.FullRateMS)
			case s.results[0].FullRateMS != nil:
				full = "not in the run"
			}
			hot := keys(r, "saturated")
			fmt.Fprintf(b, "| %s | %s | %s | %s | %s | %d of %d | %.0f ms | %s |\n",
				r.Scenario, r.Program, over(hot), over(keys(r, "exhausted")), under(hot), r.Failed, r.Calls, r.SlowestMS, full)
		}
	}
}

func section(b *bytes.Buffer, s scenario) {
	first := &s.results[0]
	fmt.Fprintf(b, "\n## %s\n\n%d nodes. Guaranteed: %s.\n\n", s.name, first.Nodes, first.Guarantee)
	if first.Program == own { // others promise nothing of this
		for _, v := range first.Violations {
			fmt.Fprintf(b, "- Not kept: %s\n", shortened(v))
		}
	}
	fmt.Fprintf(b, "\n![Takes a second of the saturated key, asked for and admitted, over time, with the events marked](chaos/%s.svg)\n\n", s.name)
	if len(first.Events) == 0 || len(first.Events) > maxNumbered {
		return
	}
	for i := range s.results {
		r := &s.results[i]
		var events []string
		for j, e := range r.Events {
			events = append(events, fmt.Sprintf("(%d) %.1f s: %s", j+1, e.AtMS/1000, e.Text))
		}
		fmt.Fprintf(b, "%s: %s.\n\n", r.Program, strings.Join(events, "; "))
	}
}

// shortened leaves out the end of what is too long for a list.
func shortened(text string) string {
	const most = 240
	if len(text) <= most {
		return text
	}
	return text[:most] + " …"
}
