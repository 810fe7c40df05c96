package metrics

import (
	"errors"
	"fmt"
	"strings"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/peerlimit/peerlimit"
)

// Node is what a [Collector] asks. A [*peerlimit.Node] is one.
type Node interface {
	Stats() peerlimit.Stats
	Members() []peerlimit.Member
}

// Collector is a [prometheus.Collector] of what a node sees, asked when it is scraped. Make one with [NewCollector].
type Collector struct{ node Node }

var _ prometheus.Collector = (*Collector)(nil)

// ErrInvalid means that what was to be measured is missing; the text says what.
var ErrInvalid = errors.New("metrics: invalid")

// NewCollector returns a collector of node. It needs no closing; a node that was closed is told of as it was. An error
// matches [ErrInvalid]: node is nil.
func NewCollector(node Node) (*Collector, error) {
	if n, is := node.(*peerlimit.Node); node == nil || is && n == nil {
		return nil, fmt.Errorf("%w collector: node is nil", ErrInvalid)
	}
	return &Collector{node}, nil
}

// single is a metric without labels, or of fixed ones.
type single struct {
	desc  *prometheus.Desc
	kind  prometheus.ValueType
	label []string // value of the description's label, if it has one
	value func(*peerlimit.Stats) float64
}

func describe(name, help string, labels ...string) *prometheus.Desc {
	return prometheus.NewDesc("peerlimit_"+name, help, labels, nil)
}

func gauge(name, help string, value func(*peerlimit.Stats) int) single {
	return single{describe(name, help), prometheus.GaugeValue, nil,
		func(s *peerlimit.Stats) float64 { return float64(value(s)) }}
}

func counter(name, help string, value func(*peerlimit.Stats) uint64) single {
	return single{describe(name, help), prometheus.CounterValue, nil,
		func(s *peerlimit.Stats) float64 { return float64(value(s)) }}
}

func tokens(name, help string, value func(*peerlimit.Stats) float64) single {
	return single{describe(name, help), prometheus.CounterValue, nil, value}
}

func labelled(desc *prometheus.Desc, label string, value func(*peerlimit.Stats) uint64) single {
	return single{desc, prometheus.CounterValue, []string{label},
		func(s *peerlimit.Stats) float64 { return float64(value(s)) }}
}

func labelledGauge(desc *prometheus.Desc, label string, value func(*peerlimit.Stats) int) single {
	return single{desc, prometheus.GaugeValue, []string{label},
		func(s *peerlimit.Stats) float64 { return float64(value(s)) }}
}

var (
	acquired = describe("partitions_acquired_total",
		"Partitions acquired, by what they came from: a transfer by their holder, a replica, or nothing.", "source")
	failures = describe("request_failures_total",
		"Requests to other nodes that failed: timeout, unreachable, or overloaded here or there.", "reason")
	turns = describe("turns_total",
		"Turns that were waited for at keys that this node holds: served, left before they came, or refused for want of room.", "outcome")
	misfits = describe("misfits_total",
		"Times that this node met a peer that is not set up as it is, by what differs: cluster or secret.", "reason")
	decisions = describe("decisions_total",
		"Decisions given to callers on this node, by limiter, by the origin of the decision and by its outcome.", "limiter", "origin", "outcome")
	links = describe("links",
		"Connections to other members, by state: requests go over those that are up; suspect ones have not responded lately.", "state")
	requestTimes = describe("request_duration_seconds",
		"How long requests to other nodes about takes lasted, those without a response too.")
	peers = describe("peers",
		"Other members, by what this node knows of them; suspect are those that do not respond.", "state")
)

