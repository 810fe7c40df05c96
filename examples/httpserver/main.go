// Command httpserver is an HTTP service that limits each client by IP address. Started several times and joined, its
// instances share the limits: a client that spreads its requests over all of them gets no more through than at one.
//
//	httpserver -addr :8080
//	httpserver -addr :8081 -join <what the first one printed>
//	curl -i http://localhost:8080/token
package main

import (
	"bytes"
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
	"syscall"
	"time"

	"github.com/peerlimit/peerlimit"
)

const (
	// maxWait bounds how long /leaky may hold a request. Where the bucket takes longer than that to drain, a request
	// whose turn is further away is refused before the bucket is full.
	maxWait = time.Minute

	// writeTimeout counts from the end of a request's header, so it must leave room for maxWait.
	writeTimeout = maxWait + 10*time.Second

	headerTimeout = 5 * time.Second  // a client that takes longer to send its few lines is broken or hostile
	readTimeout   = 10 * time.Second // for a body, too, which nobody here reads
	idleTimeout   = 2 * time.Minute  // a connection kept alive for nothing costs a goroutine and two buffers
	maxHeader     = 16 << 10         // bytes; nothing in a header matters here
	readyTimeout  = 5 * time.Second  // for links to the other members, which take milliseconds when they can be had
	drainTimeout  = 20 * time.Second // with leaveTimeout below the 30 s that orchestrators wait before they kill
	leaveTimeout  = 5 * time.Second
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop) // a second signal ends the process at once
	err := run(ctx, os.Args[1:], os.Stdout)
	if err == nil {
		return
	}
	fmt.Fprintln(os.Stderr, "httpserver:", err)
	if errors.Is(err, errBadFlag) {
		os.Exit(2)
	}
	os.Exit(1)
}

// run is the whole program: it serves until ctx ends, and then shuts down in order.
func run(ctx context.Context, args []string, out io.Writer) (err error) {
	opts, err := parseOptions(args)
	if errors.Is(err, flag.ErrHelp) {
		printUsage(out)
		return nil
	}
	if err != nil {
		return err
	}

	// The port comes first: a process that cannot serve should not make the cluster take notice of it.
	listener, err := net.Listen("tcp", opts.addr)
	if err != nil {
		return fmt.Errorf("-addr %q: %w", opts.addr, err)
	}
	status, err := listenStatus(opts.status)
	if err != nil {
		return errors.Join(err, listener.Close())
	}
	node, err := startNode(opts)
	if err != nil {
		return errors.Join(err, listener.Close(), status.close())
	}
	defer func() { err = errors.Join(err, status.close()) }() // to the end: leaving can be watched
	handler, err := newHandler(node, opts.limit)
	if err == nil {
		err = status.start(node)
	}
	if err != nil {
		return errors.Join(err, listener.Close(), node.Close())
	}

	awaitReady(ctx, node)
	announce(out, opts, listener, node, status)
	return serveUntil(ctx, newServer(handler), opts.addr, listener, node)
}

// announce says where this instance can be reached, and how.
func announce(out io.Writer, opts options, listener net.Listener, node *peerlimit.Node, status *statusServer) {
	fmt.Fprintf(out, "listening on %s (/token, /leaky, /healthz)\n", baseURL(listener.Addr()))
	fmt.Fprintf(out, "each client IP may send %v requests a second, %v at once\n", opts.limit.Tokens, opts.limit.Burst)
	fmt.Fprintf(out, "instances started with -join %s share these limits\n", node.Self().Addr)
	if status != nil {
		fmt.Fprintf(out, "how this instance is: %s\n", baseURL(status.listener.Addr()))
	}
}

// serveUntil answers requests until ctx ends or the listener at addr breaks, and then shuts down in order.
func serveUntil(ctx context.Context, server *http.Server, addr string, listener net.Listener, node *peerlimit.Node) error {
	served := make(chan error, 1)
	go func() { served <- server.Serve(listener) }()
	select {
	case err := <-served: // the listener broke
		return errors.Join(fmt.Errorf("-addr %q: %w", addr, err), shutDown(server, node))
	case <-ctx.Done():
		err := shutDown(server, node)
		<-served
		return err
	}
}

// startNode makes this process a member of the cluster.
func startNode(opts options) (*peerlimit.Node, error) {
	config := peerlimit.Config{
		BindAddr: opts.bind,
		Join:     opts.join,
		Insecure: opts.insecure,
		MaxWait:  maxWait,

		ExpectMembers: opts.expect,
	}
	if err := readSecrets(opts, &config); err != nil {
		return nil, fmt.Errorf("%w: %w", errBadFlag, err)
	}
	node, err := peerlimit.Start(config)
	if err == nil {
		return node, nil
	}
	err = fmt.Errorf("-bind %q -join %q -secret-file %q -insecure=%v: %w", opts.bind, opts.join, opts.secretFile, opts.insecure, err)
	if errors.Is(err, peerlimit.ErrInvalidConfig) {
		err = fmt.Errorf("%w: %w", errBadFlag, err)
	}
	return nil, err
}

// readSecrets reads the secret files.
func readSecrets(opts options, config *peerlimit.Config) (err error) {
	if opts.secretFile != "" {
		if config.Secret, err = readSecret(opts.secretFile); err != nil {
			return fmt.Errorf("-secret-file: %w", err)
		}
	}
	for _, name := range opts.accept {
		accepted, err := readSecret(name)
		if err != nil {
			return fmt.Errorf("-accept-secret-file: %w", err)
		}
		config.AcceptSecrets = append(config.AcceptSecrets, accepted)
	}
	return nil
}

// readSecret returns what is in a file; a line end at its end is no part of it. It is never nil, which would mean that
// there is to be no encryption.
func readSecret(name string) ([]byte, error) {
	content, err := os.ReadFile(name) // #nosec G304 -- the file its operator named
	if err != nil {
		return nil, err
	}
	return append([]byte{}, bytes.TrimRight(content, "\r\n")...), nil
}

// newServer returns a server that no client can make wait forever.
func newServer(handler http.Handler) *http.Server {
	return &http.Server{
		Handler:           handler,
		ReadHeaderTimeout: headerTimeout,
		ReadTimeout:       readTimeout,
		WriteTimeout:      writeTimeout,
		IdleTimeout:       idleTimeout,
		MaxHeaderBytes:    maxHeader,
	}
}

// awaitReady returns when the node can reach every member it sees. One that it cannot reach is no reason to serve
// nobody: keys owned there are limited by this node's share.
func awaitReady(ctx context.Context, node *peerlimit.Node) {
	ctx, cancel := context.WithTimeout(ctx, readyTimeout)
	defer cancel()
	if err := node.WaitReady(ctx, 1); err != nil {
		slog.Warn("serving before all members can be reached", "err", err)
	}
}

// shutDown lets requests finish first, because they need the node, and then leaves the cluster.
func shutDown(server *http.Server, node *peerlimit.Node) error {
	slog.Info("shutting down")
	drain, cancel := context.WithTimeout(context.Background(), drainTimeout)
	defer cancel()
	if err := server.Shutdown(drain); err != nil {
		slog.Warn("ending requests that still wait for their turn", "err", err)
		_ = server.Close()
	}
	leave, cancel := context.WithTimeout(context.Background(), leaveTimeout)
	defer cancel()
	return node.Leave(leave)
}

// baseURL is what to type into a browser on this machine.
func baseURL(addr net.Addr) string {
	tcp, ok := addr.(*net.TCPAddr)
	if ok && tcp.IP.IsUnspecified() {
		return fmt.Sprintf("http://localhost:%d", tcp.Port)
	}
	return "http://" + addr.String()
}
