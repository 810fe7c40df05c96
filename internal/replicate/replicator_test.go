package replicate

import (
	"context"
	"fmt"
	"log/slog"
	"testing"
	"testing/synctest"
	"time"

	"github.com/peerlimit/peerlimit/internal/ring"
	"github.com/stretchr/testify/require"
)

// Where more changes than a standby should get, each bucket is sent less often; where little does, nothing rests.
func TestManyChangesRest(t *testing.T) {
	for changed, rest := range map[int]time.Duration{0: 0, 100: 2 * time.Millisecond, 1000: 20 * time.Millisecond, 1_000_000: restMax} {
		t.Run(fmt.Sprint(changed), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				began := time.Now()
				now := func() int64 { return int64(time.Since(began)) }
				r := New(Config{
					Self: "self", Log: slog.New(slog.DiscardHandler), Others: onRing{ring.New([]string{"self", "standby"})}, Now: now,
				})
				require.True(t, r.tryStartSend("standby", now()))
				r.finishSend("standby", now(), changed)
				time.Sleep(rest)
				require.Zero(t, r.Lag(now()), "it has everything")
				if rest > 0 {
					require.False(t, r.tryStartSend("standby", now()-1), "it rests")
				}
				require.True(t, r.tryStartSend("standby", now()))
				time.Sleep(time.Second)
				require.Equal(t, time.Second, r.Lag(now()), "since it was sent something")
			})
		})
	}
}

// onRing is a cluster of which only the ring is known.
type onRing struct{ ring *ring.Ring }

func (o onRing) Ring() *ring.Ring { return o.ring }
func (o onRing) Postpone(uint16)  {}
func (o onRing) Challenged()      {}
func (o onRing) Yielded()         {}
func (o onRing) Tell(context.Context, string, []byte, time.Duration, int) ([]byte, error) {
	return nil, context.DeadlineExceeded
}
