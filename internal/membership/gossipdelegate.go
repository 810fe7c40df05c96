package membership

import (
	"fmt"
	"log"
	"net"
	"net/netip"
	"time"

	"github.com/hashicorp/memberlist"
	"github.com/peerlimit/peerlimit/internal/ring"
	"github.com/peerlimit/peerlimit/internal/wire"
)

// createGossip starts memberlist. It does not shut t down when it fails.
func createGossip(c *Config, t gossipTransport, m *Membership, logger *log.Logger) (*memberlist.Memberlist, error) {
	config := gossipConfig(c, t, m, logger)
	m.goodbyes.RetransmitMult = config.RetransmitMult
	t.gate().pings.keep = longestProbe(config)
	list, err := memberlist.Create(config)
	if err != nil {
		return nil, fmt.Errorf("peerlimit: cannot start gossip: %w", err)
	}
	return list, nil
}

// gossipConfig returns memberlist's configuration: its values for a local network, with the exceptions below; then
// whatever Config.Memberlist sets; then what is the node's own.
func gossipConfig(c *Config, t gossipTransport, m *Membership, logger *log.Logger) *memberlist.Config {
	list := memberlist.DefaultLANConfig()

	// A member that hears of news sends it on RetransmitMult times, to three members at a time, and one that misses it has a wrong
	// ring until the next push/pull. Four times are too few for a small cluster: of six members, one sender misses a
	// given other with a probability of 2/5 * 4/5, and all five with 0.3 %. Eight times make that 0.001 %. Twice as
	// often, so that it takes no longer; while there is no news it costs nothing.
	list.RetransmitMult = 8
	list.GossipInterval = 100 * time.Millisecond

	// A push/pull sends about 100 bytes for each member, and above 32 members memberlist stretches the interval by itself.
	list.PushPullInterval = 10 * time.Second

	// Start waits 5 s for the first attempt to join. Two addresses that do not answer, one after the other, must fit in.
	// Within one region a push/pull is done in a few milliseconds; 10 s is for other networks.
	list.TCPTimeout = 2 * time.Second

	// A packet is at most 1,400 bytes, yet compressing one allocates a table of 64 kB. Others may send compressed.
	list.EnableCompression = false

	if c.Memberlist != nil {
		c.Memberlist(list)
	}
	advertised := m.Self().Gossip
	list.Name = c.Name
	list.Transport = t
	list.Label, list.SkipInboundLabelCheck = c.Cluster, false
	list.BindAddr, list.BindPort = t.bound().Addr().String(), int(t.bound().Port())
	list.AdvertiseAddr, list.AdvertisePort = advertised.Addr().String(), int(advertised.Port())
	list.SecretKey, list.Keyring = nil, c.Keyring
	list.GossipVerifyIncoming, list.GossipVerifyOutgoing = true, true
	list.DelegateProtocolMin, list.DelegateProtocolVersion, list.DelegateProtocolMax = 0, 0, 0
	d := gossipDelegate{Membership: m, protocol: list.ProtocolVersion}
	list.Delegate, list.Events, list.Alive = d, d, d
	list.Conflict, list.Merge, list.Ping = nil, nil, nil
	list.Logger, list.LogOutput = logger, nil
	return list
}

// gossipDelegate is what memberlist calls. It calls some of it under its own lock, so everything here is quick: it copies,
// asks for a new view, and returns.
type gossipDelegate struct {
	*Membership
	protocol uint8 // the version of memberlist's protocol that this node speaks
}

var (
	_ memberlist.Delegate      = gossipDelegate{}
	_ memberlist.EventDelegate = gossipDelegate{}
	_ memberlist.AliveDelegate = gossipDelegate{}
)

// NotifyAlive keeps out what would harm the others, or the terminal of those who read their logs. memberlist refuses to exchange state with a node that lists a single
// member whose versions do not fit all others, so one such member would end all push/pulls of the cluster.
func (d gossipDelegate) NotifyAlive(n *memberlist.Node) error {
	switch {
	case n.Name == "" || len(n.Name) > wire.MaxIdentityLen:
		return fmt.Errorf("its name has %d bytes", len(n.Name))
	case !IsLabel(n.Name):
		return fmt.Errorf("its name is %q, which no node would have", n.Name)
	case n.PMin > d.protocol || n.PMax < d.protocol || n.PCur < n.PMin || n.PCur > n.PMax || n.PCur < memberlist.ProtocolVersionMin:
		return fmt.Errorf("it speaks gossip protocol %d of %d to %d, this node %d", n.PCur, n.PMin, n.PMax, d.protocol)
	case n.DMin != 0 || n.DCur != 0:
		return fmt.Errorf("it has delegate protocol %d of %d to %d", n.DCur, n.DMin, n.DMax)
	case len(n.Meta) > memberlist.MetaMaxSize: // memberlist checks its own metadata, and keeps any other's
		return fmt.Errorf("its metadata has %d bytes", len(n.Meta))
	case len(n.Addr) > net.IPv6len:
		return fmt.Errorf("its address has %d bytes", len(n.Addr))
	case d.isFull(n.Name):
		return fmt.Errorf("there are %d members, which is as many as there may be", ring.MaxMembers)
	}
	return nil
}

