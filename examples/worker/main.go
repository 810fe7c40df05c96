// Command worker shows a fleet of workers that share the quota of a third party. It starts some nodes in this one process,
// each with some workers, and lets them do jobs that call the third party; each waits for its turn before it calls. It
// prints how many each worker did, and what the third party saw.
//
//	worker                             # 3 nodes with 4 workers each do 200 jobs at 50 calls a second
//	worker -nodes 2 -jobs 1000 -quota 300
//
// In earnest each node is a process of its own, and all that differs is the peerlimit.Config.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"time"

	"github.com/peerlimit/peerlimit"
)

// errBadFlag means that the command line is wrong, so that starting again will not help.
var errBadFlag = errors.New("bad flag")

const (
	// readyTimeout is for nodes to find each other, which takes milliseconds.
	readyTimeout = 30 * time.Second

	// maxTime bounds how long the jobs may take by the quota.
	maxTime = 10 * time.Minute
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	context.AfterFunc(ctx, stop) // a second signal ends the process at once
	err := run(ctx, os.Args[1:], os.Stdout)
	switch {
	case err == nil:
	case errors.Is(err, errBadFlag):
		fmt.Fprintln(os.Stderr, "worker:", err)
		os.Exit(2)
	default:
		fmt.Fprintln(os.Stderr, "worker:", err)
		os.Exit(1)
	}
}

// options are the flags, checked.
type options struct {
	nodes, workers, jobs int
	quota                float64 // calls a second
}

// limit is the third party's quota. A burst of 1 spreads calls evenly: nothing is gained by sending them in a bunch.
func (o options) limit() peerlimit.Limit { return peerlimit.PerSecond(o.quota).WithBurst(1) }

// parseOptions reads the flags. What the flag package says of them goes to out.
func parseOptions(args []string, out io.Writer) (options, error) {
	var o options
	flags := flag.NewFlagSet("worker", flag.ContinueOnError)
	flags.SetOutput(out)
	flags.IntVar(&o.nodes, "nodes", 3, "start `n` nodes, 1 to 7")
	flags.IntVar(&o.workers, "workers", 4, "start `n` workers on each node, 1 to 100")
	flags.IntVar(&o.jobs, "jobs", 200, "do `n` jobs, at least 1")
	flags.Float64Var(&o.quota, "quota", 50, "let all of them call the third party `n` times a second, 1 to 10000")
	if err := flags.Parse(args); err != nil {
		if errors.Is(err, flag.ErrHelp) {
			return o, err
		}
		return o, fmt.Errorf("%w: %w", errBadFlag, err)
	}
	switch {
	case flags.NArg() > 0:
		return o, fmt.Errorf("%w: %q is not a flag", errBadFlag, flags.Arg(0))
	case o.nodes < 1 || o.nodes > 7:
		return o, fmt.Errorf("%w: -nodes is %d; it must be from 1 to 7", errBadFlag, o.nodes)
	case o.workers < 1 || o.workers > 100:
		return o, fmt.Errorf("%w: -workers is %d; it must be from 1 to 100", errBadFlag, o.workers)
	case !(o.quota >= 1 && o.quota <= 10_000):
		return o, fmt.Errorf("%w: -quota is %v; it must be from 1 to 10000", errBadFlag, o.quota)
	case o.jobs < 1 || float64(o.jobs) > o.quota*maxTime.Seconds():
		return o, fmt.Errorf("%w: -jobs is %d; it must be from 1 to what -quota allows in %v, %.0f",
			errBadFlag, o.jobs, maxTime, o.quota*maxTime.Seconds())
	}
	return o, nil
}

// run is the whole program.
func run(ctx context.Context, args []string, out io.Writer) error {
	o, err := parseOptions(args, out)
	if errors.Is(err, flag.ErrHelp) {
		return nil
	}
	if err != nil {
		return err
	}
	nodes, err := startNodes(ctx, o.nodes)
	defer func() {
		for _, node := range nodes {
			_ = node.Close()
		}
	}()
	if err != nil {
		return err
	}
	var limiters []*peerlimit.Limiter
	for _, node := range nodes {
		limiter, err := node.Limiter("third-party", o.limit())
		if err != nil {
			return err
		}
		limiters = append(limiters, limiter)
	}
	fmt.Fprintf(out, "%d nodes with %d workers each do %d jobs; the third party allows %v calls a second\n",
		o.nodes, o.workers, o.jobs, o.quota)
	done, err := work(ctx, limiters, o.workers, o.jobs)
	if err != nil {
		return err
	}
	return done.print(out, o.limit())
}

// startNodes starts nodes on ports of loopback that the system picks, and returns when they have found each other. Those
// that were started are to be closed, also after an error.
func startNodes(ctx context.Context, n int) (nodes []*peerlimit.Node, err error) {
	var seeds []string
	for i := range n {
		node, err := peerlimit.Start(peerlimit.Config{
			Name: fmt.Sprintf("node-%d", i), Join: seeds, MaxWait: maxTime, Logger: slog.New(slog.DiscardHandler),
		})
		if err != nil {
			return nodes, err
		}
		nodes = append(nodes, node)
		seeds = []string{nodes[0].Self().Addr}
	}
	ctx, cancel := context.WithTimeout(ctx, readyTimeout)
	defer cancel()
	for _, node := range nodes {
		if err := node.WaitReady(ctx, n); err != nil {
			return nodes, err
		}
	}
	return nodes, nil
}
