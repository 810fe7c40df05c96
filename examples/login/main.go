// Command login limits attempts to log in, by account and by IP address, so that passwords cannot be guessed: neither
// those of one account from many addresses, nor those of many accounts from one. Two instances in this process share the
// limits. A failed login costs five times as much as one that succeeds, and while the cluster is in trouble nobody gets
// to guess.
//
//	go run ./examples/login
package main

import (
	"context"
	"errors"
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
	instances     = 2
	readyTimeout  = 10 * time.Second
	closeTimeout  = 5 * time.Second
	clientTimeout = 10 * time.Second
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := run(ctx, os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "login:", err)
		os.Exit(1)
	}
}

// run is the whole program: some people log in, and some try to.
func run(ctx context.Context, out io.Writer) error {
	var urls, seeds []string
	var nodes []*peerlimit.Node
	for range instances {
		i, err := start(seeds)
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
	client := &http.Client{Timeout: clientTimeout, Transport: &http.Transport{}}
	defer client.CloseIdleConnections()
	for _, s := range scenes {
		if err := s.play(ctx, out, client, urls); err != nil {
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
func start(seeds []string) (*instance, error) {
	node, err := peerlimit.Start(peerlimit.Config{Join: seeds, Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		return nil, err
	}
	handler, err := newHandler(node)
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
