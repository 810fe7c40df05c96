//go:build linux

package chaos

import (
	"math/rand/v2"
	"slices"
	"time"
)

// hundred is the limit of the saturated key in most scenarios: too small for leases, so that the holder decides each take.
var hundred = limit{burst: 100, rate: 100}

var scenarios = []scenario{
	{
		name: "KillTheOwner", guarantee: "B + R·w, and what the owner had admitted since its last acknowledged replication",
		nodes: 5, hot: hundred, foreign: true, quick: true, ci: true, fullRate: true,
		do: func(r *run) {
			r.kill(r.owner("hot"))
			time.Sleep(4 * time.Second)
		},
		allow: lostOnly,
	},
	{
		name: "KillTwoOfFive", guarantee: "as for one; where one was the other's standby, a burst",
		nodes: 5, hot: hundred,
		do: func(r *run) {
			owner := r.owner("hot")
			r.kill(owner, r.others(owner)[0])
			time.Sleep(8 * time.Second)
		},
		allow: lostAnd(1),
	},
	{
		name: "RestartAtOnce", guarantee: "as for a kill; the new process begins with nothing of the old one",
		nodes: 3, hot: hundred, foreign: true, ci: true,
		do: func(r *run) {
			owner := r.owner("hot")
			r.kill(owner)
			r.start(owner)
			r.note(false, "%s starts again at the same address", owner.name)
			r.waitReady()
			r.drive(owner)
			time.Sleep(4 * time.Second)
		},
		allow: lostOnly,
	},
	freezeFor("FreezeBriefly", 300*time.Millisecond, true),
	freezeFor("FreezeTheOwner", 5*time.Second, true),
	freezeFor("FreezeForLong", 30*time.Second, false),
	{
		name: "Roll", guarantee: "B + R·w; no call fails",
		nodes: 3, hot: hundred, foreign: true, ci: true,
		do:    func(r *run) { roll(r, 1) },
		allow: nothingMore,
	},
	{
		name: "RollTwoAtATime", guarantee: "B + R·w; no call fails",
		nodes: 6, hot: hundred,
		do:    func(r *run) { roll(r, 2) },
		allow: nothingMore,
	},
	rollByKills("RollByKills", 4*time.Second, true),
	rollByKills("RollByKillsSlowly", 30*time.Second, false),
	{
		name: "KillAndReplaceForTenMinutes", guarantee: "in each window B + R·w, and as for one kill for each that is in it; each newcomer holds all that is its own in 3 s, and the dead count nowhere after 10 s; shares decide at most 1 % of takes",
		nodes: 6, hot: hundred, calls: 40, lasts: 12 * time.Minute, mostShares: 1,
		do: func(r *run) {
			r.replaceEach(24, 25*time.Second)
			time.Sleep(25 * time.Second)
		},
		allow: lostByEach,
	},
	{
		name: "Scale", guarantee: "B + R·w; no call fails, with an RPCTimeout of 250 ms",
		nodes: 3, hot: hundred, foreign: true, ci: true, rpcTimeout: 250 * time.Millisecond,
		do: func(r *run) {
			r.join(3)
			r.join(3)
			time.Sleep(2 * time.Second)
			for len(r.nodes) > 3 {
				r.leave(r.nodes[0], r.nodes[1])
				r.waitReady()
			}
			time.Sleep(2 * time.Second)
		},
		allow: nothingMore,
	},
	{
		name: "HotKeyFromAllNodes", guarantee: "B + R·w, leases and all",
		nodes: 3, hot: limit{burst: 1000, rate: 1000}, calls: 700, foreign: true, ci: true,
		do:    func(r *run) { time.Sleep(10 * time.Second) },
		allow: nothingMore,
	},
	splitInto("SplitThreeTwo", 5, 2, 8*time.Second, true),
	splitInto("SplitOneFour", 5, 1, 8*time.Second, false),
	splitInto("SplitTwoTwo", 4, 2, 8*time.Second, false),
	splitInto("SplitForLongerThanGossipRemembers", 5, 2, 70*time.Second, false),
	{
		name: "CutOneWay", guarantee: "B + R·w, and a share of 1/N for the end that reaches neither the owner nor its standby; and what a sudden end loses",
		nodes: 3, hot: hundred, network: true,
		do: func(r *run) {
			owner := r.owner("hot")
			for _, other := range r.others(owner) {
				r.note(true, "nothing from %s to %s", owner.name, other.name)
				r.cut(owner, other)
				time.Sleep(4 * time.Second)
				r.heal()
				r.waitReady()
				time.Sleep(time.Second)
			}
		},
		allow: shares(2),
	},
	{
		name: "CutTheOwnerFromOneAtATime", guarantee: "B + R·w, and a share of 1/N for each end that reaches neither the owner nor its standby; and what a sudden end loses",
		nodes: 4, hot: hundred, network: true, ci: true,
		do: func(r *run) { // one of the others is its standby, and all are callers
			owner := r.owner("hot")
			for _, other := range r.others(owner) {
				r.note(true, "nothing between %s and %s", owner.name, other.name)
				r.separate([]*node{owner}, []*node{other})
				time.Sleep(3 * time.Second)
				r.heal()
				r.waitReady()
			}
			time.Sleep(2 * time.Second)
		},
		allow: shares(3),
	},
	{
		name: "SlowOwner", guarantee: "as for a freeze",
		nodes: 3, hot: hundred,
		do: func(r *run) {
			owner := r.owner("hot")
			for range 10 {
				r.freeze(owner, 150*time.Millisecond)
				time.Sleep(350 * time.Millisecond)
			}
			time.Sleep(3 * time.Second)
		},
		allow: shares(1),
	},
	{
		name: "Storm", guarantee: "two kills within three seconds may lose a burst; without a majority shares decide, less than 2·(B + R·w)",
		nodes: 5, hot: hundred,
		do: func(r *run) {
			random := rand.New(rand.NewPCG(1, 1))
			for range 60 {
				if len(r.nodes) > 3 && random.IntN(2) == 0 {
					r.kill(r.nodes[random.IntN(len(r.nodes))])
				} else if len(r.nodes) < 7 {
					n := r.newNode()
					r.note(false, "%s starts", n.name)
					r.start(n)
					r.waitAlive(n)
					r.drive(n)
				}
				time.Sleep(time.Second)
			}
		},
		allow: func(r *run, l limit, admitted []record) allowance {
			pairs := 0
			for i, e := range r.events {
				if e.sudden && slices.ContainsFunc(r.events[:i], func(o happened) bool { return o.sudden && e.at-o.at < 3*time.Second }) {
					pairs++
				}
			}
			return allowance{factor: 2, extra: r.lost(admitted) + float64(pairs)*l.burst}
		},
	},
	{
		name: "UpgradeRolling", guarantee: "B + R·w; no call fails",
		nodes: 3, hot: hundred, oldProgram: programBefore,
		do:    func(r *run) { roll(r, 1) },
		allow: nothingMore,
	},
}

