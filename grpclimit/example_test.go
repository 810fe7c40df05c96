package grpclimit_test

import (
	"context"
	"errors"
	"fmt"
	"log"
	"net"
	"strings"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/health"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/status"

	"github.com/peerlimit/peerlimit"
	"github.com/peerlimit/peerlimit/grpclimit"
)

// A server that lets each client IP call three times an hour, and what its client is told then.
func ExampleNew() {
	node, err := peerlimit.Start(peerlimit.Config{}) // with Join and Secret in earnest
	if err != nil {
		log.Fatal(err)
	}
	defer node.Close()
	perClient, err := node.Limiter("per-client", peerlimit.PerHour(3))
	if err != nil {
		log.Fatal(err)
	}
	limit, err := grpclimit.New(perClient, grpclimit.Options{})
	if err != nil {
		log.Fatal(err)
	}
	server := grpc.NewServer(grpc.UnaryInterceptor(limit.UnaryServer), grpc.StreamInterceptor(limit.StreamServer))
	healthpb.RegisterHealthServer(server, health.NewServer())
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		log.Fatal(err)
	}
	go func() { _ = server.Serve(listener) }()
	defer server.Stop()

	conn, err := grpc.NewClient(listener.Addr().String(), grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		log.Fatal(err)
	}
	defer conn.Close()
	for range 4 {
		_, err = healthpb.NewHealthClient(conn).Check(context.Background(), &healthpb.HealthCheckRequest{})
		fmt.Println(status.Code(err))
	}
	for _, detail := range status.Convert(err).Details() {
		switch d := detail.(type) {
		case *errdetails.RetryInfo:
			fmt.Println("come back within 20 minutes:", d.RetryDelay.AsDuration().Minutes() <= 20)
		case *errdetails.QuotaFailure:
			fmt.Println(d.Violations[0].Description)
		}
	}
	// Output:
	// OK
	// OK
	// OK
	// ResourceExhausted
	// come back within 20 minutes: true
	// 3 per 1h0m0s, burst 3
}

// By API key and method, with calls that cost more and calls that are free. That the API key is valid must have been
// checked before, by an interceptor that comes first.
func ExampleNew_keysAndCosts() {
	node, err := peerlimit.Start(peerlimit.Config{})
	if err != nil {
		log.Fatal(err)
	}
	defer node.Close()
	perKey, err := node.Limiter("per-key", peerlimit.PerMinute(1000))
	if err != nil {
		log.Fatal(err)
	}
	limit, err := grpclimit.New(perKey, grpclimit.Options{
		Name: "calls of an API key",
		Key:  grpclimit.Join(grpclimit.Metadata("x-api-key"), grpclimit.Method),
		Cost: func(_ context.Context, call grpclimit.Call) float64 {
			switch {
			case strings.HasPrefix(call.Method, "/grpc.health.v1.Health/"):
				return 0
			case strings.HasSuffix(call.Method, "/Export"):
				return 50
			}
			return 1
		},
	})
	if err != nil {
		log.Fatal(err)
	}
	checkKey := func(ctx context.Context, r any, _ *grpc.UnaryServerInfo, next grpc.UnaryHandler) (any, error) {
		return next(ctx, r)
	}
	server := grpc.NewServer(grpc.ChainUnaryInterceptor(checkKey, limit.UnaryServer))
	server.Stop()
}

// A client of a third party that allows 100 calls a second to all of us together. Calls wait for their turn; with a
// deadline that comes sooner, they fail at once and are not sent.
func ExampleNew_client() {
	node, err := peerlimit.Start(peerlimit.Config{})
	if err != nil {
		log.Fatal(err)
	}
	defer node.Close()
	quota, err := node.Limiter("third-party", peerlimit.PerSecond(100).WithBurst(1))
	if err != nil {
		log.Fatal(err)
	}
	limit, err := grpclimit.New(quota, grpclimit.Options{})
	if err != nil {
		log.Fatal(err)
	}
	conn, err := grpc.NewClient("dns:///api.example:443", grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithUnaryInterceptor(limit.UnaryClient), grpc.WithStreamInterceptor(limit.StreamClient))
	if err != nil {
		log.Fatal(err)
	}
	defer conn.Close()
}

// A denial that did not come over the network is also the error of package peerlimit.
func ExampleDeniedError() {
	err := grpclimit.DeniedError("calls", peerlimit.Decision{})
	fmt.Println(status.Code(err), errors.Is(err, peerlimit.ErrLimited))
	// Output: ResourceExhausted true
}
