package main

import (
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/peerlimit/peerlimit/bench/contest"
)

// Each mode is driven for 50 ms in a cluster of three, where it decides about keys of its own and others'.
func TestModes(t *testing.T) {
	d := &daemons{}
	address, err := d.Start(contest.Setup{Nodes: 3, Keys: 1000})
	require.NoError(t, err)
	require.NoError(t, d.Meet([]string{address}))
	limit := contest.Limit{Tokens: 1e6, Period: time.Hour, Burst: 1e6}
	for _, mode := range []string{"BATCHING", "NO_BATCHING", "GLOBAL"} {
		for _, keys := range []string{contest.KeysLocal, contest.KeysRemote} {
			t.Run(mode+" "+keys, func(t *testing.T) {
				s := contest.Scenario{Name: "smoke-" + mode + keys, Keys: keys, Limits: []contest.Limit{limit, limit}, Mode: mode}
				key := ""
				for n := 'a'; key == ""; n++ {
					if k := string(n) + " customer"; d.Owns(&s, k) == (keys == contest.KeysLocal) {
						key = k
					}
				}
				take, err := d.Take(&s)
				require.NoError(t, err)
				takes := 0
				for began := time.Now(); time.Since(began) < 50*time.Millisecond; takes++ {
					admitted, err := take(key)
					require.NoError(t, err)
					require.True(t, admitted)
				}
				assert.Positive(t, takes)
			})
		}
	}
	_, err = d.Take(&contest.Scenario{Mode: "FAST"})
	assert.ErrorContains(t, err, `"FAST"`)
}

func TestWhoDecidesIsChecked(t *testing.T) {
	remote, local := contest.Scenario{Keys: contest.KeysRemote}, contest.Scenario{Keys: contest.KeysLocal}
	assert.NoError(t, checkOwner(&remote, "there", "here"))
	assert.NoError(t, checkOwner(&local, "", "here"))
	assert.NoError(t, checkOwner(&contest.Scenario{Keys: contest.KeysAny}, "", "here"))
	assert.ErrorContains(t, checkOwner(&remote, "", "here"), "remote")
	assert.ErrorContains(t, checkOwner(&local, "there", "here"), "local")
}
