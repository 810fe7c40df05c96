package main

import (
	"errors"
	"fmt"
	"net"
	"net/http"

	"github.com/peerlimit/peerlimit"
	"github.com/peerlimit/peerlimit/statuspage"
)

// statusServer serves the status page, on an address of its own: clients must not get to it.
type statusServer struct {
	listener net.Listener
	server   *http.Server
	served   chan error
}

// listenStatus takes the port before the node starts. Without an address there is no page, and a nil server for it.
func listenStatus(addr string) (*statusServer, error) {
	if addr == "" {
		return nil, nil
	}
	listener, err := net.Listen("tcp", addr)
	if err != nil {
		return nil, fmt.Errorf("-status %q: %w", addr, err)
	}
	return &statusServer{listener: listener}, nil
}

// start begins to serve the page of a node.
func (s *statusServer) start(node *peerlimit.Node) error {
	if s == nil {
		return nil
	}
	page, err := statuspage.New(node, statuspage.Options{})
	if err != nil {
		return err
	}
	s.server, s.served = newServer(page), make(chan error, 1)
	go func() { s.served <- s.server.Serve(s.listener) }()
	return nil
}

// close ends it immediately: somebody who looks at the page misses nothing.
func (s *statusServer) close() error {
	if s == nil {
		return nil
	}
	if s.server == nil {
		return s.listener.Close()
	}
	err := s.server.Close()
	if served := <-s.served; !errors.Is(served, http.ErrServerClosed) {
		err = errors.Join(err, served)
	}
	return err
}
