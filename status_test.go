package peerlimit_test

import (
	"fmt"
	"slices"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/peerlimit/peerlimit"
	"github.com/peerlimit/peerlimit/internal/ring"
	"github.com/peerlimit/peerlimit/peerlimittest"
	"github.com/peerlimit/peerlimit/transport"
)

func TestSampleTakes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cluster := peerlimittest.NewCluster(t, 2)
		limiters := cluster.Limiters("api", peerlimit.PerHour(3))
		node := cluster.Node(0)
		for _, every := range []int{0, -1, 1 << 32} {
			_, err := node.SampleTakes(every, func(peerlimit.Sample) {})
			require.ErrorIs(t, err, peerlimit.ErrInvalidConfig)
		}
		_, err := node.SampleTakes(1, nil)
		require.ErrorIs(t, err, peerlimit.ErrInvalidConfig)

		var all []peerlimit.Sample
		stop, err := node.SampleTakes(1, func(s peerlimit.Sample) { all = append(all, s) })
		require.NoError(t, err)
		var some atomic.Int64
		stopSome, err := node.SampleTakes(10, func(peerlimit.Sample) { some.Add(1) })
		require.NoError(t, err)
		here, there := keyOwnedBy(t, limiters[0], node.Self().Name, "k"), keyOwnedBy(t, limiters[0], cluster.Node(1).Self().Name, "k")
		for range 4 {
			for _, key := range []string{here, there} {
				_, err := limiters[0].Take(t.Context(), key, 1)
				require.NoError(t, err)
			}
		}
		_, err = limiters[0].Peek(t.Context(), here)
		require.NoError(t, err)
		require.Len(t, all, 8, "looking decides nothing")
		require.Equal(t, peerlimit.Sample{Limiter: "api", Key: here, Cost: 1, Allowed: true, Origin: peerlimit.OriginLocal}, all[0])
		require.Equal(t, peerlimit.Sample{Limiter: "api", Key: there, Cost: 1, Allowed: true, Origin: peerlimit.OriginRemote}, all[1])
		require.False(t, all[6].Allowed)
		stop()
		stop()
		for range 10_000 {
			_, err := limiters[0].Take(t.Context(), here, 1)
			require.NoError(t, err)
		}
		require.Len(t, all, 8)
		require.InEpsilon(t, 1000, some.Load(), 0.3, "about every tenth")
		stopSome()
	})
}

func TestStatus(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		began := time.Now()
		cluster := peerlimittest.NewCluster(t, 3)
		node := cluster.Node(0)
		_, err := node.Limiter("b", peerlimit.PerSecond(5), peerlimit.PerHour(50))
		require.NoError(t, err)
		a, err := node.Limiter("a", peerlimit.PerSecond(1))
		require.NoError(t, err)
		_, err = a.Take(t.Context(), "k", 1)
		require.NoError(t, err)
		time.Sleep(time.Second)

		s := node.Status()
		require.Equal(t, node.Self(), s.Self)
		require.True(t, s.Majority)
		require.Zero(t, s.Acquiring)
		require.WithinDuration(t, began, s.Started, time.Second)
		require.Len(t, s.Members, 3)
		partitions := 0
		for _, m := range s.Members {
			partitions += m.Partitions
			if !m.Self {
				require.Equal(t, transport.LinkUp, m.Link)
				require.True(t, m.Witness)
				require.Less(t, m.Evidence, 200*time.Millisecond)
			}
		}
		require.Equal(t, ring.Partitions, partitions)
		require.Equal(t, []string{"a", "b"}, []string{s.Limiters[0].Name, s.Limiters[1].Name})
		require.Len(t, s.Limiters[1].Limits, 2)
		require.NotEmpty(t, s.Limiters[0].Allowed)
		require.True(t, slices.ContainsFunc(s.Events, func(e peerlimit.Event) bool { return e.Kind == peerlimit.EventRing }), "though nobody receives them")
		require.True(t, slices.IsSortedFunc(s.Events, func(a, b peerlimit.Event) int { return b.Time.Compare(a.Time) }), "the latest first")

		l, ok := node.LimiterNamed("a")
		require.True(t, ok)
		require.Same(t, a, l)
		_, ok = node.LimiterNamed("c")
		require.False(t, ok)

		cluster.Kill(2)
		cluster.Kill(1)
		time.Sleep(2 * time.Second)
		s = node.Status()
		require.False(t, s.Majority)
		require.Equal(t, peerlimit.EventQuorumLost, kindOfFirst(s.Events, peerlimit.EventQuorumLost))
	})
}

// kindOfFirst returns the kind if one of the events has it.
func kindOfFirst(events []peerlimit.Event, kind peerlimit.EventKind) peerlimit.EventKind {
	for _, e := range events {
		if e.Kind == kind {
			return kind
		}
	}
	return 0
}

func TestStatusRemembersTheLastEventsOnly(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cluster := peerlimittest.NewCluster(t, 3)
		for range 40 {
			cluster.CutBoth(0, 1)
			time.Sleep(2 * time.Second)
			cluster.Mend(0, 1)
			time.Sleep(2 * time.Second)
		}
		events := cluster.Node(0).Status().Events
		require.Len(t, events, 64)
		for i := range events[1:] {
			require.False(t, events[i].Time.Before(events[i+1].Time))
		}
	})
}

// All nodes say the same, and after the owner's end it is as was said.
func TestPlacementNamesWhoIsNext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cluster := peerlimittest.NewCluster(t, 3)
		limiters := cluster.Limiters("api", peerlimit.PerSecond(1))
		before := make(map[string]peerlimit.Placement)
		for i := range 100 {
			key := fmt.Sprint("user-", i)
			p := limiters[0].Placement(key)
			before[key] = p
			require.Equal(t, limiters[0].Owner(key), p.Owner)
			require.Len(t, p.Standbys, 1)
			require.NotEmpty(t, p.Standbys[0].Name)
			require.NotEqual(t, p.Owner.Name, p.Standbys[0].Name)
			for _, l := range limiters {
				require.Equal(t, p.Partition, l.Placement(key).Partition)
				require.Equal(t, p.Standbys[0].Name, l.Placement(key).Standbys[0].Name)
			}
		}
		gone := cluster.Node(2).Self().Name
		cluster.Kill(2)
		time.Sleep(5 * time.Second)
		for key, p := range before {
			next := p.Owner.Name
			if next == gone {
				next = p.Standbys[0].Name
			}
			require.Equal(t, next, limiters[0].Placement(key).Owner.Name)
		}
	})
}

func TestPlacementWithoutOthersHasNoStandby(t *testing.T) {
	node, err := peerlimit.Start(peerlimit.Config{})
	require.NoError(t, err)
	defer node.Close()
	limiter, err := node.Limiter("api", peerlimit.PerSecond(1))
	require.NoError(t, err)
	p := limiter.Placement("user")
	require.True(t, p.Owner.Self)
	require.Empty(t, p.Standbys)
}
