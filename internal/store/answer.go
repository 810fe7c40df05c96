package store

import (
	"github.com/peerlimit/peerlimit/internal/limit"
	"github.com/peerlimit/peerlimit/internal/rule"
	"github.com/peerlimit/peerlimit/internal/wire"
)

// Answer does what m asks of a bucket of this table, and reports whether this node decides about it.
func (t *Table) Answer(r *rule.Rule, part uint16, m *wire.Message, now int64) (a wire.Response, ok bool) {
	id := r.Bucket(m.Key)
	a.Status = wire.StatusDecided
	switch m.Kind {
	case wire.KindTake:
		a.Decision, a.Grant, ok = t.decideLending(part, id, &limit.Request{Set: r.Set, Cost: m.Cost}, &m.Borrow, now)
	case wire.KindReserve:
		turn := limit.Request{Set: r.Set, Cost: m.Cost, Total: m.Total, Reserve: true, MaxDelay: min(m.MaxDelay, t.longestTurn)}
		a.Decision, a.Undo, ok = t.reserve(part, id, &turn, now)
	case wire.KindAwait:
		turn := limit.Request{Set: r.Set, Cost: m.Cost, Total: m.Total, Reserve: true, MaxDelay: min(m.MaxDelay, t.longestTurn)}
		a, ok = t.await(part, id, &turn, m, now)
	case wire.KindLeaveTurn:
		a.Status, ok = wire.StatusDone, t.leave(part, id, m.Turn, now)
	case wire.KindPeek:
		a.Decision, ok = t.Peek(part, id, r.Set, now)
	case wire.KindCancel:
		a.Status = wire.StatusDone
		_, ok = t.Cancel(part, id, *m.Undo, now)
	case wire.KindRefund:
		a.Status, ok = wire.StatusDone, t.refund(part, id, r.Set, m.Cost, now)
	case wire.KindReset:
		a.Status, ok = wire.StatusDone, t.Reset(part, id, now)
	case wire.KindReturn:
		a.Status, ok = wire.StatusDone, t.ReturnLeases(part, id, m.Borrow.Returned, now)
	default:
		return wire.Response{Status: wire.StatusRefused}, true
	}
	return a, ok
}
