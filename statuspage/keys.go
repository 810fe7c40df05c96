package statuspage

import (
	"cmp"
	"fmt"
	"hash/maphash"
	"slices"
	"sync"
	"time"

	"github.com/segmentio/topk"

	"github.com/peerlimit/peerlimit"
	"github.com/peerlimit/peerlimit/internal/printable"
)

// Which keys are busy, and which are denied, is estimated from a sample of the takes by HeavyKeeper (Gong and others, "An
// Accurate Algorithm for Finding Top-k Elephant Flows", 2018): a few kilobytes, however many keys there are.

const (
	// sampleEvery is of how many takes one is looked at. A key with a thousand takes a minute is seen sixteen times.
	sampleEvery = 64

	// epoch is how long is counted before counting begins anew. What is shown is of the last one to two of them.
	epoch = time.Minute

	// decay is what the authors of the library suggest; the algorithm's paper uses a little more.
	decay = 0.9

	// shownKeys is how many keys are shown. Four times as many are kept: the last ones are the least sure.
	shownKeys = 10
)

// busyKeys estimates which keys of a node are taken from most, and which are denied most.
type busyKeys struct {
	seed maphash.Seed // of names for hidden keys

	// mu guards what follows. It is held for one update of a sketch, or for reading it.
	mu     sync.Mutex
	began  time.Time // of the current epoch
	before time.Time // and of the one before; zero when there was none
	now    sketches
	last   sketches
}

// sketches count one epoch.
type sketches struct {
	taken, denied *topk.HeavyKeeper
}

func newSketches() sketches {
	return sketches{topk.New(4*shownKeys, decay), topk.New(4*shownKeys, decay)}
}

func newBusyKeys(now time.Time) *busyKeys {
	return &busyKeys{seed: maphash.MakeSeed(), began: now, now: newSketches()}
}

// add takes in a sample.
func (b *busyKeys) add(s peerlimit.Sample, now time.Time) {
	name := string([]byte{byte(len(s.Limiter))}) + s.Limiter + s.Key // a name has at most 255 bytes
	b.mu.Lock()
	defer b.mu.Unlock()
	b.turn(now)
	b.now.taken.Sample(name, 1)
	if !s.Allowed {
		b.now.denied.Sample(name, 1)
	}
}

// turn begins another epoch when it is time. The caller holds mu.
func (b *busyKeys) turn(now time.Time) {
	switch age := now.Sub(b.began); {
	case age >= 2*epoch: // nothing was counted in the last one
		b.before, b.last, b.began, b.now = time.Time{}, sketches{}, now, newSketches()
	case age >= epoch:
		b.before, b.last, b.began, b.now = b.began, b.now, now, newSketches()
	}
}

// busyKey is a key and about how often it was asked for.
type busyKey struct {
	Limiter   string  `json:"limiter"`
	Key       string  `json:"key"` // or what stands for it
	PerSecond float64 `json:"per_second"`
}

// most returns the keys with the most takes and those with the most denials, the first one first.
func (b *busyKeys) most(now time.Time, hide bool) (taken, denied []busyKey) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.turn(now)
	since := b.began
	if !b.before.IsZero() {
		since = b.before
	}
	seconds := max(now.Sub(since).Seconds(), 1)
	taken = b.rank(b.now.taken, b.last.taken, seconds, hide)
	denied = b.rank(b.now.denied, b.last.denied, seconds, hide)
	return taken, denied
}

// rank adds up two epochs. The caller holds mu.
func (b *busyKeys) rank(now, last *topk.HeavyKeeper, seconds float64, hide bool) []busyKey {
	counts := make(map[string]uint32)
	for _, sketch := range []*topk.HeavyKeeper{now, last} {
		if sketch == nil {
			continue
		}
		for _, flow := range sketch.Top() {
			counts[flow.Flow] += flow.Count
		}
	}
	keys := make([]busyKey, 0, len(counts))
	for name, count := range counts {
		limiter, key := name[1:1+int(name[0])], name[1+int(name[0]):]
		if hide {
			key = fmt.Sprintf("%08x", uint32(maphash.String(b.seed, key)))
		}
		keys = append(keys, busyKey{Limiter: printable.Text(limiter), Key: printable.Text(key), PerSecond: float64(count) * sampleEvery / seconds})
	}
	slices.SortFunc(keys, func(a, b busyKey) int {
		return cmp.Or(cmp.Compare(b.PerSecond, a.PerSecond), cmp.Compare(a.Limiter, b.Limiter), cmp.Compare(a.Key, b.Key))
	})
	return keys[:min(len(keys), shownKeys)]
}
