package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"math"
	"net"
	"net/http"
	"os"
	"os/signal"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/peerlimit/peerlimit"
)

// service is what runs in a node process: an HTTP service that embeds a node.
type service struct {
	keys    []string
	network *cuttable // nil unless it can be cut
	limit   atomic.Pointer[[]peerlimit.Limit]
	node    *peerlimit.Node
	limiter *peerlimit.Limiter
	started chan struct{} // closed when the fields above are set; events come earlier
	arcs    func() [arcCount]string
	out     *os.File // safe for concurrent use; a report is one write
	gained  gains    // what was reported so far; for onEvent only
}

// cuttableTimeout bounds the requests among nodes where the page can freeze and cut off some. Those get no response for as
// long, until the first few have shown that there is none to wait for.
const cuttableTimeout = 500 * time.Millisecond

// leaveTimeout bounds each half of an orderly end: finishing requests, and leaving the cluster.
const leaveTimeout = 5 * time.Second

// runNode is the main function of a node process. It ends when it is asked to leave, and at once when in ends.
func runNode(in io.Reader, out *os.File, log io.Writer) int {
	signal.Ignore(os.Interrupt) // Ctrl-C reaches the whole process group; the demo decides what it means
	leave := make(chan os.Signal, 1)
	signal.Notify(leave, syscall.SIGTERM)

	config, err := readConfig(in)
	if err != nil {
		fmt.Fprintf(log, "node: %v\n", err)
		return exitUsage
	}
	if err := serve(config, leave, out, log); err != nil {
		fmt.Fprintf(log, "%s: %v\n", config.Name, err)
		return exitBroken
	}
	return exitHeld
}

// readConfig reads the first line, and from then on watches for the end of the input. Whatever ends the demo, even
// SIGKILL, closes the pipe: this is what makes it certain that no node outlives it.
func readConfig(in io.Reader) (nodeConfig, error) {
	var config nodeConfig
	input := bufio.NewReader(in)
	line, err := input.ReadBytes('\n')
	if err != nil {
		return config, fmt.Errorf("no configuration on standard input: %w", err)
	}
	if err := json.Unmarshal(line, &config); err != nil {
		return config, fmt.Errorf("configuration %q: %w", line, err)
	}
	go func() {
		_, _ = io.Copy(io.Discard, input)
		os.Exit(exitBroken)
	}()
	return config, nil
}

// serve runs a node process's service until a signal arrives on leave.
func serve(config nodeConfig, leave <-chan os.Signal, out *os.File, log io.Writer) error {
	s := &service{keys: config.Keys, started: make(chan struct{}), out: out}
	if err := s.setLimit(limitOrder{config.Rate, config.Burst}); err != nil {
		return err
	}
	if err := s.start(config, log); err != nil {
		return err
	}
	defer s.node.Close()
	return s.serve(leave)
}

// start starts the node and makes its limiter.
func (s *service) start(config nodeConfig, log io.Writer) error {
	settings := peerlimit.Config{
		Cluster: config.Cluster,
		Name:    config.Name,
		Join:    config.Seeds,
		OnEvent: s.onEvent,

		ReplicaInterval: replicaInterval,
		// All processes and the load share one machine, where a busy moment can stall any of them for longer than the
		// default of 100 ms. That is not what is to be shown. A process that dies is noticed at once all the same.
		RPCTimeout: 2 * time.Second,
		Logger:     slog.New(slog.NewTextHandler(log, &slog.HandlerOptions{Level: config.Log})),
	}
	if config.Cuttable {
		s.network = newCuttable()
		settings.Network, settings.RPCTimeout = s.network, cuttableTimeout
	}
	var err error
	if s.node, err = peerlimit.Start(settings); err != nil {
		return err
	}
	s.limiter, err = s.node.LimiterFunc(limiterName, func(context.Context, string) []peerlimit.Limit { return *s.limit.Load() })
	if err != nil {
		return errors.Join(err, s.node.Close())
	}
	s.arcs = sync.OnceValue(s.arcKeys)
	close(s.started)
	return nil
}

