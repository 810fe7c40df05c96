package transport

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"github.com/peerlimit/peerlimit/internal/signal"
)

// Defaults of [ServerConfig].
const (
	// DefaultHandshakeTimeout is the client's ConnectTimeout.
	DefaultHandshakeTimeout = 2 * time.Second
	// DefaultMaxUnauthenticated is enough for a few hundred nodes that reconnect
	// in the same instant; the rest redial a moment later.
	DefaultMaxUnauthenticated = 256
	// DefaultMaxConns is one from every node of a large cluster, and again as many
	// whose other end has vanished and that keep-alive has not found yet.
	DefaultMaxConns = 4096
	// DefaultLatePerConn and DefaultLateTotal are far above what forwarding a
	// request needs, and bound goroutines to what a process can carry.
	DefaultLatePerConn = 1024
	DefaultLateTotal   = 16_384
	// DefaultWriteTimeout is the client's LostAfter: by then it has given up, too.
	DefaultWriteTimeout = 5 * time.Second

	// closeGrace is how long Close waits for handlers that do not end.
	closeGrace = 5 * time.Second

	// greetingGrace is how long a connection has for the handshake before another
	// one may take its place: much more than one needs, also on a machine that has
	// much to do. While all places are taken, the listener accepts as many in it as
	// there are places, which is 1,000 a second, and the system keeps the others
	// waiting.
	greetingGrace = 250 * time.Millisecond
)

// Handler answers requests.
//
// It is called on the connection's own goroutine, one request after the other,
// so it must be quick and must not wait for anything. It appends its response to
// response, an empty buffer that is reused, and returns the result. Or it returns
// later, which is then run on a goroutine of its own and returns the response. The
// context of later ends when the server closes; then it must return soon, and
// what it returns is not sent. More such requests than ServerConfig allows are
// answered with ErrBusy without running later. The response to a one-way message is
// dropped.
//
// from is the name the peer gave in the handshake. request is valid only during
// the call: later must work on a copy. The response is copied before Handler is
// called again, so it may be a slice of request or of the handler's own.
//
// A handler that panics is logged with its stack and loses the connection, not
// the process: what one peer sent must not take the service down.
type Handler func(from string, request, response []byte) (answer []byte, later func(ctx context.Context) []byte)

// ServerConfig configures a Server. Handler is required; fields that are zero or
// negative have the default named.
type ServerConfig struct {
	// Network is where the listener comes from. Default TCP{}.
	Network Network
	// Addr is the address to listen on.
	Addr string
	// Cluster and Self are the names that clients must ask for, at most 255 bytes.
	Cluster, Self string
	// MinVersion and MaxVersion are the protocol versions this node speaks.
	// Default Version for each.
	MinVersion, MaxVersion uint8
	// Handler answers requests.
	Handler Handler
	// WrapConn, when not nil, is applied to every connection before the handshake;
	// it must not do I/O itself (tls.Server does not). The result must honour
	// deadlines; it is not closed, what it wraps is.
	WrapConn func(net.Conn) net.Conn
	// Logger is told about panics, and at debug level about connections. Default
	// none.
	Logger *slog.Logger
	// OnRefused is told of connections that did not get through the handshake,
	// unless they ended without having sent anything, made room for others, or
	// came from an honest peer that looks for another node or finds too many
	// connections. It is called from the connection's goroutine and must be quick.
	// Nil means that refusals are not reported.
	OnRefused func(remote net.Addr, err error)

	// HandshakeTimeout is how long a new connection has for its handshake. Default 2s.
	HandshakeTimeout time.Duration
	// MaxUnauthenticated bounds the connections that have not finished the
	// handshake; over it the oldest is dropped, since an honest one takes a round
	// trip and one that holds the place takes as long as it can. It is the oldest
	// of the host that has most of them, and has had 250 ms by then; until one has,
	// no more are accepted. What each may send is bounded as well, to 64 kB.
	// Default 256.
	MaxUnauthenticated int
	// MaxConns bounds the other connections; over it the handshake is refused.
	// Default 4096.
	MaxConns int
	// MaxInFlight bounds the later functions running for one connection, and
	// MaxInFlightTotal those of the whole server. Default 1024 and 16,384.
	MaxInFlight, MaxInFlightTotal int
	// WriteTimeout is how long a peer may take to accept what is written to it
	// before it is dropped. It is precise to a quarter. Default 5s.
	WriteTimeout time.Duration
}

