package store

import "github.com/peerlimit/peerlimit/internal/wire"

// IdleCopy is a copy of a partition that this node does not hold.
type IdleCopy struct {
	wire.SettlePart
	taken uint64 // see holding
}

// IdleCopy returns the copy that is kept of a partition which is not held, if there is one.
func (t *Table) IdleCopy(part uint16) (idle IdleCopy, any bool) {
	if t.Holds(part) {
		return IdleCopy{}, false
	}
	p := t.Lock(part)
	defer p.Unlock()
	h := &p.Holding
	if h.Holds || h.Copy == (wire.Version{}) {
		return IdleCopy{}, false
	}
	return IdleCopy{wire.SettlePart{Part: part, Version: h.Copy}, h.ReplicasAccepted}, true
}

// DropCopy drops a copy that is safe elsewhere, unless it may be needed to acquire the partition, or has been replaced
// since it was asked about. By one of the same version as well [ReplicaVoidsSettling]: the holder has sent it because this
// node is its standby by now, and what was the standby then may be gone.
func (t *Table) DropCopy(idle IdleCopy) bool {
	p := t.Lock(idle.Part)
	defer p.Unlock()
	h := &p.Holding
	if h.Holds || h.Attempt != nil || h.Copy != idle.Version || h.ReplicasAccepted != idle.taken {
		return false
	}
	t.exchange(p, buckets{})
	h.Drop()
	return true
}

// MayDrop reports whether another node's copy is not needed, because a standby has all that is in it. A copy that is newer
// than the one of this node, which holds, challenges it: it must acquire anew, above that one [NewerCopyOffered].
func (t *Table) MayDrop(asked wire.SettlePart, standby string, now int64) (safe, challenged bool) {
	p := t.Lock(asked.Part)
	defer p.Unlock()
	h := &p.Holding
	switch {
	case !p.Decides(now):
	case h.Copy.Below(asked.Version):
		h.ReacquireAbove(asked.Version.Ballot)
		return false, true
	default:
		return standby == h.Replication.Standby && h.SafeToDrop(asked.Version), false
	}
	return false, false
}
