package peerlimit_test

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/peerlimit/peerlimit"
	"github.com/peerlimit/peerlimit/internal/oracle"
	"github.com/peerlimit/peerlimit/peerlimittest"
)

var (
	oldSecret = []byte("the old one, 32 bytes of it at least")
	newSecret = []byte("the new one, 32 bytes of it at least")
)

func withSecret(secret []byte, accepted ...[]byte) peerlimittest.Option {
	return func(c *peerlimit.Config) { c.Secret, c.AcceptSecrets = secret, accepted }
}

// Who does not have the secret is no member, takes nothing, and disturbs nobody.
func TestStrangersStayOutside(t *testing.T) {
	for name, stranger := range map[string]peerlimittest.Option{
		"no secret":                 func(c *peerlimit.Config) { c.Secret = nil },
		"another one":               withSecret(newSecret),
		"another, but accepts ours": withSecret(newSecret, oldSecret),
		"another cluster":           func(c *peerlimit.Config) { c.Cluster = "other" },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				cluster := peerlimittest.NewCluster(t, 2, withSecret(oldSecret))
				outside := cluster.Add(stranger)
				limit := peerlimit.PerMinute(60)
				o, began := judge(limit), time.Now()
				var limiters []*peerlimit.Limiter
				for _, i := range []int{0, 1} {
					l, err := cluster.Node(i).Limiter("api", limit)
					require.NoError(t, err)
					limiters = append(limiters, l)
				}
				saturate(t, o, began, limiters, "k", 1, 50*time.Millisecond, 20*time.Second)
				requireHeld(t, o, 0)
				for i := range 2 {
					s := cluster.Node(i).Stats()
					assert.Equal(t, 2, s.Members)
					assert.Equal(t, 2, s.Known)
				}
				assert.Equal(t, 1, outside.Stats().Members)
				theirs, err := outside.Limiter("api", limit)
				require.NoError(t, err)
				d, err := theirs.Take(context.Background(), "k", 1)
				require.NoError(t, err)
				assert.NotEqual(t, peerlimit.OriginRemote, d.Origin)
			})
		})
	}
}

// A secret is changed on a live cluster, under load, by three rolling deploys: no call fails and no bucket is forgotten.
func TestSecretIsChangedWithoutDowntime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cluster := peerlimittest.NewCluster(t, 3, withSecret(oldSecret))
		limit := peerlimit.PerHour(20)
		const keys = 30
		var oracles [keys]*oracle.Oracle
		for i := range oracles {
			oracles[i] = judge(limit)
		}
		began := time.Now()
		var load sync.WaitGroup
		drive := func(node *peerlimit.Node) (stop func()) {
			l, err := node.Limiter("api", limit)
			require.NoError(t, err)
			ctx, cancel := context.WithCancel(context.Background())
			load.Go(func() {
				for i := 0; ctx.Err() == nil; i++ {
					start := time.Since(began)
					d, err := l.Take(context.Background(), fmt.Sprint(i%keys), 1)
					if assert.NoError(t, err) && d.Allowed {
						oracles[i%keys].Admit(oracle.Take{Start: start, End: time.Since(began), Cost: 1})
					}
					assert.NotContains(t, []peerlimit.Origin{peerlimit.OriginFallback, peerlimit.OriginStandby}, d.Origin)
					time.Sleep(5 * time.Millisecond)
				}
			})
			return cancel
		}
		stops := make(map[int]func())
		for i := range 3 {
			stops[i] = drive(cluster.Node(i))
		}
		time.Sleep(3 * time.Second)
		for deploy, secrets := range []peerlimittest.Option{
			withSecret(oldSecret, newSecret), withSecret(newSecret, oldSecret), withSecret(newSecret),
		} {
			for i := 3 * deploy; i < 3*deploy+3; i++ {
				stops[i+3] = drive(cluster.Add(secrets))
				time.Sleep(2 * time.Second)
				stops[i]()
				require.NoError(t, cluster.Leave(context.Background(), i))
			}
		}
		for i := 9; i < 12; i++ {
			stops[i]()
		}
		load.Wait()
		for i, o := range oracles {
			report := requireHeld(t, o, 0)
			require.Equal(t, 20.0, report.Run.Admitted, "key %d", i)
		}
		for _, node := range cluster.Nodes() {
			assert.Equal(t, 3, node.Stats().Members)
		}
	})
}
