// Package peerlimittest runs peerlimit nodes in a test: whole clusters in one process, over a network in memory whose
// machines can be killed, frozen and cut off from each other.
//
// Everything works in real time and, unchanged, inside a [testing/synctest] bubble, where a minute costs as long as the
// work in it:
//
//	synctest.Test(t, func(t *testing.T) {
//		cluster := peerlimittest.NewCluster(t, 3)
//		...
//		cluster.Kill(0)
//	})
//
// Nodes are closed when the test ends. What fails here fails the test at once.
//
// With -race, run tests that use bubbles with GOMAXPROCS=1: with several nodes in one bubble the detector itself may crash
// on several cores (https://go.dev/issue/78156, not fixed in Go 1.26). examples/signup/race_test.go shows how.
package peerlimittest

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"runtime"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/peerlimit/peerlimit"
	"github.com/peerlimit/peerlimit/internal/inspect"
	"github.com/peerlimit/peerlimit/internal/panel"
	"github.com/peerlimit/peerlimit/internal/sim"
	"github.com/peerlimit/peerlimit/transport"
)

// Option changes the configuration of a node before it starts. Addresses, Join and Network are the cluster's and are set
// afterwards.
type Option func(*peerlimit.Config)

// NewNode starts a cluster of one and returns its node.
func NewNode(t testing.TB, options ...Option) *peerlimit.Node {
	t.Helper()
	return NewCluster(t, 1, options...).Node(0)
}

// readyTimeout bounds how long the nodes of a cluster may take to find each other: far longer than they need, also on a
// busy machine.
const readyTimeout = time.Minute

// Cluster is a set of nodes, each on a machine of its own, numbered from 0 in the order in which they were started. Its
// methods may be called from several goroutines at once, so that joins, leaves and kills overlap; those goroutines must
// have ended when the test does. What fails in a goroutine that is not the test's fails the test and ends that goroutine
// only.
type Cluster struct {
	t       testing.TB
	network *sim.Network
	options []Option

	mu      sync.Mutex // guards what follows; no call into a node is made under it
	members []*member
	closing sync.WaitGroup // of nodes that were killed
}

// member is a node and its machine. What changes is guarded by the cluster's lock.
type member struct {
	ip   string
	node *peerlimit.Node // nil while it starts
	gone bool            // killed or left
}

// NewCluster starts n nodes, at least one, and returns when each of them can reach all others and the majority is one of all of them, or
// of all but one where they are even in number: so that any may fail next. That takes 0.6 s for each, and at most 18 s.
func NewCluster(t testing.TB, n int, options ...Option) *Cluster {
	t.Helper()
	return NewSeededCluster(t, n, 1, options...)
}

// NewSeededCluster is NewCluster with a seed for what is random on the network: latencies, and which packets are lost
// where a test asks for loss.
func NewSeededCluster(t testing.TB, n int, seed uint64, options ...Option) *Cluster {
	t.Helper()
	if n < 1 {
		t.Fatalf("peerlimittest: a cluster of %d nodes; at least 1 is needed", n)
	}
	c := &Cluster{t: t, network: sim.New(seed), options: options}
	t.Cleanup(c.close)
	for range n {
		c.start(nil)
	}
	c.WaitReady()
	c.waitWitnessed()
	return c
}

// waitWitnessed returns when as many nodes are witnesses as may be, and each node has its quorum of them.
func (c *Cluster) waitWitnessed() {
	c.t.Helper()
	nodes := c.Nodes()
	want := min(len(nodes)-1+len(nodes)%2, panel.MaxWitnesses)
	began := time.Now()
	behind := func(n *peerlimit.Node) bool {
		p, hasQuorum := inspect.Panel(n)
		return !hasQuorum || len(p.Witnesses) < want
	}
	for slices.ContainsFunc(nodes, behind) {
		if time.Since(began) > readyTimeout {
			c.t.Fatalf("peerlimittest: of %d nodes not %d are witnesses after %v", len(nodes), want, readyTimeout)
		}
		time.Sleep(10 * time.Millisecond)
	}
}

