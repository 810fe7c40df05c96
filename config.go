package peerlimit

import (
	"cmp"
	"crypto/tls"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/hashicorp/memberlist"

	"github.com/peerlimit/peerlimit/fallback"
	"github.com/peerlimit/peerlimit/internal/membership"
	"github.com/peerlimit/peerlimit/internal/ring"
	"github.com/peerlimit/peerlimit/internal/secret"
	"github.com/peerlimit/peerlimit/internal/store"
	"github.com/peerlimit/peerlimit/internal/wire"
	"github.com/peerlimit/peerlimit/transport"
)

// Defaults and bounds of [Config].
const (
	DefaultCluster         = "peerlimit"
	DefaultBindAddr        = "127.0.0.1:0"
	DefaultGossipPort      = 7946
	DefaultRPCTimeout      = 100 * time.Millisecond
	DefaultReplicaInterval = 20 * time.Millisecond
	DefaultMaxWait         = time.Minute
	DefaultOutvoteAfter    = time.Minute
	DefaultSplitMemory     = time.Hour
	DefaultMaxKeys         = 1_000_000

	maxClusterLen = 128 // bytes; gossip labels and handshakes end at 255
	maxLabelLen   = 128 // bytes of Config.Name; identities travel in every handshake
	minRPCTimeout = time.Millisecond
	maxRPCTimeout = time.Minute

	// minOutvoteAfter is twice the age at which answers of witnesses end: what is shorter is a pause and not a death.
	minOutvoteAfter = time.Second
)

