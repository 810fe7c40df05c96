package grpclimit

import (
	"context"

	"google.golang.org/grpc"
)

var (
	_ grpc.UnaryServerInterceptor  = (*Limit)(nil).UnaryServer
	_ grpc.StreamServerInterceptor = (*Limit)(nil).StreamServer
)

// UnaryServer is a [grpc.UnaryServerInterceptor]: the handler is called when the call may pass.
func (l *Limit) UnaryServer(ctx context.Context, request any, info *grpc.UnaryServerInfo, handler grpc.UnaryHandler) (any, error) {
	if _, err := l.begin(ctx, Call{Method: info.FullMethod, Message: request}); err != nil {
		return nil, err
	}
	return handler(ctx, request)
}

// StreamServer is a [grpc.StreamServerInterceptor]: the handler is called when the stream may begin, and receives each
// message when that may pass; see Options.MessageCost.
func (l *Limit) StreamServer(server any, stream grpc.ServerStream, info *grpc.StreamServerInfo, handler grpc.StreamHandler) error {
	call := Call{Method: info.FullMethod}
	key, err := l.begin(stream.Context(), call)
	if err != nil {
		return err
	}
	if l.options.MessageCost != nil && key != "" {
		stream = &serverStream{stream, l, call, key}
	}
	return handler(server, stream)
}

// serverStream takes for each message that comes in.
type serverStream struct {
	grpc.ServerStream
	limit *Limit
	call  Call
	key   string
}

func (s *serverStream) RecvMsg(m any) error {
	if err := s.ServerStream.RecvMsg(m); err != nil {
		return err
	}
	return s.limit.message(s.Context(), s.call, s.key, m)
}

// message takes for a message of a stream.
func (l *Limit) message(ctx context.Context, call Call, key string, m any) error {
	call.Message = m
	return l.admit(ctx, call, key, l.options.MessageCost(ctx, call))
}