// IsFull reports whether there is no room for a member of that name.
func (d gossipDelegate) isFull(name string) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return len(d.nodes) >= ring.MaxMembers && d.nodes[name] == nil
}

// NotifyJoin is called for a new member and for one that had been given up.
func (d gossipDelegate) NotifyJoin(n *memberlist.Node) { d.recordNode(n) }

// NotifyUpdate is called for new metadata.
func (d gossipDelegate) NotifyUpdate(n *memberlist.Node) { d.recordNode(n) }

// NotifyLeave is called for a member that was given up and for one that has left. Which, the goodbye tells.
func (d gossipDelegate) NotifyLeave(n *memberlist.Node) {
	if n.Name == d.identity {
		return // this node is leaving; it is part of every view until the end
	}
	d.mu.Lock()
	if node := d.nodes[n.Name]; node != nil {
		node.gone = time.Now()
	}
	d.mu.Unlock()
	d.wake()
}

// recordNode copies what memberlist knows of a member.
func (d gossipDelegate) recordNode(n *memberlist.Node) {
	node := &gossipNode{}
	meta, err := decodeMetadata(n.Meta)
	ip, ok := netip.AddrFromSlice(n.Addr)
	if err == nil && !ok {
		err = fmt.Errorf("peerlimit: address of %d bytes", len(n.Addr))
	}
	gossip := netip.AddrPortFrom(ip.Unmap(), n.Port)
	if err != nil {
		node.Info = Info{Name: n.Name, Gossip: gossip}
		node.fault = err
	} else {
		node.Info = d.describe(n.Name, gossip, meta)
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	switch last := d.nodes[n.Name]; {
	case last != nil:
		node.told = last.told
	case d.left:
		return // a join that was under way has come through: a member that has left meets no other any more
	}
	d.nodes[n.Name] = node
	d.wake()
}

// NodeMeta returns what this node tells of itself.
func (d gossipDelegate) NodeMeta(int) []byte {
	d.mu.Lock()
	defer d.mu.Unlock()
	return appendMetadata(nil, d.own)
}

// NotifyMsg receives a goodbye.
func (d gossipDelegate) NotifyMsg(note []byte) { d.takeNote(note) }

// GetBroadcasts returns the goodbyes that there is room for.
func (d gossipDelegate) GetBroadcasts(overhead, limit int) [][]byte {
	return d.goodbyes.GetBroadcasts(overhead, limit)
}

// LocalState returns all departures, for a push/pull.
func (d gossipDelegate) LocalState(bool) []byte {
	now := time.Now()
	d.mu.Lock()
	departures, words := d.roster.departures(now), d.roster.lastWords(now)
	if d.left {
		departures = append(departures, departure{d.identity, tombstoneMemory})
		words = append(words, d.lastWord...)
	}
	d.mu.Unlock()
	return appendLastWords(encodeDepartures(departures), words)
}

// MergeRemoteState receives all departures that another node remembers.
func (d gossipDelegate) MergeRemoteState(note []byte, _ bool) { d.takeNote(note) }

// takeNote takes in departures, and passes on those that are news about members.
func (d gossipDelegate) takeNote(note []byte) {
	departures, err := decodeNote(note)
	if err != nil {
		d.log.Debug("ignoring malformed gossip note", "bytes", len(note), "err", err)
		return
	}
	words := decodeLastWords(note)
	var news []departure
	now := time.Now()
	d.mu.Lock()
	for _, gone := range departures {
		if d.roster.retire(gone.name, gone.remember, now) {
			news = append(news, gone)
		}
	}
	for _, w := range words {
		if d.roster.keepLastWord(w, now) {
			d.heardWords = append(d.heardWords, w)
		}
	}
	spoken := len(d.heardWords) > 0
	passedOn := make([][]LastWord, len(news))
	for i, gone := range news {
		passedOn[i] = d.roster.lastWordOf(gone.name)
	}
	d.mu.Unlock()
	for i, gone := range news {
		d.goodbyes.QueueBroadcast(newGoodbye(gone, passedOn[i], func() {}))
	}
	if len(news) > 0 || spoken {
		d.wake()
	}
}
