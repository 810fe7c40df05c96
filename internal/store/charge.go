package store

import (
	"github.com/peerlimit/peerlimit/internal/limit"
	"github.com/peerlimit/peerlimit/internal/rule"
	"github.com/peerlimit/peerlimit/internal/wire"
)

// Charge charges a report to a partition that this node holds, or is about to, unless it was charged before. The caller
// holds p.mu.
func (p *Partition) Charge(q *wire.Debt, rules *rule.Rules, known func(string) bool, now int64) {
	if !p.Holding.MarkDebt(q.Member, q.Seq, known) {
		return
	}
	for i := range q.Charges {
		Probe.touch(1)
		c := &q.Charges[i]
		r, err := rules.Find(c.Rule)
		if err != nil {
			continue // what is not valid is not spent either
		}
		p.spend(r.Bucket(c.Key), r.Set, c.Cost, now)
	}
	if p.Holding.Holds { // or else the copy would seem to have more of what its holder has decided than it has
		p.Holding.Copy.Seq++ // the mark alone is news for the standby
		p.MarkChanged()
	}
}

// spend charges a bucket with what was spent elsewhere. The caller holds p.mu.
func (p *Partition) spend(id rule.BucketKey, set *limit.Set, cost float64, now int64) {
	t := p.table
	hash := id.Hash(t.seed)
	b := p.buckets.find(hash, id)
	if b == nil {
		b = t.insert(p, hash, id, set, now)
	}
	t.leased(b, now)
	if p.Decides(now) {
		t.serve(p, b, now) // what has come before
	}
	b.Spend(set, cost, now)
	if p.Holding.Holds {
		t.touch(p.number, p, b)
	}
}
