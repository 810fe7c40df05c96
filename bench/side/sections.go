package main

import (
	"cmp"
	"math"
	"slices"
	"strconv"
)

const introduction = `peerlimit and what a user would pick instead, on one machine, in one run. Contestants alternate: within a round one after the other does
the same, each round begins with another one, and while one is measured no other one is running. All of it, and the charts, is made anew by`

const settings = `The load comes from the process that is asked, by Go calls: callers that each take again as soon as they have an answer. So the processor
time of the load, which is the same for all, is in all figures of the caller. Keys have 20 bytes; unless said otherwise there are 100,000, in
uniform random order, whose buckets were made before, and whose limit of 1,000 an hour is never in the way.

- **peerlimit**: three processes of a node each, on loopback, neither TLS nor Secret; replication on. Leases and remembered denials are *off*
  (NoLeases, NoDenialCache) unless said otherwise, and every decision is checked for its origin: remote, or local. It is asked by Limiter.Take.
- **Gubernator**: three daemons, asked by V1Server.GetRateLimits of the one in the process, which is where peerlimit's call is. Its three
  behaviors, with its defaults (batches wait half a millisecond, workers as many as processors), but for a cache that is larger, so that nothing is
  evicted, and peers that are told by SetPeers. GLOBAL answers from a copy and tells the owner later: it is not exact. Where a
  limit is in the way it is its leaky bucket, which lets in a burst and then a steady rate as the others' token buckets do.
- **redis_rate**: go-redis with up to 1,024 connections, one for each caller, to a Redis of its own on loopback which stores nothing on disk.
  Its buckets are made by the first takes, which are the same work: it reads a key, and writes it.
- **For one process**: those that have no store of their own are kept in a sync.Map. uber/ratelimit blocks and does not deny: it is one limiter
  for all keys with a rate far above the load. go-limiter and failsafe-go begin anew after each period.

*Failed* are errors, and decisions by who should not have made them, in parts of all takes. *Others* are the other two processes, or Redis.
Bytes are TCP payload as the kernel counts it for each connection, for all alike: *out* and *back* over the connections that the caller's process
has made, *in all* over all connections, replication, broadcasts and gossip included.

`

// section is a table, or some, of the document.
type section struct {
	table, title, text string
	charts             []chart
	columns            [][]column
}

// column is one column: of the line itself, or a quantity.
type column struct {
	name     string
	of       func(line) string
	quantity func(*measurement) float64
	show     func(float64) string
	judged   bool // only where there was somebody to judge
}

// guarded leaves out what has not been measured.
func (c column) guarded() func(*measurement) float64 {
	return func(m *measurement) float64 {
		if c.judged && (m.Result == nil || m.Result.Judged == nil) {
			return math.NaN()
		}
		return c.quantity(m)
	}
}

var (
	who     = column{name: "contestant", of: func(l line) string { return l.contestant }}
	nodes   = column{name: "nodes", of: func(l line) string { return placeNames[l.place] }}
	callers = column{name: "callers", of: func(l line) string {
		if l.callers == 0 {
			return "GOMAXPROCS"
		}
		return strconv.Itoa(l.callers)
	}}
	scene = column{name: "scenario", of: func(l line) string { return l.variant }}

	speed  = column{name: "takes a second", quantity: perSecond, show: rate}
	median = column{name: "p50", quantity: p50, show: duration}
	high   = column{name: "p99", quantity: p99, show: duration}
	top    = column{name: "p99.9", quantity: p999, show: duration}
	failed = column{name: "failed", quantity: failedShare, show: percentOrNone}

	admitted = column{name: "admitted of allowed", quantity: admittedShare, show: percent, judged: true}
	worst    = column{name: "worst key", quantity: worstKey, show: percent, judged: true}
)

var costs = []column{
	who, nodes, callers,
	{name: "allocations, caller", quantity: callerMallocs, show: digits},
	{name: "others", quantity: otherMallocs, show: digits},
	{name: "CPU s per million takes, caller", quantity: callerCPU, show: digits},
	{name: "others", quantity: otherCPU, show: digits},
	{name: "bytes out", quantity: wireOut, show: digits},
	{name: "back", quantity: wireBack, show: digits},
	{name: "in all", quantity: wireAll, show: digits},
}

var placeNames = map[string]string{
	placeThree: "3 processes", placeOne: "3 in one process", placeAlone: "one process", placeTwo: "2 processes", placeServer: "a server",
}

