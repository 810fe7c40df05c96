package main

import (
	"errors"
	"io"
	"net"

	"github.com/peerlimit/peerlimit/bench/contest"
)

// messageLength is about that of a take and of its answer.
const messageLength = 60

// pingPong is the floor: a message of that length to the other process and back, over a bare TCP connection, with nothing
// decided. Each process listens; the one that is asked connects to the next one. There is one caller.
type pingPong struct {
	listener net.Listener
	served   chan struct{} // closed when nothing is answered any more
	conn     net.Conn
}

func (p *pingPong) Start(contest.Setup) (address string, err error) {
	if p.listener, err = net.Listen("tcp", "127.0.0.1:0"); err != nil {
		return "", err
	}
	p.served = make(chan struct{})
	go p.serve()
	return p.listener.Addr().String(), nil
}

// serve answers one connection, until it ends or the listener is closed before there is one.
func (p *pingPong) serve() {
	defer close(p.served)
	conn, err := p.listener.Accept()
	if err != nil {
		return
	}
	defer conn.Close()
	var message [messageLength]byte
	for {
		if _, err := io.ReadFull(conn, message[:]); err != nil {
			return
		}
		if _, err := conn.Write(message[:]); err != nil {
			return
		}
	}
}

// Meet connects the process that is told of more than its own address.
func (p *pingPong) Meet(addresses []string) (err error) {
	own := p.listener.Addr().String()
	if p.conn == nil && addresses[0] == own && len(addresses) > 1 {
		p.conn, err = net.Dial("tcp", addresses[1])
	}
	return err
}

func (p *pingPong) Owns(*contest.Scenario, string) bool          { return false }
func (p *pingPong) Fill(*contest.Scenario) (contest.Take, error) { return nil, nil }

func (p *pingPong) Take(s *contest.Scenario) (contest.Take, error) {
	if s.Callers != 1 || p.conn == nil {
		return nil, errors.New("it is for one caller and two processes")
	}
	var message [messageLength]byte
	return func(string) (bool, error) {
		if _, err := p.conn.Write(message[:]); err != nil {
			return false, err
		}
		_, err := io.ReadFull(p.conn, message[:])
		return true, err
	}, nil
}

// Close closes its own connection first: the other side then ends, and so does this one, when that has closed its own.
func (p *pingPong) Close() (err error) {
	if p.listener == nil {
		return nil
	}
	if p.conn != nil {
		err = p.conn.Close()
	}
	err = errors.Join(err, p.listener.Close())
	<-p.served
	return err
}
