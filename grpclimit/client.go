package grpclimit

import (
	"context"

	"google.golang.org/grpc"
)

var (
	_ grpc.UnaryClientInterceptor  = (*Limit)(nil).UnaryClient
	_ grpc.StreamClientInterceptor = (*Limit)(nil).StreamClient
)

// UnaryClient is a [grpc.UnaryClientInterceptor]: the call is sent when its turn has come. One that fails here was not
// sent.
func (l *Limit) UnaryClient(ctx context.Context, method string, request, reply any, conn *grpc.ClientConn,
	invoke grpc.UnaryInvoker, options ...grpc.CallOption) error {
	if _, err := l.begin(ctx, Call{Method: method, Message: request, Client: true, Target: targetOf(conn)}); err != nil {
		return err
	}
	return invoke(ctx, method, request, reply, conn, options...)
}

// StreamClient is a [grpc.StreamClientInterceptor]: the stream begins when its turn has come, and each message is sent
// when that may pass; see Options.MessageCost. A message that fails here was not sent, and the stream goes on.
func (l *Limit) StreamClient(ctx context.Context, desc *grpc.StreamDesc, conn *grpc.ClientConn, method string,
	open grpc.Streamer, options ...grpc.CallOption) (grpc.ClientStream, error) {
	call := Call{Method: method, Client: true, Target: targetOf(conn)}
	key, err := l.begin(ctx, call)
	if err != nil {
		return nil, err
	}
	stream, err := open(ctx, desc, conn, method, options...)
	if err != nil || l.options.MessageCost == nil || key == "" {
		return stream, err
	}
	return &clientStream{stream, ctx, l, call, key}, nil
}

// targetOf returns what a connection was made for. Interceptors are called without one in tests.
func targetOf(conn *grpc.ClientConn) string {
	if conn == nil {
		return ""
	}
	return conn.Target()
}

// clientStream takes for each message that goes out.
type clientStream struct {
	grpc.ClientStream
	ctx   context.Context // of the call; to ask the stream for its own would end transparent retries
	limit *Limit
	call  Call
	key   string
}

func (s *clientStream) SendMsg(m any) error {
	if err := s.limit.message(s.ctx, s.call, s.key, m); err != nil {
		return err
	}
	return s.ClientStream.SendMsg(m)
}
