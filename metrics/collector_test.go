package metrics_test

import (
	"context"
	"log/slog"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/peerlimit/peerlimit"
	"github.com/peerlimit/peerlimit/metrics"
)

// fake is a node that says what it is told to.
type fake struct {
	stats   peerlimit.Stats
	members []peerlimit.Member
}

func (f *fake) Stats() peerlimit.Stats      { return f.stats }
func (f *fake) Members() []peerlimit.Member { return f.members }

func mustNewCollector(t *testing.T, node metrics.Node) *metrics.Collector {
	t.Helper()
	c, err := metrics.NewCollector(node)
	require.NoError(t, err)
	return c
}

// Every field of Stats has a value of its own here, so that one that stands in for another shows.
func TestEveryFigureIsTold(t *testing.T) {
	f := &fake{
		stats: peerlimit.Stats{
			Members: 1, Known: 2, Reachable: 3, PartitionsOwned: 4, PartitionsHeld: 5, RingChanges: 6,
			AcquiredByTransfer: 7, AcquiredFromReplica: 8, AcquiredEmpty: 9, Keys: 10, DegradedKeys: 11, Evicted: 12,
			LeasesGranted: 13, LeasesExpired: 14, TokensLeased: 15.5, TokensUsed: 16.5, TokensReturned: 17.5,
			Served: 18, PassedOn: 19, Refused: 20, Timeouts: 21, Unreachable: 22, Overloaded: 23,
			LostRefunds: 24, DroppedDebts: 25, EventsDropped: 26, Unauthenticated: 30,
			LinksUp: 31, LinksSuspect: 32, LinksDown: 33, ReplicaLag: 1500 * time.Millisecond, Degraded: 34, QuorumLosses: 35, HasQuorum: true, MaxKeys: 36,
			Waiting: 37, QueuedTurns: 38, ServedTurns: 39, LeftTurns: 40, RefusedTurns: 41,
			OtherCluster: 42, OtherSecret: 43, SeedsNotJoined: 44, FailedJoins: 45,
			RequestTimes: peerlimit.Histogram{
				Bounds: []time.Duration{time.Millisecond, time.Second}, Counts: []uint64{3, 2, 1}, Sum: 5 * time.Second,
			},
			Limiters: map[string]peerlimit.LimiterStats{"api": {
				Allowed: map[peerlimit.Origin]uint64{peerlimit.OriginLocal: 27, peerlimit.OriginStandby: 28},
				Denied:  map[peerlimit.Origin]uint64{peerlimit.OriginDenialCache: 29},
			}},
		},
		members: []peerlimit.Member{
			{Self: true}, {}, {}, {State: peerlimit.MemberSuspect}, {State: peerlimit.MemberLost},
		},
	}
	for i := range reflect.TypeFor[peerlimit.Stats]().NumField() {
		field := reflect.TypeFor[peerlimit.Stats]().Field(i).Name
		require.False(t, reflect.ValueOf(f.stats).Field(i).IsZero(), "Stats.%s is new: give it a metric", field)
	}
	values := strings.Join([]string{
		"peerlimit_members 1", "peerlimit_known_members 2", "peerlimit_reachable_members 3",
		"peerlimit_partitions_owned 4", "peerlimit_partitions_held 5", "peerlimit_ring_changes_total 6",
		`peerlimit_partitions_acquired_total{source="transfer"} 7`, `peerlimit_partitions_acquired_total{source="replica"} 8`,
		`peerlimit_partitions_acquired_total{source="empty"} 9`, "peerlimit_keys 10", "peerlimit_degraded_keys 11",
		"peerlimit_evictions_total 12", "peerlimit_leases_granted_total 13", "peerlimit_leases_expired_total 14",
		"peerlimit_lease_tokens_granted_total 15.5", "peerlimit_lease_tokens_used_total 16.5",
		"peerlimit_lease_tokens_returned_total 17.5", "peerlimit_requests_served_total 18",
		"peerlimit_requests_passed_on_total 19", "peerlimit_requests_refused_total 20",
		`peerlimit_request_failures_total{reason="timeout"} 21`, `peerlimit_request_failures_total{reason="unreachable"} 22`,
		`peerlimit_request_failures_total{reason="overloaded"} 23`, "peerlimit_lost_refunds_total 24",
		"peerlimit_dropped_debts_total 25", "peerlimit_dropped_events_total 26", "peerlimit_unauthenticated_total 30",
		`peerlimit_links{state="up"} 31`, `peerlimit_links{state="suspect"} 32`, `peerlimit_links{state="down"} 33`,
		"peerlimit_replica_lag_seconds 1.5", "peerlimit_degraded_total 34", "peerlimit_quorum 1", "peerlimit_quorum_losses_total 35", "peerlimit_max_keys 36",
		"peerlimit_waiting_callers 37", "peerlimit_queued_turns 38", `peerlimit_turns_total{outcome="served"} 39`,
		`peerlimit_turns_total{outcome="left"} 40`, `peerlimit_turns_total{outcome="refused"} 41`,
		`peerlimit_request_duration_seconds_bucket{le="0.001"} 3`, `peerlimit_request_duration_seconds_bucket{le="1"} 5`,
		`peerlimit_request_duration_seconds_bucket{le="+Inf"} 6`, "peerlimit_request_duration_seconds_sum 5",
		`peerlimit_decisions_total{limiter="api",origin="local",outcome="allowed"} 27`,
		`peerlimit_decisions_total{limiter="api",origin="standby",outcome="allowed"} 28`,
		`peerlimit_decisions_total{limiter="api",origin="denial-cache",outcome="denied"} 29`,
		`peerlimit_decisions_total{limiter="api",origin="fallback",outcome="denied"} 0`,
		`peerlimit_peers{state="alive"} 2`, `peerlimit_peers{state="suspect"} 1`,
		`peerlimit_misfits_total{reason="cluster"} 42`, `peerlimit_misfits_total{reason="secret"} 43`, "peerlimit_seeds_not_joined 44",
		"peerlimit_failed_joins_total 45",
		`peerlimit_peers{state="leaving"} 0`, `peerlimit_peers{state="lost"} 1`,
	}, "\n")
	told := exposition(t, mustNewCollector(t, f))
	for _, line := range strings.Split(values, "\n") {
		assert.Contains(t, told, "\n"+line+"\n")
	}
	assert.Equal(t, 45+12+4, testutil.CollectAndCount(mustNewCollector(t, f)), "each once")
}