// serve answers requests until a signal arrives on leave, and then leaves the cluster.
func (s *service) serve(leave <-chan os.Signal) error {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	server := &http.Server{Handler: s.routes(), ReadHeaderTimeout: 5 * time.Second}
	var accepted drainer
	accepted.watch(server)
	served := make(chan error, 1)
	go func() { served <- server.Serve(listener) }()

	s.report(nodeReport{Ready: &nodeReady{HTTP: "http://" + listener.Addr().String(), Gossip: s.node.Self().Addr, RPC: s.node.Self().RPCAddr}})
	s.reportView()
	select {
	case err := <-served:
		return err
	case <-leave:
		return s.leave(func() error { return endServer(server, &accepted, listener, served, leaveTimeout) })
	}
}

// leave is what a service does on SIGTERM during a rolling deploy: finish the requests that came, then leave the cluster.
// The node goes on deciding for the others until they have taken over.
func (s *service) leave(endRequests func() error) error {
	err := endRequests()
	ctx, cancel := context.WithTimeout(context.Background(), leaveTimeout)
	defer cancel()
	return errors.Join(err, s.node.Leave(ctx))
}

// maxOrder bounds the body of an order, in bytes.
const maxOrder = 1 << 16

func (s *service) routes() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("POST /take", s.take)
	mux.HandleFunc("GET /owner", s.owner)
	mux.HandleFunc("GET /ready", s.ready)
	mux.HandleFunc("POST /limit", s.changeLimit)
	mux.HandleFunc("POST /cut", s.cut)
	return localOnly(mux)
}

// setLimit changes the limit of all keys. Buckets that are there go on with what is in them.
func (s *service) setLimit(o limitOrder) error {
	limit := peerlimit.PerSecond(o.Rate).WithBurst(o.Burst)
	if err := limit.Validate(); err != nil {
		return err
	}
	s.limit.Store(&[]peerlimit.Limit{limit})
	return nil
}

func (s *service) changeLimit(w http.ResponseWriter, r *http.Request) {
	var o limitOrder
	err := json.NewDecoder(http.MaxBytesReader(w, r.Body, maxOrder)).Decode(&o)
	if err == nil {
		err = s.setLimit(o)
	}
	if err != nil {
		refuse(w, err)
		return
	}
	w.WriteHeader(http.StatusNoContent)
}

// cut changes which nodes are out of reach.
func (s *service) cut(w http.ResponseWriter, r *http.Request) {
	var o cutOrder
	err := json.NewDecoder(http.MaxBytesReader(w, r.Body, maxOrder)).Decode(&o)
	if s.network == nil {
		err = errors.New("this network cannot be cut")
	}
	if err != nil {
		refuse(w, err)
		return
	}
	s.network.cut(o.Addresses)
	w.WriteHeader(http.StatusNoContent)
}

// take is the endpoint that is limited.
func (s *service) take(w http.ResponseWriter, r *http.Request) {
	decision, err := s.limiter.Take(r.Context(), r.URL.Query().Get("key"), 1)
	if err != nil {
		refuse(w, err)
		return
	}
	status := http.StatusOK
	if !decision.Allowed {
		status = http.StatusTooManyRequests
		w.Header().Set("Retry-After", strconv.Itoa(int(math.Ceil(decision.RetryAfter.Seconds()))))
	}
	answer(w, status, takeAnswer{Allowed: decision.Allowed, Origin: decision.Origin.String()})
}

// owner tells which node decides about a key, as this one sees it.
func (s *service) owner(w http.ResponseWriter, r *http.Request) {
	answer(w, http.StatusOK, ownerAnswer{Owner: shortName(s.limiter.Owner(r.URL.Query().Get("key")).Name)})
}

// ready answers when this node sees as many members as are asked for, and reaches them all.
func (s *service) ready(w http.ResponseWriter, r *http.Request) {
	members, err := strconv.Atoi(r.URL.Query().Get("members"))
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	if err := s.node.WaitReady(r.Context(), members); err != nil {
		refuse(w, err)
		return
	}
	w.WriteHeader(http.StatusNoContent)
}