// singles are the metrics that are one field of Stats each.
var singles = []single{
	gauge("members", "Members that take part, as gossip sees them, this node among them.",
		func(s *peerlimit.Stats) int { return s.Members }),
	gauge("known_members", "Members that a limit is divided by when this node decides by its share.",
		func(s *peerlimit.Stats) int { return s.Known }),
	gauge("reachable_members", "Known members that are in reach, this node among them.",
		func(s *peerlimit.Stats) int { return s.Reachable }),

	gauge("partitions_owned", "Partitions that the ring gives to this node.",
		func(s *peerlimit.Stats) int { return s.PartitionsOwned }),
	gauge("partitions_held", "Partitions that this node holds: it decides about their keys by the whole limit.",
		func(s *peerlimit.Stats) int { return s.PartitionsHeld }),
	counter("ring_changes_total", "Times the owners of partitions changed.",
		func(s *peerlimit.Stats) uint64 { return s.RingChanges }),
	labelled(acquired, "transfer", func(s *peerlimit.Stats) uint64 { return s.AcquiredByTransfer }),
	labelled(acquired, "replica", func(s *peerlimit.Stats) uint64 { return s.AcquiredFromReplica }),
	labelled(acquired, "empty", func(s *peerlimit.Stats) uint64 { return s.AcquiredEmpty }),

	labelledGauge(links, "up", func(s *peerlimit.Stats) int { return s.LinksUp }),
	labelledGauge(links, "suspect", func(s *peerlimit.Stats) int { return s.LinksSuspect }),
	labelledGauge(links, "down", func(s *peerlimit.Stats) int { return s.LinksDown }),
	{describe("replica_lag_seconds", "For how long the standby that is furthest behind has acknowledged nothing of what it was sent."),
		prometheus.GaugeValue, nil, func(s *peerlimit.Stats) float64 { return s.ReplicaLag.Seconds() }},
	gauge("quorum", "1 while this node hears from a majority of its witnesses and so may decide by the whole limit, 0 while it does not.",
		func(s *peerlimit.Stats) int {
			if s.HasQuorum {
				return 1
			}
			return 0
		}),
	counter("degraded_total", "Decisions that callers of this node got by a share of the limit.",
		func(s *peerlimit.Stats) uint64 { return s.Degraded }),
	counter("quorum_losses_total", "Times that this node lost its quorum while it held partitions.",
		func(s *peerlimit.Stats) uint64 { return s.QuorumLosses }),

	gauge("max_keys", "The bound of peerlimit_keys, and of peerlimit_degraded_keys.",
		func(s *peerlimit.Stats) int { return s.MaxKeys }),
	gauge("keys", "Buckets kept for the cluster, held and replicas.",
		func(s *peerlimit.Stats) int { return s.Keys }),
	gauge("degraded_keys", "Buckets kept for decisions by a share.",
		func(s *peerlimit.Stats) int { return s.DegradedKeys }),
	counter("evictions_total", "Buckets dropped for want of room while they still mattered.",
		func(s *peerlimit.Stats) uint64 { return s.Evicted }),

	counter("leases_granted_total", "Leases granted to other nodes.",
		func(s *peerlimit.Stats) uint64 { return s.LeasesGranted }),
	counter("leases_expired_total", "Leases not returned in time, all of whose tokens count as used.",
		func(s *peerlimit.Stats) uint64 { return s.LeasesExpired }),
	tokens("lease_tokens_granted_total", "Tokens in the leases that were granted.",
		func(s *peerlimit.Stats) float64 { return s.TokensLeased }),
	tokens("lease_tokens_used_total", "Tokens of leases that were used, as far as is known.",
		func(s *peerlimit.Stats) float64 { return s.TokensUsed }),
	tokens("lease_tokens_returned_total", "Tokens of leases that were returned unused.",
		func(s *peerlimit.Stats) float64 { return s.TokensReturned }),

	gauge("waiting_callers", "Callers of this node that wait for a turn, at the node that decides about their key.",
		func(s *peerlimit.Stats) int { return s.Waiting }),
	gauge("queued_turns", "Turns that are waited for at keys that this node holds.",
		func(s *peerlimit.Stats) int { return s.QueuedTurns }),
	labelled(turns, "served", func(s *peerlimit.Stats) uint64 { return s.ServedTurns }),
	labelled(turns, "left", func(s *peerlimit.Stats) uint64 { return s.LeftTurns }),
	labelled(turns, "refused", func(s *peerlimit.Stats) uint64 { return s.RefusedTurns }),

	counter("requests_served_total", "Requests of other nodes answered here.",
		func(s *peerlimit.Stats) uint64 { return s.Served }),
	counter("requests_passed_on_total", "Requests of other nodes sent on to the owner.",
		func(s *peerlimit.Stats) uint64 { return s.PassedOn }),
	counter("requests_refused_total", "Requests of other nodes that were malformed, or of another version.",
		func(s *peerlimit.Stats) uint64 { return s.Refused }),
	counter("unauthenticated_total", "Connections for takes that did not get through the handshake, and gossip that is not this cluster's.",
		func(s *peerlimit.Stats) uint64 { return s.Unauthenticated }),
	labelled(misfits, "cluster", func(s *peerlimit.Stats) uint64 { return s.OtherCluster }),
	labelled(misfits, "secret", func(s *peerlimit.Stats) uint64 { return s.OtherSecret }),
	gauge("seeds_not_joined", "Entries of Config.Join without a member there.",
		func(s *peerlimit.Stats) int { return s.SeedsNotJoined }),
	counter("failed_joins_total", "Look-ups and joins of seeds that failed.",
		func(s *peerlimit.Stats) uint64 { return s.FailedJoins }),
	labelled(failures, "timeout", func(s *peerlimit.Stats) uint64 { return s.Timeouts }),
	labelled(failures, "unreachable", func(s *peerlimit.Stats) uint64 { return s.Unreachable }),
	labelled(failures, "overloaded", func(s *peerlimit.Stats) uint64 { return s.Overloaded }),

	counter("lost_refunds_total", "Refunds and cancellations that did not reach the owner.",
		func(s *peerlimit.Stats) uint64 { return s.LostRefunds }),
	counter("dropped_debts_total", "Keys of which it was not reported what was spent by a share.",
		func(s *peerlimit.Stats) uint64 { return s.DroppedDebts }),
	counter("dropped_events_total", "Events that Config.OnEvent was too slow for.",
		func(s *peerlimit.Stats) uint64 { return s.EventsDropped }),
}