// exposition is what a scrape would see.
func exposition(t *testing.T, collectors ...prometheus.Collector) string {
	t.Helper()
	registry := prometheus.NewPedanticRegistry()
	for _, c := range collectors {
		require.NoError(t, registry.Register(c))
	}
	families, err := registry.Gather()
	require.NoError(t, err)
	var text strings.Builder
	text.WriteString("\n")
	for _, family := range families {
		require.NoError(t, writeText(&text, family))
	}
	return text.String()
}

// All names, units and help texts are as Prometheus wants them.
func TestLint(t *testing.T) {
	for _, c := range all(t) {
		problems, err := testutil.CollectAndLint(c)
		require.NoError(t, err)
		assert.Empty(t, problems)
	}
}

// all returns every collector of the package, with something in it.
func all(t *testing.T) []prometheus.Collector {
	t.Helper()
	node, err := peerlimit.Start(peerlimit.Config{Logger: slog.New(slog.DiscardHandler)})
	require.NoError(t, err)
	t.Cleanup(func() { _ = node.Close() })
	limiter, err := node.Limiter("api", peerlimit.PerHour(2))
	require.NoError(t, err)
	durations := metrics.NewTakeDurations()
	timed, err := durations.Of("api", limiter)
	require.NoError(t, err)
	require.True(t, timed.Allow(t.Context(), "k"))
	return []prometheus.Collector{mustNewCollector(t, node), metrics.NewEvents(), durations}
}

func TestLimiterNamesMayBeAnything(t *testing.T) {
	counts := peerlimit.LimiterStats{Allowed: map[peerlimit.Origin]uint64{peerlimit.OriginLocal: 2}}
	told := exposition(t, mustNewCollector(t, &fake{stats: peerlimit.Stats{Limiters: map[string]peerlimit.LimiterStats{
		"a\xffb": counts, "a\xfeb": counts, "x\"y\nz": counts,
	}}}))
	assert.Contains(t, told, "{limiter=\"a\uFFFDb\",origin=\"local\",outcome=\"allowed\"} 4\n", "those that look the same are one")
	assert.Contains(t, told, `{limiter="x\"y\nz",origin="local",outcome="allowed"} 2`)
}