func answer(w http.ResponseWriter, status int, body any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(body) // the client is gone: nobody to tell
}

// refuse answers a call that was wrong or came too late; being denied by the limit is not that.
func refuse(w http.ResponseWriter, err error) {
	status := http.StatusBadRequest
	if errors.Is(err, peerlimit.ErrClosed) {
		status = http.StatusServiceUnavailable
	}
	http.Error(w, err.Error(), status)
}

// onEvent passes on what the node noticed. peerlimit calls it from one goroutine.
func (s *service) onEvent(e peerlimit.Event) {
	<-s.started
	report := nodeEvent{Time: e.Time, Kind: e.Kind, Member: shortName(e.Member), Detail: e.Detail}
	switch e.Kind {
	case peerlimit.EventRing:
		s.reportView()
		time.AfterFunc(standbysKnown, s.reportView)
		return
	case peerlimit.EventAcquired:
		report.Gains = s.newGains()
	}
	s.report(nodeReport{Event: &report})
}

// newGains returns what the node has gained since this was last called. The counts tell what an event says in words, and
// more when another event is on its way, which then tells nothing.
func (s *service) newGains() gains {
	stats := s.node.Stats()
	now := gains{Given: stats.AcquiredByTransfer, Replica: stats.AcquiredFromReplica, Empty: stats.AcquiredEmpty}
	old := s.gained
	s.gained = now
	return gains{Given: now.Given - old.Given, Replica: now.Replica - old.Replica, Empty: now.Empty - old.Empty}
}

const (
	// standbysKnown is how long after a change of the ring all standbys are known, with some to spare.
	standbysKnown = 2500 * time.Millisecond

	// arcCount is in how many parts the ring is told. Gossip lists a member that has crashed for seconds after the others
	// have taken over; a member that owns none of so many parts is not on the ring.
	arcCount = 512

	partitionCount = 4093
)

// arcKeys returns a key for each part of the ring, the one nearest to its middle of some thousand.
func (s *service) arcKeys() [arcCount]string {
	var keys [arcCount]string
	var distance [arcCount]int
	for i := range 16 * arcCount {
		key := strconv.Itoa(i)
		place := s.limiter.Placement(key).Partition * arcCount
		n := place / partitionCount
		off := place%partitionCount - partitionCount/2
		off = max(off, -off)
		if keys[n] == "" || off < distance[n] {
			keys[n], distance[n] = key, off
		}
	}
	return keys
}

// reportView says which members are on the ring and which own the demo's keys. The version of the ring is read first: a report
// that is overtaken by a change is then followed by one with a higher version.
func (s *service) reportView() {
	stats := s.node.Stats()
	view := ringView{
		Version: stats.RingChanges, Size: stats.Members,
		Owners: make(map[string]string), Standbys: make(map[string]string), Parts: make(map[string]int),
	}
	members := make(map[string]bool)
	for _, key := range s.arcs() {
		place := s.limiter.Placement(key)
		view.Arcs = append(view.Arcs, arc{shortName(place.Owner.Name), firstStandby(place)})
		members[shortName(place.Owner.Name)] = true
	}
	view.Members = slices.Sorted(maps.Keys(members))
	for _, key := range s.keys {
		place := s.limiter.Placement(key)
		view.Owners[key], view.Parts[key] = shortName(place.Owner.Name), place.Partition
		if standby := firstStandby(place); standby != "" {
			view.Standbys[key] = standby
		}
	}
	s.report(nodeReport{View: &view})
}

// firstStandby returns the name of the member that is next, or "" when there is no other.
func firstStandby(p peerlimit.Placement) string {
	if len(p.Standbys) == 0 {
		return ""
	}
	return shortName(p.Standbys[0].Name)
}

func (s *service) report(r nodeReport) {
	line, err := json.Marshal(r)
	if err == nil {
		_, err = s.out.Write(append(line, '\n'))
	}
	if err != nil {
		os.Exit(exitBroken) // nobody listens: the demo is gone
	}
}
