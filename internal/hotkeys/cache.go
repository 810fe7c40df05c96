package hotkeys

import (
	"context"
	"hash/maphash"
	"math"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/peerlimit/peerlimit/internal/limit"
	"github.com/peerlimit/peerlimit/internal/rule"
	"github.com/peerlimit/peerlimit/internal/signal"
	"github.com/peerlimit/peerlimit/internal/wire"
)

// Hot keys, at the callers. For keys that other nodes hold, and that are taken from often, this node has leases: tokens
// that were set aside for it and that it uses without asking; see lease.go for the holder's side. And it remembers
// denials for as long as they stand. Both are bounded in number, and a key that is asked about once leaves no trace.

const (
	// hotSets and hotWays are how many keys are remembered at most: 16,384. A key has its place in one of the sets, and
	// takes that of the one there that was asked about least recently.
	hotSets = 4096
	hotWays = 4

	// demandWindow is the time over which demand is measured, and hotTakes how many takes in it make a key hot: 400 a
	// second.
	demandWindow = 10 * time.Millisecond
	hotTakes     = 4

	// maxDenialTime is how long a denial is remembered at most: so long it may take until a refund or a reset on another
	// node is noticed.
	maxDenialTime = 250 * time.Millisecond

	// probeTime is for how long one caller that asks whether a denial still stands is waited for by the others.
	probeTime = 50 * time.Millisecond

	// returnInterval is how often leases that have ended are looked for, while there are any.
	returnInterval = 5 * time.Millisecond

	// forgetInterval and forgetTime are for keys that nobody asks about any more.
	forgetInterval = 10 * time.Second
	forgetTime     = 20 * time.Second
)

// Cache are the keys of other holders that this node remembers.
type Cache struct {
	seed            maphash.Seed // of the hashes of keys
	leases, denials bool         // which of the two are in use

	sets [hotSets][hotWays]atomic.Pointer[entry]
	seen [hotSets]atomic.Uint64 // hashes of keys that were asked about once

	// mu guards leased and makes adding a key one step. It is held for that only.
	mu     sync.Mutex
	leased map[*entry]struct{} // that may have a lease, or something to give back
	wakeUp signal.Signal       // capacity 1: there is one in leased
}

// entry is what this node remembers of one key.
type entry struct {
	rule.BucketKey
	hash uint64
	part uint16

	lease  atomic.Pointer[borrowed]
	denial atomic.Pointer[denial]
	asked  atomic.Int64 // when somebody asked for it last

	// mu guards the fields below. It is held for a few instructions, never across I/O.
	mu       sync.Mutex
	rule     *rule.Rule // as it was asked for last
	demand   demand
	pending  bool               // a lease has been asked for, and the answer is not there yet
	returned []wire.LeaseReturn // to be told to the holder
}

// borrowed is a lease in use.
type borrowed struct {
	id     uint64
	set    *limit.Set
	tokens float64
	until  int64 // it may not be used from then on

	// renewAt and low are when the next one is asked for: by one of the callers, while others go on using this one.
	renewAt  int64
	low      float64
	renewing atomic.Bool

	left    atomic.Uint64 // tokens, as the bits of a float64; negative when the lease was given back
	counted float64       // of what was used, what demand knows of; guarded by the key's mu

	decision limit.Decision // of the take that it came with
}

// denial is a denial that is remembered.
type denial struct {
	set      *limit.Set
	cost     float64
	decision limit.Decision
	at       int64       // when it arrived
	until    int64       // it stood for that long when it was asked for: the holder has decided since then
	asking   atomic.Bool // a caller is asking whether it still stands
}

func New(leases, denials bool) *Cache {
	if !leases && !denials {
		return nil
	}
	return &Cache{
		seed: maphash.MakeSeed(), leases: leases, denials: denials,
		leased: make(map[*entry]struct{}), wakeUp: signal.New(),
	}
}