// A node of its own, with decisions, events and durations, as a program has them.
func TestARealNode(t *testing.T) {
	events := metrics.NewEvents()
	node, err := peerlimit.Start(peerlimit.Config{OnEvent: events.Count, Logger: slog.New(slog.DiscardHandler)})
	require.NoError(t, err)
	limiter, err := node.Limiter("api", peerlimit.PerHour(2))
	require.NoError(t, err)
	durations := metrics.NewTakeDurations()
	timed, err := durations.Of("api", limiter)
	require.NoError(t, err)
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	require.NoError(t, node.WaitReady(ctx, 1))

	for _, want := range []bool{true, true, false} {
		assert.Equal(t, want, timed.Allow(ctx, "bob"))
	}
	_, err = timed.Take(ctx, "", 1)
	assert.ErrorIs(t, err, peerlimit.ErrInvalidKey)
	assert.False(t, timed.AllowN(ctx, "bob", -1))

	collector := mustNewCollector(t, node)
	told := exposition(t, collector, events, durations)
	for _, line := range []string{
		`peerlimit_decisions_total{limiter="api",origin="local",outcome="allowed"} 2`,
		`peerlimit_decisions_total{limiter="api",origin="local",outcome="denied"} 1`,
		"peerlimit_members 1", "peerlimit_partitions_held 4093",
		`peerlimit_take_duration_seconds_count{limiter="api",origin="local"} 3`,
		`peerlimit_take_duration_seconds_count{limiter="api",origin="error"} 2`,
		`peerlimit_events_total{event="link_down"} 0`,
	} {
		assert.Contains(t, told, "\n"+line+"\n")
	}
	assert.NotContains(t, told, "bob", "keys are nobody's business")

	require.NoError(t, node.Close())
	assert.Contains(t, exposition(t, collector, events), `peerlimit_events_total{event="acquired"} `, "also afterwards")
	require.Positive(t, testutil.ToFloat64(countOf{events, "acquired"}))
}

// countOf is one series of Events.
type countOf struct {
	*metrics.Events
	event string
}

func (c countOf) Collect(out chan<- prometheus.Metric) {
	all := make(chan prometheus.Metric, 100)
	c.Events.Collect(all)
	close(all)
	for m := range all {
		if strings.Contains(text(m), `"`+c.event+`"`) {
			out <- m
		}
	}
}

func TestWhatIsMissingIsNamed(t *testing.T) {
	_, err := metrics.NewCollector(nil)
	assert.ErrorIs(t, err, metrics.ErrInvalid)
	_, err = metrics.NewCollector((*peerlimit.Node)(nil))
	assert.EqualError(t, err, "metrics: invalid collector: node is nil")
	_, err = metrics.NewTakeDurations().Of("api", nil)
	assert.ErrorIs(t, err, metrics.ErrInvalid)
}

// The series of a name that was timed end when it is forgotten, and those of others stay.
func TestForgottenDurations(t *testing.T) {
	node, err := peerlimit.Start(peerlimit.Config{Logger: slog.New(slog.DiscardHandler)})
	require.NoError(t, err)
	t.Cleanup(func() { _ = node.Close() })
	limiter, err := node.Limiter("api", peerlimit.PerHour(2))
	require.NoError(t, err)
	durations := metrics.NewTakeDurations()
	for _, name := range []string{"a\xff", "b"} {
		timed, err := durations.Of(name, limiter)
		require.NoError(t, err)
		require.True(t, timed.Allow(t.Context(), "k"))
	}
	require.Contains(t, exposition(t, durations), "limiter=\"a\uFFFD\"")
	durations.Forget("a\xff")
	told := exposition(t, durations)
	assert.NotContains(t, told, "limiter=\"a\uFFFD\"")
	assert.Contains(t, told, `limiter="b"`)
}
