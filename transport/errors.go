package transport

import (
	"errors"
	"fmt"
	"strings"
)

// errPrefix starts the text of every error of this package.
const errPrefix = "peerlimit/transport: "

// Errors of calls, for errors.Is. A call also returns ctx.Err() when its context
// is done, and never otherwise.
var (
	// ErrUnreachable: nothing can be delivered now, because the link is down or
	// suspect or the handshake was refused. Unless the error is also ErrBroken,
	// nothing was sent.
	ErrUnreachable = errors.New(errPrefix + "peer unreachable")

	// ErrBroken: the connection ended while the call was in flight, so the call
	// may have been executed. Every ErrBroken is also an ErrUnreachable.
	ErrBroken = fmt.Errorf("%w: connection ended with the call in flight", ErrUnreachable)

	// ErrTimeout: the request was queued or sent and no response came in time. It
	// may have been executed, or may yet be.
	ErrTimeout = errors.New(errPrefix + "no answer in time")

	// ErrBusy: a bound was reached, on this side (calls in flight, bytes queued
	// for the peer) or on the peer's (requests being worked on). The request was
	// not executed.
	ErrBusy = errors.New(errPrefix + "too much in flight")

	// ErrTooLarge: the request or the response is larger than MaxPayload. A request
	// that is too large was not sent; one with too large a response was executed.
	ErrTooLarge = errors.New(errPrefix + "message too large")

	// ErrClosed: the client or server has been closed.
	ErrClosed = errors.New(errPrefix + "closed")

	// ErrTLS: a connection began with TLS, which this end does not speak. Server's OnRefused is told of it.
	ErrTLS = errors.New(errPrefix + "the other end speaks TLS and this one does not")

	// ErrHandlerStuck: Server.Close returned although a handler did not.
	ErrHandlerStuck = errors.New(errPrefix + "handler still running after close")
)

// Error says which peer a call failed on and why. errors.Is and errors.As see
// both Err and Cause. Errors of the same kind on the same link share one value,
// so that failing immediately costs no allocation; do not modify it.
type Error struct {
	Peer  string // name of the peer
	Err   error  // one of the package's Err values
	Cause error  // what lies behind it, for example a *HandshakeError; may be nil
}

// Error implements error.
func (e *Error) Error() string {
	text := errPrefix + "peer " + e.Peer + ": " + strings.TrimPrefix(e.Err.Error(), errPrefix)
	if e.Cause != nil {
		text += ": " + strings.TrimPrefix(e.Cause.Error(), errPrefix)
	}
	return text
}

// Unwrap returns Err and, when there is one, Cause.
func (e *Error) Unwrap() []error {
	if e.Cause == nil {
		return []error{e.Err}
	}
	return []error{e.Err, e.Cause}
}

// HandshakeStatus is the outcome of a handshake; it travels as one byte.
type HandshakeStatus uint8

const (
	// HandshakeOK: each end is the member it was meant to be.
	HandshakeOK HandshakeStatus = 0
	// HandshakeVersion: the ranges of protocol versions do not meet.
	HandshakeVersion HandshakeStatus = 1
	// HandshakeCluster: the server belongs to another cluster.
	HandshakeCluster HandshakeStatus = 2
	// HandshakeName: the server has another name than the client asked for.
	HandshakeName HandshakeStatus = 3
	// HandshakeBusy: the server has as many connections as it accepts.
	HandshakeBusy HandshakeStatus = 4
	// HandshakeUnfinished: the connection broke or the time was over before the
	// other end had answered. It is never sent, only reported.
	HandshakeUnfinished HandshakeStatus = 254
	// HandshakeProtocol: what the other end answered is not a handshake, or what
	// this end would have to say is not possible. It is never sent, only reported.
	HandshakeProtocol HandshakeStatus = 255
)

// String says what the status means.
func (s HandshakeStatus) String() string {
	switch s {
	case HandshakeOK:
		return "ok"
	case HandshakeVersion:
		return "no common protocol version"
	case HandshakeCluster:
		return "another cluster"
	case HandshakeName:
		return "another node"
	case HandshakeBusy:
		return "too many connections"
	case HandshakeUnfinished:
		return "not finished"
	case HandshakeProtocol:
		return "not a peer"
	default:
		return fmt.Sprintf("status %d", uint8(s))
	}
}

// HandshakeError says why two nodes did not come together. The fields about the
// other end are what it claimed, and empty when it did not get that far.
type HandshakeError struct {
	Status  HandshakeStatus
	Cluster string // the other end's cluster
	Name    string // the other end's name
	Version uint8  // the other end's highest version when Status is HandshakeVersion
	Err     error  // what went wrong with reading or writing, or nil
}

// Error implements error.
func (e *HandshakeError) Error() string {
	text := errPrefix + "handshake: " + e.Status.String()
	switch e.Status {
	case HandshakeVersion:
		text += fmt.Sprintf(" (highest there: %d)", e.Version)
	case HandshakeCluster:
		text += fmt.Sprintf(" (%q)", e.Cluster)
	case HandshakeName:
		text += fmt.Sprintf(" (%q)", e.Name)
	}
	if e.Err != nil {
		text += ": " + strings.TrimPrefix(e.Err.Error(), errPrefix)
	}
	return text
}

// Unwrap returns Err.
func (e *HandshakeError) Unwrap() error { return e.Err }
