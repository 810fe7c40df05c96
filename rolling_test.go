package peerlimit_test

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/peerlimit/peerlimit"
	"github.com/peerlimit/peerlimit/internal/onecore"
	"github.com/peerlimit/peerlimit/internal/oracle"
	"github.com/peerlimit/peerlimit/peerlimittest"
)

// A rolling deploy that changes what a limiter says: nodes with the old and the new limits work side by side, each take
// is judged by the limits it brings, and together they stay within the larger of each. Nobody gets a fresh bucket.
func TestRollingDeployChangesALimiter(t *testing.T) {
	before := []peerlimit.Limit{peerlimit.PerMinute(60)}
	for name, after := range map[string][]peerlimit.Limit{
		"higher rate":       {peerlimit.PerMinute(120)},
		"lower rate":        {peerlimit.PerMinute(30)},
		"smaller burst":     {peerlimit.PerMinute(60).WithBurst(10)},
		"one limit more":    {peerlimit.PerMinute(60), peerlimit.PerHour(100)},
		"another order":     {peerlimit.PerHour(100), peerlimit.PerMinute(60)},
		"all of it at once": {peerlimit.PerHour(90), peerlimit.PerMinute(80).WithBurst(20), peerlimit.PerSecond(10)},
	} {
		if onecore.RaceDetector && len(after) < 3 {
			continue // the same goroutines
		}
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) { deploy(t, before, after) })
		})
	}
}

// deploy replaces three nodes one by one, under load, by nodes with other limits. Keys of the period that both have are
// judged by the larger numbers.
func deploy(t *testing.T, before, after []peerlimit.Limit) {
	const keys = 20
	cluster := peerlimittest.NewCluster(t, 3)
	began := time.Now()
	larger := before[0]
	for _, l := range after {
		if l.Period == larger.Period {
			larger.Tokens, larger.Burst = max(larger.Tokens, l.Tokens), max(larger.Tokens, l.Tokens, l.Burst)
		}
	}
	var oracles [keys]*oracle.Oracle
	for i := range oracles {
		oracles[i] = judge(larger)
	}
	var load sync.WaitGroup
	drive := func(node *peerlimit.Node, limits []peerlimit.Limit) (stop func()) {
		limiter, err := node.Limiter("api", limits...)
		require.NoError(t, err)
		ctx, cancel := context.WithCancel(context.Background())
		load.Go(func() {
			for i := 0; ctx.Err() == nil; i++ {
				start := time.Since(began)
				d, err := limiter.Take(ctx, fmt.Sprint(i%keys), 1)
				if err == nil {
					assert.NotEqual(t, peerlimit.OriginFallback, d.Origin)
					if d.Allowed {
						oracles[i%keys].Admit(oracle.Take{Start: start, End: time.Since(began), Cost: 1})
					}
				}
				time.Sleep(5 * time.Millisecond)
			}
		})
		return cancel
	}
	stops := make(map[int]func())
	for i := range 3 {
		stops[i] = drive(cluster.Node(i), before)
	}
	time.Sleep(20 * time.Second) // every key is exhausted
	for i := range 3 {
		node := cluster.Add()
		stops[3+i] = drive(node, after)
		time.Sleep(2 * time.Second)
		stops[i]()
		require.NoError(t, cluster.Leave(context.Background(), i))
	}
	time.Sleep(5 * time.Second)
	for i := range 3 {
		stops[3+i]()
	}
	load.Wait()
	for i, o := range oracles {
		report := requireHeld(t, o, 0)
		require.Positive(t, report.Takes, "key %d", i)
	}
	var gained peerlimit.Stats
	for _, node := range cluster.Nodes() {
		gained.AcquiredByTransfer += node.Stats().AcquiredByTransfer
		gained.AcquiredFromReplica += node.Stats().AcquiredFromReplica
		gained.AcquiredEmpty += node.Stats().AcquiredEmpty
	}
	require.Positive(t, gained.AcquiredByTransfer)
	require.Zero(t, gained.AcquiredEmpty, "nobody got a fresh bucket")
	require.Zero(t, gained.AcquiredFromReplica, "everything was handed over")
}

// A secret is changed on a live cluster, under load, by three rolling deploys: no call fails and no bucket is forgotten.
func TestSecretIsChangedWithoutDowntime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cluster := peerlimittest.NewCluster(t, 3, withSecret(oldSecret))
		limit := peerlimit.PerHour(20)
		const keys = 30
		var oracles [keys]*oracle.Oracle
		for i := range oracles {
			oracles[i] = judge(limit)
		}
		began := time.Now()
		var load sync.WaitGroup
		drive := func(node *peerlimit.Node) (stop func()) {
			l, err := node.Limiter("api", limit)
			require.NoError(t, err)
			ctx, cancel := context.WithCancel(context.Background())
			load.Go(func() {
				for i := 0; ctx.Err() == nil; i++ {
					start := time.Since(began)
					d, err := l.Take(context.Background(), fmt.Sprint(i%keys), 1)
					if assert.NoError(t, err) && d.Allowed {
						oracles[i%keys].Admit(oracle.Take{Start: start, End: time.Since(began), Cost: 1})
					}
					assert.NotContains(t, []peerlimit.Origin{peerlimit.OriginFallback, peerlimit.OriginStandby}, d.Origin)
					time.Sleep(5 * time.Millisecond)
				}
			})
			return cancel
		}
		stops := make(map[int]func())
		for i := range 3 {
			stops[i] = drive(cluster.Node(i))
		}
		time.Sleep(3 * time.Second)
		for deploy, secrets := range []peerlimittest.Option{
			withSecret(oldSecret, newSecret), withSecret(newSecret, oldSecret), withSecret(newSecret),
		} {
			for i := 3 * deploy; i < 3*deploy+3; i++ {
				stops[i+3] = drive(cluster.Add(secrets))
				time.Sleep(2 * time.Second)
				stops[i]()
				require.NoError(t, cluster.Leave(context.Background(), i))
			}
		}
		for i := 9; i < 12; i++ {
			stops[i]()
		}
		load.Wait()
		for i, o := range oracles {
			report := requireHeld(t, o, 0)
			require.Equal(t, 20.0, report.Run.Admitted, "key %d", i)
		}
		for _, node := range cluster.Nodes() {
			assert.Equal(t, 3, node.Stats().Members)
		}
	})
}
