package store

import (
	"cmp"
	"hash/maphash"
	"math/bits"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/peerlimit/peerlimit/internal/holding"
	"github.com/peerlimit/peerlimit/internal/limit"
	"github.com/peerlimit/peerlimit/internal/ring"
	"github.com/peerlimit/peerlimit/internal/rule"
	"github.com/peerlimit/peerlimit/internal/signal"
	"github.com/peerlimit/peerlimit/internal/wire"
)

// Table keeps buckets by partition: the partition is the unit of ownership, of locking and of moving.
type Table struct {
	partitions [ring.Partitions]Partition
	maxKeys    int64
	seed       maphash.Seed

	// FullUntil is until when this node's quorum is fresh, on the clock of the times passed in. From then on nothing is
	// decided here, and before it only what this node holds. Nil for a table that only this node uses: it decides always.
	fullUntil *atomic.Int64

	// held has a bit for each partition that this node holds: what the partitions say under their locks, to be seen
	// without them.
	held [(ring.Partitions + 63) / 64]atomic.Uint64

	// refused has a bit for each partition whose holder, this node, was refused by its standby; likewise.
	refused [(ring.Partitions + 63) / 64]atomic.Uint64

	// inWork has a bit for each partition that something is being done to in steps, see InSteps.
	inWork [(ring.Partitions + 63) / 64]atomic.Uint64

	// untidy has a bit for each partition whose buckets were replaced, see exchange; wakeSweeper, of capacity 1, says that there
	// are some.
	untidy      [(ring.Partitions + 63) / 64]atomic.Uint64
	wakeSweeper signal.Signal

	// replicates says that changes are noted for the standby.
	replicates bool

	// piece bounds what is taken from one partition at a time to be replicated, in bytes.
	piece int

	// changed has a bit for each partition with changes that were not sent to the standby yet.
	changed [(ring.Partitions + 63) / 64]atomic.Uint64

	// arrivingSize is how many bytes the pieces of replicas take up that are not all there.
	arrivingSize atomic.Int64

	// LongestTurn is how far ahead a reservation may be that comes from another member, with a bucket or as a request.
	longestTurn time.Duration

	// undoEpoch is added to the moments in what undoes reservations: what another holder has given out, on another clock, means
	// nothing here.
	undoEpoch int64

	// members is how many share what can be leased; 0 when nothing is leased. leaseID is that of the lease granted last.
	members atomic.Int64
	leaseID atomic.Uint64
	leases  leaseCounts

	turns turnKeeper

	order   evictionOrder
	keys    atomic.Int64  // buckets in all partitions
	evicted atomic.Uint64 // buckets that still mattered when they had to go
}

// Partition is a set of buckets under one lock. A bucket that is not there is full of tokens.
//
// What every take reads or writes comes first and lies in one cache line: the lock, the slots, and of holding what is to
// be checked and counted. Processors that decide about different keys take that line from each other. In another one is
// what a take needs when it is the first of its bucket since the last changes were sent.
type Partition struct {
	// mu guards the buckets and is held for one operation on one of them, or for one step of what is done to many, see
	// InSteps; never across I/O, a channel or a sleep.
	mu      sync.Mutex
	buckets buckets

	// Holding is what this node knows about the holder.
	Holding holding.Holding

	// underway is what is being done in steps, see steps.go; nil when nothing is.
	underway *underway

	table *Table // which it is one of

	// dirty are the buckets that have changed and were not sent to the standby yet, each once.
	dirty []*bucket

	// spare is an empty list for the changes that come while those before are on their way to the standby.
	spare []*bucket

	// frozenUntil is until when no bucket may be dropped, because the copy is being sent in pieces.
	frozenUntil int64

	number uint16 // which one of the table's it is

	_ [partitionPadding]byte // the next one begins a cache line
}

const partitionPadding = 6

// minLongestTurn is the least that members take each other's reservations for, whatever their own MaxWait.
const minLongestTurn = 24 * time.Hour

// Config says what a table is for. The zero value but for MaxKeys makes one that only this node uses.
type Config struct {
	MaxKeys int // buckets that are kept, at most

	// FullUntil is the clock that ends deciding, see table; nil for a table that decides always.
	FullUntil *atomic.Int64

	Replicates  bool          // changes are noted for the standby
	LongestTurn time.Duration // see table; minLongestTurn at least
	Piece       int           // bytes, see table; 0 is 48 KiB

	// Self is the node's name. WakeHere tells one of its callers that waits, and reports whether it still does. It is called
	// with a partition locked. Nil for a table that nobody waits at.
	Self     string
	WakeHere func(*wire.Wake) (heard bool)
}