// withDefaults returns the configuration with every field set.
func (c ServerConfig) withDefaults() ServerConfig {
	if c.Network == nil {
		c.Network = TCP{}
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	setDefault(&c.MinVersion, Version)
	setDefault(&c.MaxVersion, Version)
	setDefault(&c.HandshakeTimeout, DefaultHandshakeTimeout)
	setDefault(&c.MaxUnauthenticated, DefaultMaxUnauthenticated)
	setDefault(&c.MaxConns, DefaultMaxConns)
	setDefault(&c.MaxInFlight, DefaultLatePerConn)
	setDefault(&c.MaxInFlightTotal, DefaultLateTotal)
	setDefault(&c.WriteTimeout, DefaultWriteTimeout)
	return c
}

// Server answers the requests of clients. All methods are safe for concurrent
// use.
type Server struct {
	config   ServerConfig
	listener net.Listener
	running  sync.WaitGroup // accepting, every connection, every later function
	late     atomic.Int64   // later functions running

	ctx    context.Context // of later functions
	cancel context.CancelFunc

	// mu guards the sets of connections. Nothing is closed while it is held.
	mu       sync.Mutex
	closed   bool
	accepted uint64                   // connections so far
	greeting map[*serverConn]struct{} // handshake not finished
	serving  map[*serverConn]struct{}

	freed    signal.Signal // holds a token when a place in greeting has become free
	drained  chan struct{} // closed when Close has done its work
	closeErr error         // its result, once drained
}

// Listen binds the address and serves. See Bind for what can fail.
func Listen(cfg ServerConfig) (*Server, error) {
	s, err := Bind(cfg)
	if err != nil {
		return nil, err
	}
	s.Serve()
	return s, nil
}

// Bind makes a server that listens and does not accept yet: the system keeps
// connections waiting until Serve, so that the address can be told before
// everything that the handler needs is there. It fails when the configuration has
// no handler, a name is too long, or the address cannot be listened on. The server
// must be closed, whether or not it has served.
func Bind(cfg ServerConfig) (*Server, error) {
	if cfg.Handler == nil {
		return nil, errors.New(errPrefix + "ServerConfig.Handler is nil")
	}
	if _, err := (helloReply{cluster: cfg.Cluster, name: cfg.Self}).encode(); err != nil {
		return nil, err
	}
	cfg = cfg.withDefaults()
	listener, err := cfg.Network.Listen(cfg.Addr)
	if err != nil {
		return nil, err
	}
	s := &Server{
		config:   cfg,
		listener: listener,
		greeting: make(map[*serverConn]struct{}),
		serving:  make(map[*serverConn]struct{}),
		freed:    signal.New(),
		drained:  make(chan struct{}),
	}
	s.ctx, s.cancel = context.WithCancel(context.Background())
	return s, nil
}

// Serve begins to accept connections, and returns. It is called once, by Listen or
// after Bind; after Close it does nothing.
func (s *Server) Serve() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.closed {
		s.running.Go(s.accept)
	}
}

// Addr returns the address the server listens on.
func (s *Server) Addr() net.Addr { return s.listener.Addr() }

