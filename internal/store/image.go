package store

import (
	"time"

	"github.com/peerlimit/peerlimit/internal/limit"
	"github.com/peerlimit/peerlimit/internal/rule"
	"github.com/peerlimit/peerlimit/internal/wire"
)

// Moving buckets. A bucket travels as an image: its levels at the moment of sending, which are those at the moment of
// storing as well. The time in between drains nothing, which is the safe side, and no clock is compared with another.

// image returns the bucket as it is now, to be sent; leases that have ended were charged. The key is the bucket's own, and
// levels has room for its levels.
func (b *bucket) image(levels []float64, now int64) wire.Image {
	for i := range levels {
		levels[i] = b.LevelAt(i, now)
	}
	return wire.Image{Limiter: b.Set.Name.Text, Key: b.key(), Set: b.Set, Levels: levels, Leases: b.Moving(now)}
}

// What an image takes when encoded, at most: three lengths or numbers of up to three bytes, and the key and the levels;
// its set the first time.
const (
	imageOverhead = 9
	levelSize     = 9
	limitSize     = 30
)

const (
	// answerBuckets bounds the buckets of one partition in one answer: so many are taken in with its lock held.
	answerBuckets = 2048

	// freezeTime is how long a copy that is being sent in pieces stays as it is. It is many times what an asker needs to
	// ask for the next piece.
	freezeTime = 5 * time.Second
)

// AddCopy adds the copy that this node has to an answer, as much of it as budget allows, from a place on, and returns about
// how long that is. What is not held does not change, so it can be read in steps. If something becomes of it even so, the
// asker is told that there is more: it asks on, and hears of another version. The caller holds p.mu, and does again
// afterwards.
func (p *Partition) AddCopy(a *wire.PartitionReply, from uint32, budget int, now int64) (size int) {
	copied := p.Holding.Copy
	c := newCollector(p.table, budget, now)
	for reporter, seq := range p.Holding.DebtMarks {
		c.content.Marks = append(c.content.Marks, wire.DebtMark{Member: reporter, Seq: seq})
	}
	a.Next = c.step(p, from)
	for a.Next != 0 && !c.full {
		p.frozenUntil = now + int64(freezeTime)
		p.giveWay()
		if p.Holding.Holds || p.Holding.Copy != copied {
			break
		}
		a.Next = c.step(p, a.Next)
	}
	if a.Next != 0 {
		p.frozenUntil = now + int64(freezeTime)
	}
	a.Content = c.content
	for i := range a.Content.Buckets {
		size += 32 + len(a.Content.Buckets[i].Key)
	}
	return size
}

// collector puts together what is in a partition, as much of it as takes up so many bytes when encoded but always some.
// Drained buckets are left out.
type collector struct {
	table   *Table
	now     int64
	room    int  // in bytes
	full    bool // there is no room for the next one
	content wire.Content
	sets    map[*limit.Set]bool // counted already
}

func newCollector(t *Table, maxBytes int, now int64) *collector {
	return &collector{table: t, now: now, room: maxBytes, sets: make(map[*limit.Set]bool)}
}

// step goes on with a partition at a place, and returns where to go on after that, 0 at the end. The caller holds p.mu.
func (c *collector) step(p *Partition, from uint32) (next uint32) {
	looks := 0
	return p.buckets.inOrder(from, func(_ uint64, b *bucket) bool {
		if looks++; looks > stepLooks {
			return false
		}
		if c.table.leased(b, c.now); b.Drained(c.now) {
			return true
		}
		c.full = !c.add(b)
		return !c.full
	})
}

// add adds a bucket if there is room for it, or nothing else is there.
func (c *collector) add(b *bucket) bool {
	cost := imageOverhead + len(b.key()) + levelSize*b.Levels() + b.LeasesSize()
	if !c.sets[b.Set] {
		cost += imageOverhead + len(b.Set.Name.Text) + limitSize*b.Levels()
	}
	if n := len(c.content.Buckets); n > 0 && (c.room < cost || n == answerBuckets) {
		return false
	}
	c.room -= cost
	c.sets[b.Set] = true
	c.content.Buckets = append(c.content.Buckets, b.image(make([]float64, b.Levels()), c.now))
	return true
}

