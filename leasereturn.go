package peerlimit

import "github.com/peerlimit/peerlimit/internal/wire"

// GiveBack tells the holder which leases of a key this node is done with. It is sent once: what does not arrive counts as
// used, which is the safe side.
func (n *Node) giveBack(k *hotKey, r *rule, returned []wire.LeaseReturn) {
	id := bucketKey{k.key, r.id}
	if n.table.giveBack(k.part, id, returned, n.now()) {
		return
	}
	owner := n.route.Load().owner(k.part)
	if owner == nil {
		return
	}
	m := wire.Message{Kind: wire.KindReturn, Rule: r.encoded, Key: k.key, Borrow: wire.Borrowing{Returned: returned}}
	if err := n.client.Post(owner.Peer, wire.AppendMessage(nil, &m)); err != nil {
		n.log.Debug("a lease was not given back", "owner", owner.Name, "error", err)
	}
}
