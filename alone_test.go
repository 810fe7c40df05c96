package peerlimit

import (
	"testing"
	"testing/synctest"

	"github.com/stretchr/testify/require"

	"github.com/peerlimit/peerlimit/fallback"
	"github.com/peerlimit/peerlimit/internal/limit"
	"github.com/peerlimit/peerlimit/internal/sim"
	"github.com/peerlimit/peerlimit/internal/wire"
)

// A user's policy says what may be given out. What gives back is nobody's to refuse, so the policy is not asked about it.
func TestAPolicyIsAskedOnlyAboutWhatGivesOut(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		network := sim.New(1)
		defer network.Close()
		n := startNodes(t, network, nil, 1)[0]
		r, err := n.rules.Find(wire.AppendRule(nil, "api", []limit.Limit{perSecond(5)}))
		require.NoError(t, err)
		asked := 0
		policy := func(fallback.Reach) float64 { asked++; return 1 }
		for _, kind := range []wire.Kind{wire.KindRefund, wire.KindReset, wire.KindCancel, wire.KindReturn} {
			q := &query{node: n, rule: r, part: 7, message: wire.Message{Kind: kind, Key: "k", Cost: 1, Undo: &limit.Undo{}}}
			rep := q.decideByShare(policy)
			require.Equal(t, wire.StatusElsewhere, rep.Status)
		}
		require.Zero(t, asked)
		n.table.LapseAll() // or else it holds, and decides by no share
		q := &query{node: n, rule: r, part: 7, message: wire.Message{Kind: wire.KindTake, Key: "k", Cost: 1}}
		q.decideByShare(policy)
		require.Positive(t, asked)
	})
}