// Len returns the number of nodes ever started, those included that are starting.
func (c *Cluster) Len() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.members)
}

// Node returns node i, which must have started. One that was killed or has left answers with peerlimit.ErrClosed.
func (c *Cluster) Node(i int) *peerlimit.Node {
	c.t.Helper()
	m := c.member(i)
	c.mu.Lock()
	defer c.mu.Unlock()
	if m.node == nil {
		c.t.Fatalf("peerlimittest: node %d is still starting", i)
	}
	return m.node
}

// Nodes returns the nodes that have started and were neither killed nor have left, nor have begun to leave, in order.
func (c *Cluster) Nodes() []*peerlimit.Node {
	c.mu.Lock()
	defer c.mu.Unlock()
	var nodes []*peerlimit.Node
	for _, m := range c.members {
		if m.node != nil && !m.gone {
			nodes = append(nodes, m.node)
		}
	}
	return nodes
}

// Index returns the number of the node of that identity, such as a limiter's Owner(key).Name, or -1.
func (c *Cluster) Index(name string) int {
	c.mu.Lock()
	defer c.mu.Unlock()
	for i, m := range c.members {
		if m.node != nil && m.node.Self().Name == name {
			return i
		}
	}
	return -1
}

// WaitReady returns when all nodes that were neither killed nor have left see just each other, at the same moment, and
// each can reach every other.
func (c *Cluster) WaitReady() {
	c.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), readyTimeout)
	defer cancel()
	nodes := c.Nodes()
	for {
		for _, node := range nodes {
			if err := node.WaitReady(ctx, len(nodes)); err != nil {
				c.t.Fatalf("peerlimittest: node %s: %v", node.Self().Name, err)
			}
		}
		dissent := disagreement(nodes)
		if dissent == "" {
			return
		}
		if ctx.Err() != nil {
			c.t.Fatalf("peerlimittest: %d nodes are not ready after %v: %s", len(nodes), readyTimeout, dissent)
		}
		time.Sleep(10 * time.Millisecond)
	}
}

// disagreement says what keeps nodes from being one cluster: each must see just these nodes, alive and within reach, and
// hold just what is its own. It is empty when nothing does.
func disagreement(nodes []*peerlimit.Node) string {
	for _, node := range nodes {
		alive := 0
		for _, m := range node.Members() {
			if m.State == peerlimit.MemberAlive {
				alive++
			}
		}
		stats := node.Stats()
		if alive != len(nodes) || stats.Members != len(nodes) || stats.PartitionsHeld != stats.PartitionsOwned {
			return fmt.Sprintf("node %s sees %d alive and %d owning, and holds %d partitions of %d that are its own",
				node.Self().Name, alive, stats.Members, stats.PartitionsHeld, stats.PartitionsOwned)
		}
	}
	return ""
}

// Add starts one more node and returns it when it has started; its number is the next one. It does not wait for the others
// to see it; see WaitReady.
func (c *Cluster) Add(options ...Option) *peerlimit.Node {
	c.t.Helper()
	return c.start(nil, options...)
}

// AddCutOff starts one more node, as Add does, that is cut off from some nodes from its very beginning, in both directions, until
// Mend or Heal. Its seeds are first of all nodes that it can reach.
func (c *Cluster) AddCutOff(from []int, options ...Option) *peerlimit.Node {
	c.t.Helper()
	return c.start(from, options...)
}

// Limiters returns a limiter of that name on every node that was neither killed nor has left, in order.
func (c *Cluster) Limiters(name string, limits ...peerlimit.Limit) []*peerlimit.Limiter {
	c.t.Helper()
	var limiters []*peerlimit.Limiter
	for _, node := range c.Nodes() {
		l, err := node.Limiter(name, limits...)
		if err != nil {
			c.t.Fatalf("peerlimittest: limiter %q on node %s: %v", name, node.Self().Name, err)
		}
		limiters = append(limiters, l)
	}
	return limiters
}

