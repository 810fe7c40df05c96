package peerlimit

// GiveBack tells the holder which leases of a key this node is done with. It is sent once: what does not arrive counts as
// used, which is the safe side.
func (n *Node) giveBack(k *hotKey, r *rule, returned []leaseReturn) {
	id := bucketKey{k.key, r.id}
	if n.table.giveBack(k.part, id, returned, n.now()) {
		return
	}
	owner := n.route.Load().owner(k.part)
	if owner == nil {
		return
	}
	m := message{kind: kindReturn, rule: r.encoded, key: k.key, borrow: borrowing{returned: returned}}
	if err := n.client.Post(owner.Peer, appendMessage(nil, &m)); err != nil {
		n.log.Debug("a lease was not given back", "owner", owner.Name, "error", err)
	}
}