func New(c Config) *Table {
	t := &Table{
		maxKeys: int64(c.MaxKeys), fullUntil: c.FullUntil, replicates: c.Replicates, longestTurn: max(minLongestTurn, c.LongestTurn),
		piece: cmp.Or(c.Piece, PieceBudget), seed: maphash.MakeSeed(), wakeSweeper: signal.New(),
		undoEpoch: rand.Int64(), // #nosec G404 -- only has to differ from those of other holders
	}
	t.turns.changed, t.turns.self, t.turns.wakeHere, t.turns.most = signal.New(), c.Self, c.WakeHere, MaxTurns
	for part := range t.partitions {
		t.partitions[part].table, t.partitions[part].number = t, uint16(part)
	}
	// No two holders have a lease of the same name: one that comes back to another one than granted it must mean nothing.
	t.leaseID.Store(rand.Uint64()) // #nosec G404 -- only has to differ from those of other holders
	return t
}

// Lock locks a partition, until unlock.
func (t *Table) Lock(part uint16) *Partition {
	p := &t.partitions[part]
	p.mu.Lock()
	return p
}

// Unlock publishes what others see of p without its lock, and unlocks it.
func (p *Partition) Unlock() {
	p.publish()
	Probe.Released()
	p.mu.Unlock()
}

// publish brings held and refused up to date. A node that has ceased to hold has no changes to send any more. The caller
// holds p.mu.
func (p *Partition) publish() {
	t, h := p.table, &p.Holding
	if held := t.Holds(p.number); held != h.Holds {
		setBit(&t.held, p.number, h.Holds)
		if held {
			p.forgetChanges()
			t.dismissAll(p)
		}
	}
	if t.IsChallenged(p.number) != h.Challenged {
		setBit(&t.refused, p.number, h.Challenged)
	}
}

func setBit(words *[(ring.Partitions + 63) / 64]atomic.Uint64, part uint16, is bool) {
	if bit := uint64(1) << (part % 64); is {
		words[part/64].Or(bit)
	} else {
		words[part/64].And(^bit)
	}
}

// IsChallenged reports whether a partition that this node holds is to be acquired anew.
func (t *Table) IsChallenged(part uint16) bool { return t.refused[part/64].Load()>>(part%64)&1 == 1 }

// Holds reports whether this node holds a partition; its quorum may have lapsed even so.
func (t *Table) Holds(part uint16) bool { return t.held[part/64].Load()>>(part%64)&1 == 1 }

// HoldsAny reports whether this node holds anything.
func (t *Table) HoldsAny() bool {
	for i := range t.held {
		if t.held[i].Load() != 0 {
			return true
		}
	}
	return false
}

// HeldBits returns the partitions that this node holds, a bit each: that of partition p is bit p%64 of word p/64.
func (t *Table) HeldBits() (bits [(ring.Partitions + 63) / 64]uint64) {
	for i := range t.held {
		bits[i] = t.held[i].Load()
	}
	return bits
}

// counts are what is counted of a table.
type counts struct {
	Keys    int    // buckets kept now
	Evicted uint64 // buckets that still mattered when they had to go

	ArrivingBytes int64 // what pieces of replicas take up that are not all there

	LeasesGranted, LeasesExpired             uint64
	TokensLeased, TokensUsed, TokensReturned float64

	QueuedTurns                          int // that wait now
	ServedTurns, LeftTurns, RefusedTurns uint64
}

func (t *Table) Counts() counts {
	c := counts{Keys: int(t.keys.Load()), Evicted: t.evicted.Load(), ArrivingBytes: t.arrivingSize.Load()}
	c.LeasesGranted, c.LeasesExpired, c.TokensLeased, c.TokensUsed, c.TokensReturned = t.leases.sums()
	queued, turns := t.turns.sums()
	c.QueuedTurns, c.ServedTurns, c.LeftTurns, c.RefusedTurns = queued, turns.served, turns.left, turns.refused
	return c
}

// LendTo says how many members share what can be leased; with 0 nothing is leased.
func (t *Table) LendTo(members int) { t.members.Store(int64(members)) }

// HeldCount returns how many partitions this node holds.
func (t *Table) HeldCount() (n int) {
	for i := range t.held {
		n += bits.OnesCount64(t.held[i].Load())
	}
	return n
}

