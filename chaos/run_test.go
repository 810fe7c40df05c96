//go:build linux

package chaos

import (
	"cmp"
	"context"
	"fmt"
	"net/url"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// limit is what one kind of keys has.
type limit struct{ burst, rate float64 }

// scarce is the limit of the keys that are exhausted, ten an hour.
var scarce = limit{burst: 10, rate: 10.0 / 3600}

const (
	scarceKeys = 40

	// Each node is asked that often in a second, so that three of them are enough to saturate one key and to exhaust the
	// others in a few seconds.
	hotCalls, scarceCalls = 60, 60

	drivers = 2

	// warmUp is how long the cluster is asked before anything is done to it: by then every key is exhausted.
	warmUp = 4 * time.Second
)

// run is one run of a scenario: a cluster, its drivers, and what was done.
type run struct {
	t        *testing.T
	scenario *scenario
	router   *router // nil: all nodes are on loopback
	nodes    []*node // those that should be there, in the order of their start
	all      []*node
	drivers  []*driver

	began     time.Duration
	over      time.Duration // when the drivers were told to end
	events    []happened
	absent    []absence
	newcomers []newcomer
	unsettled []string // what was wrong when killed members should have been forgotten
}

// happened is something that was done to the cluster. After one that is sudden, tokens may be admitted again that were
// admitted just before.
type happened struct {
	at     time.Duration
	text   string
	sudden bool
}

// absence is a time in which nothing is expected of a node.
type absence struct {
	node     string
	from, to time.Duration
}

// forever is the end of an absence that has not ended.
const forever = time.Duration(1<<63 - 1)

// execute runs a scenario and returns all that was recorded.
func execute(t *testing.T, s *scenario) (*run, []record) {
	r := &run{t: t, scenario: s}
	if s.network {
		r.router = newRouter(t)
	}
	t.Cleanup(func() {
		for _, d := range r.drivers {
			d.kill()
		}
		for _, n := range r.all {
			n.end()
			if t.Failed() && n.command != nil && n.log.String() != "" {
				t.Logf("the log of %s:\n%s", n.name, lastLines(n.log.String(), 20))
			}
		}
	})
	program := path(programs.node)
	if s.oldProgram != nil {
		program = path(s.oldProgram(t))
	}
	for range s.nodes {
		r.startWith(program, r.newNode())
	}
	r.waitReady()
	calls := cmp.Or(s.calls, hotCalls)
	for range drivers {
		d, err := startDriver(path(programs.driver), s.load(calls)...)
		require.NoError(t, err)
		r.drivers = append(r.drivers, d)
	}
	r.began = clock()
	for _, n := range r.nodes {
		r.drive(n)
	}
	time.Sleep(warmUp)
	s.do(r)
	r.over = clock()
	var records []record
	for _, d := range r.drivers {
		recorded, err := d.finish()
		require.NoError(t, err)
		records = append(records, recorded...)
	}
	return r, records
}

// load returns the arguments of each driver, for so many calls a second of the saturated key at each node.
func (s *scenario) load(calls int) []string {
	arguments := []string{"-hot", fmt.Sprint(calls / drivers), "-scarce", fmt.Sprint(scarceCalls / drivers), "-keys", fmt.Sprint(scarceKeys)}
	if s.lasts > 0 {
		most := s.lasts.Seconds() * float64((calls+scarceCalls)/drivers*(s.nodes+1))
		arguments = append(arguments, "-for", s.lasts.String(), "-most", fmt.Sprintf("%.0f", most))
	}
	return arguments
}

func lastLines(text string, n int) string {
	lines := strings.Split(strings.TrimSpace(text), "\n")
	return strings.Join(lines[max(0, len(lines)-n):], "\n")
}

// newNode makes a node that was not there before.
func (r *run) newNode() *node {
	n := &node{number: len(r.all) + 1, name: fmt.Sprintf("n%d", len(r.all)+1)}
	if r.router != nil {
		host := address(n.number)
		n.bind, n.rpc, n.http = host+":7946", host+":7947", host+":8080"
	} else {
		free, err := freeAddresses(n.number, 3)
		require.NoError(r.t, err)
		n.bind, n.rpc, n.http = free[0], free[1], free[2]
	}
	r.all = append(r.all, n)
	return n
}

// start starts a node, which joins the others. Nobody asks it yet.
func (r *run) start(n *node) { r.startWith(path(programs.node), n) }

func (r *run) startWith(program string, n *node) {
	var join []string
	for _, other := range r.nodes {
		join = append(join, other.bind)
	}
	if r.router != nil {
		require.NoError(r.t, n.start(program, r.router.namespace(r.t, n.number), r.scenario, join))
	} else {
		require.NoError(r.t, n.start(program, nil, r.scenario, join))
	}
	r.nodes = append(r.nodes, n)
}

// waitReady waits until all nodes know each other, and takes work.
func (r *run) waitReady() {
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	for _, n := range r.nodes {
		require.NoError(r.t, poll(ctx, func() error {
			_, err := n.get(ctx, fmt.Sprintf("/ready?nodes=%d", len(r.nodes)))
			return err
		}), "%s, of %d nodes", n.name, len(r.nodes))
	}
}

// waitAlive waits until a node answers, whatever it knows of others.
func (r *run) waitAlive(n *node) {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	require.NoError(r.t, poll(ctx, func() error {
		_, err := n.get(ctx, "/alive")
		return err
	}))
}

// drive lets all drivers ask a node, too.
func (r *run) drive(n *node) {
	for _, d := range r.drivers {
		require.NoError(r.t, d.add(n))
	}
}

// relieve lets nobody ask a node any more, and returns when all calls to it are over: as a load balancer does.
func (r *run) relieve(n *node) {
	for _, d := range r.drivers {
		over, err := d.drop(n)
		require.NoError(r.t, err)
		select {
		case <-over:
		case <-time.After(20 * time.Second):
			r.t.Fatalf("calls to %s do not end", n.name)
		}
	}
}

// note writes down what is being done. Sudden says that the cluster is not told.
func (r *run) note(sudden bool, format string, values ...any) {
	r.events = append(r.events, happened{clock(), fmt.Sprintf(format, values...), sudden})
}

// owner returns the node that decides about a key.
func (r *run) owner(key string) *node {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	name, err := r.nodes[0].get(ctx, "/owner?key="+url.QueryEscape(key))
	require.NoError(r.t, err)
	i := slices.IndexFunc(r.nodes, func(n *node) bool { return strings.HasPrefix(name, n.name+"-") || name == n.rpc })
	require.GreaterOrEqual(r.t, i, 0, "the owner is %q", name)
	return r.nodes[i]
}

// others returns all nodes but one.
func (r *run) others(n *node) []*node {
	return slices.DeleteFunc(slices.Clone(r.nodes), func(o *node) bool { return o == n })
}

// kill ends nodes with SIGKILL, at the same moment.
func (r *run) kill(nodes ...*node) {
	for _, n := range nodes {
		r.note(true, "SIGKILL %s", n.name)
		r.absent = append(r.absent, absence{n.name, clock(), forever})
		require.NoError(r.t, n.signal(syscall.SIGKILL))
	}
	for _, n := range nodes {
		<-n.ended
		r.nodes = r.others(n)
		for _, d := range r.drivers {
			_, err := d.drop(n)
			require.NoError(r.t, err)
		}
	}
}

// freeze stops a node for a while.
func (r *run) freeze(n *node, pause time.Duration) {
	r.note(true, "SIGSTOP %s for %v", n.name, pause)
	from := clock()
	require.NoError(r.t, n.signal(syscall.SIGSTOP))
	time.Sleep(pause)
	require.NoError(r.t, n.signal(syscall.SIGCONT))
	r.note(true, "SIGCONT")
	r.absent = append(r.absent, absence{n.name, from, clock()})
}

// leave takes nodes out of service and ends them with SIGTERM, as a deployment does.
func (r *run) leave(nodes ...*node) {
	for _, n := range nodes {
		r.relieve(n)
		r.note(false, "SIGTERM %s", n.name)
		require.NoError(r.t, n.signal(syscall.SIGTERM))
	}
	for _, n := range nodes {
		select {
		case <-n.ended:
			require.NoError(r.t, n.err, "%s did not leave in order: %s", n.name, n.log.String())
		case <-time.After(30 * time.Second):
			r.t.Fatalf("%s does not leave", n.name)
		}
		r.nodes = r.others(n)
	}
}

// join adds new nodes, at the same moment.
func (r *run) join(count int) []*node {
	var added []*node
	for range count {
		n := r.newNode()
		r.note(false, "%s joins", n.name)
		r.start(n)
		added = append(added, n)
	}
	r.waitReady()
	for _, n := range added {
		r.drive(n)
	}
	return added
}

// cut drops what one node sends to another.
func (r *run) cut(from, to *node) { require.NoError(r.t, r.router.cut(from.number, to.number)) }

// separate cuts every link between two groups, both ways.
func (r *run) separate(some, rest []*node) {
	for _, a := range some {
		for _, b := range rest {
			r.cut(a, b)
			r.cut(b, a)
		}
	}
}

// heal ends all cuts.
func (r *run) heal() {
	for _, a := range r.all {
		for _, b := range r.all {
			require.NoError(r.t, r.router.mend(a.number, b.number))
		}
	}
	r.note(false, "all links are whole again")
}
