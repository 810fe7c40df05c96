package peerlimit

import "github.com/peerlimit/peerlimit/internal/wire"

// idleCopy is a copy of a partition that this node does not hold.
type idleCopy struct {
	wire.SettlePart
	taken uint64 // see holding
}

// idleCopy returns the copy that is kept of a partition which is not held, if there is one.
func (t *table) idleCopy(part uint16) (idle idleCopy, any bool) {
	if t.holds(part) {
		return idleCopy{}, false
	}
	p := t.lock(part)
	defer p.unlock()
	h := &p.holding
	if h.Holds || h.Copy == (wire.Version{}) {
		return idleCopy{}, false
	}
	return idleCopy{wire.SettlePart{Part: part, Version: h.Copy}, h.ReplicasAccepted}, true
}

// dropCopy drops a copy that is safe elsewhere, unless it may be needed to acquire the partition, or has been replaced
// since it was asked about. By one of the same version as well [ReplicaVoidsSettling]: the holder has sent it because this
// node is its standby by now, and what was the standby then may be gone.
func (t *table) dropCopy(idle idleCopy) bool {
	p := t.lock(idle.Part)
	defer p.unlock()
	h := &p.holding
	if h.Holds || h.Attempt != nil || h.Copy != idle.Version || h.ReplicasAccepted != idle.taken {
		return false
	}
	t.exchange(p, buckets{})
	h.Drop()
	return true
}

// mayDrop reports whether another node's copy is not needed, because a standby has all that is in it. A copy that is newer
// than the one of this node, which holds, challenges it: it must acquire anew, above that one [NewerCopyOffered].
func (t *table) mayDrop(asked wire.SettlePart, standby string, now int64) (safe, challenged bool) {
	p := t.lock(asked.Part)
	defer p.unlock()
	h := &p.holding
	switch {
	case !p.decides(now):
	case h.Copy.Below(asked.Version):
		h.ReacquireAbove(asked.Version.Ballot)
		return false, true
	default:
		return standby == h.Replication.Standby && h.SafeToDrop(asked.Version), false
	}
	return false, false
}