// enter locks a partition and returns it when this node decides about it at now; otherwise it returns nil.
func (t *Table) enter(part uint16, now int64) *Partition {
	if t.fullUntil != nil && !t.Holds(part) {
		return nil // most takes are on keys of others
	}
	p := &t.partitions[part]
	p.mu.Lock()
	if p.Decides(now) {
		return p
	}
	p.mu.Unlock()
	return nil
}

// Decides reports whether this node decides about p in full. The caller holds p.mu.
func (p *Partition) Decides(now int64) bool {
	t := p.table
	return t.fullUntil == nil || p.Holding.Holds && now < t.fullUntil.Load()
}

// touch notes that b has changed. The caller holds p.mu.
func (t *Table) touch(part uint16, p *Partition, b *bucket) {
	if t.fullUntil == nil {
		return
	}
	p.Holding.Copy.Seq++
	if b.dirty || !t.replicates || p.Holding.Unreplicated || p.Holding.Unlisted {
		return
	}
	if len(p.dirty) == maxChanges {
		p.forgetChanges()
		p.Holding.Replication.ResendAll = true
		t.MarkChanged(part)
		return
	}
	b.dirty = true
	if len(p.dirty) == 0 {
		t.changed[part/64].Or(1 << (part % 64))
	}
	if p.dirty == nil {
		p.dirty = make([]*bucket, 0, firstChanges)
	}
	p.dirty = append(p.dirty, b)
}

// MarkChanged has a partition looked at for the standby, whether or not something was decided.
func (t *Table) MarkChanged(part uint16) { t.changed[part/64].Or(1 << (part % 64)) }

func (p *Partition) MarkChanged() { p.table.MarkChanged(p.number) }

// firstChanges is how many changes a partition has room for as soon as there is one.
const firstChanges = 8

// maxChanges bounds the list of changes: it is not to take long to make it longer.
const maxChanges = 1 << 17

// forgetChanges empties the list of changes: the standby is to have everything. The caller holds p.mu.
//
// When they are many it takes more than a step until none of them seems to be listed any more. Until then no change is, and
// nothing is sent; see listAgain.
func (p *Partition) forgetChanges() {
	if len(p.dirty) > stepLooks {
		p.start().stale, p.dirty, p.Holding.Unlisted = p.dirty, nil, true
		return
	}
	unlist(p.dirty)
	p.dirty = nil
}

func unlist(changed []*bucket) {
	Probe.touch(len(changed))
	for _, b := range changed {
		b.dirty = false
	}
}

// listAgain is a step of what has to be done before changes are listed again, and reports whether there is more. The
// caller holds p.mu.
func (p *Partition) listAgain() (more bool) {
	u := p.underway
	if !p.Holding.Unlisted {
		return false
	}
	n := min(len(u.stale), stepLooks)
	unlist(u.stale[:n])
	if u.stale = u.stale[n:]; len(u.stale) > 0 {
		return true
	}
	u.stale, p.Holding.Unlisted = nil, false
	p.ended()
	return false
}

// EachChanged calls visit for each partition with changes, which is not marked as changed any more.
func (t *Table) EachChanged(visit func(part uint16)) {
	for i := range t.changed {
		for word := t.changed[i].Swap(0); word != 0; word &= word - 1 {
			visit(uint16(64*i + bits.TrailingZeros64(word)))
		}
	}
}

// The operations below report in their last result whether this node decides about the partition; when not, nothing was
// done. The key may be reused by the caller afterwards.

// Decide takes a's cost from a bucket, or says why not, in d.
func (t *Table) Decide(d *limit.Decision, part uint16, id rule.BucketKey, a *limit.Request, now int64) bool {
	if t.fullUntil != nil && !t.Holds(part) {
		return false
	}
	hash := id.Hash(t.seed)
	p := t.enter(part, now)
	if p == nil {
		return false
	}
	b := p.buckets.find(hash, id)
	if b == nil {
		b = t.insert(p, hash, id, a.Set, now)
	} else if b.HasMore() {
		a.Leased = t.leased(b, now)
	}
	b.DecideInto(d, a, now)
	if d.Allowed {
		t.touch(part, p, b)
	}
	p.mu.Unlock()
	return true
}

// reserve is decide for a turn that may come later, and says how to undo it.
func (t *Table) reserve(part uint16, id rule.BucketKey, a *limit.Request, now int64) (limit.Decision, *limit.Undo, bool) {
	hash := id.Hash(t.seed)
	p := t.enter(part, now)
	if p == nil {
		return limit.Decision{}, nil, false
	}
	defer p.mu.Unlock()
	b := p.buckets.find(hash, id)
	if b == nil {
		b = t.insert(p, hash, id, a.Set, now)
	}
	a.Leased = t.leased(b, now)
	t.serve(p, b, now)
	d, u := b.Reserve(a, now)
	if d.Allowed {
		t.touch(part, p, b)
	}
	if u != nil {
		u.Shift(t.undoEpoch)
	}
	return d, u, true
}