// Kill ends node i as a crash does: nothing is handed over and nobody is told, but that its connections break. Calls on
// it fail with peerlimit.ErrClosed. A node that is leaving can be killed, one that is starting cannot.
func (c *Cluster) Kill(i int) {
	c.t.Helper()
	ip, node := c.remove(i)
	c.network.Kill(ip)
	c.closing.Go(func() { _ = node.Close() }) // it can tell nobody: that is the point
	for {
		if _, err := node.Limiter("killed", peerlimit.PerSecond(1)); errors.Is(err, peerlimit.ErrClosed) {
			return
		}
		runtime.Gosched() // Close takes its time, but it begins by refusing calls
	}
}

// Leave lets node i leave in an orderly way, and returns when it has.
func (c *Cluster) Leave(ctx context.Context, i int) error {
	c.t.Helper()
	_, node := c.remove(i)
	return node.Leave(ctx)
}

func (c *Cluster) member(i int) *member {
	c.t.Helper()
	c.mu.Lock()
	defer c.mu.Unlock()
	if i < 0 || i >= len(c.members) {
		c.t.Fatalf("peerlimittest: there is no node %d; %d were started", i, len(c.members))
	}
	return c.members[i]
}

// remove marks a member, which must have started, as gone and returns its machine and node.
func (c *Cluster) remove(i int) (ip string, node *peerlimit.Node) {
	c.t.Helper()
	node = c.Node(i)
	m := c.member(i)
	c.mu.Lock()
	defer c.mu.Unlock()
	m.gone = true
	return m.ip, node
}

// start starts a node on a new machine that is cut off from some. Its seeds are those that are there: any of them may be cut off
// from it later.
func (c *Cluster) start(cutOff []int, options ...Option) *peerlimit.Node {
	c.t.Helper()
	number, m, seeds := c.register(cutOff)
	for _, i := range cutOff {
		c.network.CutBoth(m.ip, c.member(i).ip)
	}
	config := peerlimit.Config{Name: fmt.Sprintf("node%d", number), Logger: slog.New(slog.DiscardHandler)}
	for _, option := range append(append([]Option(nil), c.options...), options...) {
		option(&config)
	}
	config.BindAddr, config.RPCAddr, config.AdvertiseAddr = m.ip+":7946", "", ""
	config.Join, config.Insecure = seeds, true
	config.Network = transport.Network(c.network.Host(m.ip))
	node, err := peerlimit.Start(config)
	if err != nil {
		c.t.Fatalf("peerlimittest: node %d: %v", number, err)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	m.node = node
	return node
}

// maxSeeds is how many seeds a node has at most.
const maxSeeds = 3

// register gives a new node its number and its machine, and says which nodes it may join: first those from which it is not cut off.
func (c *Cluster) register(cutOff []int) (number int, m *member, seeds []string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	var near, far []string
	for i, other := range c.members {
		switch {
		case other.node == nil || other.gone:
		case slices.Contains(cutOff, i):
			far = append(far, other.node.Self().Addr)
		default:
			near = append(near, other.node.Self().Addr)
		}
	}
	seeds = append(near, far...)
	seeds = seeds[:min(maxSeeds, len(seeds))]
	number = len(c.members)
	m = &member{ip: fmt.Sprintf("10.%d.%d.%d", number/62500, number/250%250, number%250+1)}
	c.members = append(c.members, m)
	return number, m, seeds
}

// close ends everything: nodes at the same time, because each waits a little for the others.
func (c *Cluster) close() {
	c.mu.Lock()
	members := c.members
	c.mu.Unlock()
	for _, m := range members {
		if m.node != nil {
			c.closing.Go(func() { _ = m.node.Close() })
		}
	}
	c.closing.Wait()
	c.network.Close()
}
