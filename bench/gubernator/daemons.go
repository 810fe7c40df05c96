package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"time"

	"github.com/gubernator-io/gubernator/v2"
	"github.com/sirupsen/logrus"

	"github.com/peerlimit/peerlimit/bench/contest"
)

const (
	starting = 20 * time.Second

	// room is how many times as many keys as there are fit into the cache: it is divided among workers, not quite evenly, and
	// no key must be evicted.
	room = 4
)

// daemons are the nodes of this process, each told of the others by SetPeers, as with its own package cluster. The first one
// is asked.
type daemons struct {
	running   []*gubernator.Daemon
	addresses []string
}

func (d *daemons) Start(setup contest.Setup) (address string, err error) {
	logger := logrus.New()
	logger.SetOutput(io.Discard)
	logger.SetLevel(logrus.PanicLevel)
	ctx, cancel := context.WithTimeout(context.Background(), starting)
	defer cancel()
	for i := range max(1, setup.Nodes) {
		address, err := freeAddress()
		if err != nil {
			return "", err
		}
		name := fmt.Sprintf("node-%d", i)
		daemon, err := gubernator.SpawnDaemon(ctx, gubernator.DaemonConfig{
			GRPCListenAddress: address, HTTPListenAddress: "127.0.0.1:0", AdvertiseAddress: address, InstanceID: name,
			Logger: logger.WithField("node", name), CacheSize: room * setup.Keys, PeerDiscoveryType: "none",
		})
		if err != nil {
			return "", err
		}
		d.running = append(d.running, daemon)
		d.addresses = append(d.addresses, address)
	}
	return d.addresses[0], nil
}

// freeAddress is one that nobody listens on: a daemon must know its own before it listens.
func freeAddress() (string, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	return l.Addr().String(), l.Close()
}

func (d *daemons) Meet(addresses []string) error {
	if len(d.addresses) > 1 {
		addresses = d.addresses
	}
	var peers []gubernator.PeerInfo
	for _, address := range addresses {
		peers = append(peers, gubernator.PeerInfo{GRPCAddress: address})
	}
	for _, daemon := range d.running {
		daemon.SetPeers(peers)
	}
	return nil
}

// Close leaves the daemons to the end of the process: closing one waits for connections of the others, which end with their
// processes.
func (d *daemons) Close() error { return nil }

// ownerOf is the place of the daemon of this process that decides about a key, or -1.
func (d *daemons) ownerOf(s *contest.Scenario, key string) int {
	for i, daemon := range d.running {
		if peer, err := daemon.V1Server.GetPeer(context.Background(), s.Name+"_"+key); err == nil && peer.Info().IsOwner {
			return i
		}
	}
	return -1
}

func (d *daemons) Owns(s *contest.Scenario, key string) bool { return d.ownerOf(s, key) == 0 }

func (d *daemons) Take(s *contest.Scenario) (contest.Take, error) {
	mode, ok := gubernator.Behavior_value[s.Mode]
	if !ok {
		return nil, fmt.Errorf("scenario: Mode is %q; it must be BATCHING, NO_BATCHING or GLOBAL", s.Mode)
	}
	asked, own := d.running[0].V1Server, d.addresses[0]
	ctx := context.Background()
	return func(key string) (bool, error) {
		response, err := asked.GetRateLimits(ctx, requests(s, key, gubernator.Behavior(mode)))
		if err != nil {
			return false, err
		}
		admitted := true
		for _, r := range response.Responses {
			if r.Error != "" {
				return false, errors.New(r.Error)
			}
			admitted = admitted && r.Status == gubernator.Status_UNDER_LIMIT
		}
		return admitted, checkOwner(s, response.Responses[0].Metadata["owner"], own)
	}, nil
}

// checkOwner says whether the daemon that has decided is the one that should have. Only responses of others name their owner.
func checkOwner(s *contest.Scenario, owner, own string) error {
	remote := owner != "" && owner != own
	if (s.Keys == contest.KeysLocal && remote) || (s.Keys == contest.KeysRemote && !remote) {
		return fmt.Errorf("the owner is %q; keys are to be %s", owner, s.Keys)
	}
	return nil
}

// limitSuffixes tell the keys of one take's limits apart, which may have different owners.
var limitSuffixes = []string{"", "/1", "/2", "/3", "/4", "/5", "/6", "/7"}

// requests are made for each take: a daemon writes to what it is given.
func requests(s *contest.Scenario, key string, mode gubernator.Behavior) *gubernator.GetRateLimitsReq {
	algorithm := gubernator.Algorithm_TOKEN_BUCKET
	if s.Leaky {
		algorithm = gubernator.Algorithm_LEAKY_BUCKET
	}
	all := make([]*gubernator.RateLimitReq, len(s.Limits))
	for i, l := range s.Limits {
		all[i] = &gubernator.RateLimitReq{
			Name: s.Name, UniqueKey: key + limitSuffixes[i], Hits: 1, Limit: l.Tokens, Burst: l.Burst, Duration: l.Period.Milliseconds(),
			Algorithm: algorithm, Behavior: mode,
		}
	}
	return &gubernator.GetRateLimitsReq{Requests: all}
}

// Fill makes buckets where they are decided about, for all modes. The copies of GLOBAL, and the buckets of several limits,
// which have different owners, are made by the first takes.
func (d *daemons) Fill(s *contest.Scenario) (contest.Take, error) {
	if len(s.Limits) > 1 {
		return nil, nil
	}
	return func(key string) (bool, error) {
		i := d.ownerOf(s, key)
		if i < 0 {
			return false, nil
		}
		_, err := d.running[i].V1Server.GetRateLimits(context.Background(), requests(s, key, gubernator.Behavior_BATCHING))
		return true, err
	}, nil
}
