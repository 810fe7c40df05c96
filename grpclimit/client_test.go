package grpclimit_test

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/peerlimit/peerlimit"
	"github.com/peerlimit/peerlimit/grpclimit"
)

// call makes a unary call through the client's interceptor and returns after how long it was sent.
func call(ctx context.Context, limit *grpclimit.Limit) (sent time.Duration, err error) {
	began := time.Now()
	sent = -1
	err = limit.UnaryClient(ctx, sayMethod, wrapperspb.String("x"), nil, nil,
		func(context.Context, string, any, any, *grpc.ClientConn, ...grpc.CallOption) error {
			sent = time.Since(began)
			return nil
		})
	return sent, err
}

const ms = time.Millisecond

// Calls of a client wait for their turn, whatever the taker can do.
func TestClientWaits(t *testing.T) {
	for name, taker := range map[string]func(*buckets) grpclimit.Taker{
		"turns": func(b *buckets) grpclimit.Taker { return turns{b} },
		"takes": func(b *buckets) grpclimit.Taker { return b },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b := newBuckets(t, peerlimit.PerSecond(10).WithBurst(1))
				limit := mustNew(t, taker(b), grpclimit.Options{Key: oneKey})
				for i := range 5 {
					sent, err := call(t.Context(), limit)
					require.NoError(t, err)
					assert.Equal(t, min(i, 1)*100*int(ms), int(sent), "call %d", i)
				}
				assert.LessOrEqual(t, b.asked, 9, "one request, and one that waits")
			})
		})
	}
}

func TestClientWaitsNoLongerThanItMay(t *testing.T) {
	for name, taker := range map[string]func(*buckets) grpclimit.Taker{
		"turns": func(b *buckets) grpclimit.Taker { return turns{b} },
		"takes": func(b *buckets) grpclimit.Taker { return b },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b := newBuckets(t, peerlimit.PerSecond(1))
				_, err := call(t.Context(), mustNew(t, taker(b), grpclimit.Options{Key: oneKey}))
				require.NoError(t, err)
				began := time.Now()

				for _, options := range []grpclimit.Options{{MaxWait: -1}, {MaxWait: 999 * ms}} {
					options.Key = oneKey
					sent, err := call(t.Context(), mustNew(t, taker(b), options))
					hasCode(t, codes.ResourceExhausted, err)
					assert.ErrorIs(t, err, peerlimit.ErrLimited)
					retry, _ := details(t, err)
					assert.Equal(t, time.Second, retry.GetRetryDelay().AsDuration())
					assert.EqualValues(t, -1, sent, "it was not sent")
				}
				ctx, cancel := context.WithTimeout(t.Context(), 500*ms)
				defer cancel()
				_, err = call(ctx, mustNew(t, taker(b), grpclimit.Options{Key: oneKey}))
				hasCode(t, codes.ResourceExhausted, err)
				assert.Zero(t, time.Since(began), "all at once")

				sent, err := call(t.Context(), mustNew(t, taker(b), grpclimit.Options{Key: oneKey, MaxWait: time.Second}))
				require.NoError(t, err, "just in time: nothing was spent before")
				assert.Equal(t, time.Second, sent)
			})
		})
	}
}

func TestClientStopsWaiting(t *testing.T) {
	for name, taker := range map[string]func(*buckets) grpclimit.Taker{
		"turns": func(b *buckets) grpclimit.Taker { return turns{b} },
		"takes": func(b *buckets) grpclimit.Taker { return b },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b := newBuckets(t, peerlimit.PerSecond(1))
				limit := mustNew(t, taker(b), grpclimit.Options{Key: oneKey})
				_, err := call(t.Context(), limit)
				require.NoError(t, err)
				ctx, cancel := context.WithCancel(t.Context())
				time.AfterFunc(300*ms, cancel)
				began := time.Now()
				sent, err := call(ctx, limit)
				hasCode(t, codes.Canceled, err)
				assert.ErrorIs(t, err, context.Canceled)
				assert.EqualValues(t, -1, sent)
				assert.Equal(t, 300*ms, time.Since(began))
				sent, err = call(t.Context(), limit)
				require.NoError(t, err)
				assert.InDelta(t, 700*ms, sent, 1, "its turn was given up; rounded up")
			})
		})
	}
}