// Built is what a node has made of the content of a partition that another has sent.
type Built struct {
	content *wire.Content
	slots   []slot
}

// Build makes a bucket of each image that is not full of tokens, as of now: what takes long of taking over a partition,
// and needs no lock.
func (t *Table) Build(part uint16, c *wire.Content, now int64) *Built {
	made := &Built{content: c, slots: make([]slot, 0, len(c.Buckets))}
	for i := range c.Buckets {
		image := &c.Buckets[i]
		if image.Full() {
			continue
		}
		b := newBucket(image.Key)
		b.State, b.home, b.place = image.State(now), part, notPlaced
		b.BoundLevels(t.longestTurn)
		b.Moved(image.Leases, now)
		made.slots = append(made.slots, slot{b.name().Hash(t.seed), b})
	}
	return made
}

// Arrival is all of a partition on its way into it: pieces of another node's copy, to replace what is there when the last
// one has come.
type Arrival struct {
	buckets buckets
	images  int // how many have come
	marks   []wire.DebtMark
}

// add adds a piece. What comes twice counts as it came last.
func (a *Arrival) add(piece *Built) {
	for _, content := range piece.slots {
		if b := a.buckets.find(content.hash, content.bucket.name()); b != nil {
			b.State = content.bucket.State
			continue
		}
		a.buckets.add(content)
	}
	Probe.move(len(piece.slots))
	a.images += len(piece.content.Buckets)
	if len(piece.content.Marks) > 0 {
		a.marks = piece.content.Marks
	}
}

// store makes each image's state the state of its bucket as of now, whatever that was. The caller holds p.mu.
func (p *Partition) store(t *Table, images []wire.Image, rules *rule.Rules, now int64) {
	for i := range images {
		Probe.touch(1)
		image := &images[i]
		key := rule.BucketKey{Key: image.Key}
		if image.Set != nil {
			key.Limiter = image.Set.Name
		} else if key.Limiter = rules.NameOf(image.Limiter); key.Limiter == nil {
			continue // there is no bucket that it could be about
		}
		hash := key.Hash(t.seed)
		b := p.buckets.find(hash, key)
		if image.Full() {
			if b != nil {
				t.drop(p, hash, b)
			}
			continue
		}
		if b == nil {
			b = t.insert(p, hash, key, image.Set, now)
		}
		b.State = image.State(now)
		b.BoundLevels(t.longestTurn)
		b.Moved(image.Leases, now)
	}
}

// StagePiece takes in a piece of a peer's copy, of which made was made, and returns all of it when that was the last. The
// caller holds p.mu, and there is an attempt to acquire p.
func (p *Partition) StagePiece(peer int, from uint32, piece *wire.PartitionReply, made *Built) (whole *Arrival) {
	s, last := p.Holding.Attempt.Stage(peer, from, piece)
	if s == nil {
		return nil
	}
	whole, _ = s.Content.(*Arrival)
	if whole == nil {
		whole = new(Arrival)
		s.Content = whole
	}
	if whole.add(made); !last {
		return nil
	}
	return whole
}

// Adopt makes what has come of a peer's copy the copy of a partition. The caller holds p.mu.
func (p *Partition) Adopt(whole *Arrival, v wire.Version) {
	p.replace(whole)
	p.Holding.Attempt.Charged = 0
	p.Holding.Copy = v
}

// replace makes an arrival the whole of a partition: a copy that was acquired, or a replica. The caller holds p.mu.
func (p *Partition) replace(a *Arrival) {
	p.table.exchange(p, a.buckets)
	p.Holding.SetMarks(a.marks)
}

// Visit calls see with the image of each bucket of a partition as of a time, and returns the version of the copy. It looks at all
// of them with the lock held: only tests do that.
func (t *Table) Visit(part uint16, at int64, see func(wire.Image)) wire.Version {
	p := t.Lock(part)
	defer p.Unlock()
	p.buckets.inOrder(0, func(_ uint64, b *bucket) bool {
		see(b.image(make([]float64, b.Levels()), at))
		return true
	})
	return p.Holding.Copy
}