func nothingMore(*run, limit, []record) allowance { return allowance{factor: 1} }

func lostOnly(r *run, _ limit, admitted []record) allowance {
	return allowance{factor: 1, extra: r.lost(admitted)}
}

// lostByEach allows what each sudden event may lose in windows that contain it, and nothing in others.
func lostByEach(*run, limit, []record) allowance { return allowance{factor: 1, byEvent: true} }

// lostAnd allows so many bursts, too.
func lostAnd(bursts float64) func(*run, limit, []record) allowance {
	return func(r *run, l limit, admitted []record) allowance {
		return allowance{factor: 1, extra: r.lost(admitted) + bursts*l.burst}
	}
}

// shares allows so many nodes a share of the limit.
func shares(nodes int) func(*run, limit, []record) allowance {
	return func(r *run, l limit, admitted []record) allowance {
		return allowance{factor: 1 + float64(nodes)/float64(r.scenario.nodes), extra: r.lost(admitted)}
	}
}

func freezeFor(name string, pause time.Duration, ci bool) scenario {
	return scenario{
		name: name, guarantee: "as for a kill, and the frozen node's share of 1/N",
		nodes: 3, hot: hundred, ci: ci, foreign: true,
		do: func(r *run) {
			r.freeze(r.owner("hot"), pause)
			time.Sleep(5 * time.Second)
		},
		allow: shares(1),
	}
}

// rollByKills replaces all of three nodes one by one, by kills and with nobody told. Then nothing happens for long enough to see whether all
// is well again.
func rollByKills(name string, pause time.Duration, ci bool) scenario {
	return scenario{
		name: name, guarantee: "in each window B + R·w, and as for one kill for each that is in it; from 8 s after the last kill on at least 90 % of the limit is admitted in each second, and after 10 s the dead count nowhere",
		nodes: 3, hot: hundred, ci: ci, calmAfter: 8 * time.Second,
		do: func(r *run) {
			r.replaceEach(3, pause)
			time.Sleep(r.lastSudden() + 18*time.Second - clock())
		},
		allow: lostByEach,
	}
}

// splitInto cuts a few nodes off from the rest, the owner of the saturated key among them.
func splitInto(name string, nodes, few int, lasts time.Duration, ci bool) scenario {
	return scenario{
		name: name, guarantee: "(B + R·w)·(1 + m/N) with m nodes apart from a majority, and what the owner admitted before it lost quorum, and a burst where the owner's standby is apart with it; less than twice without a majority",
		nodes: nodes, hot: hundred, network: true, ci: ci,
		do: func(r *run) {
			owner := r.owner("hot")
			apart := append([]*node{owner}, r.others(owner)[:few-1]...)
			rest := slices.DeleteFunc(slices.Clone(r.nodes), func(n *node) bool { return slices.Contains(apart, n) })
			r.note(true, "%d nodes cut off from %d", len(apart), len(rest))
			r.separate(apart, rest)
			time.Sleep(lasts)
			r.heal()
			r.waitReady()
			r.note(false, "all know each other again")
			time.Sleep(3 * time.Second)
		},
		allow: func(r *run, l limit, admitted []record) allowance {
			if 2*few >= nodes {
				return allowance{factor: 2, extra: r.lost(admitted)}
			}
			apart := allowance{factor: 1 + float64(few)/float64(nodes), extra: r.lost(admitted)}
			if few > 1 {
				apart.extra += l.burst
			}
			return apart
		},
	}
}

// roll replaces all nodes, some at a time.
func roll(r *run, atATime int) {
	for old := slices.Clone(r.nodes); len(old) > 0; old = old[atATime:] {
		r.join(atATime)
		r.leave(old[:atATime]...)
		r.waitReady()
		time.Sleep(time.Second)
	}
	time.Sleep(2 * time.Second)
}