// Config says how a node finds its cluster and how it behaves when it cannot reach it. The zero Config starts a working
// single node on loopback. [Start] refuses a field that is out of range or contradicts another with an error that
// matches [ErrInvalidConfig] and names the fields and their values.
type Config struct {
	// Cluster names the cluster; nodes of another cluster are not let in, even at a shared address. Empty means
	// "peerlimit"; at most 128 bytes.
	Cluster string

	// Name is a label for people. A node's identity is Name and eight random hexadecimal digits, so a restarted process
	// is a new member. Empty means the host name; at most 128 bytes, printable and without spaces.
	Name string

	// BindAddr is where gossip listens, TCP and UDP: an IP address or a name of this host, with an optional port
	// (7946 without one; port 0 lets the system choose). Empty means "127.0.0.1:0".
	BindAddr string

	// AdvertiseAddr is the address that other nodes are told, for both gossip and takes, when it is not the one bound:
	// behind NAT or when BindAddr is unspecified ("0.0.0.0"). A port here is that of gossip. Empty means what was bound.
	AdvertiseAddr string

	// RPCAddr is where takes are served, TCP. Empty means the host of BindAddr and its port + 1 (port 0 stays 0).
	RPCAddr string

	// Join lists seeds as host[:port], port 7946 by default. Every A and AAAA record of a name counts. A node's own
	// address may be among them. Seeds are tried until all are members, for as long as the node runs; one that does not
	// resolve is logged and tried again.
	Join []string

	// ExpectMembers makes a node that has not yet seen that many members divide limits by at least that number when it
	// must decide alone. Until then it decides by whole limits only while it is in touch with more than half of so many, or
	// has joined a cluster that does. Zero means no expectation.
	ExpectMembers int

	// Secret encrypts and authenticates gossip and takes: only members that have it can join, take or listen. It is at
	// least 32 random bytes, the same on all members; what is used is derived from it and from Cluster. Nil means that
	// nothing is encrypted, unless TLS is set.
	Secret []byte

	// AcceptSecrets are understood as well as Secret, at most 8 of them: for changing it without downtime. First every
	// member accepts the new one, then every member has it as Secret and accepts the old one, then none accepts that.
	AcceptSecrets [][]byte

	// TLS, if not nil, is for takes instead of what is derived from Secret, for those with a certificate authority. It
	// serves both sides: it must have a certificate, ClientAuth tls.RequireAndVerifyClientCert with ClientCAs, and RootCAs
	// unless the system's will do. Without a ServerName, the certificate of a member must be for its address. TLS 1.3 is
	// the least version. Certificates that are renewed are picked up through GetCertificate and GetClientCertificate.
	// Gossip is encrypted by Secret alone.
	TLS *tls.Config

	// Insecure is required to bind an address that is not loopback while there is no Secret: gossip, and takes without TLS,
	// are then neither encrypted nor authenticated, and every peer that reaches the ports can take, refund and reset.
	Insecure bool

	// Fallback decides which share of a limit a node that reaches no owner may give out. Nil means fallback.Divided.
	Fallback fallback.Policy

	// RPCTimeout bounds one request to another node. Zero means 100 ms; 1 ms to 1 minute.
	RPCTimeout time.Duration

	// ReplicaInterval is how often what has changed is sent to the members that replace this one if it crashes: what it
	// has admitted since is forgotten then. Zero means 20 ms; negative turns replication off.
	ReplicaInterval time.Duration

	// MaxWait bounds how long Wait, Await and Reserve may put off a take. Zero means 1 minute; not negative.
	MaxWait time.Duration

	// OutvoteAfter is how long this node has no majority before it goes on without the members that have died, when half of them or
	// more died at the same moment: from then on it, the members that it has links to and newcomers are a cluster of their own, if they
	// are more than half of all that still count, the dead included. Until then all of them decide by shares.
	//
	// The node cannot tell dead members from members that run and are cut off. So this is not safe: where a cluster is split, and so
	// many newcomers start on the smaller side that it becomes the larger one, both sides decide by whole limits from OutvoteAfter on
	// until the split heals, and together admit up to twice a limit. Set it to -1 if shares for up to SplitMemory are better than that.
	//
	// Zero means 1 minute, or SplitMemory where that is less; negative means never; otherwise at least 1 second and at most
	// SplitMemory. It should be the same on all members.
	OutvoteAfter time.Duration

	// SplitMemory is how long this node has no majority before it and the members that it has links to go on as a cluster of their
	// own, however few they are: the rest of a cluster that has lost the others forever becomes one again. It is not safe in the way
	// that OutvoteAfter is not: sides of a split that lasts for longer decide by whole limits, each for itself. Zero means 1 hour; not
	// negative, and at least OutvoteAfter. It should be the same on all members.
	SplitMemory time.Duration

	// NoLeases turns off leases: then every take of a key that another node holds is decided there. A node that has it set
	// neither asks for leases nor grants any. With leases, a node that takes from a key more than 400 times a second gets
	// tokens set aside for it for 10 ms at a time; the guarantees are the same.
	NoLeases bool

	// NoDenialCache turns off remembering denials: then every take of an exhausted key is sent to its holder. Otherwise a
	// denial is remembered until it may no longer stand, for 250 ms at most: so long it may take until a refund or a reset
	// on another node is noticed.
	NoDenialCache bool

	// MaxKeys bounds the buckets this node keeps for the cluster, and apart from that those it keeps for deciding alone.
	// When there is no room for another one, the one that will be full of tokens first goes: drained ones, which say
	// nothing, then those of which little was taken, and exhausted ones last. So endless fresh keys do not make a node
	// forget the keys that have nothing left; only where nearly all are exhausted is one of them forgotten, and its key starts anew.
	// Stats.Evicted counts those that still mattered. Buckets that are being handed over stay, also above the bound, for
	// some seconds at most. Limits that were asked for in the last ten minutes are remembered although no bucket has them, as many as an
	// eighth of MaxKeys, and 16,384 at least. Zero means 1,000,000; not negative.
	MaxKeys int

	// Logger receives what operators need to know. Nil means slog.Default().
	Logger *slog.Logger

	// OnEvent, if not nil, is told of rare events from one goroutine, in order. It may block: events that pile up
	// meanwhile are dropped and counted in Stats.EventsDropped.
	OnEvent func(Event)

	// Network carries gossip and takes. Nil means real sockets.
	Network transport.Network

	// Memberlist has the last word on gossip timing. What it sets Name, Transport, Label, addresses, delegates and
	// keyring to is ignored: those are the node's own.
	Memberlist func(*memberlist.Config)

	// pieces are smaller in tests: then a few dozen keys of a partition are moved as a hundred thousand are else.
	pieces pieceSizes
}

// pieceSizes bounds the pieces in which partitions move, in bytes of buckets; 0 stands for AcquireBudget and PieceBudget.
type pieceSizes struct{ answer, replica int }