// accept takes connections until the listener is closed. Other errors, such as
// running out of file descriptors, pass: it waits and tries again.
func (s *Server) accept() {
	retry := backoff{least: 5 * time.Millisecond, most: time.Second}
	for {
		conn, err := s.listener.Accept()
		if err != nil {
			if s.ctx.Err() != nil || errors.Is(err, net.ErrClosed) {
				return
			}
			s.config.Logger.Warn("cannot accept connections, check the limit of open files", "err", err)
			if !sleep(s.ctx, retry.next()) {
				return
			}
			continue
		}
		retry.reset()
		s.welcome(newServerConn(s, conn))
	}
}

// welcome starts a connection's goroutine as soon as there is a place for it.
func (s *Server) welcome(c *serverConn) {
	for {
		wait, dropped := s.admit(c)
		if dropped != nil {
			dropped.close()
		}
		if wait == 0 {
			return
		}
		timer := time.NewTimer(wait)
		select {
		case <-timer.C:
		case <-s.freed:
		case <-s.ctx.Done():
		}
		timer.Stop()
	}
}

// admit starts a connection's goroutine, or returns for how long there is no place
// for it unless one becomes free. The caller closes what is dropped.
func (s *Server) admit(c *serverConn) (wait time.Duration, dropped *serverConn) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return 0, c
	}
	now := time.Now()
	if len(s.greeting) >= s.config.MaxUnauthenticated {
		dropped = s.longestGreeting()
		if wait = greetingGrace - now.Sub(dropped.admitted); wait > 0 {
			return wait, nil
		}
		delete(s.greeting, dropped)
	}
	s.accepted++
	c.number, c.admitted = s.accepted, now
	s.greeting[c] = struct{}{}
	s.running.Go(c.run)
	return 0, dropped
}

// longestGreeting returns the connection that has been greeting longest, of those
// of the host that has most: one that floods drops its own. It searches all, which
// are few; s.mu is held.
func (s *Server) longestGreeting() *serverConn {
	counts := make(map[netip.Prefix]int)
	most := 0
	for c := range s.greeting {
		counts[c.source]++
		most = max(most, counts[c.source])
	}
	var oldest *serverConn
	for c := range s.greeting {
		if counts[c.source] == most && (oldest == nil || c.number < oldest.number) {
			oldest = c
		}
	}
	return oldest
}

// promote moves a connection from greeting to serving. It reports false when
// there are too many, or when the connection has been dropped meanwhile.
func (s *Server) promote(c *serverConn) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, ok := s.greeting[c]; !ok || len(s.serving) >= s.config.MaxConns {
		return false
	}
	s.leaveGreeting(c)
	s.serving[c] = struct{}{}
	return true
}

func (s *Server) forget(c *serverConn) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.leaveGreeting(c)
	delete(s.serving, c)
}

// leaveGreeting is called with s.mu held.
func (s *Server) leaveGreeting(c *serverConn) {
	delete(s.greeting, c)
	s.freed.Send()
}

// Close stops listening, closes all connections, ends the context of later
// functions, and waits for all goroutines: at most 5s, then it returns
// ErrHandlerStuck. It is idempotent; the second call waits and returns the same.
func (s *Server) Close() error {
	s.mu.Lock()
	first := !s.closed
	s.closed = true
	var conns []*serverConn
	for c := range s.greeting {
		conns = append(conns, c)
	}
	for c := range s.serving {
		conns = append(conns, c)
	}
	s.mu.Unlock()
	if !first {
		<-s.drained
		return s.closeErr
	}
	s.cancel()
	_ = s.listener.Close()
	for _, c := range conns {
		c.close()
	}
	s.closeErr = s.wait()
	close(s.drained)
	return s.closeErr
}

// wait waits for all goroutines, within reason.
func (s *Server) wait() error {
	done := make(chan struct{})
	go func() {
		s.running.Wait()
		close(done)
	}()
	timer := time.NewTimer(closeGrace)
	defer timer.Stop()
	select {
	case <-done:
		return nil
	case <-timer.C:
		return ErrHandlerStuck
	}
}
