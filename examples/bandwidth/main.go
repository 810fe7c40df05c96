// Command bandwidth shows nodes that share a bandwidth. It starts some in this one process, lets each send as much as it
// may under one limit in bytes a second, and prints what each got.
//
//	bandwidth                          # three nodes share 8 MB a second for 5 seconds
//	bandwidth -nodes 2 -rate 1000000
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

// readyTimeout is for nodes to find each other, which takes milliseconds.
const readyTimeout = 30 * time.Second

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	context.AfterFunc(ctx, stop) // a second signal ends the process at once
	err := run(ctx, os.Args[1:], os.Stdout)
	switch {
	case err == nil:
	case errors.Is(err, errBadFlag):
		fmt.Fprintln(os.Stderr, "bandwidth:", err)
		os.Exit(2)
	default:
		fmt.Fprintln(os.Stderr, "bandwidth:", err)
		os.Exit(1)
	}
}

// options are the flags, checked.
type options struct {
	nodes    int
	rate     float64 // bytes a second
	duration time.Duration
}

// limit is what the options stand for: a tenth of a second's bytes may pass at once.
func (o options) limit() peerlimit.Limit { return peerlimit.PerSecond(o.rate).WithBurst(o.rate / 10) }

// parseOptions reads the flags. What the flag package says of them goes to out.
func parseOptions(args []string, out io.Writer) (options, error) {
	var o options
	flags := flag.NewFlagSet("bandwidth", flag.ContinueOnError)
	flags.SetOutput(out)
	flags.IntVar(&o.nodes, "nodes", 3, "start `n` nodes, 1 to 7")
	flags.Float64Var(&o.rate, "rate", 8e6, "let all of them send `n` bytes a second together, 1000 to 1e9")
	flags.DurationVar(&o.duration, "duration", 5*time.Second, "send for so long, 100ms to 10m")
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
	case !(o.rate >= 1000 && o.rate <= 1e9):
		return o, fmt.Errorf("%w: -rate is %v; it must be from 1000 to 1e9", errBadFlag, o.rate)
	case o.duration < 100*time.Millisecond || o.duration > 10*time.Minute:
		return o, fmt.Errorf("%w: -duration is %v; it must be from 100ms to 10m", errBadFlag, o.duration)
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
		limiter, err := node.Limiter("bandwidth", o.limit())
		if err != nil {
			return err
		}
		limiters = append(limiters, limiter)
	}
	fmt.Fprintf(out, "%d nodes share %s a second for %v\n", o.nodes, megabytes(o.rate), o.duration)
	result, err := send(ctx, limiters, o.duration)
	if err != nil {
		return err
	}
	return result.print(out, o.limit())
}

// startNodes starts nodes on ports of loopback that the system picks, and returns when they have found each other. Those
// that were started are to be closed, also after an error.
func startNodes(ctx context.Context, n int) (nodes []*peerlimit.Node, err error) {
	var seeds []string
	for i := range n {
		node, err := peerlimit.Start(peerlimit.Config{Name: fmt.Sprintf("node-%d", i), Join: seeds, Logger: slog.New(slog.DiscardHandler)})
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

func megabytes(bytes float64) string { return fmt.Sprintf("%.3f MB", bytes/1e6) }
