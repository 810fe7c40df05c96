// Command node is a service with a rate limit, for the scenarios of package chaos. Another program can be in its place when
// it understands the same flags and requests:
//
//	-name NAME -bind HOST:PORT -rpc HOST:PORT -http HOST:PORT -join HOST:PORT,...  -burst TOKENS -rate TOKENS_A_SECOND -rpc-timeout DURATION
//
// -bind is for gossip or whatever finds the others, -join has the -bind of others, -rpc is for requests among nodes.
// Keys that begin with "hot" have the limit of the flags; all others ten an hour.
//
//	POST /take?key=KEY   {"allowed":true,"origin":"remote"}, or 500 and a text when there is no decision
//	GET  /owner?key=KEY  the name of the node that decides about a key, or its address for -rpc
//	GET  /ready?nodes=N  200 when takes work and N nodes, itself included, know each other; 503 until then
//	GET  /stats          peerlimit.Stats as JSON; scenarios that another program can run do without
//	GET  /alive          200
//
// SIGTERM lets it leave in order and end with status 0.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"net/http"
	"os"
	"os/signal"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/peerlimit/peerlimit"
)

func main() {
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run() error {
	var (
		name  = flag.String("name", "", "name of this node")
		bind  = flag.String("bind", "127.0.0.1:0", "address of gossip")
		rpc   = flag.String("rpc", "127.0.0.1:0", "address of takes among nodes")
		web   = flag.String("http", "127.0.0.1:0", "address of requests")
		join  = flag.String("join", "", "addresses of gossip of others, separated by commas")
		burst = flag.Float64("burst", 100, "burst of keys that begin with hot")
		rate  = flag.Float64("rate", 100, "tokens a second of keys that begin with hot")

		rpcTimeout = flag.Duration("rpc-timeout", peerlimit.DefaultRPCTimeout, "how long a node waits for one response of another")
	)
	flag.Parse()
	terminated, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()

	config := peerlimit.Config{
		Name: *name, BindAddr: *bind, RPCAddr: *rpc, Insecure: true, // a network of its own, or loopback
		RPCTimeout: *rpcTimeout,
		Logger:     slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelWarn})),
	}
	if *join != "" {
		config.Join = strings.Split(*join, ",")
	}
	node, err := peerlimit.Start(config)
	if err != nil {
		return err
	}
	defer node.Close()
	hot, err := node.Limiter("hot", peerlimit.PerSecond(*rate).WithBurst(*burst))
	if err != nil {
		return err
	}
	scarce, err := node.Limiter("scarce", peerlimit.PerHour(10))
	if err != nil {
		return err
	}
	s := &service{node: node, hot: hot, scarce: scarce}
	return s.serve(terminated, *web)
}

// service answers requests by a node's limiters.
type service struct {
	node        *peerlimit.Node
	hot, scarce *peerlimit.Limiter
}

// serve answers requests until terminated ends, and then leaves the cluster.
func (s *service) serve(terminated context.Context, addr string) error {
	server := &http.Server{Addr: addr, Handler: s.handler(), ReadHeaderTimeout: time.Minute}
	served := make(chan error, 1)
	go func() { served <- server.ListenAndServe() }()
	select {
	case err := <-served:
		return err
	case <-terminated.Done():
	}
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	err := errors.Join(server.Shutdown(ctx), s.node.Leave(ctx))
	if failed := <-served; !errors.Is(failed, http.ErrServerClosed) {
		err = errors.Join(err, failed)
	}
	return err
}

func (s *service) handler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("POST /take", s.take)
	mux.HandleFunc("GET /owner", s.owner)
	mux.HandleFunc("GET /ready", s.ready)
	mux.HandleFunc("GET /stats", s.stats)
	mux.HandleFunc("GET /alive", func(http.ResponseWriter, *http.Request) {})
	return http.NewCrossOriginProtection().Handler(mux) // a page that is open in a browser on this machine takes nothing
}

func (s *service) limiter(key string) *peerlimit.Limiter {
	if strings.HasPrefix(key, "hot") {
		return s.hot
	}
	return s.scarce
}

func (s *service) take(w http.ResponseWriter, r *http.Request) {
	key := r.FormValue("key")
	d, err := s.limiter(key).Take(r.Context(), key, 1)
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	_ = json.NewEncoder(w).Encode(struct { // an error means that the client has gone
		Allowed bool   `json:"allowed"`
		Origin  string `json:"origin"`
	}{d.Allowed, d.Origin.String()})
}

func (s *service) owner(w http.ResponseWriter, r *http.Request) {
	key := r.FormValue("key")
	_, _ = fmt.Fprint(w, s.limiter(key).Owner(key).Name)
}

// stats encodes all there are: older versions of the library, which UpgradeRolling builds this with, have not all fields.
func (s *service) stats(w http.ResponseWriter, _ *http.Request) {
	_ = json.NewEncoder(w).Encode(s.node.Stats()) // an error means that the client has gone
}

func (s *service) ready(w http.ResponseWriter, r *http.Request) {
	nodes, err := strconv.Atoi(r.FormValue("nodes"))
	if err != nil {
		http.Error(w, "nodes: "+err.Error(), http.StatusBadRequest)
		return
	}
	ctx, cancel := context.WithTimeout(r.Context(), time.Second)
	defer cancel()
	if err := s.node.WaitReady(ctx, nodes); err != nil {
		http.Error(w, err.Error(), http.StatusServiceUnavailable)
		return
	}
	if stats := s.node.Stats(); stats.Members != nodes || stats.Reachable != nodes {
		http.Error(w, fmt.Sprintf("%d members, %d reachable", stats.Members, stats.Reachable), http.StatusServiceUnavailable)
	}
}