// Take decides a take here if it can: because a denial stands, or from a lease. When it cannot, d is left as it is.
func (h *Cache) Take(id rule.BucketKey, set *limit.Set, cost float64, now int64, d *limit.Decision) bool {
	if h == nil {
		return false
	}
	k := h.find(id.Hash(h.seed), id)
	if k == nil {
		return false
	}
	if denial := k.denial.Load(); denial != nil && denial.set == set && cost >= denial.cost {
		return denial.answer(cost, now, d)
	}
	if l := k.lease.Load(); l != nil && l.set == set {
		return l.take(cost, now, d)
	}
	return false
}

// Denies answers as Take would if that is a denial, for a caller that may not take after all: it is not the one that is to ask
// whether the denial still stands.
func (h *Cache) Denies(id rule.BucketKey, set *limit.Set, cost float64, now int64) (d limit.Decision, denies bool) {
	if h == nil {
		return d, false
	}
	k := h.find(id.Hash(h.seed), id)
	if k == nil {
		return d, false
	}
	denial := k.denial.Load()
	if denial == nil || denial.set != set || cost < denial.cost ||
		now >= denial.until && (now >= denial.until+int64(probeTime) || !denial.asking.Load()) {
		return d, false
	}
	denial.repeat(cost, now, &d)
	return d, true
}

// find returns what is remembered of a key, or nil.
func (h *Cache) find(hash uint64, id rule.BucketKey) *entry {
	set := &h.sets[hash%hotSets]
	for i := range set {
		if k := set[i].Load(); k != nil && k.hash == hash && k.BucketKey == id {
			return k
		}
	}
	return nil
}

// take takes cost from a lease. It refuses when there is too little, when the lease has ended, and to the one caller that
// is to ask for the next one.
//
// The clock was read before the tokens are taken. A caller that is held up in between takes them as of then: they were there.
func (l *borrowed) take(cost float64, now int64, d *limit.Decision) bool {
	if now >= l.until {
		return false
	}
	for {
		bits := l.left.Load()
		left := math.Float64frombits(bits)
		if (now >= l.renewAt || left < l.low) && !l.renewing.Load() && l.renewing.CompareAndSwap(false, true) {
			return false
		}
		if left -= cost; left < 0 {
			return false
		}
		if l.left.CompareAndSwap(bits, math.Float64bits(left)) {
			*d = l.decision
			d.Remaining = left
			return true
		}
	}
}

// close ends the use of a lease and returns what is left.
func (l *borrowed) close() (unused float64) {
	return math.Max(0, math.Float64frombits(l.left.Swap(math.Float64bits(-1))))
}

// answer denies a take because of a denial before, while that stands; then it has one caller ask.
func (d *denial) answer(cost float64, now int64, again *limit.Decision) bool {
	if now >= d.until && (now >= d.until+int64(probeTime) || d.asking.CompareAndSwap(false, true)) {
		return false
	}
	d.repeat(cost, now, again)
	return true
}

// repeat denies a take as the one before was.
func (d *denial) repeat(cost float64, now int64, again *limit.Decision) {
	age := time.Duration(now - d.at)
	*again = d.decision
	again.RetryAfter = max(again.RetryAfter-age, time.Millisecond)
	again.ResetAfter = max(again.ResetAfter-age, 0)
	if cost > d.cost {
		again.RetryAfter = limit.AddNanos(again.RetryAfter, d.set.Earns(cost-d.cost))
	}
}

