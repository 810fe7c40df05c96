package peerlimit

import (
	"fmt"
	"strings"
	"time"

	"github.com/peerlimit/peerlimit/internal/inspect"
	"github.com/peerlimit/peerlimit/internal/ring"
	"github.com/peerlimit/peerlimit/internal/wire"
)

// What tests of whole clusters see of a node and users do not. It is here and not in a test file because tests of other
// packages see it as well; nothing else calls it.

func init() {
	inspect.FullDeciders = func(node any) [64]uint64 { return fullDeciders(node.(*Node)) }
	inspect.HasCopy = func(node any, partition uint16) bool {
		copied, _ := node.(*Node).hasCopy(partition)
		return copied
	}
	inspect.Levels = func(node any, partition uint16, later time.Duration) (wire.Version, map[string][]float64) {
		return levelsAt(node.(*Node), partition, later)
	}
	inspect.Unreported = func(node any) int { return int(node.(*Node).reporter.count.Load()) }
	inspect.Acquiring = func(node any) string { return acquiring(node.(*Node)) }
	inspect.MoveInPieces = func(config any, answer, replica int) { config.(*Config).pieces = pieceSizes{answer, replica} }
}

// fullDeciders is inspect.FullDeciders.
func fullDeciders(n *Node) (bitmap [64]uint64) {
	if n.closed.Load() || !n.reach.IsFull(n.now()) {
		return bitmap
	}
	for i := range bitmap {
		bitmap[i] = n.table.held[i].Load()
	}
	return bitmap
}

// acquiring is inspect.Acquiring.
func acquiring(n *Node) string {
	var b strings.Builder
	now, route, known := n.now(), n.route.Load(), n.membership.everyone()
	fmt.Fprintf(&b, "%s: full %v, known %v, ring %v, lost %v\n", n.identity, n.reach.IsFull(now), known.names, route.ring.Members(), n.reach.LostNames(now))
	shown := 0
	for part := range uint16(ring.Partitions) {
		if route.owner(part) != nil || n.table.holds(part) || shown == 2 {
			continue
		}
		shown++
		p := &n.table.partitions[part]
		p.mu.Lock()
		h := &p.holding
		fmt.Fprintf(&b, "  partition %d: promised %v, gift %v, ", part, h.promised, h.gift)
		if a := h.attempt; a == nil {
			fmt.Fprintf(&b, "no attempt, next one in %v\n", time.Duration(n.keeper.notBefore[part].Load()-now))
		} else {
			fmt.Fprintf(&b, "round %v, askee %q, %d copies in pieces:", a.round.election, a.askee, len(a.stages))
			a.round.mu.Lock()
			for i, name := range a.round.peers {
				fmt.Fprintf(&b, " %s answered=%v gone=%v lost=%v", name, a.hasAnswered(i), a.round.gone[name], n.reach.Lost(name, now))
			}
			a.round.mu.Unlock()
			fmt.Fprintln(&b)
		}
		p.mu.Unlock()
	}
	return b.String()
}

// levelsAt is inspect.Levels.
func levelsAt(n *Node, partition uint16, later time.Duration) (wire.Version, map[string][]float64) {
	p := &n.table.partitions[partition]
	p.mu.Lock()
	defer p.mu.Unlock()
	all := make(map[string][]float64)
	p.buckets.inOrder(0, func(_ uint64, b *bucket) bool {
		image := b.image(n.rules.Name(b.limiter), make([]float64, len(b.Set.Meters)), n.now()+int64(later))
		all[image.Limiter+"\x00"+b.key()] = image.Levels
		return true
	})
	return p.holding.copy, all
}
