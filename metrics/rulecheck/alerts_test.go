package rulecheck

import (
	"strings"
	"testing"
	"time"

	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/rulefmt"
	"github.com/prometheus/prometheus/promql"
	"github.com/prometheus/prometheus/promql/promqltest"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// alertRules returns the rules by name, as Prometheus reads them.
func alertRules(t *testing.T) map[string]rulefmt.Rule {
	t.Helper()
	groups, problems := rulefmt.ParseFile("../../deploy/alerts.yaml", false, model.UTF8Validation)
	require.Empty(t, problems)
	rules := make(map[string]rulefmt.Rule)
	for _, group := range groups.Groups {
		for _, rule := range group.Rules {
			require.NotEmpty(t, rule.Alert, "a rule that is no alert: %s", rule.Expr)
			rules[rule.Alert] = rule
			assert.NotEmpty(t, rule.Annotations["summary"], rule.Alert)
			assert.NotEmpty(t, rule.Annotations["description"], rule.Alert)
			assert.Contains(t, []string{"warning", "critical"}, rule.Labels["severity"], rule.Alert)
		}
	}
	return rules
}

// scenario is what three instances are scraped with, every 15 s, and which of them are told of in the end; none when all
// is well. The notation is that of Prometheus's rule tests: start+step x times.
type scenario struct {
	name   string
	series string // @ stands for job="api", and a, b, c for instances
	fires  []string
}

// scenarios are for each alert what sets it off, and what looks like that and must not.
var scenarios = map[string][]scenario{
	"PeerlimitMembersDisagree": {
		{"all agree", `peerlimit_members{@,a} 3x40; peerlimit_members{@,b} 3x40; peerlimit_members{@,c} 3x40`, nil},
		{"one is alone", `peerlimit_members{@,a} 3x40; peerlimit_members{@,b} 3x40; peerlimit_members{@,c} 1x40`, []string{"c"}},
		{"a deploy", `peerlimit_members{@,a} 3 4 4 3x37; peerlimit_members{@,b} 3x40; peerlimit_members{@,c} 3x40`, nil},
		{"another service", `peerlimit_members{@,a} 1x40; peerlimit_members{job="other",b} 1x40`, nil},
	},
	"PeerlimitNoQuorum": {
		{"all have it", `peerlimit_quorum{@,a} 1x40; peerlimit_quorum{@,b} 1x40`, nil},
		{"one has none", `peerlimit_quorum{@,a} 1x40; peerlimit_quorum{@,b} 0x40`, []string{"b"}},
	},
	"PeerlimitPartitionsNotHeld": {
		{"all", `peerlimit_partitions_held{@,a} 1364x40; peerlimit_partitions_owned{@,a} 1364x40`, nil},
		{"more", `peerlimit_partitions_held{@,a} 1400x40; peerlimit_partitions_owned{@,a} 1364x40`, nil},
		{"none", `peerlimit_partitions_held{@,a} 0x40; peerlimit_partitions_owned{@,a} 1364x40`, []string{"a"}},
	},
	"PeerlimitDecidesByShare": {
		{"exact", `peerlimit_decisions_total{@,a,origin="local"} 0+1000x40; peerlimit_decisions_total{@,a,origin="standby"} 5x40`, nil},
		{"by shares", `peerlimit_decisions_total{@,a,origin="local"} 0+1000x40; peerlimit_decisions_total{@,b,origin="fallback"} 0+2x40`, []string{""}},
		{"nothing at all", `peerlimit_decisions_total{@,a,origin="local"} 5x40; peerlimit_decisions_total{@,a,origin="standby"} 5x40`, nil},
	},
	"PeerlimitTimeouts": {
		{"none", `peerlimit_request_failures_total{@,a,reason="timeout"} 7x60; peerlimit_ring_changes_total{@,a} 3x60`, nil},
		{"some", `peerlimit_request_failures_total{@,a,reason="timeout"} 0+10x60; peerlimit_ring_changes_total{@,a} 3x60`, []string{"a"}},
		{"in deploys", `peerlimit_request_failures_total{@,a,reason="timeout"} 0+10x60; peerlimit_ring_changes_total{@,a} 3+1x60`, nil},
		{"others", `peerlimit_request_failures_total{@,a,reason="unreachable"} 0+10x60; peerlimit_ring_changes_total{@,a} 3x60`, nil},
	},
	"PeerlimitOverloaded": {
		{"none", `peerlimit_request_failures_total{@,a,reason="overloaded"} 4x60`, nil},
		{"some", `peerlimit_request_failures_total{@,b,reason="overloaded"} 0+10x60`, []string{"b"}},
	},
	"PeerlimitEvictions": {
		{"none", `peerlimit_evictions_total{@,a} 900x40`, nil},
		{"some", `peerlimit_evictions_total{@,a} 0x30 1 2 3x8`, []string{"a"}},
	},
	"PeerlimitRefused": {
		{"none", `peerlimit_requests_refused_total{@,a} 0x40`, nil},
		{"one", `peerlimit_requests_refused_total{@,a} 0x30 1x10`, []string{"a"}},
	},
	"PeerlimitSetUp": {
		{"none", `peerlimit_misfits_total{@,a,reason="secret"} 0x40; peerlimit_misfits_total{@,a,reason="cluster"} 3x40`, nil},
		{"another secret", `peerlimit_misfits_total{@,a,reason="secret"} 0x30 1+6x10; peerlimit_misfits_total{@,a,reason="cluster"} 0x40`, []string{"a"}},
	},
	"PeerlimitSeedNotJoined": {
		{"all", `peerlimit_seeds_not_joined{@,a} 0x40`, nil},
		{"a deploy", `peerlimit_seeds_not_joined{@,a} 0x20 1x4 0x16`, nil},
		{"one is not there", `peerlimit_seeds_not_joined{@,a} 1x40`, []string{"a"}},
	},
	"PeerlimitForgot": {
		{"the first node starts", `peerlimit_partitions_acquired_total{@,a,source="empty"} 0 4093x40; peerlimit_members{@,a} 1 1 2 3x38`, nil},
		{"a join", `peerlimit_partitions_acquired_total{@,b,source="transfer"} 0 1364x40; peerlimit_members{@,b} 3x41`, nil},
		{"two die", `peerlimit_partitions_acquired_total{@,a,source="empty"} 9x30 400x10; peerlimit_members{@,a} 5x30 3x10`, []string{"a"}},
	},
	"PeerlimitManyKeys": {
		{"few", `peerlimit_keys{@,a} 700000x40; peerlimit_max_keys{@,a} 1000000x40`, nil},
		{"many", `peerlimit_keys{@,a} 700000+10000x40; peerlimit_max_keys{@,a} 1000000x40`, []string{"a"}},
		{"few, of more", `peerlimit_keys{@,a} 700000+10000x40; peerlimit_max_keys{@,a} 2000000x40`, nil},
	},
	"PeerlimitReplicaLags": {
		{"as always", `peerlimit_replica_lag_seconds{@,a} 0.02x40`, nil},
		{"cut off", `peerlimit_replica_lag_seconds{@,a} 0.02x20 0+15x20`, []string{"a"}},
	},
}

// Each alert fires when it should and is silent when it should be.
func TestAlertsFire(t *testing.T) {
	rules := alertRules(t)
	for alert := range scenarios {
		assert.Contains(t, rules, alert)
	}
	for alert, rule := range rules {
		require.NotEmpty(t, scenarios[alert], "%s was never seen to fire", alert)
		fired := false
		for _, s := range scenarios[alert] {
			t.Run(alert+"/"+s.name, func(t *testing.T) {
				assert.ElementsMatch(t, s.fires, firing(t, rule, s.series))
			})
			fired = fired || len(s.fires) > 0
		}
		assert.True(t, fired, "%s was never seen to fire", alert)
	}
}

const scrape = 15 * time.Second

// firing returns the instances for which the rule's expression holds for as long as the rule asks, at some time.
func firing(t *testing.T, rule rulefmt.Rule, series string) (instances []string) {
	t.Helper()
	for short, long := range map[string]string{"@": `job="api"`, ",a": `,instance="a"`, ",b": `,instance="b"`, ",c": `,instance="c"`, "; ": "\n "} {
		series = strings.ReplaceAll(series, short, long)
	}
	storage := promqltest.LoadedStorage(t, "load 15s\n "+series)
	engine := promqltest.NewTestEngine(t, false, 0, 100_000)
	start := time.Unix(0, 0)
	query, err := engine.NewRangeQuery(t.Context(), storage, nil, rule.Expr, start, start.Add(60*scrape), scrape)
	require.NoError(t, err)
	defer query.Close()
	matrix, err := query.Exec(t.Context()).Matrix()
	require.NoError(t, err)
	for _, s := range matrix {
		if longest(s.Floats) >= time.Duration(rule.For) {
			instances = append(instances, s.Metric.Get("instance"))
		}
	}
	return instances
}

// longest returns for how long a series had a value at a stretch.
func longest(points []promql.FPoint) (best time.Duration) {
	began := 0
	for i := range points {
		if i > 0 && points[i].T-points[i-1].T > scrape.Milliseconds() {
			began = i
		}
		best = max(best, time.Duration(points[i].T-points[began].T)*time.Millisecond)
	}
	return best
}