// Peek tells how a bucket stands and changes nothing.
func (t *Table) Peek(part uint16, id rule.BucketKey, set *limit.Set, now int64) (limit.Decision, bool) {
	p := t.enter(part, now)
	if p == nil {
		return limit.Decision{}, false
	}
	defer p.mu.Unlock()
	if b := p.buckets.find(id.Hash(t.seed), id); b != nil {
		return b.PeekBeside(t.leased(b, now), set, now), true
	}
	fresh := limit.NewState(set, now)
	return fresh.Peek(set, now), true
}

// Denies answers as Decide would if this node decides about the partition and the answer is no, and takes nothing.
func (t *Table) Denies(part uint16, id rule.BucketKey, a *limit.Request, now int64) (d limit.Decision, denies bool) {
	p := t.enter(part, now)
	if p == nil {
		return limit.Decision{}, false
	}
	defer p.mu.Unlock()
	b := p.buckets.find(id.Hash(t.seed), id)
	if b == nil {
		return limit.Decision{}, false // it is full
	}
	a.Leased = t.leased(b, now)
	return b.Denies(a, now)
}

// Cancel gives a reservation's tokens back, as [Reservation.Cancel] describes. exact reports that it did so at once.
func (t *Table) Cancel(part uint16, id rule.BucketKey, u limit.Undo, now int64) (exact, ok bool) {
	u.Shift(-t.undoEpoch)
	ok = t.change(part, id, now, func(b *bucket) {
		exact = b.CancelReserved(u, now)
	})
	return exact, ok
}

// refund gives cost tokens back to a bucket.
func (t *Table) refund(part uint16, id rule.BucketKey, set *limit.Set, cost float64, now int64) bool {
	return t.change(part, id, now, func(b *bucket) { b.Refund(set, cost, now) })
}

// Reset makes a bucket full of tokens. What is set aside stays so: it can still be used.
func (t *Table) Reset(part uint16, id rule.BucketKey, now int64) bool {
	return t.change(part, id, now, func(b *bucket) { b.Reset(now) })
}

// change applies a change to a bucket, if there is one.
func (t *Table) change(part uint16, id rule.BucketKey, now int64, apply func(*bucket)) bool {
	p := t.enter(part, now)
	if p == nil {
		return false
	}
	defer p.mu.Unlock()
	if b := p.buckets.find(id.Hash(t.seed), id); b != nil {
		t.leased(b, now)
		t.serve(p, b, now)
		apply(b)
		t.touch(part, p, b)
		t.scheduleTurns(p, b, now)
	}
	return true
}

// Exhaust makes a bucket empty of tokens, as far as the active limits of set go.
func (t *Table) Exhaust(part uint16, id rule.BucketKey, set *limit.Set, now int64) {
	hash := id.Hash(t.seed)
	p := t.enter(part, now)
	if p == nil {
		return
	}
	defer p.mu.Unlock()
	b := p.buckets.find(hash, id)
	if b == nil {
		b = t.insert(p, hash, id, set, now)
	}
	b.Exhaust(set, now)
	t.touch(part, p, b)
}

// InsertShare makes the bucket of a share say at least as much of its burst as another bucket has taken of a whole one. One that
// was there may have been made for a denial of long ago, and have drained since. The limits of share are those of whole, scaled.
func (t *Table) InsertShare(part uint16, id rule.BucketKey, share, whole *limit.Set, from *limit.State, now int64) {
	hash := id.Hash(t.seed)
	p := t.enter(part, now)
	if p == nil {
		return
	}
	defer p.mu.Unlock()
	b := p.buckets.find(hash, id)
	if b == nil {
		b = t.insert(p, hash, id, share, now)
	}
	b.Adopt(share, now)
	b.Advance(now)
	for i, level := range share.IDs {
		if j := slices.Index(from.Set.IDs, level); j >= 0 {
			part := share.Limits[i].Capacity() / whole.Limits[i].Capacity()
			b.SetLevel(i, max(b.Level(i), from.Level(j)*part))
		}
	}
}

// insert adds a full bucket; set is of id's limiter. The caller holds p.mu.
func (t *Table) insert(p *Partition, hash uint64, id rule.BucketKey, set *limit.Set, now int64) *bucket {
	b := p.buckets.insert(hash, id.Key, limit.NewState(set, now))
	t.admit(p, b, now)
	return b
}

