package schedule

import (
	"fmt"
	"math/bits"
	"strings"
	"time"

	"github.com/peerlimit/peerlimit"
	"github.com/peerlimit/peerlimit/internal/inspect"
	"github.com/peerlimit/peerlimit/internal/ring"
)

// Which nodes decide in full about what: never two, and after the last event one about everything.

// holding is the start of a time in which the same nodes decided in full about a key.
type holding struct {
	at    time.Duration
	nodes uint64 // a bit each
}

// gap is the start of a time in which there were partitions about which no node decided in full, or of one without any.
type gap struct {
	at      time.Duration
	missing int
}

// look looks at every node until the run ends.
func (r *Run) look() { r.untilTheEnd(sampleEvery, r.sample) }

// untilTheEnd does something again and again until the run ends.
func (r *Run) untilTheEnd(every time.Duration, do func()) {
	ticks := time.NewTicker(every)
	defer ticks.Stop()
	for {
		select {
		case <-r.stop:
			return
		case <-ticks.C:
			do()
		}
	}
}

// sample asks every node what it decides in full, all at one instant of controlled time: a node that stopped at this instant
// cannot have told another one yet. Nodes that are frozen or cut off are asked like all others; one that was closed decides
// nothing.
func (r *Run) sample() {
	now := r.now()
	r.mu.Lock()
	defer r.mu.Unlock()
	var once, twice [64]uint64
	changed := false
	for _, n := range r.nodes {
		decides := inspect.FullDeciders(n.node)
		if decides != n.decides {
			gained := decides
			for i := range gained {
				gained[i] &^= n.decides[i]
			}
			n.decides, changed = decides, true
			r.compare(n, gained)
		}
		for i, word := range decides {
			twice[i] |= once[i] & word
			once[i] |= word
		}
	}
	if !changed {
		return
	}
	missed := r.missing
	r.missing = ring.Partitions
	doubled := 0
	for i := range once {
		r.missing -= bits.OnesCount64(once[i])
		doubled += bits.OnesCount64(twice[i])
	}
	if (r.missing > 0) != (missed > 0) {
		r.gaps = append(r.gaps, gap{now, r.missing})
	}
	for _, k := range r.keys {
		k.held(now, r.nodes)
	}
	if doubled > 0 && !r.doubles && !r.s.unmet(now) {
		partition := firstBit(twice)
		r.sawLocked("two full deciders", r.keyHeldBy(2), "%.3fs: for %d partitions, such as %d: %s",
			now.Seconds(), doubled, partition, nodeNames(decidersOf(partition, r.nodes)))
	}
	r.doubles = doubled > 0
}

// compare judges, as soon as a node has begun to hold partitions, whether it knows all that any other copy of them does
// that is not of a higher version: most of all the copy of the node that transferred them. Where no node crashes and no link breaks, there is
// nothing to forget. Keys of which tokens are leased or given back are left out: of those an old copy may say more.
func (r *Run) compare(holder *nodeRun, gained [64]uint64) {
	if !r.orderly() {
		return
	}
	judged := make(map[string]bool)
	for _, p := range r.s.plans {
		judged[p.name] = p.use == exhausted || p.use == cold
	}
	for i, word := range gained {
		for ; word != 0; word &= word - 1 {
			partition := uint16(64*i + bits.TrailingZeros64(word))
			for _, other := range r.nodes {
				if other == holder {
					continue
				}
				for _, line := range forgotten(holder.node, other.node, partition, judged) {
					r.sawLocked("forgotten in a hand-over", nil, "%.3fs: partition %d, held by node%d, and node%d had: %s",
						r.now().Seconds(), partition, holder.number, other.number, line)
				}
			}
		}
	}
}

// keyHeldBy returns a key about which just so many nodes decide in full now, 2 standing for more as well; nil when there
// is none.
func (r *Run) keyHeldBy(deciders int) *keyRun {
	for _, k := range r.keys {
		if h := k.holders[len(k.holders)-1]; min(2, bits.OnesCount64(h.nodes)) == deciders {
			return k
		}
	}
	return nil
}

func firstBit(bitmap [64]uint64) uint16 {
	for i, word := range bitmap {
		if word != 0 {
			return uint16(64*i + bits.TrailingZeros64(word))
		}
	}
	return 0
}

// decidersOf returns the nodes that decide in full about a partition, a bit each.
func decidersOf(partition uint16, nodes []*nodeRun) (deciders uint64) {
	for _, n := range nodes {
		if n.decides[partition/64]&(1<<(partition%64)) != 0 {
			deciders |= 1 << n.number
		}
	}
	return deciders
}

func nodeNames(set uint64) string {
	if set == 0 {
		return "nobody"
	}
	var names []string
	for ; set != 0; set &= set - 1 {
		names = append(names, fmt.Sprintf("node%d", bits.TrailingZeros64(set)))
	}
	return strings.Join(names, " and ")
}

// held notes the nodes that decide about a key, if that is news.
func (k *keyRun) held(now time.Duration, nodes []*nodeRun) {
	deciders := decidersOf(k.partition, nodes)
	if len(k.holders) == 0 || k.holders[len(k.holders)-1].nodes != deciders {
		k.holders = append(k.holders, holding{now, deciders})
	}
}

// heldBy reports whether one of a set of nodes decided about the key at some time in a window.
func (k *keyRun) heldBy(nodes uint64, from, to time.Duration) bool {
	for i, h := range k.holders {
		until := to
		if i+1 < len(k.holders) {
			until = k.holders[i+1].at
		}
		if h.at <= to && until >= from && h.nodes&nodes != 0 {
			return true
		}
	}
	return false
}

// forgotten says what a copy of a partition that another node keeps knows better than its holder: buckets of these limiters
// of which more was taken there, or that the holder does not have. A copy of a higher version is not compared. While a copy is
// on its way nothing drains, so one that has moved more often may say a little more: what drains in two seconds.
func forgotten(holder, other *peerlimit.Node, partition uint16, limiters map[string]bool) (lines []string) {
	version, there := inspect.Levels(other, partition, 2*time.Second)
	mine, here := inspect.Levels(holder, partition, 0)
	if mine.Below(version) {
		return nil
	}
	for name, levels := range there {
		limiter, key, _ := strings.Cut(name, "\x00")
		for i, level := range levels {
			if !limiters[limiter] || level <= 0 {
				continue
			}
			if known := here[name]; i >= len(known) || known[i] < level {
				lines = append(lines, fmt.Sprintf("%s/%s: %v here, of version %v, and %v there, of version %v", limiter, key, known, mine, levels, version))
				break
			}
		}
	}
	return lines
}
