package transport

import (
	"context"
	"maps"
	"net"
	"sync"
	"sync/atomic"
	"time"
)

// Defaults of [ClientConfig].
const (
	// DefaultConnectTimeout is some ten round trips around the world.
	DefaultConnectTimeout = 2 * time.Second
	// DefaultPingInterval notices a peer that is back soon after it is.
	DefaultPingInterval = 100 * time.Millisecond
	// DefaultSuspectAfter is a few, because one late response proves nothing.
	DefaultSuspectAfter = 3
	// DefaultLostAfter is well above the pauses of a busy process, and well below
	// the minutes that TCP may wait between retransmissions after a long cut.
	DefaultLostAfter = 5 * time.Second
	// DefaultRedialMin and DefaultRedialMax find a returning node within a second
	// without burdening it.
	DefaultRedialMin = 50 * time.Millisecond
	DefaultRedialMax = time.Second
	// DefaultMaxInFlight keeps a link's table of calls at 1 MiB when it is full.
	DefaultMaxInFlight = 65_536
	// DefaultMaxQueued is room for a burst of tens of thousands of small requests,
	// or for a few of the largest.
	DefaultMaxQueued = 4 << 20
)

// ClientConfig configures a Client. Fields that are zero or negative have the
// default named; only Cluster and Self have none.
type ClientConfig struct {
	// Network is where connections come from. Default TCP{}.
	Network Network
	// Cluster is the cluster's name, at most 255 bytes. Servers of another one
	// refuse, and are refused.
	Cluster string
	// Self is the name of this node, at most 255 bytes. Handlers are given it.
	Self string
	// MinVersion and MaxVersion are the protocol versions this node speaks.
	// Default Version for each.
	MinVersion, MaxVersion uint8
	// WrapConn, when not nil, is applied to every connection before the handshake;
	// it must not do I/O itself (tls.Client does not). The result must honour
	// deadlines; it is not closed, what it wraps is.
	WrapConn func(net.Conn) net.Conn
	// OnLink is told about every change of a link, in order for each link, from
	// the link's own goroutine. It must return soon, because it delays the timeouts
	// of that link's calls, and must not call Close. Nothing is reported after
	// Disconnect or Close, except what was under way.
	OnLink func(LinkChange)

	// ConnectTimeout bounds dialling and handshake together. Default 2s.
	ConnectTimeout time.Duration
	// PingInterval is how often a peer that does not respond is asked whether it is
	// there; the first time after half of that. A peer that answers, or that
	// nothing has been sent to, is not pinged. Default 100ms.
	PingInterval time.Duration
	// SuspectAfter is the number of calls that must time out in a row, with nothing
	// received in between, for the link to become suspect. Calls that ended with
	// their context count when they would have timed out. Default 3.
	SuspectAfter int
	// LostAfter is how long a peer may be silent before the connection is closed
	// and redialled. It is counted in unanswered pings, so that time in which this
	// process did not run does not count. Default 5s.
	LostAfter time.Duration
	// RedialMin and RedialMax are the first and the longest delay between
	// attempts to connect; each is jittered down to half. Default 50ms and 1s.
	RedialMin, RedialMax time.Duration
	// MaxInFlight bounds the calls in flight to one peer, and apart from them those
	// that wait for its first connection; over it, ErrBusy. Default 65,536.
	MaxInFlight int
	// MaxQueued bounds the bytes queued for one peer and not yet being written;
	// over it, ErrBusy. A single message is always taken. Default 4 MiB.
	MaxQueued int
}

// withDefaults returns the configuration with every field set.
func (c ClientConfig) withDefaults() ClientConfig {
	if c.Network == nil {
		c.Network = TCP{}
	}
	setDefault(&c.MinVersion, Version)
	setDefault(&c.MaxVersion, Version)
	setDefault(&c.ConnectTimeout, DefaultConnectTimeout)
	setDefault(&c.PingInterval, DefaultPingInterval)
	setDefault(&c.SuspectAfter, DefaultSuspectAfter)
	setDefault(&c.LostAfter, DefaultLostAfter)
	setDefault(&c.RedialMin, DefaultRedialMin)
	setDefault(&c.RedialMax, DefaultRedialMax)
	setDefault(&c.MaxInFlight, DefaultMaxInFlight)
	setDefault(&c.MaxQueued, DefaultMaxQueued)
	return c
}

// setDefault replaces a value that is zero or negative.
func setDefault[T int | uint8 | time.Duration](value *T, byDefault T) {
	if *value <= 0 {
		*value = byDefault
	}
}

// lostAfterPings is LostAfter in pings.
func (c *ClientConfig) lostAfterPings() int {
	return int((c.LostAfter + c.PingInterval - 1) / c.PingInterval)
}

// Client calls peers, each over one connection that it keeps open. All methods
// are safe for concurrent use.
type Client struct {
	config  ClientConfig
	epoch   time.Time
	pool    sync.Pool      // of *call; not shared, see call
	running sync.WaitGroup // one for each link's goroutine

	links atomic.Pointer[map[string]*link] // by name; replaced as a whole under mu

	mu     sync.Mutex // guards closed and replacing links; held for a map copy
	closed bool
}

