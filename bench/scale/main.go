// Command scale measures how peerlimit grows: from three to nine processes on this machine, rings of up to a thousand
// members, and a newcomer that a million live keys move to. See ../scale.sh. It writes what it has measured, curves, and when
// -document names a file a part of a document.
package main

import (
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"time"
)

// results are what one run has measured.
type results struct {
	Date      string
	Machine   string
	Command   string
	Processes []processesResult
	Rings     []ringResult
	Move      moveResult
}

func main() {
	if os.Getenv(childVariable) != "" {
		if err := runChild(os.Stdin, os.Stdout); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run() error {
	rings := flag.String("rings", "", "`file` with the output of the benchmarks of rings")
	out := flag.String("out", "results/scale", "`directory` for the results that are measured")
	var d document
	flag.StringVar(&d.file, "document", "", "the part of docs/benchmarks.md to write, a `file`; without it none is written")
	flag.StringVar(&d.prose, "prose", "document/scale.md", "the `template` of that part")
	flag.StringVar(&d.charts, "charts", "../docs/benchmarks", "`directory` for curves")
	machine := flag.String("machine", "", "`text` about the machine")
	lasts := flag.Duration("lasts", 3*time.Second, "measure each number of processes for so `long`")
	keys := flag.Int("keys", 4_000_000, "of so many live keys, a quarter moves to the newcomer")
	in := flag.String("in", "", "measure nothing: draw and write from a `file` of results")
	flag.Parse()

	if *in != "" {
		r, err := readResults(*in)
		if err != nil {
			return err
		}
		return d.write(&r)
	}
	r := results{Date: time.Now().UTC().Format(time.RFC3339), Machine: *machine, Command: "bench/scale.sh"}
	var err error
	if r.Rings, err = readRings(*rings); err != nil {
		return err
	}
	if err := r.measure(*lasts, *keys); err != nil {
		return err
	}
	if err := r.save(*out); err != nil {
		return err
	}
	return d.write(&r)
}

// measure starts clusters of processes and adds what they show: three to nine that take, each number for so long, and three
// that a newcomer joins.
func (r *results) measure(lasts time.Duration, keys int) (err error) {
	for _, n := range []int{3, 5, 7, 9} {
		p, err := measureProcesses(n, lasts)
		if err != nil {
			return fmt.Errorf("%d processes: %w", n, err)
		}
		r.Processes = append(r.Processes, p)
	}
	if r.Move, err = measureMove(keys); err != nil {
		return fmt.Errorf("moving keys: %w", err)
	}
	return nil
}

// readResults returns what save has written.
func readResults(name string) (r results, err error) {
	text, err := os.ReadFile(name)
	if err != nil {
		return r, err
	}
	err = json.Unmarshal(text, &r)
	return r, err
}

// save writes the results into a file of the directory, named after the present time.
func (r *results) save(directory string) error {
	text, err := json.MarshalIndent(r, "", "\t")
	if err != nil {
		return err
	}
	if err := os.MkdirAll(directory, 0o755); err != nil {
		return err
	}
	name := time.Now().UTC().Format("2006-01-02T150405Z") + ".json"
	return os.WriteFile(filepath.Join(directory, name), append(text, '\n'), 0o644)
}
