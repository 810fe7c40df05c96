// Command gubernator is Gubernator as a node of the scenarios of package chaos, with the flags and requests that chaos/node
// describes: the same service, with another limiter in it.
//
// It is a daemon as its documentation has it, found by its memberlist pool, with its defaults: batching, with half a
// millisecond to fill a batch, and a timeout of 500 ms. Its leaky bucket is what lets in a burst and then a steady rate;
// its token bucket is full again after each period, and would admit twice as much around that moment.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/signal"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/gubernator-io/gubernator/v2"
	"github.com/sirupsen/logrus"
)

func main() {
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run() error {
	o, err := parseOptions()
	if err != nil {
		return err
	}
	terminated, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	daemon, err := startDaemon(terminated, o)
	if err != nil {
		return err
	}
	s := &service{daemon: daemon, hot: limit{o.burst, o.rate, time.Second}, scarce: limit{10, 10, time.Hour}, mode: o.mode}
	return s.serve(terminated, o.web)
}

// options are what the flags say.
type options struct {
	name, bind, rpc, web string
	join                 []string
	burst, rate          int64
	mode                 int32
}

func parseOptions() (o options, err error) {
	flag.StringVar(&o.name, "name", "", "name of this node")
	flag.StringVar(&o.bind, "bind", "", "address of gossip")
	flag.StringVar(&o.rpc, "rpc", "", "address of requests among nodes")
	flag.StringVar(&o.web, "http", "", "address of requests")
	join := flag.String("join", "", "addresses of gossip of others, separated by commas")
	burst := flag.Float64("burst", 100, "burst of keys that begin with hot")
	rate := flag.Float64("rate", 100, "tokens a second of keys that begin with hot")
	behavior := flag.String("behavior", "batching", "batching, no_batching or global")
	flag.Duration("rpc-timeout", 0, "is peerlimit's")
	flag.Parse()
	mode, ok := gubernator.Behavior_value[strings.ToUpper(*behavior)]
	if !ok {
		return o, fmt.Errorf("-behavior is %q; it must be batching, no_batching or global", *behavior)
	}
	o.mode, o.burst, o.rate = mode, int64(*burst), int64(*rate)
	o.join = []string{o.bind} // the first node joins itself
	if *join != "" {
		o.join = strings.Split(*join, ",")
	}
	return o, nil
}

// startDaemon starts a daemon that finds the others by its memberlist pool.
func startDaemon(ctx context.Context, o options) (*gubernator.Daemon, error) {
	logger := logrus.New()
	logger.SetOutput(io.Discard)
	ctx, cancel := context.WithTimeout(ctx, 20*time.Second)
	defer cancel()
	return gubernator.SpawnDaemon(ctx, gubernator.DaemonConfig{
		GRPCListenAddress: o.rpc, HTTPListenAddress: "127.0.0.1:0", AdvertiseAddress: o.rpc, InstanceID: o.name,
		Logger:            logger.WithField("node", o.name),
		PeerDiscoveryType: "member-list",
		MemberListPoolConf: gubernator.MemberListPoolConfig{
			Advertise:         gubernator.PeerInfo{GRPCAddress: o.rpc},
			MemberListAddress: o.bind, MemberListBindAddress: o.bind, AdvertiseAddress: o.bind,
			KnownNodes: o.join, NodeName: o.name,
		},
	})
}

// limit lets in burst at once, and tokens in every period.
type limit struct {
	burst, tokens int64
	period        time.Duration
}

// service answers requests by a daemon.
type service struct {
	daemon      *gubernator.Daemon
	hot, scarce limit
	mode        int32
}

// serve answers requests until terminated ends, and then closes the daemon.
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
	err := server.Shutdown(ctx)
	s.daemon.Close()
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
	mux.HandleFunc("GET /alive", func(http.ResponseWriter, *http.Request) {})
	return mux
}

func (s *service) request(key string) *gubernator.RateLimitReq {
	name, l := "scarce", s.scarce
	if strings.HasPrefix(key, "hot") {
		name, l = "hot", s.hot
	}
	return &gubernator.RateLimitReq{
		Name: name, UniqueKey: key, Hits: 1, Limit: l.tokens, Burst: l.burst, Duration: l.period.Milliseconds(),
		Algorithm: gubernator.Algorithm_LEAKY_BUCKET, Behavior: gubernator.Behavior(s.mode),
	}
}

func (s *service) take(w http.ResponseWriter, r *http.Request) {
	response, err := s.daemon.V1Server.GetRateLimits(r.Context(), &gubernator.GetRateLimitsReq{
		Requests: []*gubernator.RateLimitReq{s.request(r.FormValue("key"))},
	})
	if err == nil && response.Responses[0].Error != "" {
		err = errors.New(response.Responses[0].Error)
	}
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	_ = json.NewEncoder(w).Encode(struct { // an error means that the client has gone
		Allowed bool   `json:"allowed"`
		Origin  string `json:"origin"`
	}{response.Responses[0].Status == gubernator.Status_UNDER_LIMIT, response.Responses[0].Metadata["owner"]})
}

func (s *service) owner(w http.ResponseWriter, r *http.Request) {
	request := s.request(r.FormValue("key"))
	peer, err := s.daemon.V1Server.GetPeer(r.Context(), request.Name+"_"+request.UniqueKey)
	if err != nil {
		http.Error(w, err.Error(), http.StatusServiceUnavailable)
		return
	}
	_, _ = fmt.Fprint(w, peer.Info().GRPCAddress)
}

func (s *service) ready(w http.ResponseWriter, r *http.Request) {
	nodes, err := strconv.Atoi(r.FormValue("nodes"))
	if err != nil {
		http.Error(w, "nodes: "+err.Error(), http.StatusBadRequest)
		return
	}
	if peers := len(s.daemon.Peers()); peers != nodes {
		http.Error(w, fmt.Sprintf("%d peers", peers), http.StatusServiceUnavailable)
	}
}