// settings is a Config that was checked: defaults filled in, addresses parsed.
type settings struct {
	Config
	identity  string         // Config.Name and eight random hexadecimal digits
	gossip    netip.AddrPort // to bind
	rpc       netip.AddrPort // to bind
	advertise netip.AddrPort // zero address: what was bound; zero port: the bound gossip port

	encryption secret.Encryption
}

// resolve checks the configuration and fills in its defaults. It looks up host names and does no other I/O.
func (c Config) resolve() (*settings, error) {
	s := &settings{Config: c}
	for _, step := range []func() error{
		s.checkNames, s.checkAddresses, s.checkSeeds, s.checkSecurity, s.checkDurations, s.checkCounts,
	} {
		if err := step(); err != nil {
			return nil, fmt.Errorf("%w: %w", ErrInvalidConfig, err)
		}
	}
	if s.Fallback == nil {
		s.Fallback = fallback.Divided
	}
	if s.Logger == nil {
		s.Logger = slog.Default()
	}
	s.pieces = pieceSizes{cmp.Or(s.pieces.answer, wire.AcquireBudget), cmp.Or(s.pieces.replica, store.PieceBudget)}
	return s, nil
}

func (s *settings) checkNames() error {
	if s.Cluster == "" {
		s.Cluster = DefaultCluster
	}
	if len(s.Cluster) > maxClusterLen {
		return fmt.Errorf("the name Cluster is %d bytes long; at most %d are allowed", len(s.Cluster), maxClusterLen)
	}
	if s.Name == "" {
		host, err := os.Hostname()
		if err != nil || host == "" {
			host = "node"
		}
		s.Name = host[:min(len(host), maxLabelLen)]
	}
	if len(s.Name) > maxLabelLen {
		return fmt.Errorf("%s is %d bytes long; at most %d are allowed", "Name", len(s.Name), maxLabelLen)
	}
	if !membership.IsLabel(s.Name) {
		return fmt.Errorf("%s is %q; it must be printable and without spaces", "Name", s.Name)
	}
	s.identity = membership.NewIdentity(s.Name)
	return nil
}

func (s *settings) checkAddresses() (err error) {
	if s.BindAddr == "" {
		s.BindAddr = DefaultBindAddr
	}
	if s.gossip, err = parseBind("BindAddr", s.BindAddr, DefaultGossipPort); err != nil {
		return err
	}
	if s.RPCAddr == "" {
		port := s.gossip.Port()
		if port == 65535 {
			return fmt.Errorf("RPCAddr is empty and BindAddr is %q: there is no port after 65535; set RPCAddr", s.BindAddr)
		}
		if port != 0 {
			port++
		}
		s.rpc = netip.AddrPortFrom(s.gossip.Addr(), port)
	} else if s.rpc, err = parseBind("RPCAddr", s.RPCAddr, -1); err != nil {
		return err
	}
	if s.rpc.Port() != 0 && s.rpc == s.gossip {
		return fmt.Errorf("RPCAddr is %q and BindAddr is %q: gossip and takes need a TCP port each", s.RPCAddr, s.BindAddr)
	}
	if s.AdvertiseAddr != "" {
		if s.advertise, err = parseBind("AdvertiseAddr", s.AdvertiseAddr, 0); err != nil {
			return err
		}
		if s.advertise.Addr().IsUnspecified() {
			return fmt.Errorf("AdvertiseAddr is %q: nobody can reach an unspecified address", s.AdvertiseAddr)
		}
	}
	return nil
}

// rpcError says why there is nothing to listen for takes with, by the fields that the user has set.
func (s *settings) rpcError(err error) error {
	if s.RPCAddr != "" {
		return fmt.Errorf("peerlimit: RPCAddr is %q: cannot listen for takes: %w", s.RPCAddr, err)
	}
	return fmt.Errorf("peerlimit: BindAddr is %q and RPCAddr is empty, so takes need %s, the port after it; set RPCAddr, or another BindAddr: %w", s.BindAddr, s.rpc, err)
}

func (s *settings) checkSeeds() error {
	for i, seed := range s.Join {
		host, _, err := splitAddr(seed, DefaultGossipPort)
		if err != nil {
			return fmt.Errorf("seed Join[%d] is %q: %w", i, seed, err)
		}
		if host == "" {
			return fmt.Errorf("seed Join[%d] is %q: it names no host", i, seed)
		}
	}
	return nil
}