// Asking notes that the holder is about to be asked for a take and adds to the request what is to be said and asked about
// leases. It returns what is remembered of the key, or nil.
func (h *Cache) Asking(id rule.BucketKey, r *rule.Rule, part uint16, m *wire.Message, now int64) *entry {
	if h == nil {
		return nil
	}
	hash := id.Hash(h.seed)
	k := h.find(hash, id)
	if k == nil {
		if seen := &h.seen[hash%hotSets]; seen.Swap(hash) != hash {
			return nil
		}
		k = h.add(hash, id, part)
	}
	k.asked.Store(now)
	if !h.leases {
		return k
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	k.rule = r
	want := k.demand.note(m.Cost, k.used(now), now)
	if !k.pending {
		m.Borrow.Want, k.pending = want, want > 0
	}
	m.Borrow.Returned = k.takeReturned()
	return k
}

// used returns what was used of the lease since it was asked last. One that has ended is to be returned.
func (k *entry) used(now int64) float64 {
	l := k.lease.Load()
	if l == nil {
		return 0
	}
	var used float64
	if left := math.Float64frombits(l.left.Load()); now >= l.until || left <= 0 {
		unused := l.close()
		used = l.tokens - unused - l.counted
		k.lease.Store(nil)
		k.returned = append(k.returned, wire.LeaseReturn{ID: l.id, Unused: unused})
	} else {
		used = l.tokens - left - l.counted
	}
	l.counted += used
	return used
}

// takeReturned takes what one message can return.
func (k *entry) takeReturned() []wire.LeaseReturn {
	n := min(len(k.returned), wire.MaxReturns)
	some := slices.Clone(k.returned[:n])
	k.returned = slices.Delete(k.returned, 0, n)
	return some
}

// demand measures how much is taken of a key.
type demand struct {
	since  int64   // the window began
	takes  int     // in it that were sent to the holder
	tokens float64 // in it, by leases as well
	rate   float64 // tokens per nanosecond, lately
}

// note counts a take and what was used by leases, and returns how much to borrow: what is going to be used in the lifetime
// of a lease and a half, as far as one can tell; 0 when the key is not hot.
func (d *demand) note(cost, used float64, now int64) (want float64) {
	d.takes++
	d.tokens += cost + used
	elapsed := max(now-d.since, int64(demandWindow/200))
	hot := used > 0 || d.takes*int(demandWindow) >= hotTakes*int(elapsed)
	switch {
	case elapsed >= int64(demandWindow):
		if d.rate = 0; hot {
			d.rate = d.tokens / float64(elapsed)
		}
		d.since, d.takes, d.tokens = now, 0, 0
	case d.takes >= hotTakes || used > 0:
		d.rate = math.Max(d.rate, d.tokens/float64(elapsed))
	}
	return d.rate * float64(limit.LeaseTime) * 1.5
}

// Answered takes in the holder's answer to a take that asking has prepared, sent at that time. Most keys are not hot: for
// those nothing is looked at, the clock neither.
func (h *Cache) Answered(k *entry, m *wire.Message, r *rule.Rule, ans *wire.Response, err error, sent int64, clock func() int64) {
	if h == nil {
		return
	}
	fromHolder := err == nil && (ans.Decision.Origin == limit.OriginRemote || ans.Decision.Origin == limit.OriginLocal)
	if k == nil && (!h.denials || !fromHolder || ans.Decision.Allowed || ans.Grant.Stands <= 0) {
		return
	}
	now := clock()
	if k == nil {
		id := r.Bucket(m.Key)
		k = h.add(id.Hash(h.seed), id, r.Hash.Partition(m.Key))
		k.asked.Store(now)
	}
	switch old := k.denial.Load(); {
	case h.denials && fromHolder:
		k.noteDenial(m.Cost, r.Set, ans, sent, now)
	case old != nil:
		old.asking.Store(false) // no answer, perhaps because the caller had no time: another one asks
	}
	if m.Borrow.Want == 0 && !(fromHolder && ans.Grant.Tokens > 0) {
		return
	}
	k.mu.Lock()
	k.pending = k.pending && m.Borrow.Want == 0
	leased := fromHolder && ans.Grant.Tokens > 0
	if leased {
		k.replaceLease(r.Set, ans, sent, now)
	}
	k.mu.Unlock()
	if leased {
		h.lend(k)
	}
}

// noteDenial remembers a denial for as long as it stands, or forgets the one before. It counts from when it was sent for, as a
// lease does: counted from when it has arrived, it would outlast by the way back what it stands for, and a bucket with a small
// burst is full by then.
func (k *entry) noteDenial(cost float64, set *limit.Set, ans *wire.Response, sent, now int64) {
	stands := min(ans.Grant.Stands, maxDenialTime)
	if ans.Decision.Allowed || stands <= 0 {
		if k.denial.Load() != nil {
			k.denial.Store(nil)
		}
		return
	}
	d := &denial{set: set, cost: cost, decision: ans.Decision, at: now, until: sent + int64(stands)}
	d.decision.Origin = limit.OriginDenialCache
	k.denial.Store(d)
}

// replaceLease begins to use a lease that was just granted. The one before is to be returned. The caller holds k.mu.
func (k *entry) replaceLease(set *limit.Set, ans *wire.Response, sent, now int64) {
	k.used(now)
	if old := k.lease.Load(); old != nil {
		k.returned = append(k.returned, wire.LeaseReturn{ID: old.id, Unused: old.close()})
	}
	l := &borrowed{
		id: ans.Grant.ID, set: set, tokens: ans.Grant.Tokens, decision: ans.Decision,
		until: sent + int64(limit.LeaseTime), renewAt: sent + int64(limit.LeaseTime)*3/4, low: ans.Grant.Tokens / 4,
	}
	l.decision.Origin = limit.OriginLease
	l.left.Store(math.Float64bits(l.tokens))
	k.lease.Store(l)
}

// add makes a key one that is remembered, in the place of another if need be.
func (h *Cache) add(hash uint64, id rule.BucketKey, part uint16) *entry {
	h.mu.Lock()
	defer h.mu.Unlock()
	if k := h.find(hash, id); k != nil {
		return k
	}
	set := &h.sets[hash%hotSets]
	oldest := 0
	for i := range set {
		k := set[i].Load()
		if k == nil {
			oldest = i
			break
		}
		if k.asked.Load() < set[oldest].Load().asked.Load() {
			oldest = i
		}
	}
	k := &entry{BucketKey: id, hash: hash, part: part}
	k.Key = string([]byte(id.Key)) // the caller's may be part of something large
	set[oldest].Store(k)
	return k
}

// Forget drops a denial: tokens have come back.
func (h *Cache) Forget(id rule.BucketKey) {
	if h == nil {
		return
	}
	if k := h.find(id.Hash(h.seed), id); k != nil {
		k.denial.Store(nil)
	}
}

// lend has a key looked after until its lease has ended.
func (h *Cache) lend(k *entry) {
	h.mu.Lock()
	h.leased[k] = struct{}{}
	h.mu.Unlock()
	h.wakeUp.Send()
}

// returner tells the holder of a key's partition which leases of the key this node is done with.
type returner = func(part uint16, key string, r *rule.Rule, returned []wire.LeaseReturn)

// Run gives back what is not used, and forgets keys that are not asked about any more, until ctx ends. GiveBack tells
// the holder.
func (h *Cache) Run(ctx context.Context, clock func() int64, giveBack returner) {
	forget := time.NewTicker(forgetInterval)
	defer forget.Stop()
	look := time.NewTimer(returnInterval)
	defer look.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-forget.C:
			h.forgetIdle(clock())
			continue
		case <-h.wakeUp:
		case <-look.C:
		}
		if h.giveBackEnded(clock(), giveBack) {
			look.Reset(returnInterval)
		}
	}
}

