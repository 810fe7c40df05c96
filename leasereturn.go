package peerlimit

import (
	"github.com/peerlimit/peerlimit/internal/rule"
	"github.com/peerlimit/peerlimit/internal/wire"
)

// returnLeases tells the holder which leases of a key this node is done with. It is sent once: what does not arrive counts as
// used, which is the safe side.
func (n *Node) returnLeases(part uint16, key string, r *rule.Rule, returned []wire.LeaseReturn) {
	id := rule.BucketKey{Key: key, Limiter: r.ID}
	if n.table.ReturnLeases(part, id, returned, n.now()) {
		return
	}
	owner := n.route.Load().owner(part)
	if owner == nil {
		return
	}
	m := wire.Message{Kind: wire.KindReturn, Rule: r.Encoded, Key: key, Borrow: wire.Borrowing{Returned: returned}}
	if err := n.client.Post(owner.Peer, wire.AppendMessage(nil, &m)); err != nil {
		n.log.Debug("lease not returned", "member", owner.Name, "err", err)
	}
}
