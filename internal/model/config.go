package model

import "math/rand/v2"

// Config is a cluster to be searched.
type Config struct {
	Nodes    int    // 1 to 4
	Members  int    // the first Members nodes form the cluster at the start, 1 to Nodes
	Messages int    // in flight at once, 1 to 5
	Takes    int    // decided in all, 0 to 7
	Ring     uint64 // 0: the ring names the highest number; else the seed of an arbitrary ring
	Events   Events
	Rules    Rules
}

// owners is the ring: the owner of the partition for each set of members.
type owners [1 << maxNodes]node

func newOwners(seed uint64) owners {
	rng := rand.New(rand.NewPCG(seed, 0))
	var o owners
	o[0] = nobody
	for set := nodes(1); set < 1<<maxNodes; set++ {
		choice := rng.IntN(set.size())
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

// heir returns the owner in the ring without holder: who keeps holder's replica.
func (o *owners) heir(set nodes, holder node) node { return o[set.without(holder)] }

// machine is a configuration made ready to run.
type machine struct {
	Config
	owners owners
}

func newMachine(c Config) *machine { return &machine{Config: c, owners: newOwners(c.Ring)} }

// initial is a formed cluster at rest, with the owner holding an empty partition.
func (m *machine) initial() State {
	var s State
	all := nodes(1<<m.Members - 1)
	owner := m.owners.owner(all)
	for n := range node(m.Members) {
		s.members[n] = member{
			life: up, ring: all, known: all, fresh: all.without(n), promise: promise{1, owner},
		}
	}
	holder := &s.members[owner]
	holder.holding, holder.owes, holder.copy = true, true, version{election: 1, holder: owner}
	s.events = m.Events
	return s
}
