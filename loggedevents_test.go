package peerlimit_test

import (
	"log/slog"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/peerlimit/peerlimit"
	"github.com/peerlimit/peerlimit/peerlimittest"
)

// linesWith returns the lines of a log that have a text.
func linesWith(logs *peerlimit.LockedBuffer, text string) (lines []string) {
	for line := range strings.Lines(logs.String()) {
		if strings.Contains(line, text) {
			lines = append(lines, strings.TrimSpace(line))
		}
	}
	return lines
}

// loggedAt has nodes log what is of a level into one log.
func loggedAt(level slog.Level) (*peerlimit.LockedBuffer, peerlimittest.Option) {
	logs := new(peerlimit.LockedBuffer)
	return logs, func(c *peerlimit.Config) {
		c.Logger = slog.New(slog.NewTextHandler(logs, &slog.HandlerOptions{Level: level}))
	}
}

// A member that stands still for a moment is a line for a search and none for an operator; one that stands still for longer is
// one for the operator.
func TestAMemberThatIsSilentForAMomentIsLoggedForASearch(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		logs, logged := loggedAt(slog.LevelDebug)
		cluster := peerlimittest.NewCluster(t, 3)
		node := cluster.Add(logged)
		cluster.WaitReady()
		time.Sleep(20 * time.Second)
		const silent, again = `level=DEBUG msg="member does not answer for the moment" node=`, `level=DEBUG msg="member answers again" node=`
		require.Empty(t, linesWith(logs, silent))
		limiter, err := node.Limiter("api", peerlimit.PerHour(1000))
		require.NoError(t, err)
		key := "k"
		for limiter.Owner(key).Name != cluster.Node(0).Self().Name {
			key += "k"
		}
		cluster.Freeze(0)
		var takes sync.WaitGroup
		for range 4 { // three that are not answered make the link suspect
			takes.Go(func() { limiter.Allow(t.Context(), key) })
		}
		time.Sleep(300 * time.Millisecond)
		takes.Wait()
		cluster.Thaw(0)
		time.Sleep(12 * time.Second)
		about := func(text string) (lines []string) {
			for _, line := range linesWith(logs, text) {
				if strings.Contains(line, " member="+cluster.Node(0).Self().Name) {
					lines = append(lines, line)
				}
			}
			return lines
		}
		require.Len(t, about(silent), 1, logs.String())
		require.Len(t, about(again), 1, logs.String())
		require.Empty(t, linesWith(logs, "cannot reach member"))

		cluster.Freeze(0)
		limiter.Allow(t.Context(), key)
		time.Sleep(5 * time.Second)
		require.Len(t, linesWith(logs, "cannot reach member"), 1)
		require.Len(t, about(`level=WARN msg="cannot reach member, `), 1)
	})
}

// Partitions that nobody has anything of any more are a warning, but not in the first seconds of a node, where they are the rule.
func TestPartitionsThatAreAcquiredWithoutStateAreLogged(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		logs, logged := loggedAt(slog.LevelInfo)
		cluster := peerlimittest.NewCluster(t, 3, logged, func(c *peerlimit.Config) { c.ReplicaInterval = -1 })
		cluster.WaitReady()
		time.Sleep(20 * time.Second)
		const without = `level=WARN msg="partitions acquired without state, their keys start with a full burst"`
		require.Empty(t, linesWith(logs, without), "nobody had any when the nodes started")
		require.NotEmpty(t, linesWith(logs, `level=INFO msg="partitions acquired"`))

		cluster.Kill(0)
		time.Sleep(20 * time.Second)
		lines := linesWith(logs, without)
		require.NotEmpty(t, lines, logs.String())
		for _, line := range lines {
			require.Regexp(t, `detail="\d+ partitions: 0 by transfer, 0 from replicas, [1-9]\d* empty"`, line)
		}
	})
}
