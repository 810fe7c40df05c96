package peerlimit_test

import (
	"flag"
	"fmt"
	"math/rand/v2"
	"strconv"
	"strings"
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

var scaleNodes = flag.String("scale.nodes", "10", "`numbers` of nodes of the clusters of TestScale, separated by commas")

// TestScale has many nodes join at once, then one more, and then lets a third of all packets vanish. Takes go on all the time.
//
//	go test . -run 'TestScale$' -v -timeout 1h -scale.nodes 10,30,60,100
func TestScale(t *testing.T) {
	if onecore.RaceDetector {
		t.Skip("it finds out what many nodes cost; joins and losses are in TestSchedules as well")
	}
	for text := range strings.SplitSeq(*scaleNodes, ",") {
		size, err := strconv.Atoi(text)
		require.NoError(t, err, "-scale.nodes")
		t.Run(text, func(t *testing.T) {
			began := time.Now()
			synctest.Test(t, func(t *testing.T) {
				s := &scaleRun{t: t, size: size, cluster: peerlimittest.NewCluster(t, 1), limit: peerlimit.PerSecond(50).WithBurst(20)}
				s.run("join storm", 1, s.joinAll)
				s.run("one more joins", 1, func() { s.cluster.Add() })
				s.run("30 % loss", 2, func() {
					s.cluster.Degrade(peerlimittest.Conditions{Latency: peerlimittest.Healthy.Latency, Jitter: peerlimittest.Healthy.Jitter, Loss: 0.3})
					time.Sleep(10 * time.Second)
					s.cluster.Degrade(peerlimittest.Healthy)
				})
			})
			t.Logf("nodes=%d real=%v", size, time.Since(began).Round(100*time.Millisecond))
		})
	}
}

// scaleRun is a large cluster and what is asked of it.
type scaleRun struct {
	t       *testing.T
	size    int
	cluster *peerlimittest.Cluster
	limit   peerlimit.Limit
}

// joinAll starts all nodes but the first within a second.
func (s *scaleRun) joinAll() {
	var starting sync.WaitGroup
	for i := 1; i < s.size; i++ {
		starting.Go(func() {
			time.Sleep(time.Duration(i) * time.Second / time.Duration(s.size))
			s.cluster.Add()
		})
	}
	starting.Wait()
}

// run does something to the cluster while takes go on, waits until all nodes are one cluster and hold what is theirs, and
// judges the takes: each key may get factor times its limit.
func (s *scaleRun) run(what string, factor float64, do func()) {
	const keys, pause = 20, 2 * time.Millisecond
	began := time.Now()
	judges := make([]*oracle.Oracle, keys)
	for i := range judges {
		judges[i] = judge(s.limit)
	}
	before := s.counted()
	done := make(chan struct{})
	var asking sync.WaitGroup
	var mu sync.Mutex
	var slowest time.Duration
	takes := 0
	for caller := range 3 {
		asking.Go(func() {
			random := rand.New(rand.NewPCG(uint64(caller), uint64(s.size)))
			for {
				select {
				case <-done:
					return
				case <-time.After(pause):
				}
				nodes := s.cluster.Nodes()
				key, start := random.IntN(keys), time.Since(began)
				l, err := nodes[random.IntN(len(nodes))].Limiter("scale", s.limit)
				if !assert.NoError(s.t, err) {
					return
				}
				d, err := l.Take(s.t.Context(), fmt.Sprint("key-", key), 1)
				if !assert.NoError(s.t, err) {
					return
				}
				end := time.Since(began)
				if d.Allowed {
					judges[key].Admit(oracle.Take{Start: start, End: end, Cost: 1})
				}
				mu.Lock()
				takes, slowest = takes+1, max(slowest, end-start)
				mu.Unlock()
			}
		})
	}
	do()
	acted := time.Since(began)
	s.cluster.WaitReady()
	agreed := time.Since(began)
	time.Sleep(time.Second)
	close(done)
	asking.Wait()

	worst := 0.0
	for key, o := range judges {
		report := o.Against(oracle.Limit{Tokens: s.limit.Tokens, Period: s.limit.Period, Burst: s.limit.Burst}.Times(factor))
		assert.True(s.t, report.Within(0), "%s, key %d: %v", what, key, report)
		worst = max(worst, report.Worst.Admitted/report.Worst.Allowed*factor)
	}
	after := s.counted()
	s.t.Logf("nodes=%d what=%q acted=%v agreed=%v takes=%d byShare=%d slowest=%v worstWindow=%.3f ringChanges=%d gainedEmpty=%d", s.size, what,
		acted.Round(time.Millisecond), agreed.Round(time.Millisecond), takes, after.byShare-before.byShare, slowest.Round(time.Millisecond), worst,
		after.ringChanges-before.ringChanges, after.gainedEmpty-before.gainedEmpty)
}

// scaleCounts are counted by all nodes together.
type scaleCounts struct{ byShare, ringChanges, gainedEmpty uint64 }

func (s *scaleRun) counted() (c scaleCounts) {
	for _, node := range s.cluster.Nodes() {
		stats := node.Stats()
		c.ringChanges += stats.RingChanges
		c.gainedEmpty += stats.AcquiredEmpty
		for _, l := range stats.Limiters {
			for _, counts := range []map[peerlimit.Origin]uint64{l.Allowed, l.Denied} {
				c.byShare += counts[peerlimit.OriginStandby] + counts[peerlimit.OriginFallback]
			}
		}
	}
	return c
}
