package rulecheck

import (
	"encoding/json"
	"os"
	"strings"
	"testing"

	"github.com/prometheus/prometheus/promql/parser"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// dashboard is what of a Grafana dashboard can be wrong here.
type dashboard struct {
	UID, Title string
	Panels     []struct {
		ID          int
		Type, Title string
		GridPos     struct{ H, W, X, Y int }
		Targets     []struct{ RefID, Expr string }
	}
	Templating struct {
		List []struct{ Name string }
	}
}

// Every query of the dashboard is PromQL, with the variables that there are, and no panel lies on another.
func TestDashboard(t *testing.T) {
	text, err := os.ReadFile("../../deploy/grafana.json")
	require.NoError(t, err)
	var d dashboard
	require.NoError(t, json.Unmarshal(text, &d))
	assert.NotEmpty(t, d.UID)

	variables := strings.NewReplacer("$__rate_interval", "1m")
	var known []string
	for _, v := range d.Templating.List {
		known = append(known, "$"+v.Name, "x")
	}
	inserted := strings.NewReplacer(known...)
	ids, taken := make(map[int]bool), make(map[[2]int]string)
	require.NotEmpty(t, d.Panels)
	for _, panel := range d.Panels {
		assert.False(t, ids[panel.ID], "%s: its id is another's", panel.Title)
		ids[panel.ID] = true
		for x := range panel.GridPos.W {
			for y := range panel.GridPos.H {
				at := [2]int{panel.GridPos.X + x, panel.GridPos.Y + y}
				require.Empty(t, taken[at], "%s lies on another panel", panel.Title)
				require.Less(t, at[0], 24, panel.Title)
				taken[at] = panel.Title
			}
		}
		assert.Equal(t, panel.Type == "row", len(panel.Targets) == 0, panel.Title)
		for _, target := range panel.Targets {
			query := inserted.Replace(variables.Replace(target.Expr))
			assert.NotContains(t, query, "$", panel.Title)
			_, err := parser.ParseExpr(query)
			assert.NoError(t, err, panel.Title)
		}
	}
}