var sections = []section{
	{
		table: tableLocal, title: "Local decisions",
		text: "The node that is asked decides itself; as many callers as GOMAXPROCS. Time is that of a caller per decision, the choice of a key included; " +
			"where standbys keep replicas they want processors as well, and the time goes up with it. The percentiles are of one decision in 16, and include " +
			"looking at the clock twice.",
		charts: []chart{localChart},
		columns: [][]column{{
			who, nodes, {name: "per decision", quantity: perTake, show: duration}, {name: "allocations", quantity: callerMallocs, show: digits},
			{name: "processor time, caller", quantity: callerCPUPerTake, show: duration},
			{name: "others", quantity: otherCPUPerTake, show: duration}, median, high, top, failed,
		}},
	},
	{
		table: tableRemote, title: "Remote decisions",
		text: "Another node decides about each key. The ping-pong is the floor for one caller: 60 bytes to another process and back over a bare " +
			"TCP connection, nothing decided. Below, what it costs; allocations within Redis are not counted.",
		charts:  []chart{remoteChart, latencyChart},
		columns: [][]column{{who, nodes, callers, speed, median, high, top, failed}, costs},
	},
	{
		table: tableHot, title: "One hot key",
		text: "One key that another node owns, with peerlimit's leases and remembered denials *on*, as they are by default. *Limit in the way*: 10,000 a " +
			"second with a burst of 1,000; admitted is what all callers got, in parts of burst + rate·time. The percentiles of peerlimit are of one take in 16.",
		charts:  []chart{hotChart},
		columns: [][]column{{scene, callers, who, speed, median, high, top, admitted, failed}},
	},
	{
		table: tableZipf, title: "A mix of hot and cold keys",
		text: "100,000 keys of all three owners by a Zipf distribution (s = 1.1), 256 callers, peerlimit with and without leases and remembered denials. " +
			"*Limit in the way*: 50 a second with a burst of 20 for each key; allowed is, for each key, no more than was asked for.",
		columns: [][]column{{scene, who, speed, median, high, top, admitted, {name: "worst key", quantity: worstKey, show: percent, judged: true}, failed}},
	},
	{
		table: tableJudged, title: "Exactness of remote decisions",
		text: "100 keys that other nodes own, of 50 a second with a burst of 20 each, asked for by 256 callers; peerlimit without leases and remembered " +
			"denials. Allowed is burst + rate·time for each key, and no more than was asked for.",
		columns: [][]column{{who, speed, admitted, worst, failed}},
	},
	{
		table: tableVariants, title: "Variants",
		text: "Remote, 256 callers, as above, but for what is said. *Three limits*: in one take; with Gubernator three requests in one call, whose keys may " +
			"have different owners, with redis_rate three scripts in one pipeline. Gubernator's and redis_rate's three may take from one limit when another " +
			"denies. *Encrypted*: Config.Secret. *Without replication*: Config.ReplicaInterval below zero.",
		columns: [][]column{{scene, who, speed, median, high, costs[5], costs[6], costs[3], costs[4], failed}},
	},
	{
		table: tableIdle, title: "Idle",
		text: "What a node of three processes uses when nobody asks, in parts of one core: pings, gossip, a look at what there is to replicate every 20 ms, " +
			"and the runtime that is woken up for each.",
		columns: [][]column{{who, nodes, {name: "of a core", quantity: idleCPU, show: percent}}},
	},
	{
		table: tableMemory, title: "Memory",
		text: "Bytes per key at 1,000,000 keys, beyond the 20 of the key itself: what is live after garbage collection, and the parts of the heap " +
			"that are in use then, more than before. For Redis used_memory. Three processes: the node that owns all of them, replicas being with the others. " +
			"Measured once: it hardly varies.",
		charts:  []chart{memoryChart},
		columns: [][]column{{who, nodes, {name: "live", quantity: liveBytes, show: digits}, {name: "heap in use", quantity: heapBytes, show: digits}}},
	},
}

// inOrder sorts lines by scenario, callers and place, and leaves contestants in the order of the plan.
func inOrder(lines []line) []line {
	rank := func(all []string, one string) int { return slices.Index(all, one) }
	variants := []string{variantAbove, variantInWay, variantAllowed, variantDenied, variantLeaky, variantThree, variantSecret, variantNoCopy}
	places := []string{placeThree, placeServer, placeTwo, placeOne, placeAlone}
	contestants := []string{programPeerlimit, labelNoLeases, "Gubernator", "Gubernator BATCHING", "Gubernator NO_BATCHING", "Gubernator GLOBAL", programRedis}
	return slices.SortedStableFunc(slices.Values(lines), func(a, b line) int {
		order := cmp.Or(
			cmp.Compare(rank(variants, a.variant), rank(variants, b.variant)), cmp.Compare(a.callers, b.callers),
			cmp.Compare(rank(places, a.place), rank(places, b.place)),
		)
		if ra, rb := rank(contestants, a.contestant), rank(contestants, b.contestant); order == 0 && ra >= 0 && rb >= 0 {
			return cmp.Compare(ra, rb)
		}
		return order
	})
}

func percentOrNone(x float64) string {
	switch {
	case x == 0:
		return "0"
	case x < 0.0005:
		return "< 0.1 %"
	}
	return percent(x)
}
