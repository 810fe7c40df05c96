package main

import (
	"context"
	"net"
	"net/http"
	"sync"
	"time"
)

// drainer answers all clients whose connections were accepted, before a server is shut down. [http.Server.Shutdown] waits for the
// requests that are being handled, but a request that it reads after that, of a connection that it had accepted before, gets no
// response. Behind a load balancer that stops sending first no client notices. Here there is none.
type drainer struct {
	mu       sync.Mutex // guards expected
	expected map[net.Conn]struct{}
}

// drainLooks is how often it is looked whether the last request has come.
const drainLooks = time.Millisecond

type connectionKey struct{}

// watch has a server tell which connections are accepted, and which have brought their first request.
func (d *drainer) watch(server *http.Server) {
	d.expected = make(map[net.Conn]struct{})
	server.ConnContext = func(ctx context.Context, connection net.Conn) context.Context {
		d.mu.Lock()
		d.expected[connection] = struct{}{}
		d.mu.Unlock()
		return context.WithValue(ctx, connectionKey{}, connection)
	}
	server.ConnState = func(connection net.Conn, state http.ConnState) {
		if state == http.StateClosed || state == http.StateHijacked {
			d.arrived(connection)
		}
	}
	handler := server.Handler
	server.Handler = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if connection, ok := r.Context().Value(connectionKey{}).(net.Conn); ok {
			d.arrived(connection)
		}
		handler.ServeHTTP(w, r)
	})
}

func (d *drainer) arrived(connection net.Conn) {
	d.mu.Lock()
	delete(d.expected, connection)
	d.mu.Unlock()
}

// wait returns when each connection has brought a request or is closed, or when ctx ends: there are clients that connect and
// say nothing. Nothing is accepted any more by then, or it would not end.
func (d *drainer) wait(ctx context.Context) {
	look := time.NewTicker(drainLooks)
	defer look.Stop()
	for {
		d.mu.Lock()
		expected := len(d.expected)
		d.mu.Unlock()
		if expected == 0 {
			return
		}
		select {
		case <-ctx.Done():
			return
		case <-look.C:
		}
	}
}

// endServer accepts no connection any more, answers those that were accepted, and ends the server, within that time.
func endServer(server *http.Server, d *drainer, listener net.Listener, served <-chan error, within time.Duration) error {
	ctx, cancel := context.WithTimeout(context.Background(), within)
	defer cancel()
	_ = listener.Close()
	<-served // from here on all that were accepted are known
	first, stop := context.WithTimeout(ctx, within/2)
	defer stop()
	d.wait(first)
	return server.Shutdown(ctx)
}
