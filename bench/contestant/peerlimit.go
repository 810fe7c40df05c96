package main

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"time"

	"github.com/peerlimit/peerlimit"
	"github.com/peerlimit/peerlimit/bench/contest"
)

// meeting bounds how long nodes may take to become a cluster.
const meeting = 20 * time.Second

// peerlimitNodes are the nodes of this process. The first one is asked.
type peerlimitNodes struct {
	nodes  []*peerlimit.Node
	leases bool
	owners ownerLookup
}

// ownerLookup remembers the limiters by which owners are looked up: that of each node, of the last scenario.
type ownerLookup struct {
	name     string
	limiters []*peerlimit.Limiter
}

func (p *peerlimitNodes) Start(setup contest.Setup) (address string, err error) {
	p.leases = setup.Leases
	config := peerlimit.Config{
		NoLeases: !setup.Leases, NoDenialCache: !setup.Leases, MaxKeys: setup.Keys, Logger: slog.New(slog.DiscardHandler),
	}
	if setup.Secret {
		config.Secret = bytes.Repeat([]byte("side"), 8)
	}
	if setup.NoCopies {
		config.ReplicaInterval = -1
	}
	if setup.Join != "" {
		config.Join = []string{setup.Join}
	}
	for range max(1, setup.Nodes) {
		node, err := peerlimit.Start(config)
		if err != nil {
			return "", err
		}
		p.nodes = append(p.nodes, node)
		config.Join = []string{p.nodes[0].Self().Addr}
	}
	return p.nodes[0].Self().Addr, nil
}

// Meet waits for as many members as there are processes, or nodes when they are all in this one.
func (p *peerlimitNodes) Meet(addresses []string) error {
	ctx, cancel := context.WithTimeout(context.Background(), meeting)
	defer cancel()
	for _, node := range p.nodes {
		if err := node.WaitReady(ctx, max(len(addresses), len(p.nodes))); err != nil {
			return err
		}
	}
	return nil
}

func limitsOf(s *contest.Scenario) (limits []peerlimit.Limit) {
	for _, l := range s.Limits {
		limit := peerlimit.Per(float64(l.Tokens), l.Period).WithBurst(float64(l.Burst))
		if s.Leaky {
			limit = limit.Leaky()
		}
		limits = append(limits, limit)
	}
	return limits
}

// limiters returns the scenario's limiter of each node.
func (p *peerlimitNodes) limiters(s *contest.Scenario) ([]*peerlimit.Limiter, error) {
	if p.owners.name == s.Name {
		return p.owners.limiters, nil
	}
	var limiters []*peerlimit.Limiter
	for _, node := range p.nodes {
		l, err := node.Limiter(s.Name, limitsOf(s)...)
		if err != nil {
			return nil, err
		}
		limiters = append(limiters, l)
	}
	p.owners = ownerLookup{s.Name, limiters}
	return limiters, nil
}

func (p *peerlimitNodes) Owns(s *contest.Scenario, key string) bool {
	limiters, err := p.limiters(s)
	return err == nil && limiters[0].Owner(key).Self // Take says what is wrong
}

func (p *peerlimitNodes) Take(s *contest.Scenario) (contest.Take, error) {
	limiters, err := p.limiters(s)
	if err != nil {
		return nil, err
	}
	ctx, asked := context.Background(), limiters[0]
	var decider [peerlimit.OriginFallback + 1]bool // the origins that may decide
	switch {
	case s.Keys == contest.KeysLocal:
		decider[peerlimit.OriginLocal] = true
	case s.Keys == contest.KeysRemote:
		decider[peerlimit.OriginRemote] = true
	default:
		decider[peerlimit.OriginLocal], decider[peerlimit.OriginRemote] = true, true
	}
	if p.leases && s.Keys != contest.KeysLocal {
		decider[peerlimit.OriginLease], decider[peerlimit.OriginDenialCache] = true, true
	}
	return func(key string) (bool, error) {
		d, err := asked.Take(ctx, key, 1)
		if err == nil && !decider[d.Origin] {
			err = fmt.Errorf("the decision is %s", d.Origin)
		}
		return d.Allowed, err
	}, nil
}

func (p *peerlimitNodes) Fill(s *contest.Scenario) (contest.Take, error) {
	limiters, err := p.limiters(s)
	if err != nil {
		return nil, err
	}
	return func(key string) (bool, error) {
		for _, l := range limiters {
			if l.Owner(key).Self {
				d, err := l.Take(context.Background(), key, 1)
				return d.Allowed, err
			}
		}
		return false, nil
	}, nil
}

// Close may find that there is nobody left to say goodbye to: all processes end at once.
func (p *peerlimitNodes) Close() error {
	for _, node := range p.nodes {
		_ = node.Close()
	}
	return nil
}
