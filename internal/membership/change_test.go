package membership

import (
	"testing"

	"github.com/stretchr/testify/require"
)

func TestChangesOfAView(t *testing.T) {
	view := func(members ...Info) *View { return newView(members, nil, &Roster{}, 1) }
	a, b := Info{Name: "a"}, Info{Name: "b"}
	dead := func(v *View, m Info) *View { v.GivenUp = []Info{m}; return v }
	in := func(m Info, s State) Info { m.State = s; return m }
	for name, test := range map[string]struct {
		last, now *View
		want      []Change
	}{
		"the first":                     {nil, view(b, a), []Change{{a, Joined}, {b, Joined}}},
		"the same":                      {view(a, b), view(a, b), nil},
		"one joins":                     {view(a), view(a, b), []Change{{b, Joined}}},
		"one joins that leaves already": {view(a), view(a, in(b, Leaving)), []Change{{in(b, Leaving), BeganToLeave}}},
		"one announces that it goes":    {view(a, b), view(a, in(b, Leaving)), []Change{{in(b, Leaving), BeganToLeave}}},
		"one thinks better of it":       {view(a, in(b, Leaving)), view(a, b), nil},
		"one goes as announced":         {view(a, in(b, Leaving)), view(a), []Change{{in(b, Leaving), HasLeft}}},
		"one goes at once":              {view(a, b), view(a), []Change{{b, HasLeft}}},
		"one fails":                     {view(a, b), view(a, in(b, Failed)), []Change{{in(b, Failed), HasFailed}}},
		"one comes back":                {view(a, in(b, Failed)), view(a, b), []Change{{b, Joined}}},
		"one is forgotten":              {view(a, in(b, Failed)), view(a), []Change{{in(b, Failed), Forgotten}}},
		"one is dead before gossip":     {view(a, b), dead(view(a), b), []Change{{b, HasFailed}, {b, Forgotten}}},
		"one is dead after gossip":      {view(a, in(b, Failed)), dead(view(a), b), []Change{{in(b, Failed), Forgotten}}},
		"one is only suspect":           {view(a, b), view(a, in(b, Suspect)), nil},
	} {
		require.Equal(t, test.want, test.now.Since(test.last), name)
	}
}
