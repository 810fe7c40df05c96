package peerlimit

import (
	"fmt"
	"github.com/peerlimit/peerlimit/internal/ring"
	"github.com/peerlimit/peerlimit/internal/wire"
	"strings"
	"time"
)

// What the tests of whole clusters see and users do not.

// PartitionOf returns the partition of a key under a limiter.
func PartitionOf(limiter, key string) uint16 { return ring.PartitionOf(limiter, key) }

// HeapInUse returns the bytes on the heap that are in use.
func HeapInUse() uint64 { return heapInUse() }

// PartitionCount is the number of partitions.
const PartitionCount = ring.Partitions

// DecidesInFull reports whether a take of this partition made on this node now would be decided here, by the whole limit.
// A node that is closed decides nothing.
func (n *Node) DecidesInFull(partition uint16) bool {
	return FullDeciders(n)[partition/64]>>(partition%64)&1 == 1
}

// FullDeciders returns the partitions for which DecidesInFull holds, a bit each: that of partition p is bit p%64 of word
// p/64. It is called every few milliseconds of controlled time and must be cheap.
func FullDeciders(n *Node) (bitmap [64]uint64) {
	if n.closed.Load() || !n.reach.IsFull(n.now()) {
		return bitmap
	}
	for i := range bitmap {
		bitmap[i] = n.table.held[i].Load()
	}
	return bitmap
}

// Unreported returns of how many keys a node has not been able to report yet what it spent by shares.
func Unreported(n *Node) int { return int(n.reporter.count.Load()) }

// Acquiring describes what keeps a node from holding what is its own: a few lines for people.
func Acquiring(n *Node) string {
	var b strings.Builder
	now, route, known := n.now(), n.route.Load(), n.membership.Roster()
	fmt.Fprintf(&b, "%s: full %v, known %v, ring %v, lost %v\n", n.identity, n.reach.IsFull(now), known.Names, route.ring.Members(), n.reach.LostNames(now))
	shown := 0
	for part := range uint16(ring.Partitions) {
		if route.owner(part) != nil || n.table.holds(part) || shown == 2 {
			continue
		}
		shown++
		p := &n.table.partitions[part]
		p.mu.Lock()
		h := &p.holding
		fmt.Fprintf(&b, "  partition %d: promised %v, gift %v, ", part, h.Promised, h.Transfer)
		if a := h.Attempt; a == nil {
			fmt.Fprintf(&b, "no attempt, next one in %v\n", time.Duration(n.keeper.notBefore[part].Load()-now))
		} else {
			fmt.Fprintf(&b, "round %v, probably held by %q:", a.Round.Ballot, a.LikelyHolder)
			for i, name := range a.Round.Peers() {
				fmt.Fprintf(&b, " %s answered=%v gone=%v lost=%v", name, a.HasAnswered(i), a.Round.Gone[name], n.reach.Lost(name, now))
			}
			fmt.Fprintln(&b)
		}
		p.mu.Unlock()
	}
	return b.String()
}

// HasCopy reports whether a node has a copy of a partition, whether or not it holds it.
func HasCopy(n *Node, partition uint16) bool {
	copied, _ := n.table.hasCopy(partition)
	return copied
}

// MoveInPieces has a node move partitions in pieces of so many bytes of buckets: to who acquires, and to standbys.
func MoveInPieces(c *Config, answer, replica int) { c.pieces = pieceSizes{answer, replica} }

// Forgotten says what a copy of a partition that another node keeps knows better than this node, which holds it: buckets
// of these limiters of which more was taken there, or that are not here. A copy of a higher version is not compared. While a
// copy is on its way nothing drains, so one that has moved more often may say a little more: what drains in two seconds.
func Forgotten(holder, other *Node, partition uint16, limiters map[string]bool) (lines []string) {
	version, there := other.levels(partition, 2*time.Second)
	mine, here := holder.levels(partition, 0)
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

// levels returns what a node has of a partition: its version, and by limiter and key the levels that there will be in a time.
func (n *Node) levels(partition uint16, later time.Duration) (wire.Version, map[string][]float64) {
	p := &n.table.partitions[partition]
	p.mu.Lock()
	defer p.mu.Unlock()
	levels := make(map[string][]float64)
	p.buckets.inOrder(0, func(_ uint64, b *bucket) bool {
		image := b.image(n.rules.Name(b.limiter), make([]float64, len(b.Set.Meters)), n.now()+int64(later))
		levels[image.Limiter+"\x00"+b.key()] = image.Levels
		return true
	})
	return p.holding.Copy, levels
}
