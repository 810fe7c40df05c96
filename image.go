package peerlimit

// Moving buckets. A bucket travels as an image: its levels at the moment of sending, which are those at the moment of
// storing as well. The time in between drains nothing, which is the safe side, and no clock is compared with another.

// image returns the bucket as it is now, to be sent; leases that have ended were charged. The key is the bucket's own, and
// levels has room for its levels.
func (b *bucket) image(limiter string, levels []float64, now int64) bucketImage {
	for i := range levels {
		levels[i] = b.set.meters[i].drain(b.level(i), now-b.at)
	}
	return bucketImage{limiter: limiter, key: b.key(), set: b.set, levels: levels, leases: b.moving(now)}
}

// full reports whether the image says that its bucket is full of tokens.
func (image *bucketImage) full() bool {
	if len(image.leases) > 0 {
		return false
	}
	for _, level := range image.levels {
		if level > 0 {
			return false
		}
	}
	return true
}

// state returns what the image says as the state of now. The set may not be nil.
func (image *bucketImage) state(now int64) bucketState {
	s := newBucketState(image.set, now)
	for i, level := range image.levels {
		s.setLevel(i, level)
	}
	return s
}

// What an image takes when encoded, at most: three lengths or numbers of up to three bytes, and the key and the levels;
// its set the first time.
const (
	imageOverhead = 9
	levelSize     = 9
	limitSize     = 30
)

// collect returns what is in a partition, as much of it as takes up maxBytes when encoded but always some, beginning at
// the place from: 0, or next of the call before while there was more. In between, nothing may be decided about the
// partition and it may not be swept: the caller has stopped that. Drained buckets are left out.
func (t *table) collect(part uint16, from, maxBytes int, rules *rules, now int64) (content partContent, next int, more bool) {
	p := &t.partitions[part]
	p.mu.Lock()
	defer p.mu.Unlock()
	return t.collectLocked(p, from, maxBytes, rules, now)
}

// collectLocked is collect for a caller that holds p.mu.
func (t *table) collectLocked(p *partition, from, maxBytes int, rules *rules, now int64) (content partContent, next int, more bool) {
	var (
		size int
		sets = make(map[*limitSet]bool) // counted already
		name string                     // of the limiter of the bucket before: mostly there is one
		id   limiterID
	)
	for i := from; i < len(p.buckets.slots); i++ {
		b := p.buckets.slots[i].bucket
		if b == nil {
			continue
		}
		if t.leased(b, now); b.drained(now) {
			continue
		}
		if name == "" || b.limiter != id {
			name, id = rules.name(b.limiter), b.limiter
		}
		cost := imageOverhead + len(b.key()) + levelSize*len(b.set.meters) + b.leasesSize()
		if !sets[b.set] {
			cost += imageOverhead + len(name) + limitSize*len(b.set.meters)
		}
		if size+cost > maxBytes && len(content.buckets) > 0 {
			return content, i, true
		}
		size += cost
		sets[b.set] = true
		content.buckets = append(content.buckets, b.image(name, make([]float64, len(b.set.meters)), now))
	}
	return content, len(p.buckets.slots), false
}

// store makes each image's state the state of its bucket as of now, whatever that was. It returns how many it had to
// ignore because their limiter's name is one too many for this node. The caller holds p.mu.
func (p *partition) store(t *table, images []bucketImage, rules *rules, now int64) (ignored int) {
	var (
		name    string // of the image before: mostly there is one
		id      limiterID
		emptied bool
	)
	for i := range images {
		image := &images[i]
		if name == "" || image.limiter != name {
			found, err := rules.idOf(image.limiter)
			if err != nil {
				ignored++
				continue
			}
			name, id = image.limiter, found
		}
		key := bucketKey{image.key, id}
		hash := key.hash(t.seed)
		b := p.buckets.find(hash, key)
		if image.full() {
			if b != nil {
				b.bucketState = newBucketState(b.set.base, now)
				emptied = true
			}
			continue
		}
		if b == nil {
			b = t.insert(p, hash, key, image.set, now)
		}
		b.bucketState = image.state(now)
		b.moved(image.leases, now)
	}
	if emptied { // all at once: to remove one costs as much as to remove many
		t.dropDrained(p, now)
	}
	return ignored
}

// clear drops all buckets of a partition. The caller holds p.mu.
func (p *partition) clear(t *table) {
	p.buckets.removeIf(func(b *bucket) bool {
		t.discount(b)
		return true
	})
}