// Sweep drops the drained buckets of one partition: they carry no information.
func (t *Table) Sweep(part uint16, now int64) {
	from := uint32(0)
	t.InSteps(part, func(p *Partition) (more bool) {
		if t.tidyUp(p, now) || p.listAgain() {
			return true
		}
		if now < p.frozenUntil {
			return false
		}
		from = t.dropDrained(p, from, now)
		return from != 0
	})
}

// dropDrained drops drained buckets of p from a place on, as many as one step may, and returns where to go on, or 0. The
// caller holds p.mu.
func (t *Table) dropDrained(p *Partition, from uint32, now int64) (next uint32) {
	var room [stepChanges]slot
	drained, looks := room[:0], 0
	next = p.buckets.inOrder(from, func(hash uint64, b *bucket) bool {
		if looks == stepLooks || len(drained) == stepChanges {
			return false
		}
		looks++
		if t.leased(b, now); b.Drained(now) { // what has ended drains
			drained = append(drained, slot{hash, b})
		}
		return true
	})
	for _, gone := range drained {
		t.drop(p, gone.hash, gone.bucket)
	}
	return next
}

// drop drops a bucket. The caller holds p.mu.
func (t *Table) drop(p *Partition, hash uint64, b *bucket) {
	t.discount(b)
	p.buckets.remove(hash, b)
}

// A round of sweeping takes half a minute, a small step at a time: a bucket that is done frees its memory within a
// minute, and no step is long.
const (
	sweepInterval = 250 * time.Millisecond
	sweepStep     = ring.Partitions/(30*4) + 1
)

// SweepForever sweeps partition after partition until done is closed, and tidies up where buckets were replaced.
func (t *Table) SweepForever(done <-chan struct{}, clock func() int64) {
	ticker := time.NewTicker(sweepInterval)
	defer ticker.Stop()
	next := uint16(0)
	for {
		select {
		case <-done:
			return
		case <-t.wakeSweeper:
			t.tidyAll(clock)
		case <-ticker.C:
			for range sweepStep {
				t.Sweep(next, clock())
				next = (next + 1) % ring.Partitions
			}
		}
	}
}

// LapseAll ends all that needs fresh quorum, in all partitions, and returns how many of them this node held.
func (t *Table) LapseAll() (held int) {
	for part := range uint16(ring.Partitions) {
		p := t.Lock(part)
		if p.Holding.Holds {
			held++
		}
		p.Holding.Lapse()
		p.Unlock()
	}
	return held
}

// clues are what a node knows of where a partition is that it does not hold. Names are "" where it knows none.
type clues struct {
	Acquiring bool // this node is about to
	Lapsed    bool // this node was the last to hold, and lost it for want of quorum

	LikelyHolder  string // the member that is being asked for it
	TransferredTo string // the member that this node transferred it to
	Holder        string // whose copy this node has
	PromisedTo    string // the node that asked for it last
}

// Clues returns what this node knows of where a partition is.
func (t *Table) Clues(part uint16) clues {
	p := t.Lock(part)
	defer p.Unlock()
	h := &p.Holding
	c := clues{Acquiring: h.Attempt != nil, Lapsed: h.Lapsed, TransferredTo: h.Transfer.To, Holder: h.Copy.Holder, PromisedTo: h.Promised.By}
	if h.Attempt != nil {
		c.LikelyHolder = h.Attempt.LikelyHolder
	}
	return c
}

// HasCopy reports whether this node has a copy of a partition, and whether it held it until its quorum lapsed.
func (t *Table) HasCopy(part uint16) (copied, wasHolder bool) {
	p := t.Lock(part)
	defer p.Unlock()
	return p.Holding.Copy != wire.Version{}, p.Holding.Lapsed
}

// UnlessDeciding calls do with a partition locked that this node does not decide about, or else reports false.
func (t *Table) UnlessDeciding(part uint16, now int64, do func(p *Partition)) bool {
	p := t.Lock(part)
	defer p.Unlock()
	if p.Decides(now) {
		return false
	}
	do(p)
	return true
}

// StateOf returns the state of a bucket as it would be if all that is leased of it were used, if there is one. The caller
// holds p.mu.
func (p *Partition) StateOf(id rule.BucketKey, now int64) (state limit.State, there bool) {
	b := p.buckets.find(id.Hash(p.table.seed), id)
	if b == nil {
		return limit.State{}, false
	}
	out := p.table.leased(b, now)
	state = b.Clone()
	state.Advance(now)
	state.AddToAll(out.Tokens)
	return state, true
}
