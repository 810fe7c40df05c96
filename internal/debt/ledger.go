package debt

import (
	"context"
	"math"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/peerlimit/peerlimit/internal/limit"
	"github.com/peerlimit/peerlimit/internal/rule"
	"github.com/peerlimit/peerlimit/internal/signal"
	"github.com/peerlimit/peerlimit/internal/store"
	"github.com/peerlimit/peerlimit/internal/wire"
)

// Reporting: what was spent by shares, while the holder could not be asked, is charged to the real bucket afterwards,
// each spending once. A node gathers what it spent of a partition in reports with ever higher numbers, and the partition
// remembers, together with its buckets, up to which number of which reporter it was charged (its marks). So a report may
// be sent as often as it takes, to one holder after the other, and also goes into responses to nodes that acquire.

// spending is what a node's shares were spent on.
type spending struct {
	rule *rule.Rule
	key  string
}

// unreported is what a node has spent by shares of one partition, and no holder has confirmed.
type unreported struct {
	began uint64               // orders partitions by age
	open  map[spending]float64 // was not in any report yet
	fixed []wire.Debt          // may have been sent, and so never change; the oldest first
	tries int                  // to deliver the first of them
}

// size returns how many charges are kept.
func (u *unreported) size() int {
	size := len(u.open)
	for i := range u.fixed {
		size += len(u.fixed[i].Charges)
	}
	return size
}

// Ledger keeps what this node has spent by shares until a holder has charged it.
type Ledger struct {
	self   string
	table  *store.Table
	rules  *rule.Rules
	counts func(name string) bool // whether a member is one that limits are divided by
	now    func() int64
	wakeUp signal.Signal // capacity 1: there is something to report

	lost  atomic.Uint64 // charges that were dropped for want of room
	count atomic.Int64  // charges kept; changed with mu held, read without it to see whether there are any

	// mu guards the fields below. It may be taken with a partition's mu held; nothing is taken under it.
	mu     sync.Mutex
	number uint64 // of the last report; they rise over all partitions, which is more than each needs
	age    uint64 // of the last partition
	parts  map[uint16]*unreported
}

const (
	// maxUnreported bounds the charges that are kept.
	maxUnreported = 4096

	// reportBudget bounds one report, in bytes: it is charged in one step. Earlier versions send four times as much.
	reportBudget = 8 << 10

	reportInterval = 100 * time.Millisecond
	reportTimeout  = 500 * time.Millisecond

	// reportFailures is how many reports one owner may fail to take before it is left alone until the next interval.
	reportFailures = 4

	// reportsAtOnce is how many reports about one partition are sent before the next one's turn.
	reportsAtOnce = 32
)

func New(self string, table *store.Table, rules *rule.Rules, counts func(name string) bool, now func() int64) *Ledger {
	return &Ledger{
		self: self, table: table, rules: rules, counts: counts, now: now,
		wakeUp: signal.New(), parts: make(map[uint16]*unreported),
	}
}

// Size returns how many charges are kept.
func (r *Ledger) Size() int { return int(r.count.Load()) }

// Dropped returns how many charges were dropped for want of room.
func (r *Ledger) Dropped() uint64 { return r.lost.Load() }

// Note takes in that a share of this node admitted cost.
func (r *Ledger) Note(part uint16, rule *rule.Rule, key string, cost float64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	u := r.parts[part]
	id := spending{rule, key}
	if u != nil {
		if sum, ok := u.open[id]; ok {
			u.open[id] = limit.AddUp(sum, cost)
			return
		}
	}
	for r.count.Load() >= maxUnreported {
		r.dropOldest()
		u = r.parts[part]
	}
	if u == nil {
		r.age++
		u = &unreported{began: r.age, open: make(map[spending]float64)}
		r.parts[part] = u
	}
	id.key = strings.Clone(key) // the caller may reuse its memory
	u.open[id] = cost
	r.count.Add(1)
	r.wakeUp.Send()
}

