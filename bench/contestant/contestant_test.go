package main

import (
	"os/exec"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/peerlimit/peerlimit/bench/contest"
)

// smoke drives a contestant for 50 ms from one caller.
func smoke(t *testing.T, c contest.Contestant, s contest.Scenario) {
	t.Helper()
	s.Choice, s.Lasts, s.TimeEvery, s.Expect = contest.ChoiceUniform, 50*time.Millisecond, 1, contest.ExpectAllowed
	if s.Limits == nil {
		s.Limits = []contest.Limit{{Tokens: 1e6, Period: time.Second, Burst: 1e6}}
	}
	if fill, err := c.Fill(&s); assert.NoError(t, err) && fill != nil {
		_, err := fill("customer")
		assert.NoError(t, err)
	}
	take, err := c.Take(&s)
	require.NoError(t, err)
	takes := 0
	for began := time.Now(); time.Since(began) < s.Lasts; takes++ {
		admitted, err := take("customer")
		require.NoError(t, err)
		require.True(t, admitted)
	}
	assert.Positive(t, takes)
}

func TestLibraries(t *testing.T) {
	for name, create := range programs {
		if c, ok := create().(*library); ok {
			t.Run(name, func(t *testing.T) {
				_, err := c.Start(contest.Setup{})
				require.NoError(t, err)
				smoke(t, c, contest.Scenario{Name: "smoke", Keys: contest.KeysLocal})
				require.NoError(t, c.Close())
			})
		}
	}
}

func TestPeerlimitInOneProcess(t *testing.T) {
	for name, setup := range map[string]contest.Setup{
		"plain": {}, "leases": {Leases: true}, "encrypted": {Secret: true}, "without copies": {NoCopies: true},
	} {
		t.Run(name, func(t *testing.T) {
			c := &peerlimitNodes{}
			setup.Nodes = 3
			address, err := c.Start(setup)
			require.NoError(t, err)
			require.NoError(t, c.Meet([]string{address}))
			smoke(t, c, contest.Scenario{Name: "smoke", Keys: contest.KeysAny})
			smoke(t, c, contest.Scenario{Name: "leaky", Keys: contest.KeysAny, Leaky: true})
			require.NoError(t, c.Close())
		})
	}
}

func TestPeerlimitSaysWhenAnotherOneDecides(t *testing.T) {
	c := &peerlimitNodes{}
	_, err := c.Start(contest.Setup{})
	require.NoError(t, err)
	s := contest.Scenario{Name: "other", Keys: contest.KeysRemote, Limits: []contest.Limit{{Tokens: 1, Period: time.Second, Burst: 1}}}
	assert.True(t, c.Owns(&s, "customer"))
	take, err := c.Take(&s)
	require.NoError(t, err)
	_, err = take("customer")
	assert.ErrorContains(t, err, "local")
	require.NoError(t, c.Close())
}

func TestPingPong(t *testing.T) {
	var both [2]pingPong
	var addresses []string
	for i := range both {
		address, err := both[i].Start(contest.Setup{})
		require.NoError(t, err)
		addresses = append(addresses, address)
	}
	for i := range both {
		require.NoError(t, both[i].Meet(addresses))
	}
	smoke(t, &both[0], contest.Scenario{Name: "smoke", Keys: contest.KeysRemote, Callers: 1})
	for i := range both {
		require.NoError(t, both[i].Close())
	}
}

func TestRedis(t *testing.T) {
	program, err := exec.LookPath("redis-server")
	if err != nil {
		t.Skip("there is no redis-server")
	}
	const address = "127.0.0.1:0"
	socket := t.TempDir() + "/redis"
	server := exec.Command(program, "--port", "0", "--unixsocket", socket, "--save", "", "--loglevel", "warning")
	require.NoError(t, server.Start(), address)
	t.Cleanup(func() {
		_ = server.Process.Kill()
		_ = server.Wait()
	})
	c := &redisRate{}
	require.Eventually(t, func() bool {
		_, err := c.Start(contest.Setup{Server: socket})
		return err == nil
	}, 10*time.Second, 20*time.Millisecond)
	smoke(t, c, contest.Scenario{Name: "smoke", Keys: contest.KeysRemote})
	limit := contest.Limit{Tokens: 1e6, Period: time.Second, Burst: 1e6}
	smoke(t, c, contest.Scenario{Name: "three", Keys: contest.KeysRemote, Limits: []contest.Limit{limit, limit, limit}})

	strict := contest.Limit{Tokens: 1, Period: time.Hour, Burst: 1}
	take, err := c.Take(&contest.Scenario{Name: "strict", Limits: []contest.Limit{limit, strict, limit}})
	require.NoError(t, err)
	for _, want := range []bool{true, false} { // the second limit alone denies
		admitted, err := take("customer")
		require.NoError(t, err)
		assert.Equal(t, want, admitted)
	}
	require.NoError(t, c.Close())
}