// giveBackEnded gives back the leases that have ended, and reports whether there are others.
func (h *Cache) giveBackEnded(now int64, giveBack returner) (more bool) {
	h.mu.Lock()
	leased := make([]*entry, 0, len(h.leased))
	for k := range h.leased {
		leased = append(leased, k)
	}
	h.mu.Unlock()
	for _, k := range leased {
		k.mu.Lock()
		if l := k.lease.Load(); l != nil && now >= l.until {
			k.demand.tokens += k.used(now)
		}
		rule, returned := k.rule, k.takeReturned()
		done := k.lease.Load() == nil && len(k.returned) == 0
		k.mu.Unlock()
		if len(returned) > 0 {
			giveBack(k.part, k.Key, rule, returned)
		}
		if done {
			h.mu.Lock()
			if k.lease.Load() == nil {
				delete(h.leased, k)
			}
			h.mu.Unlock()
		}
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	return len(h.leased) > 0
}

// forgetIdle forgets keys that have not been asked about for some time.
func (h *Cache) forgetIdle(now int64) {
	for i := range h.sets {
		for j := range h.sets[i] {
			if k := h.sets[i][j].Load(); k != nil && now-k.asked.Load() > int64(forgetTime) {
				h.sets[i][j].CompareAndSwap(k, nil)
			}
		}
	}
}