// Unrecord undoes a note whose tokens went back to the share, unless it may have been reported.
func (r *Ledger) Unrecord(part uint16, rule *rule.Rule, key string, cost float64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	u, id := r.parts[part], spending{rule, key}
	if u == nil {
		return
	}
	sum, ok := u.open[id]
	switch {
	case !ok || sum < cost: // what it was part of has been reported
		return
	case sum-cost <= sum*ulpsOfSum: // nothing but what rounding up has added
		delete(u.open, id)
		r.count.Add(-1)
	default:
		u.open[id] = limit.SubUp(sum, cost)
	}
	r.forgetEmpty(part, u)
}

// ulpsOfSum is how much of a sum may be due to its rounding, for some thousand additions.
const ulpsOfSum = 1e-12

// dropOldest drops what is unreported of the partition that has waited longest. The caller holds mu.
func (r *Ledger) dropOldest() {
	var oldest uint16
	began := uint64(math.MaxUint64)
	for part, u := range r.parts {
		if u.began < began {
			oldest, began = part, u.began
		}
	}
	size := r.parts[oldest].size()
	r.lost.Add(uint64(size))
	r.count.Add(-int64(size))
	delete(r.parts, oldest)
}

// fix makes reports of what is in none yet. The caller holds mu.
func (r *Ledger) fix(part uint16, u *unreported) {
	size := reportBudget
	for id, cost := range u.open {
		c := wire.Charge{Rule: id.rule.Encoded, Key: id.key, Cost: cost}
		if size += c.Size(); size > reportBudget {
			size = c.Size()
			r.number++
			u.fixed = append(u.fixed, wire.Debt{Member: r.self, Part: part, Seq: r.number})
		}
		last := &u.fixed[len(u.fixed)-1]
		last.Charges = append(last.Charges, c)
	}
	clear(u.open)
}

// Pending returns what is to be reported of a partition, the oldest first, as much of it as takes up maxBytes. From now
// on it is fixed.
func (r *Ledger) Pending(part uint16, maxBytes int) (some []wire.Debt, size int) {
	if r.count.Load() == 0 {
		return nil, 0 // most of the time, at most nodes
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	u := r.parts[part]
	if u == nil {
		return nil, 0
	}
	r.fix(part, u)
	for i := range u.fixed {
		for j := range u.fixed[i].Charges {
			size += u.fixed[i].Charges[j].Size()
		}
		some = append(some, u.fixed[i])
		if size >= maxBytes {
			break
		}
	}
	return some, size
}

// next returns the first report of a partition and how often it was tried before.
func (r *Ledger) next(part uint16) (q wire.Debt, try int, ok bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	u := r.parts[part]
	if u == nil {
		return wire.Debt{}, 0, false
	}
	if len(u.fixed) == 0 {
		r.fix(part, u)
	}
	u.tries++
	return u.fixed[0], u.tries - 1, true
}

// confirm drops the reports of a partition up to a number: a holder has charged them.
func (r *Ledger) confirm(part uint16, seq uint64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	u := r.parts[part]
	for u != nil && len(u.fixed) > 0 && u.fixed[0].Seq <= seq {
		r.count.Add(-int64(len(u.fixed[0].Charges)))
		u.fixed, u.tries = u.fixed[1:], 0
	}
	if u != nil {
		r.forgetEmpty(part, u)
	}
}

// forgetEmpty forgets a partition of which nothing is left to report. The caller holds mu.
func (r *Ledger) forgetEmpty(part uint16, u *unreported) {
	if len(u.open)+len(u.fixed) == 0 {
		delete(r.parts, part)
	}
}

// waiting returns the partitions with something to report, in no order.
func (r *Ledger) waiting() []uint16 {
	r.mu.Lock()
	defer r.mu.Unlock()
	parts := make([]uint16, 0, len(r.parts))
	for part := range r.parts {
		parts = append(parts, part)
	}
	return parts
}

// Others is what charging back needs of other members.
type Others interface {
	// Owner returns the member that the ring names as the owner of a partition; "" is this node.
	Owner(part uint16) string

	// Tell sends a member a request, on every other try by way of another one, and returns the response.
	Tell(ctx context.Context, to string, request []byte, timeout time.Duration, try int) ([]byte, error)
}

// Run delivers reports until ctx ends.
func (r *Ledger) Run(ctx context.Context, others Others) {
	timer := time.NewTimer(reportInterval)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-r.wakeUp:
		}
		for r.count.Load() > 0 {
			timer.Reset(reportInterval)
			select {
			case <-ctx.Done():
				return
			case <-timer.C:
			}
			r.deliverAll(ctx, others)
		}
	}
}