// NewClient returns a client without links. It must be closed.
func NewClient(cfg ClientConfig) *Client {
	c := &Client{config: cfg.withDefaults(), epoch: time.Now()}
	c.pool.New = newCall
	c.links.Store(&map[string]*link{})
	return c
}

// clock returns nanoseconds since the client was made, never going back.
func (c *Client) clock() int64 { return int64(time.Since(c.epoch)) }

// Connect starts keeping a link to peer, until Disconnect or Close. It does not
// wait. A second Connect for the same name changes nothing, unless the address
// is another one: then the old link ends as by Disconnect and a new one starts.
// After Close it does nothing.
func (c *Client) Connect(peer Peer) {
	c.mu.Lock()
	old := (*c.links.Load())[peer.Name]
	if c.closed || old != nil && old.peer.Addr == peer.Addr {
		c.mu.Unlock()
		return
	}
	l := newLink(c, peer)
	c.swap(func(links map[string]*link) { links[peer.Name] = l })
	c.running.Add(1)
	c.mu.Unlock()

	go l.run()
	if old != nil {
		old.stop(errGivenUp)
	}
}

// swap replaces the links by a changed copy. c.mu is held.
func (c *Client) swap(change func(map[string]*link)) {
	links := maps.Clone(*c.links.Load())
	change(links)
	c.links.Store(&links)
}

// Disconnect ends the link to the peer of that name, if there is one. When it
// returns, the calls in flight have ended with ErrUnreachable; the link's
// goroutines end soon after, Close waits for them.
func (c *Client) Disconnect(name string) {
	c.mu.Lock()
	l := (*c.links.Load())[name]
	if l != nil {
		c.swap(func(links map[string]*link) { delete(links, name) })
	}
	c.mu.Unlock()
	if l != nil {
		l.stop(errGivenUp)
	}
}

// Call sends request to peer and returns its response, which belongs to the
// caller. The request is copied and may be reused when Call returns.
//
// A peer that Connect was not called for, or that Disconnect was, is
// ErrUnreachable: only the caller decides which peers have links, and a call that
// comes a moment too late must not bring back a link that no call will end. While
// the first attempt to connect is under way the call waits for it; from then on
// it fails with ErrUnreachable immediately whenever the link is not up.
//
// timeout bounds the whole call and is precise to about a millisecond; at zero
// or below the call fails with ErrTimeout and nothing is sent. Errors are
// ErrUnreachable, ErrTimeout, ErrBusy, ErrTooLarge and ErrClosed, and ctx.Err()
// only when ctx is done. Unless it says otherwise, a call that failed may have
// been executed.
func (c *Client) Call(ctx context.Context, peer Peer, request []byte, timeout time.Duration) ([]byte, error) {
	return c.CallAppend(ctx, peer, nil, request, timeout)
}

// CallAppend is Call for callers that make many: it appends the response to dst, whose
// memory may be the caller's stack, and allocates nothing when there is room. With
// an error it returns nil.
func (c *Client) CallAppend(ctx context.Context, peer Peer, dst, request []byte, timeout time.Duration) ([]byte, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	l, err := c.link(peer, request)
	if err != nil {
		return nil, err
	}
	return l.call(ctx, dst, request, timeout)
}

// Post sends a message that wants no response, at most once. It copies request,
// does not wait and returns nil when the message was queued, which says nothing
// about its arrival. Unlike Call it does not wait for a first connection: without
// one it returns ErrUnreachable. While the link is suspect the message is sent
// too, and arrives if the peer was only slow. Further errors are ErrBusy,
// ErrTooLarge and ErrClosed.
func (c *Client) Post(peer Peer, request []byte) error {
	l, err := c.link(peer, request)
	if err != nil {
		return err
	}
	return l.post(request)
}

// link returns the link to send request on.
func (c *Client) link(peer Peer, request []byte) (*link, error) {
	l := (*c.links.Load())[peer.Name]
	if l == nil {
		return nil, c.noLink()
	}
	if len(request) > MaxPayload {
		return nil, l.errs.tooLarge
	}
	return l, nil
}

// noLink says why there is no link to a peer.
func (c *Client) noLink() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return ErrClosed
	}
	return ErrUnreachable
}

// State returns the state of the link to the peer of that name. It costs a map
// look-up and an atomic load.
func (c *Client) State(name string) LinkState {
	if l := (*c.links.Load())[name]; l != nil {
		return l.status.Load().state
	}
	return LinkUnknown
}

// Version returns the protocol version spoken with the peer of that name, or 0
// when there is no connection.
func (c *Client) Version(name string) uint8 {
	if l := (*c.links.Load())[name]; l != nil {
		if s := l.status.Load().session; s != nil {
			return s.version
		}
	}
	return 0
}

// Close ends all links and waits for their goroutines. Calls in flight, and all
// later ones, end with ErrClosed. It always returns nil, also the second time.
func (c *Client) Close() error {
	c.mu.Lock()
	c.closed = true
	links := *c.links.Swap(&map[string]*link{})
	c.mu.Unlock()
	for _, l := range links {
		l.stop(ErrClosed)
	}
	c.running.Wait()
	return nil
}