// remote is turns that takes some time to answer.
type remote struct {
	turns
	away time.Duration
}

func (r remote) Reserve(ctx context.Context, key string, cost float64) (*peerlimit.Reservation, error) {
	select {
	case <-time.After(r.away):
		return r.turns.Reserve(ctx, key, cost)
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// A call whose time to wait is over before it is known when its turn comes was denied: nothing has failed.
func TestClientIsDeniedWhenThereIsNoTimeToReserve(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBuckets(t, peerlimit.PerSecond(1000).WithBurst(1))
		limit := mustNew(t, remote{turns{b}, 3 * ms}, grpclimit.Options{Key: oneKey, MaxWait: 2 * ms})
		_, err := call(t.Context(), limit)
		require.NoError(t, err)
		sent, err := call(t.Context(), limit)
		hasCode(t, codes.ResourceExhausted, err)
		assert.ErrorIs(t, err, peerlimit.ErrLimited)
		assert.EqualValues(t, -1, sent)
	})
}

// A server's calls wait only where they are told to; leaky buckets always pace.
func TestServerWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		serve := func(limit *grpclimit.Limit) (time.Duration, error) {
			began := time.Now()
			_, err := limit.UnaryServer(t.Context(), nil, &grpc.UnaryServerInfo{FullMethod: sayMethod},
				func(context.Context, any) (any, error) { return nil, nil })
			return time.Since(began), err
		}
		b := newBuckets(t, peerlimit.PerSecond(1))
		patient := mustNew(t, turns{b}, grpclimit.Options{Key: oneKey, MaxWait: 2 * time.Second})
		_, err := serve(patient)
		require.NoError(t, err)
		lasted, err := serve(mustNew(t, turns{b}, grpclimit.Options{Key: oneKey}))
		hasCode(t, codes.ResourceExhausted, err)
		assert.Zero(t, lasted)
		lasted, err = serve(patient)
		require.NoError(t, err)
		assert.Equal(t, time.Second, lasted)

		leaky := mustNew(t, newBuckets(t, peerlimit.PerSecond(10).Leaky()), grpclimit.Options{Key: oneKey})
		_, err = serve(leaky)
		require.NoError(t, err)
		lasted, err = serve(leaky)
		require.NoError(t, err)
		assert.Equal(t, 100*ms, lasted)
	})
}

// Over a connection, with the target as the key: the opening of a stream and each message that is sent.
func TestClientOverAConnection(t *testing.T) {
	taker := newBuckets(t, peerlimit.PerHour(10))
	conn := serve(t, nil, mustNew(t, taker, grpclimit.Options{MaxWait: -1, MessageCost: length}))
	require.NoError(t, say(t.Context(), conn, "a"))
	stream := chat(t, t.Context(), conn)
	require.NoError(t, stream.SendMsg(wrapperspb.String("five5")))
	err := stream.SendMsg(wrapperspb.String("four"))
	hasCode(t, codes.ResourceExhausted, err)
	require.NoError(t, stream.SendMsg(wrapperspb.String("end")), "the stream goes on")
	for _, want := range []string{"five5", "end"} {
		got := new(wrapperspb.StringValue)
		require.NoError(t, stream.RecvMsg(got))
		assert.Equal(t, want, got.Value)
	}
	_, err = conn.NewStream(t.Context(), &grpc.StreamDesc{}, chatMethod)
	hasCode(t, codes.ResourceExhausted, err)
	hasCode(t, codes.ResourceExhausted, say(t.Context(), conn, "b"))
	assert.Contains(t, taker.byKey, conn.Target())
}
