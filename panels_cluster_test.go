package peerlimit_test

import (
	"fmt"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/peerlimit/peerlimit"
	"github.com/peerlimit/peerlimit/internal/inspect"
	"github.com/peerlimit/peerlimit/internal/panel"
	"github.com/peerlimit/peerlimit/peerlimittest"
)

// awaitPanel waits until all nodes have one panel with so many witnesses, all of them among the nodes, and a quorum.
func awaitPanel(t *testing.T, nodes []*peerlimit.Node, witnesses int, within time.Duration) panel.Panel {
	t.Helper()
	names := make([]string, len(nodes))
	for i, n := range nodes {
		names[i] = n.Self().Name
	}
	var said string
	for began := time.Now(); time.Since(began) < within; time.Sleep(50 * time.Millisecond) {
		said = ""
		first, _ := inspect.Panel(nodes[0])
		agreed := len(first.Witnesses) == witnesses
		for _, n := range nodes {
			p, full := inspect.Panel(n)
			said += fmt.Sprintf("\n%s: %d of %s, witnesses %v, members %d, quorum %v", n.Self().Name, p.Number, p.Origin.Name, p.Witnesses, p.Members, full)
			agreed = agreed && p.Equal(first) && full
		}
		for _, w := range first.Witnesses {
			agreed = agreed && slices.Contains(names, w)
		}
		if agreed {
			t.Logf("%d witnesses after %v, number %d", witnesses, time.Since(began), first.Number)
			return first
		}
	}
	require.Fail(t, "no agreement", "%d witnesses of %v: %s", witnesses, names, said)
	return panel.Panel{}
}

func TestMembersAgreeOnPanels(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := peerlimittest.NewCluster(t, 3)
		awaitPanel(t, c.Nodes(), 3, 10*time.Second)
		c.Kill(0)
		awaitPanel(t, c.Nodes(), 1, 20*time.Second)
		c.Add()
		awaitPanel(t, c.Nodes(), 3, 10*time.Second)
		c.Add()
		c.Add()
		awaitPanel(t, c.Nodes(), 5, 10*time.Second)
	})
}

// Three that are replaced one by one by kills, at different paces.
func TestPanelsFollowARollByKills(t *testing.T) {
	playedBySchedules(t)
	for _, pause := range []time.Duration{4 * time.Second, 10 * time.Second, 30 * time.Second} {
		for _, before := range []bool{false, true} {
			t.Run(fmt.Sprintf("%v before %v", pause, before), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					c := peerlimittest.NewCluster(t, 3)
					awaitPanel(t, c.Nodes(), 3, 10*time.Second)
					for k := range 6 {
						if before {
							c.Add()
							time.Sleep(pause / 2)
							c.Kill(k)
							time.Sleep(pause / 2)
							continue
						}
						c.Kill(k)
						c.Add()
						time.Sleep(pause)
					}
					awaitPanel(t, c.Nodes(), 3, 20*time.Second)
				})
			})
		}
	}
}

// Newcomers of one side of a split do not outvote the other.
func TestPanelsOfASplitWithNewcomers(t *testing.T) {
	playedBySchedules(t)
	synctest.Test(t, func(t *testing.T) {
		c := peerlimittest.NewCluster(t, 5)
		first := awaitPanel(t, c.Nodes(), 5, 15*time.Second)
		c.Split([]int{0, 1}, []int{2, 3, 4})
		for i := 5; i < 8; i++ {
			c.Add()
			c.Split(append([]int{0, 1}, []int{5, 6, 7}[:i-4]...), []int{2, 3, 4})
		}
		time.Sleep(20 * time.Second)
		awaitPanel(t, c.Nodes()[2:5], 3, 10*time.Second)
		for i, n := range c.Nodes() {
			p, full := inspect.Panel(n)
			require.Equal(t, i >= 2 && i < 5, full, "%d: %v", i, p)
		}
		c.Heal()
		last := awaitPanel(t, c.Nodes(), 7, 30*time.Second)
		require.Equal(t, first.Origin, last.Origin)
	})
}
