package peerlimit

import "testing/synctest"

import (
	"fmt"
	"github.com/stretchr/testify/require"
	"log/slog"
	"testing"
	"time"
)

// Where more changes than a standby should get, each bucket is sent less often; where little does, nothing rests.
func TestManyChangesRest(t *testing.T) {
	for changed, rest := range map[int]time.Duration{0: 0, 100: 2 * time.Millisecond, 1000: 20 * time.Millisecond, 1_000_000: restMax} {
		t.Run(fmt.Sprint(changed), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				n := &Node{began: time.Now(), log: slog.New(slog.DiscardHandler), settings: new(settings)}
				n.route.Store(&route{others: map[string]*peer{"standby": {}}})
				r := newReplicator(n)
				require.True(t, r.take("standby", n.now()))
				r.release("standby", n.now(), changed)
				time.Sleep(rest)
				require.Zero(t, r.lag(n.now()), "it has everything")
				if rest > 0 {
					require.False(t, r.take("standby", n.now()-1), "it rests")
				}
				require.True(t, r.take("standby", n.now()))
				time.Sleep(time.Second)
				require.Equal(t, time.Second, r.lag(n.now()), "since it was sent something")
			})
		})
	}
}
