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
package peerlimittest

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"runtime"
	"sync"
	"testing"
	"time"

	"github.com/peerlimit/peerlimit"
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
// methods are meant for the test's goroutine.
type Cluster struct {
	t       testing.TB
	network *sim.Network
	options []Option

	mu      sync.Mutex // guards what follows; no call into a node is made under it
	members []*member
	closing sync.WaitGroup // of nodes that were killed
}

// member is a node and its machine.
type member struct {
	node *peerlimit.Node
	ip   string
	gone bool // killed or left
}

// NewCluster starts n nodes, at least one, and returns when each of them can reach all others.
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
		c.start()
	}
	c.WaitReady()
	return c
}

// Len returns the number of nodes ever started.
func (c *Cluster) Len() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.members)
}

// Node returns node i. A node that was killed or has left answers with peerlimit.ErrClosed.
func (c *Cluster) Node(i int) *peerlimit.Node { return c.member(i).node }

// Nodes returns the nodes that were neither killed nor have left, in order.
func (c *Cluster) Nodes() []*peerlimit.Node {
	c.mu.Lock()
	defer c.mu.Unlock()
	var nodes []*peerlimit.Node
	for _, m := range c.members {
		if !m.gone {
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
		if m.node.Self().Name == name {
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
		if agree(nodes) {
			return
		}
		if ctx.Err() != nil {
			c.t.Fatalf("peerlimittest: %d nodes do not agree on who is there after %v", len(nodes), readyTimeout)
		}
		time.Sleep(10 * time.Millisecond)
	}
}

// agree reports whether every node sees just these nodes, alive and within reach.
func agree(nodes []*peerlimit.Node) bool {
	for _, node := range nodes {
		alive := 0
		for _, m := range node.Members() {
			if m.State == peerlimit.MemberAlive {
				alive++
			}
		}
		if alive != len(nodes) || node.Stats().Members != len(nodes) {
			return false
		}
	}
	return true
}

// Add starts one more node and returns it. It does not wait for the others to see it; see WaitReady.
func (c *Cluster) Add(options ...Option) *peerlimit.Node {
	c.t.Helper()
	return c.start(options...)
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
// it fail with peerlimit.ErrClosed.
func (c *Cluster) Kill(i int) {
	m := c.remove(i)
	c.network.Kill(m.ip)
	c.closing.Go(func() { _ = m.node.Close() }) // it can tell nobody: that is the point
	for {
		if _, err := m.node.Limiter("killed", peerlimit.PerSecond(1)); errors.Is(err, peerlimit.ErrClosed) {
			return
		}
		runtime.Gosched() // Close takes its time, but it begins by refusing calls
	}
}

// Leave lets node i leave in an orderly way, and returns when it has.
func (c *Cluster) Leave(ctx context.Context, i int) error { return c.remove(i).node.Leave(ctx) }

// Freeze stops node i as the others see it, as a long pause of its process does: nothing of it arrives anywhere, and
// what is sent to it waits. Calls on the node itself still run, because they run in the test.
func (c *Cluster) Freeze(i int) { c.network.Freeze(c.member(i).ip) }

// Thaw lets a frozen node go on.
func (c *Cluster) Thaw(i int) { c.network.Thaw(c.member(i).ip) }

// Split cuts the network between nodes that share no group, in both directions: Split([]int{0, 1}, []int{2, 3, 4}). A
// node in no group keeps all its links. Cuts add up until Heal.
func (c *Cluster) Split(groups ...[]int) {
	ips := make([][]string, len(groups))
	for g, group := range groups {
		for _, i := range group {
			ips[g] = append(ips[g], c.member(i).ip)
		}
	}
	c.network.Split(ips...)
}

// Isolate cuts node i off from all others, in both directions.
func (c *Cluster) Isolate(i int) {
	var others []int
	for j := range c.Len() {
		if j != i {
			others = append(others, j)
		}
	}
	c.Split([]int{i}, others)
}

// Heal mends every cut.
func (c *Cluster) Heal() { c.network.Heal() }

func (c *Cluster) member(i int) *member {
	c.t.Helper()
	c.mu.Lock()
	defer c.mu.Unlock()
	if i < 0 || i >= len(c.members) {
		c.t.Fatalf("peerlimittest: there is no node %d; %d were started", i, len(c.members))
	}
	return c.members[i]
}

// remove marks a member as gone and returns it.
func (c *Cluster) remove(i int) *member {
	c.t.Helper()
	m := c.member(i)
	c.mu.Lock()
	defer c.mu.Unlock()
	m.gone = true
	return m
}

// start starts a node on a new machine. Its seeds are those that are there: any of them may be cut off from it.
func (c *Cluster) start(options ...Option) *peerlimit.Node {
	c.t.Helper()
	c.mu.Lock()
	number := len(c.members)
	var seeds []string
	for _, m := range c.members {
		if !m.gone && len(seeds) < 3 {
			seeds = append(seeds, m.node.Self().Addr)
		}
	}
	c.mu.Unlock()

	ip := fmt.Sprintf("10.%d.%d.%d", number/62500, number/250%250, number%250+1)
	config := peerlimit.Config{Name: fmt.Sprintf("node%d", number), Logger: slog.New(slog.DiscardHandler)}
	for _, option := range append(append([]Option(nil), c.options...), options...) {
		option(&config)
	}
	config.BindAddr, config.RPCAddr, config.AdvertiseAddr = ip+":7946", "", ""
	config.Join, config.Insecure = seeds, true
	config.Network = transport.Network(c.network.Host(ip))
	node, err := peerlimit.Start(config)
	if err != nil {
		c.t.Fatalf("peerlimittest: node %d: %v", number, err)
	}
	c.mu.Lock()
	c.members = append(c.members, &member{node: node, ip: ip})
	c.mu.Unlock()
	return node
}

// close ends everything: nodes at the same time, because each waits a little for the others.
func (c *Cluster) close() {
	c.mu.Lock()
	members := c.members
	c.mu.Unlock()
	for _, m := range members {
		c.closing.Go(func() { _ = m.node.Close() })
	}
	c.closing.Wait()
	c.network.Close()
}
