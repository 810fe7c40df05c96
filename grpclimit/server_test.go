package grpclimit_test

import (
	"context"
	"errors"
	"io"
	"net"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/peerlimit/peerlimit"
	"github.com/peerlimit/peerlimit/grpclimit"
)

// What a client is told over the wire when it calls too often.
func TestServerDenies(t *testing.T) {
	limit := mustNew(t, newBuckets(t, peerlimit.PerHour(2)), grpclimit.Options{Key: oneKey, Name: "calls"})
	conn := serve(t, limit, nil)
	require.NoError(t, say(t.Context(), conn, "a"))
	require.NoError(t, say(t.Context(), conn, "b"))
	err := say(t.Context(), conn, "c")
	hasCode(t, codes.ResourceExhausted, err)
	retry, quota := details(t, err)
	require.NotNil(t, retry)
	assert.InDelta(t, 1800, retry.RetryDelay.AsDuration().Seconds(), 60)
	require.Len(t, quota.GetViolations(), 1)
	assert.Equal(t, "calls", quota.Violations[0].Subject)
	assert.Equal(t, "2 per 1h0m0s, burst 2", quota.Violations[0].Description)
}

func TestServerDeniesStreams(t *testing.T) {
	limit := mustNew(t, newBuckets(t, peerlimit.PerHour(1)), grpclimit.Options{Key: oneKey})
	conn := serve(t, limit, nil)
	first := chat(t, t.Context(), conn)
	for range 3 {
		require.NoError(t, first.SendMsg(wrapperspb.String("messages are free")))
		require.NoError(t, first.RecvMsg(new(wrapperspb.StringValue)))
	}
	second := chat(t, t.Context(), conn)
	err := second.RecvMsg(new(wrapperspb.StringValue))
	hasCode(t, codes.ResourceExhausted, err)
	_, quota := details(t, err)
	require.NotNil(t, quota)
	assert.Equal(t, chatMethod, quota.Violations[0].Subject)
}

// The opening takes 1, each message its length.
func TestServerTakesForMessages(t *testing.T) {
	limit := mustNew(t, newBuckets(t, peerlimit.PerHour(10)), grpclimit.Options{Key: oneKey, MessageCost: length})
	conn := serve(t, limit, nil)
	stream := chat(t, t.Context(), conn)
	for _, text := range []string{"four", "", "five5"} {
		require.NoError(t, stream.SendMsg(wrapperspb.String(text)))
		got := new(wrapperspb.StringValue)
		require.NoError(t, stream.RecvMsg(got))
		assert.Equal(t, text, got.Value)
	}
	require.NoError(t, stream.SendMsg(wrapperspb.String("x")))
	hasCode(t, codes.ResourceExhausted, stream.RecvMsg(new(wrapperspb.StringValue)))
}

// length is a cost by what is in a message.
func length(_ context.Context, call grpclimit.Call) float64 {
	return float64(len(call.Message.(*wrapperspb.StringValue).Value))
}

func TestCosts(t *testing.T) {
	taker := newBuckets(t, peerlimit.PerHour(10))
	limit := mustNew(t, taker, grpclimit.Options{Key: oneKey, Cost: func(ctx context.Context, call grpclimit.Call) float64 {
		assert.Equal(t, sayMethod, call.Method)
		assert.False(t, call.Client)
		return length(ctx, call)
	}})
	conn := serve(t, limit, nil)
	require.NoError(t, say(t.Context(), conn, ""))
	assert.Zero(t, taker.asked, "what is free asks nobody")
	require.NoError(t, say(t.Context(), conn, "sevenss"))
	hasCode(t, codes.ResourceExhausted, say(t.Context(), conn, "four"))
	require.NoError(t, say(t.Context(), conn, "fit"))

	err := say(t.Context(), conn, "more than the burst")
	hasCode(t, codes.ResourceExhausted, err)
	retry, _ := details(t, err)
	assert.Nil(t, retry, "it will never pass")
}

// By the address of a real connection.
func TestPeerIPOverTCP(t *testing.T) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	taker := newBuckets(t, peerlimit.PerHour(1))
	conn := serveOn(t, listener, listener.Addr().String(), mustNew(t, taker, grpclimit.Options{}), nil)
	require.NoError(t, say(t.Context(), conn, "a"))
	hasCode(t, codes.ResourceExhausted, say(t.Context(), conn, "b"))
	assert.Contains(t, taker.byKey, "127.0.0.1")
}

func TestServerLimitsByMetadata(t *testing.T) {
	limit := mustNew(t, newBuckets(t, peerlimit.PerHour(1)), grpclimit.Options{Key: grpclimit.Join(grpclimit.Metadata("X-Api-Key"), grpclimit.Method)})
	conn := serve(t, limit, nil)
	as := func(user string) context.Context {
		return metadata.AppendToOutgoingContext(t.Context(), "x-api-key", user)
	}
	require.NoError(t, say(as("alice"), conn, "a"))
	require.NoError(t, say(as("bob"), conn, "b"))
	hasCode(t, codes.ResourceExhausted, say(as("alice"), conn, "a"))
	stream := chat(t, as("alice"), conn) // another method
	require.NoError(t, stream.CloseSend())
	assert.Equal(t, io.EOF, stream.RecvMsg(new(wrapperspb.StringValue)))

	err := say(t.Context(), conn, "nobody")
	hasCode(t, codes.InvalidArgument, err)
	assert.ErrorContains(t, err, `"x-api-key"`)
}

