package peerlimit

import (
	"fmt"
	"strings"
	"time"

	"github.com/peerlimit/peerlimit/internal/inspect"
	"github.com/peerlimit/peerlimit/internal/panel"
	"github.com/peerlimit/peerlimit/internal/ring"
	"github.com/peerlimit/peerlimit/internal/wire"
)

// What tests of whole clusters see of a node and users do not. It is here and not in a test file because tests of other
// packages see it as well; nothing else calls it.

func init() {
	inspect.FullDeciders = func(node any) [64]uint64 { return fullDeciders(node.(*Node)) }
	inspect.HasCopy = func(node any, partition uint16) bool {
		copied, _ := node.(*Node).table.HasCopy(partition)
		return copied
	}
	inspect.Levels = func(node any, partition uint16, later time.Duration) (wire.Version, map[string][]float64) {
		return levelsAt(node.(*Node), partition, later)
	}
	inspect.Unreported = func(node any) int { return node.(*Node).reporter.Size() }
	inspect.Panel = func(node any) (panel.Panel, bool) {
		n := node.(*Node)
		return n.agreement.Panel(), n.agreement.HasQuorum(n.now())
	}
	inspect.Acquiring = func(node any) string { return acquiring(node.(*Node)) }
	inspect.MoveInPieces = func(config any, answer, replica int) { config.(*Config).pieces = pieceSizes{answer, replica} }
}

// fullDeciders is inspect.FullDeciders.
func fullDeciders(n *Node) (bitmap [64]uint64) {
	if n.closed.Load() || !n.reach.IsFull(n.now()) {
		return bitmap
	}
	return n.table.HeldBits()
}

// acquiring is inspect.Acquiring.
func acquiring(n *Node) string {
	var b strings.Builder
	now, route := n.now(), n.route.Load()
	fmt.Fprintf(&b, "%s: full %v, roster %v, ring %v, lost %v\n",
		n.identity, n.reach.IsFull(now), n.membership.Roster().Names, route.ring.Members(), n.reach.LostNames(now))
	shown := 0
	for part := range uint16(ring.Partitions) {
		if route.owner(part) != nil || n.table.Holds(part) || shown == 2 {
			continue
		}
		shown++
		fmt.Fprintf(&b, "  partition %d: %s\n", part, n.keeper.Describe(part, now))
	}
	return b.String()
}

// levelsAt is inspect.Levels.
func levelsAt(n *Node, partition uint16, later time.Duration) (wire.Version, map[string][]float64) {
	all := make(map[string][]float64)
	version := n.table.Visit(partition, n.now()+int64(later), func(image wire.Image) {
		all[image.Limiter+"\x00"+image.Key] = image.Levels
	})
	return version, all
}