// deliverAll tries once to have everything charged: here, or by the owners, all at once.
func (r *Ledger) deliverAll(ctx context.Context, others Others) {
	byOwner := make(map[string][]uint16)
	for _, part := range r.waiting() {
		if r.table.Holds(part) {
			r.ChargeOwn(part)
		} else if owner := others.Owner(part); owner != "" {
			byOwner[owner] = append(byOwner[owner], part)
		}
	}
	var delivering sync.WaitGroup
	for owner, parts := range byOwner {
		delivering.Go(func() {
			failures := 0
			for _, part := range parts {
				if !r.deliver(ctx, others, owner, part) {
					failures++
				}
				if failures == reportFailures || ctx.Err() != nil {
					return
				}
			}
		})
	}
	delivering.Wait()
}

// deliver sends the owner what is to be reported of a partition and reports whether it has taken it.
func (r *Ledger) deliver(ctx context.Context, others Others, owner string, part uint16) bool {
	for range reportsAtOnce {
		q, try, ok := r.next(part)
		if !ok {
			return true
		}
		response, err := others.Tell(ctx, owner, wire.AppendDebt(nil, &q), reportTimeout, try)
		if err != nil {
			return false
		}
		if ans, err := wire.DecodeResponse(response); err != nil || ans.Status != wire.StatusDone {
			return false // it does not hold, or one on the way there did not pass it on
		}
		r.confirm(part, q.Seq)
	}
	return true // there may be more: it is being spent faster than it is reported
}

// Charge charges a report, if this node decides about the partition.
func (r *Ledger) Charge(q *wire.Debt) wire.Response {
	p := r.table.Lock(q.Part)
	defer p.Unlock()
	now := r.now()
	if !p.Decides(now) {
		return wire.Response{Status: wire.StatusElsewhere}
	}
	p.Charge(q, r.rules, r.counts, now)
	return wire.Response{Status: wire.StatusDone}
}

// ChargeOwn charges what this node itself has spent to a partition that it holds.
func (r *Ledger) ChargeOwn(part uint16) {
	if r.count.Load() == 0 {
		return // most of the time, at most nodes
	}
	r.table.InSteps(part, func(p *store.Partition) (more bool) {
		now := r.now()
		if !p.Decides(now) {
			return false
		}
		if more = r.ChargeSome(part, p, now); !more {
			r.ChargeAll(part, p, now)
		}
		return more
	})
}

// ChargeSome charges some of what is to be charged before this node begins to hold, and reports whether there is more. What
// it charges is in the copy, as its marks say; should the attempt come to nothing it is charged again wherever it has to
// be, because nobody is told. The caller holds p.mu.
func (r *Ledger) ChargeSome(part uint16, p *store.Partition, now int64) (more bool) {
	charges := 0
	fits := func(q *wire.Debt) bool {
		charges += len(q.Charges)
		return charges == len(q.Charges) || charges <= store.StepCharges
	}
	if a := p.Holding.Attempt; a != nil {
		for ; a.Charged < len(a.Debts); a.Charged++ {
			q := &a.Debts[a.Charged]
			if !fits(q) {
				return true
			}
			p.Charge(q, r.rules, r.counts, now)
		}
	}
	own, _ := r.Pending(part, math.MaxInt)
	for i := range own {
		if own[i].Seq <= p.Holding.DebtMarks[r.self] {
			continue
		}
		if !fits(&own[i]) {
			return true
		}
		p.Charge(&own[i], r.rules, r.counts, now)
	}
	return false
}

// ChargeAll charges what this node itself has spent, what little of it ChargeSome has left, to a partition that it holds,
// and forgets it. The caller holds p.mu: nothing is decided before.
func (r *Ledger) ChargeAll(part uint16, p *store.Partition, now int64) {
	own, _ := r.Pending(part, math.MaxInt)
	for i := range own {
		p.Charge(&own[i], r.rules, r.counts, now)
		r.confirm(part, own[i].Seq)
	}
}
