// Command cluster shows, live and with real processes, that instances of a service share one rate limit.
//
// It starts several copies of itself. Each is a small HTTP service that embeds a peerlimit node. A driver sends them real
// HTTP requests for a few keys, several times as many as the limit allows, while one node is killed, one is started and
// one is asked to leave. In the end it tells for each key whether what was admitted stayed within what is promised, and
// its exit status says the same.
//
//	go run ./examples/cluster
//	go run ./examples/cluster -http 127.0.0.1:8090    to see it in a browser, and to do it yourself
//	go run ./examples/cluster -h
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"
)

// Exit statuses.
const (
	exitHeld        = 0
	exitBroken      = 1
	exitUsage       = 2
	exitInterrupted = 130 // what a shell reports for a program ended by Ctrl-C
)

func main() {
	if os.Getenv(nodeEnv) != "" {
		os.Exit(runNode(os.Stdin, os.Stdout, os.Stderr))
	}
	os.Exit(run(os.Args[1:], os.Stdout, os.Stderr))
}

// run is the whole program but for the node processes, and returns its exit status.
func run(args []string, stdout, stderr io.Writer) int {
	o, err := parseOptions(args, stdout)
	if errors.Is(err, flag.ErrHelp) {
		return exitHeld
	}
	if err != nil {
		fmt.Fprintf(stderr, "cluster: %v\nRun with -h to see what the flags mean.\n", err)
		return exitUsage
	}

	ctx, release := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer release()
	context.AfterFunc(ctx, release) // a second Ctrl-C ends this process at once, and the nodes notice

	d := newDemo(o, newTerminal(stdout, o))
	if o.page != "" {
		p, err := openPage(d, o.page)
		if err != nil {
			fmt.Fprintf(stderr, "cluster: -http is %s: %v\n", o.page, err)
			return exitUsage
		}
		defer p.close()
		d.show(p)
		fmt.Fprintf(stdout, "The page is at %s until Ctrl-C, or %v from now.\n\n", p.url, o.duration)
	}
	v, err := d.run(ctx)
	switch {
	case err != nil && ctx.Err() != nil:
		fmt.Fprintln(stderr, "cluster: interrupted before there was anything to judge")
		return exitInterrupted
	case err != nil:
		fmt.Fprintf(stderr, "cluster: %s\n", shownLines(err.Error()))
		return exitBroken
	case !v.held():
		return exitBroken
	case ctx.Err() != nil:
		return exitInterrupted
	}
	return exitHeld
}
