// Package grpclimit puts peerlimit in front of a gRPC service, and behind a gRPC client. It is a module of its own, so that
// gRPC reaches only those who use it.
//
// A server that lets each client IP call 100 times a minute, on all of its instances together:
//
//	perClient, err := node.Limiter("per-client", peerlimit.PerMinute(100).WithBurst(20))
//	if err != nil { ... }
//	limit, err := grpclimit.New(perClient, grpclimit.Options{})
//	if err != nil { ... }
//	server := grpc.NewServer(grpc.UnaryInterceptor(limit.UnaryServer), grpc.StreamInterceptor(limit.StreamServer))
//
// A call that is denied fails with RESOURCE_EXHAUSTED and two details: errdetails.RetryInfo says when to come back,
// errdetails.QuotaFailure what the limit is.
//
// A client that keeps to the quota of a third party, together with all other instances; its calls wait for their turn:
//
//	limit, err := grpclimit.New(quota, grpclimit.Options{})
//	if err != nil { ... }
//	conn, err := grpc.NewClient(target, creds, grpc.WithUnaryInterceptor(limit.UnaryClient), grpc.WithStreamInterceptor(limit.StreamClient))
package grpclimit
