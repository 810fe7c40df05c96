// Command side measures peerlimit side by side with what a user would pick instead, in one run, and writes what it has
// measured, charts, and when -document names a file a part of a document:
//
//	bench/side.sh
//
// With -in it only writes the document and the charts again, from results that are there.
package main

import (
	"debug/buildinfo"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"time"
)

type options struct {
	in, out, document, charts, notes string
	machine                          string
	programs                         programs
	rounds                           int
	lasts, warmUp                    time.Duration
	only                             string
}

func main() {
	var o options
	flag.StringVar(&o.in, "in", "", "results to write about; without it they are measured")
	flag.StringVar(&o.out, "out", "results/side", "directory for the results that are measured")
	flag.StringVar(&o.document, "document", "", "the part of docs/benchmarks.md to write; without it none is written")
	flag.StringVar(&o.charts, "charts", "../docs/benchmarks", "directory for charts")
	flag.StringVar(&o.notes, "notes", "document/notes.md", "prose that becomes part of the document, if there is any")
	flag.StringVar(&o.machine, "machine", "", "where it is measured")
	flag.StringVar(&o.programs.contestant, "contestant", "", "the program of bench/contestant")
	flag.StringVar(&o.programs.gubernator, "gubernator", "", "the program of bench/gubernator")
	flag.StringVar(&o.programs.redis, "redis", "redis-server", "a Redis server")
	flag.IntVar(&o.rounds, "rounds", 5, "how often everything is measured")
	flag.DurationVar(&o.lasts, "lasts", 500*time.Millisecond, "how long each scenario lasts in each round")
	flag.DurationVar(&o.warmUp, "warm-up", 300*time.Millisecond, "how long it lasts before that without being measured")
	flag.StringVar(&o.only, "only", "", "measure only blocks of names that match this regular expression")
	flag.Parse()
	if err := run(&o); err != nil {
		fmt.Fprintln(os.Stderr, "side:", err)
		os.Exit(1)
	}
}

func run(o *options) (err error) {
	var r *results
	if o.in != "" {
		r, err = load(o.in)
	} else {
		r, err = measure(o)
	}
	if err != nil {
		return err
	}
	return report(r, o.document, o.charts, o.notes)
}

// measure runs the plan, and saves what it has measured.
func measure(o *options) (*results, error) {
	if o.rounds < 1 || o.lasts <= 0 || o.warmUp <= 0 {
		return nil, fmt.Errorf("-rounds is %d, -lasts %v and -warm-up %v; they must be positive", o.rounds, o.lasts, o.warmUp)
	}
	if o.programs.contestant == "" || o.programs.gubernator == "" {
		return nil, errors.New("-contestant and -gubernator are needed")
	}
	only, err := regexp.Compile(o.only)
	if err != nil {
		return nil, fmt.Errorf("-only: %w", err)
	}
	r := &results{
		Date: time.Now().UTC().Truncate(time.Second), Machine: o.machine,
		Command: fmt.Sprintf("bench/side.sh, with %d rounds of %v and a warm-up of %v", o.rounds, o.lasts, o.warmUp),
	}
	if path, err := exec.LookPath(o.programs.redis); err != nil {
		r.Skipped = append(r.Skipped, "redis_rate: there is no "+o.programs.redis)
		o.programs.redis = ""
		fmt.Fprintln(os.Stderr, "skipped:", r.Skipped[0])
	} else {
		o.programs.redis = path
	}
	if r.Versions, err = versions(&o.programs); err != nil {
		return nil, err
	}
	blocks := slices.DeleteFunc(plan(o.lasts), func(b block) bool { return !only.MatchString(b.name) })
	runner := runner{programs: o.programs, rounds: o.rounds, warmUp: o.warmUp, progress: os.Stderr, results: r}
	if err := runner.run(blocks); err != nil {
		return nil, err
	}
	if err := os.MkdirAll(o.out, 0o755); err != nil {
		return nil, err
	}
	return r, r.save(filepath.Join(o.out, r.Date.Format("2006-01-02T150405Z")+".json"))
}

// compared are the modules whose versions matter, by the program that has them.
func (p *programs) compared() map[string][]string {
	return map[string][]string{
		p.contestant: {
			"github.com/go-redis/redis_rate/v10", "github.com/redis/go-redis/v9", "golang.org/x/time", "github.com/sethvargo/go-limiter",
			"github.com/throttled/throttled/v2", "go.uber.org/ratelimit", "github.com/juju/ratelimit", "github.com/failsafe-go/failsafe-go",
		},
		p.gubernator: {"github.com/gubernator-io/gubernator/v2"},
	}
}

// versions are those that the programs were built with.
func versions(p *programs) ([]string, error) {
	var found []string
	for program, wanted := range p.compared() {
		info, err := buildinfo.ReadFile(program)
		if err != nil {
			return nil, err
		}
		for _, module := range info.Deps {
			if slices.Contains(wanted, module.Path) {
				found = append(found, module.Path+" "+module.Version)
			}
		}
	}
	slices.Sort(found)
	if p.redis != "" {
		text, err := exec.Command(p.redis, "--version").Output()
		if err != nil {
			return nil, fmt.Errorf("%s: %w", p.redis, err)
		}
		if version := regexp.MustCompile(`v=(\S+)`).FindStringSubmatch(string(text)); version != nil {
			found = append(found, "Redis "+version[1])
		} else {
			found = append(found, strings.TrimSpace(string(text)))
		}
	}
	return found, nil
}
