package main

import (
	"log/slog"
	"strings"
	"time"

	"github.com/peerlimit/peerlimit"
)

// What passes between the demo and its node processes, besides HTTP: one JSON line with a nodeConfig on the node's
// standard input, then nodeReports, a line each, on its standard output.

// nodeEnv makes this program a node process when it is set in its environment.
const nodeEnv = "PEERLIMIT_CLUSTER_NODE"

// replicaInterval is how often the nodes send what has changed to those that replace them if they crash.
const replicaInterval = peerlimit.DefaultReplicaInterval

// limiterName is the limiter all nodes share.
const limiterName = "demo"

// nodeConfig tells a node process what to be.
type nodeConfig struct {
	Cluster string
	Name    string
	Seeds   []string // gossip addresses of nodes to join
	Rate    float64
	Burst   float64
	Keys    []string   // whose owners to report
	Log     slog.Level // the least that is written to standard error

	Cuttable bool // the network to other nodes can be cut, by POST /cut
}

// nodeReport is one thing that a node process tells; exactly one field is set.
type nodeReport struct {
	Ready *nodeReady `json:",omitempty"`
	View  *ringView  `json:",omitempty"`
	Event *nodeEvent `json:",omitempty"`
}

// nodeReady says that the process serves, and where.
type nodeReady struct {
	HTTP   string // base URL
	Gossip string // host:port
	RPC    string // host:port
}

// ringView is the ring as one node sees it.
type ringView struct {
	Version  uint64            // higher is later
	Size     int               // members that own keys
	Members  []string          // their short names
	Owners   map[string]string // of the demo's keys, by short name
	Standbys map[string]string // of the demo's keys; without those that are not known yet
	Parts    map[string]int    // the partitions of the demo's keys
	Arcs     []arc             // the ring, in parts of equal length
}

// arc is a part of the ring.
type arc struct {
	Owner   string // of the partition in its middle, by short name
	Standby string // or "" when it is not known yet
}

// limitOrder is the body of POST /limit, and cutOrder that of POST /cut.
type limitOrder struct {
	Rate, Burst float64
}

type cutOrder struct {
	Addresses []string // all that is out of reach from then on
}

// nodeEvent is a peerlimit.Event about another node.
type nodeEvent struct {
	Time   time.Time
	Kind   peerlimit.EventKind
	Member string // short name
	Detail string // for people
	Gains  gains  // of EventAcquired
}

// gains counts partitions that a node has acquired, by what it knows of them.
type gains struct {
	Given   uint64 // everything, from the node that held them
	Replica uint64 // all but the last moments, because the node that held them is gone
	Empty   uint64 // nothing
}

// takeAnswer is the body of an answer to POST /take?key=…, with status 200 or 429.
type takeAnswer struct {
	Allowed bool   `json:"allowed"`
	Origin  string `json:"origin"`
}

// ownerAnswer is the body of an answer to GET /owner?key=….
type ownerAnswer struct {
	Owner string `json:"owner"` // short name
}

// shortName is the name that the demo gave a node, without the random digits that make its identity unique.
func shortName(identity string) string {
	if i := strings.LastIndexByte(identity, '-'); i > 0 {
		return identity[:i]
	}
	return identity
}
