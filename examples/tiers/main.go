// Command tiers limits customers by what they pay for: 5 requests a second for nothing, 100 for an enterprise. Two
// instances in this process share the limits, and while both customers send more than that, one of them is upgraded.
//
//	go run ./examples/tiers
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/signal"
	"time"

	"github.com/peerlimit/peerlimit"
)

const (
	instances    = 2
	readyTimeout = 10 * time.Second
	closeTimeout = 5 * time.Second
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := run(ctx, os.Args[1:], os.Stdout); err != nil && !errors.Is(err, flag.ErrHelp) {
		fmt.Fprintln(os.Stderr, "tiers:", err)
		os.Exit(1)
	}
}

// run is the whole program.
func run(ctx context.Context, args []string, out io.Writer) error {
	flags := flag.NewFlagSet("tiers", flag.ContinueOnError)
	flags.SetOutput(out)
	lasts := flags.Duration("duration", 4*time.Second, "how long customers send, half of it before the upgrade")
	if err := flags.Parse(args); err != nil {
		return err
	}
	if *lasts <= 0 {
		return fmt.Errorf("-duration is %v; it must be positive", *lasts)
	}
	if flags.NArg() > 0 {
		return fmt.Errorf("%q is not a flag", flags.Arg(0))
	}

	customers := newTiers(map[string]string{"bob": "free", "acme": "enterprise"})
	var urls, seeds []string
	var nodes []*peerlimit.Node
	for range instances {
		i, err := start(customers, seeds)
		if err != nil {
			return err
		}
		defer i.stop()
		urls, seeds, nodes = append(urls, i.url), append(seeds, i.node.Self().Addr), append(nodes, i.node)
	}
	ready, cancel := context.WithTimeout(ctx, readyTimeout)
	defer cancel()
	for _, node := range nodes {
		if err := node.WaitReady(ready, instances); err != nil {
			return err
		}
	}
	fmt.Fprintf(out, "%d instances; each customer sends %d requests a second, half of them to each\n", instances, sendRate)
	for _, upgrade := range []bool{false, true} {
		if upgrade {
			fmt.Fprintln(out, "\nbob becomes an enterprise: no restart, and the tokens he has taken stay taken")
			if err := customers.set("bob", "enterprise"); err != nil {
				return err
			}
		}
		if err := sendAndTell(ctx, out, urls, customers, *lasts/2); err != nil {
			return err
		}
	}
	return nil
}

// instance is one instance of the service: a node and a server.
type instance struct {
	node   *peerlimit.Node
	server *http.Server
	served chan error
	url    string
}

// start starts an instance that shares the limits with those at seeds.
func start(customers *tiers, seeds []string) (*instance, error) {
	node, err := peerlimit.Start(peerlimit.Config{Join: seeds, Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		return nil, err
	}
	handler, err := newHandler(node, customers)
	if err != nil {
		return nil, errors.Join(err, node.Close())
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, errors.Join(err, node.Close())
	}
	i := &instance{node: node, server: &http.Server{Handler: handler, ReadHeaderTimeout: time.Minute}, served: make(chan error, 1), url: "http://" + listener.Addr().String()}
	go func() { i.served <- i.server.Serve(listener) }()
	return i, nil
}

// stop ends the requests, then the server and then the node, which requests need.
func (i *instance) stop() {
	ctx, cancel := context.WithTimeout(context.Background(), closeTimeout)
	defer cancel()
	if err := i.server.Shutdown(ctx); err != nil {
		_ = i.server.Close()
	}
	<-i.served
	_ = i.node.Close() // the last one has nobody to hand over to
}