func (s *settings) checkDurations() error {
	if s.RPCTimeout == 0 {
		s.RPCTimeout = DefaultRPCTimeout
	}
	if s.RPCTimeout < minRPCTimeout || s.RPCTimeout > maxRPCTimeout {
		return fmt.Errorf("RPCTimeout is %v; it must be from %v to %v", s.RPCTimeout, minRPCTimeout, maxRPCTimeout)
	}
	if s.ReplicaInterval == 0 {
		s.ReplicaInterval = DefaultReplicaInterval
	}
	for _, field := range []struct {
		name  string
		value *time.Duration
		zero  time.Duration
	}{{"MaxWait", &s.MaxWait, DefaultMaxWait}, {"SplitMemory", &s.SplitMemory, DefaultSplitMemory}} {
		if *field.value < 0 {
			return fmt.Errorf("%s is %v; it must not be negative", field.name, *field.value)
		}
		if *field.value == 0 {
			*field.value = field.zero
		}
	}
	return s.checkOutvoteAfter()
}

// checkOutvoteAfter runs when SplitMemory has its default.
func (s *settings) checkOutvoteAfter() error {
	switch {
	case s.OutvoteAfter == 0:
		s.OutvoteAfter = min(DefaultOutvoteAfter, s.SplitMemory)
	case s.OutvoteAfter > 0 && s.OutvoteAfter < minOutvoteAfter:
		return fmt.Errorf("OutvoteAfter is %v; it must be at least %v, or negative for never", s.OutvoteAfter, minOutvoteAfter)
	case s.OutvoteAfter > s.SplitMemory:
		return fmt.Errorf("OutvoteAfter is %v and SplitMemory is %v; OutvoteAfter must be at most SplitMemory, or negative for never", s.OutvoteAfter, s.SplitMemory)
	}
	return nil
}

func (s *settings) checkCounts() error {
	if s.MaxKeys < 0 {
		return fmt.Errorf("MaxKeys is %d; it must not be negative", s.MaxKeys)
	}
	if s.MaxKeys == 0 {
		s.MaxKeys = DefaultMaxKeys
	}
	if s.ExpectMembers < 0 || s.ExpectMembers > ring.MaxMembers {
		return fmt.Errorf("ExpectMembers is %d; it must be from 0 to %d", s.ExpectMembers, ring.MaxMembers)
	}
	return nil
}

// parseBind turns host[:port] into an address to bind. A name is looked up, and its first address is taken. A negative
// defaultPort means that the port is required.
func parseBind(field, addr string, defaultPort int) (netip.AddrPort, error) {
	host, port, err := splitAddr(addr, defaultPort)
	if err != nil {
		return netip.AddrPort{}, fmt.Errorf("%s is %q: %w", field, addr, err)
	}
	if host == "" {
		host = "0.0.0.0"
	}
	if ip, err := netip.ParseAddr(host); err == nil {
		return netip.AddrPortFrom(ip.Unmap(), port), nil
	}
	ips, err := net.LookupIP(host)
	if err != nil || len(ips) == 0 {
		return netip.AddrPort{}, fmt.Errorf("%s is %q: %q is neither an IP address nor a name that resolves: %w", field, addr, host, err)
	}
	ip, _ := netip.AddrFromSlice(ips[0])
	return netip.AddrPortFrom(ip.Unmap(), port), nil
}

// splitAddr splits host[:port]; a bare IPv6 address needs no brackets. A negative defaultPort means that the port is
// required.
func splitAddr(addr string, defaultPort int) (host string, port uint16, err error) {
	if addr == "" {
		return "", 0, fmt.Errorf("it is empty")
	}
	if strings.TrimSpace(addr) != addr {
		return "", 0, fmt.Errorf("it has spaces around it")
	}
	bare := strings.TrimSuffix(strings.TrimPrefix(addr, "["), "]")
	if _, err := netip.ParseAddr(bare); err == nil || !strings.Contains(addr, ":") {
		if defaultPort < 0 {
			return "", 0, fmt.Errorf("it has no port")
		}
		return bare, uint16(defaultPort), nil
	}
	host, portText, err := net.SplitHostPort(addr)
	if err != nil {
		return "", 0, err
	}
	number, err := strconv.ParseUint(portText, 10, 16)
	if err != nil {
		return "", 0, fmt.Errorf("port %q is not a number from 0 to 65535", portText)
	}
	return host, uint16(number), nil
}
