package model

import "math/rand/v2"

// Config is a cluster to be searched.
type Config struct {
	Nodes    int      // 1 to 5
	Members  int      // the first Members nodes form the cluster at the start, 1 to Nodes
	Apart    int      // the last Apart of the members are a cluster of their own at the start: neither half knows the other
	Messages int      // in flight at once, 1 to 5
	Takes    int      // decided in all, 0 to 7
	Ring     uint64   // 0: the ring names the highest number; LowestFirst: the lowest; else the seed of an arbitrary ring
	Script   []string // steps taken first, as Step.String says them; the events allowed must include theirs
	Silence  bool     // gossip tells no node of another: names are learned from pings, requests and responses only
	Tidy     bool     // nodes drop copies they have no use for, and not only those that leave
	Pieces   bool     // a copy of two takes or more travels in two pieces
	Bare     bool     // a joiner knows the highest ballot as a number only, and has promised nothing
	Panels   int      // 0: majorities are of the known sets, as the code once had it; else so many of the first members, of each cluster, are witnesses at first
	Events   Events
	Rules    Rules
}

// LowestFirst is the ring that names the lowest number. It and the ring that names the highest are consistent: the owner of
// a set owns the partition in every part of the set that contains it, so a holder that is not the owner replicates to
// the owner. In an arbitrary ring it may not, and two clusters that meet may keep two holders whose standby is a third node.
const LowestFirst = 1<<64 - 1

// owners is the ring: the owner of the partition for each set of members.
type owners [1 << maxNodes]node

func newOwners(seed uint64) owners {
	rng := rand.New(rand.NewPCG(seed, 0))
	var o owners
	o[0] = nobody
	for set := nodes(1); set < 1<<maxNodes; set++ {
		choice := rng.IntN(set.size())
		if seed == LowestFirst {
			choice = 0
		}
		for n := node(0); n < maxNodes; n++ {
			if !set.has(n) {
				continue
			}
			if seed == 0 || choice == 0 {
				o[set] = n
			}
			choice--
		}
	}
	return o
}

func (o *owners) owner(set nodes) node { return o[set] }

// standby returns the owner in the ring without holder: it keeps holder's replica.
func (o *owners) standby(set nodes, holder node) node { return o[set.without(holder)] }

// machine is a configuration made ready to run.
type machine struct {
	Config
	owners owners
}

func newMachine(c Config) *machine { return &machine{Config: c, owners: newOwners(c.Ring)} }

// initial is a formed cluster at rest, with the owner holding an empty partition; or two such clusters that have not met,
// each with one take the other does not have. The first has the higher ballot: in the ring that names the highest
// number, its copy is not the owner's.
func (m *machine) initial() State {
	var s State
	s.events = m.Events
	all := nodes(1<<m.Members - 1)
	if m.Apart > 0 {
		second := all &^ (1<<(m.Members-m.Apart) - 1)
		s.apart, s.taken = true, 2
		m.form(&s, second, version{ballot: 1, takes: 0b10})
		m.form(&s, all&^second, version{ballot: 2, takes: 0b01})
		return s
	}
	m.form(&s, all, version{ballot: 1})
	return s
}

// form makes a cluster of these nodes, with its owner holding the copy.
func (m *machine) form(s *State, all nodes, v version) {
	v.holder = m.owners.owner(all)
	for n := range node(m.Members) {
		if all.has(n) {
			s.members[n] = member{
				life: up, ring: all, known: all, fresh: all.without(n), promise: promise{v.ballot, v.holder},
			}
		}
	}
	m.formPanel(s, all)
	holder := &s.members[v.holder]
	holder.holding, holder.owes, holder.copy = true, true, v
}