// origins are all that there are, as their names.
var origins = func() (all []peerlimit.Origin) {
	for o := peerlimit.OriginLocal; !strings.HasPrefix(o.String(), "Origin("); o++ {
		all = append(all, o)
	}
	return all
}()

// memberStates are all that there are, as their names.
var memberStates = func() (all []peerlimit.MemberState) {
	for s := peerlimit.MemberAlive; !strings.HasPrefix(s.String(), "MemberState("); s++ {
		all = append(all, s)
	}
	return all
}()

// Describe is for a registry.
func (c *Collector) Describe(descs chan<- *prometheus.Desc) {
	for i, m := range singles {
		if i == 0 || singles[i-1].desc != m.desc {
			descs <- m.desc
		}
	}
	descs <- requestTimes
	descs <- decisions
	descs <- peers
}

// Collect is for a registry.
func (c *Collector) Collect(metrics chan<- prometheus.Metric) {
	stats := c.node.Stats()
	for _, m := range singles {
		metrics <- prometheus.MustNewConstMetric(m.desc, m.kind, m.value(&stats), m.label...)
	}
	metrics <- histogram(&stats.RequestTimes)
	c.collectDecisions(metrics, stats.Limiters)
	c.collectPeers(metrics)
}

// histogram tells how many requests lasted no longer than each bound.
func histogram(h *peerlimit.Histogram) prometheus.Metric {
	buckets := make(map[float64]uint64, len(h.Bounds))
	var total uint64
	for i, count := range h.Counts {
		total += count
		if i < len(h.Bounds) {
			buckets[h.Bounds[i].Seconds()] = total
		}
	}
	return prometheus.MustNewConstHistogram(requestTimes, total, h.Sum.Seconds(), buckets)
}

// collectDecisions tells all origins and outcomes of each limiter, those that never were as 0: a rate needs to see where
// a counter began.
func (c *Collector) collectDecisions(metrics chan<- prometheus.Metric, limiters map[string]peerlimit.LimiterStats) {
	type outcome struct{ allowed, denied uint64 }
	sums := make(map[string][]outcome)
	for name, counts := range limiters {
		name = labelValue(name)
		if sums[name] == nil {
			sums[name] = make([]outcome, len(origins))
		}
		for i, o := range origins {
			sums[name][i].allowed += counts.Allowed[o]
			sums[name][i].denied += counts.Denied[o]
		}
	}
	for name, sum := range sums {
		for i, o := range origins {
			metrics <- prometheus.MustNewConstMetric(decisions, prometheus.CounterValue, float64(sum[i].allowed), name, o.String(), "allowed")
			metrics <- prometheus.MustNewConstMetric(decisions, prometheus.CounterValue, float64(sum[i].denied), name, o.String(), "denied")
		}
	}
}

func (c *Collector) collectPeers(metrics chan<- prometheus.Metric) {
	count := make(map[peerlimit.MemberState]int)
	for _, m := range c.node.Members() {
		if !m.Self {
			count[m.State]++
		}
	}
	for _, state := range memberStates {
		metrics <- prometheus.MustNewConstMetric(peers, prometheus.GaugeValue, float64(count[state]), state.String())
	}
}

// labelValue makes a limiter's name, which may be any bytes, one that Prometheus takes.
func labelValue(name string) string { return strings.ToValidUTF8(name, "\uFFFD") }
