package model

import (
	"math/rand/v2"
	"testing"

	"github.com/stretchr/testify/require"
)

// What the model computes of panels itself, because it is asked in every state, is what package panel says.
func TestTheModelCountsLikePackagePanel(t *testing.T) {
	m := newMachine(Config{
		Nodes: 5, Members: 5, Apart: 1, Panels: 4, Messages: 1, Rules: AllRules(),
		Events: Events{Closes: 2, Leaves: 1, Cuts: 1, Proposals: 8, Total: 4},
	})
	rng := rand.New(rand.NewPCG(1, 1))
	goodbyes, refusals := 0, 0
	for range 30 {
		s := m.scripted()
		for range 150 {
			for n := range node(maxNodes) {
				q := &s.members[n]
				if q.life != up {
					continue
				}
				real := m.load(&s, n)
				require.Equal(t, q.p.panel, panelOf(real.Panel))
				for answered := range nodes(1 << maxNodes) {
					says := func(name string) bool { return answered.has(nodeOf(name)) }
					mine := !q.p.panel.ends && answered.majority(s.witnesses(n))
					require.Equal(t, real.Majority(says, now), mine, "%s: of %s answer %s", n, s.witnesses(n), answered)
				}
				goodbyes += len(real.Goodbyes)
				for o := range node(maxNodes) {
					if p := &s.members[o]; p.life == up {
						require.Equal(t, real.Refuses(p.p.panel.real().ID()), q.p.refuses(&p.p))
						if q.p.refuses(&p.p) {
							refusals++
						}
					}
				}
				back := *q
				back.p.save(real)
				require.Equal(t, q.p.accepted, back.p.accepted)
				require.Equal(t, q.p.heard, back.p.heard)
				require.Equal(t, q.p.proposal, back.p.proposal)
			}
			var next State
			count := 0
			m.successors(&s, false, func(_ Step, t *State, _ error) {
				if count++; rng.IntN(count) == 0 {
					next = *t
				}
			})
			s = next
		}
	}
	require.Positive(t, goodbyes, "nobody heard a goodbye")
	require.Positive(t, refusals)
}