func TestOwnErrors(t *testing.T) {
	options := grpclimit.Options{
		Key: grpclimit.Metadata("user"),
		Denied: func(_ context.Context, call grpclimit.Call, d peerlimit.Decision) error {
			assert.False(t, d.Allowed)
			return status.Error(codes.Aborted, "slow down with "+call.Method)
		},
		Failed: func(_ context.Context, _ grpclimit.Call, err error) error {
			assert.ErrorIs(t, err, grpclimit.ErrNoKey)
			return status.Error(codes.Unauthenticated, "who are you?")
		},
	}
	conn := serve(t, mustNew(t, newBuckets(t, peerlimit.PerHour(1)), options), nil)
	ctx := metadata.AppendToOutgoingContext(t.Context(), "user", "alice")
	require.NoError(t, say(ctx, conn, "a"))
	hasCode(t, codes.Aborted, say(ctx, conn, "a"))
	hasCode(t, codes.Unauthenticated, say(t.Context(), conn, "a"))
	hasCode(t, codes.Unauthenticated, chat(t, t.Context(), conn).RecvMsg(new(wrapperspb.StringValue)))
}

// To try out a limit: all pass, and the functions see which ones would not.
func TestNilLetsPass(t *testing.T) {
	denials, failures := 0, 0
	options := grpclimit.Options{
		Key:         grpclimit.Metadata("user"),
		MessageCost: length,
		Denied:      func(context.Context, grpclimit.Call, peerlimit.Decision) error { denials++; return nil },
		Failed:      func(context.Context, grpclimit.Call, error) error { failures++; return nil },
	}
	conn := serve(t, mustNew(t, newBuckets(t, peerlimit.PerHour(1)), options), nil)
	ctx := metadata.AppendToOutgoingContext(t.Context(), "user", "alice")
	for range 3 {
		require.NoError(t, say(ctx, conn, "a"))
	}
	assert.Equal(t, 2, denials)
	require.NoError(t, say(t.Context(), conn, "a"))
	stream := chat(t, t.Context(), conn)
	require.NoError(t, stream.SendMsg(wrapperspb.String("x")))
	require.NoError(t, stream.RecvMsg(new(wrapperspb.StringValue)))
	assert.Equal(t, 2, failures, "a stream without a key fails once, when it begins")
}

func TestWhyNothingWasDecided(t *testing.T) {
	for want, err := range map[codes.Code]error{
		codes.InvalidArgument:   peerlimit.ErrInvalidKey,
		codes.ResourceExhausted: peerlimit.ErrExceedsBurst,
		codes.Internal:          peerlimit.ErrInvalidCost,
		codes.Unavailable:       peerlimit.ErrClosed,
		codes.Canceled:          context.Canceled,
	} {
		ctx, cancel := context.WithCancel(t.Context())
		if err == context.Canceled {
			cancel()
		}
		limit := mustNew(t, grpclimit.TakerFunc(func(context.Context, string, float64) (peerlimit.Decision, error) {
			return peerlimit.Decision{}, err
		}), grpclimit.Options{Key: oneKey})
		_, got := limit.UnaryServer(ctx, nil, &grpc.UnaryServerInfo{FullMethod: sayMethod}, func(context.Context, any) (any, error) {
			t.Error("the handler was called")
			return nil, nil
		})
		cancel()
		hasCode(t, want, got)
		assert.ErrorIs(t, got, err, "it can be told apart in the same process")
	}
	hasCode(t, codes.Internal, grpclimit.FailedError(peerlimit.ErrInvalidLimit))
	hasCode(t, codes.Unavailable, grpclimit.FailedError(errors.New("something else")))
	assert.NoError(t, grpclimit.FailedError(nil))
}

func TestDeniedErrorOfAnything(t *testing.T) {
	err := grpclimit.DeniedError("calls", peerlimit.Decision{})
	hasCode(t, codes.ResourceExhausted, err)
	assert.ErrorIs(t, err, peerlimit.ErrLimited)
	retry, quota := details(t, err)
	assert.Nil(t, retry, "nobody knows when")
	require.NotNil(t, quota)
	assert.Empty(t, quota.Violations[0].Description)

	err = grpclimit.DeniedError("not UTF-8: \xff", peerlimit.Decision{RetryAfter: time.Second})
	hasCode(t, codes.ResourceExhausted, err)
}

func TestNewRefusesWhatWouldPanicLater(t *testing.T) {
	for want, taker := range map[string]grpclimit.Taker{
		"taker is nil":                      nil,
		"taker is a nil *peerlimit.Limiter": (*peerlimit.Limiter)(nil),
		"taker is a nil grpclimit.Taker":    grpclimit.TakerFunc(nil),
	} {
		_, err := grpclimit.New(taker, grpclimit.Options{})
		assert.ErrorIs(t, err, grpclimit.ErrInvalid)
		assert.ErrorContains(t, err, want)
	}
}
