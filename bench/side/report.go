package main

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

// report draws the charts, and writes the part of the document when it has a name, with what notes say when there are any.
func report(r *results, document, charts, notes string) error {
	if err := os.MkdirAll(charts, 0o755); err != nil {
		return err
	}
	if err := drawCharts(r, charts); err != nil || document == "" {
		return err
	}
	text, err := os.ReadFile(notes)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(document), 0o755); err != nil {
		return err
	}
	return os.WriteFile(document, compose(r, string(text)), 0o644)
}

// compose returns the part of the document.
func compose(r *results, notes string) []byte {
	var b bytes.Buffer
	rounds := 0
	for i := range r.Measurements {
		rounds = max(rounds, r.Measurements[i].Round)
	}
	fmt.Fprintf(&b, "## Side by side\n\n%s\n\n    bench/side.sh\n\n", introduction)
	fmt.Fprintf(&b, "Measured on %s on %s, by %s. Figures are medians of the rounds, of which there are %d, with the least and the most of them. Ratios are computed within each round.\n\n",
		r.Date.Format("2006-01-02"), r.Machine, r.Command, rounds)
	fmt.Fprintf(&b, "Versions: %s. go-redis and x/time are the newest that do with Go 1.25.\n\n", strings.Join(r.Versions, ", "))
	for _, skipped := range r.Skipped {
		fmt.Fprintf(&b, "Skipped: %s.\n\n", skipped)
	}
	b.WriteString(settings)
	b.WriteString("### Budgets\n\nWhat peerlimit is meant to keep, whatever is faster or slower. " + r.missed() + "\n\n")
	writeTable(&b, []string{"what", "budget", "measured", "outcome"}, r.budgetRows())
	if notes = strings.TrimSpace(notes); notes != "" {
		b.WriteString("### Where the time goes\n\n" + notes + "\n\n")
	}
	for _, s := range sections {
		lines := r.lines(s.table)
		if len(lines) == 0 {
			continue
		}
		fmt.Fprintf(&b, "### %s\n\n%s\n\n", s.title, s.text)
		for _, chart := range s.charts {
			fmt.Fprintf(&b, "![%s](benchmarks/%s)\n\n", chart.says, chart.file)
		}
		for _, columns := range s.columns {
			writeSection(&b, r, lines, columns)
		}
	}
	return append(bytes.TrimSpace(b.Bytes()), '\n')
}

// writeSection writes one table of a section, with a line for each contestant in each of its scenarios.
func writeSection(b *bytes.Buffer, r *results, lines []line, columns []column) {
	var head []string
	for _, c := range columns {
		head = append(head, c.name)
	}
	var rows [][]string
	for _, l := range inOrder(lines) {
		row, measured := make([]string, len(columns)), false
		for i, c := range columns {
			switch {
			case c.of != nil:
				row[i] = c.of(l)
			default:
				f := r.figure(l, c.guarded())
				measured = measured || f.rounds > 0
				row[i] = f.text(c.show)
			}
		}
		if measured {
			rows = append(rows, row)
		}
	}
	writeTable(b, head, rows)
}

func writeTable(b *bytes.Buffer, head []string, rows [][]string) {
	fmt.Fprintf(b, "| %s |\n|%s\n", strings.Join(head, " | "), strings.Repeat("---|", len(head)))
	for _, row := range rows {
		fmt.Fprintf(b, "| %s |\n", strings.Join(row, " | "))
	}
	b.WriteString("\n")
}
