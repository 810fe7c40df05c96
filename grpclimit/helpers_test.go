package grpclimit_test

import (
	"context"
	"io"
	"net"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"
	"google.golang.org/grpc/test/bufconn"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/peerlimit/peerlimit"
	"github.com/peerlimit/peerlimit/grpclimit"
	_ "github.com/peerlimit/peerlimit/internal/onecore"
)

const (
	sayMethod  = "/test.Echo/Say"
	chatMethod = "/test.Echo/Chat"
)

// echo answers with what it is told, in one call or in a stream.
var echo = grpc.ServiceDesc{
	ServiceName: "test.Echo",
	HandlerType: (*any)(nil),
	Methods: []grpc.MethodDesc{{MethodName: "Say", Handler: func(_ any, ctx context.Context, decode func(any) error, limit grpc.UnaryServerInterceptor) (any, error) {
		request := new(wrapperspb.StringValue)
		if err := decode(request); err != nil {
			return nil, err
		}
		say := func(_ context.Context, r any) (any, error) { return r, nil }
		if limit == nil {
			return say(ctx, request)
		}
		return limit(ctx, request, &grpc.UnaryServerInfo{FullMethod: sayMethod}, say)
	}}},
	Streams: []grpc.StreamDesc{{StreamName: "Chat", ServerStreams: true, ClientStreams: true, Handler: func(_ any, stream grpc.ServerStream) error {
		for {
			m := new(wrapperspb.StringValue)
			if err := stream.RecvMsg(m); err == io.EOF {
				return nil
			} else if err != nil {
				return err
			}
			if err := stream.SendMsg(m); err != nil {
				return err
			}
		}
	}}},
}

// serve starts the service over memory and returns a connection to it. Nil means not limited.
func serve(t *testing.T, server, client *grpclimit.Limit) *grpc.ClientConn {
	t.Helper()
	listener := bufconn.Listen(1 << 16)
	return serveOn(t, listener, "passthrough:///echo", server, client, grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) {
		return listener.DialContext(ctx)
	}))
}

func serveOn(t *testing.T, listener net.Listener, target string, server, client *grpclimit.Limit, options ...grpc.DialOption) *grpc.ClientConn {
	t.Helper()
	var serverOptions []grpc.ServerOption
	if server != nil {
		serverOptions = append(serverOptions, grpc.UnaryInterceptor(server.UnaryServer), grpc.StreamInterceptor(server.StreamServer))
	}
	s := grpc.NewServer(serverOptions...)
	s.RegisterService(&echo, nil)
	served := make(chan error, 1)
	go func() { served <- s.Serve(listener) }()
	if client != nil {
		options = append(options, grpc.WithUnaryInterceptor(client.UnaryClient), grpc.WithStreamInterceptor(client.StreamClient))
	}
	conn, err := grpc.NewClient(target, append(options, grpc.WithTransportCredentials(insecure.NewCredentials()))...)
	require.NoError(t, err)
	t.Cleanup(func() {
		assert.NoError(t, conn.Close())
		s.Stop()
		assert.NoError(t, <-served)
	})
	return conn
}

func say(ctx context.Context, conn *grpc.ClientConn, text string) error {
	return conn.Invoke(ctx, sayMethod, wrapperspb.String(text), new(wrapperspb.StringValue))
}

func chat(t *testing.T, ctx context.Context, conn *grpc.ClientConn) grpc.ClientStream {
	t.Helper()
	stream, err := conn.NewStream(ctx, &grpc.StreamDesc{ServerStreams: true, ClientStreams: true}, chatMethod)
	require.NoError(t, err)
	return stream
}

// buckets is a Taker with a bucket for each key, in this process.
type buckets struct {
	t     *testing.T
	limit peerlimit.Limit
	byKey map[string]*peerlimit.Bucket
	asked int
}

func newBuckets(t *testing.T, limit peerlimit.Limit) *buckets {
	return &buckets{t: t, limit: limit, byKey: make(map[string]*peerlimit.Bucket)}
}

func (b *buckets) bucket(key string) *peerlimit.Bucket {
	b.asked++
	if b.byKey[key] == nil {
		bucket, err := peerlimit.NewBucket(b.limit)
		require.NoError(b.t, err)
		b.byKey[key] = bucket
	}
	return b.byKey[key]
}

// Take is called by one call after the other in these tests.
func (b *buckets) Take(_ context.Context, key string, cost float64) (peerlimit.Decision, error) {
	return b.bucket(key).Take(cost)
}

// turns is buckets with turns.
type turns struct{ *buckets }

func (b turns) Reserve(ctx context.Context, key string, cost float64) (*peerlimit.Reservation, error) {
	r, err := b.bucket(key).Reserve(cost)
	if deadline, ok := ctx.Deadline(); err == nil && ok && r.Delay() > time.Until(deadline) {
		wait := r.Delay()
		r.Cancel()
		return nil, peerlimit.Decision{RetryAfter: wait, Limit: b.limit}.Err()
	}
	return r, err
}

func mustNew(t *testing.T, taker grpclimit.Taker, o grpclimit.Options) *grpclimit.Limit {
	t.Helper()
	limit, err := grpclimit.New(taker, o)
	require.NoError(t, err)
	return limit
}

// oneKey is a key for all.
func oneKey(context.Context, grpclimit.Call) (string, error) { return "all", nil }

// details returns what a status has besides its message.
func details(t *testing.T, err error) (*errdetails.RetryInfo, *errdetails.QuotaFailure) {
	t.Helper()
	s, ok := status.FromError(err)
	require.True(t, ok)
	var retry *errdetails.RetryInfo
	var quota *errdetails.QuotaFailure
	for _, detail := range s.Details() {
		switch d := detail.(type) {
		case *errdetails.RetryInfo:
			retry = d
		case *errdetails.QuotaFailure:
			quota = d
		default:
			t.Errorf("unexpected detail %v", d)
		}
	}
	return retry, quota
}

func hasCode(t *testing.T, want codes.Code, err error) {
	t.Helper()
	assert.Equal(t, want, status.Code(err), "%v", err)
}
