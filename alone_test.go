package peerlimit

import (
	"testing"
	"testing/synctest"

	"github.com/stretchr/testify/require"

	"github.com/peerlimit/peerlimit/fallback"
	"github.com/peerlimit/peerlimit/internal/limit"
	"github.com/peerlimit/peerlimit/internal/sim"
)

// A user's policy says what may be given out. What gives back is nobody's to refuse, so the policy is not asked about it.
func TestAPolicyIsAskedOnlyAboutWhatGivesOut(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		network := sim.New(1)
		defer network.Close()
		n := startNodes(t, network, nil, 1)[0]
		r, err := n.rules.find(appendRule(nil, "api", []limit.Limit{perSecond(5)}))
		require.NoError(t, err)
		asked := 0
		policy := func(fallback.Reach) float64 { asked++; return 1 }
		for _, kind := range []messageKind{kindRefund, kindReset, kindCancel, kindReturn} {
			rep := n.decideByShare(policy, r, 7, &message{kind: kind, key: "k", cost: 1, undo: &limit.Undo{}})
			require.Equal(t, statusElsewhere, rep.status)
		}
		require.Zero(t, asked)
		for part := range n.table.partitions { // which this node holds otherwise, and then decides by no share
			n.table.partitions[part].holding.lapse()
		}
		n.decideByShare(policy, r, 7, &message{kind: kindTake, key: "k", cost: 1})
		require.Positive(t, asked)
	})
}
