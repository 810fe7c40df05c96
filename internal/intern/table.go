package intern

import (
	"hash/maphash"
	"slices"
	"sync"
	"sync/atomic"
	"time"
	"weak"
)

const (
	// TurnTime is how often Turn is to be called.
	TurnTime = time.Minute

	// idleTurns is after how many turns a value that was not looked up is not kept any more.
	idleTurns = 10

	// shardCount is how many parts a table has, each with a lock of its own: no step of Turn is long.
	shardCount = 256

	// addLooks is how many values an addition looks at to find some that are gone: more than one, so those that are gone do not
	// become more than those that are not.
	addLooks = 2

	// keepLooks bounds how many kept values an addition looks at to find one that was not used lately.
	keepLooks = 16

	// fewEntries are not worth moving into a smaller map.
	fewEntries = 32
)

// Table has at most one value of each key at any time. A value is found as long as anything refers to it, be it a pointer to
// a part of it: the garbage collector knows. Those that were looked up lately are kept without that, up to a bound. So
// nothing has to be counted or given back, and nothing that is in use can be forgotten.
//
// It is safe for concurrent use.
type Table[V any] struct {
	seed   maphash.Seed
	kept   int           // how many values of a shard are kept that nothing else may refer to
	turn   atomic.Uint32 // counts Turn
	shards [shardCount]shard[V]
}

// shard is what a table has of the keys with certain hashes.
type shard[V any] struct {
	// mu guards the fields below, for a look-up, an addition, or one step of Turn.
	mu      sync.RWMutex
	entries map[string]*entry[V]
	most    int         // how many entries there were, at most, since the map was made
	order   []*entry[V] // all of them, in no order
	next    int         // the one of them that is looked at next
	kept    []*entry[V] // those whose values are kept
	hand    int         // the one of them that is looked at next when there is no room
}

// entry is one key's value.
type entry[V any] struct {
	key   string
	value weak.Pointer[V]
	kept  *V            // the value, while it is kept
	used  atomic.Uint32 // the turn in which it was looked up last, times two, plus one if the hand has not passed since

	place, keptPlace int // in order and in kept
}

// New returns an empty table that keeps about that many values which nothing else may refer to.
func New[V any](kept int) *Table[V] {
	t := &Table[V]{seed: maphash.MakeSeed(), kept: (kept + shardCount - 1) / shardCount}
	for i := range t.shards {
		t.shards[i].entries = make(map[string]*entry[V])
	}
	return t
}

func (t *Table[V]) shardOf(key string) *shard[V] {
	return &t.shards[maphash.String(t.seed, key)%shardCount]
}

// Find returns the value of a key, or nil. The key may be reused by the caller afterwards.
func (t *Table[V]) Find(key string) *V {
	s := t.shardOf(key)
	s.mu.RLock()
	defer s.mu.RUnlock()
	e := s.entries[key]
	if e == nil {
		return nil
	}
	return t.use(e)
}

// use returns the value of an entry, or nil when it is gone, and notes that it was looked up. The caller holds the shard's mu.
func (t *Table[V]) use(e *entry[V]) *V {
	v := e.kept
	if v == nil {
		if v = e.value.Value(); v == nil {
			return nil
		}
	}
	if used := 2*t.turn.Load() + 1; e.used.Load() != used { // mostly not, and processors need not take the line from each other
		e.used.Store(used)
	}
	return v
}

// Add makes v the value of a key, unless that has one by now. It returns the value that the key has.
func (t *Table[V]) Add(key string, v *V) *V {
	s := t.shardOf(key)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.removeSome()
	e := s.entries[key]
	if e == nil {
		e = &entry[V]{key: key, place: len(s.order)}
		s.entries[key], s.order = e, append(s.order, e)
		s.most = max(s.most, len(s.order))
	} else if there := t.use(e); there != nil {
		return there
	}
	e.value = weak.Make(v)
	e.used.Store(2 * t.turn.Load()) // ever new ones, each used once, give way to those that were looked up twice
	if t.kept > 0 {
		s.keep(e, v)
		s.makeRoom(t.kept)
	}
	return v
}

// removeSome looks for some that are gone. The caller holds mu.
func (s *shard[V]) removeSome() {
	for range min(addLooks, len(s.order)) {
		if s.next >= len(s.order) {
			s.next = 0
		}
		if e := s.order[s.next]; e.gone() {
			s.remove(e)
		} else {
			s.next++
		}
	}
}

func (e *entry[V]) gone() bool { return e.kept == nil && e.value.Value() == nil }

// remove takes an entry out that is gone, and gives memory back when most of it is not needed any more. The caller holds mu.
func (s *shard[V]) remove(e *entry[V]) {
	delete(s.entries, e.key)
	last := len(s.order) - 1
	s.order[e.place] = s.order[last]
	s.order[e.place].place = e.place
	s.order[last] = nil
	s.order = s.order[:last]
	if s.most > fewEntries && last < s.most/4 { // a map never shrinks
		s.order = slices.Clone(s.order)
		s.entries, s.most = make(map[string]*entry[V], last), last
		for _, e := range s.order {
			s.entries[e.key] = e
		}
	}
}

// keep keeps the value of an entry. The caller holds mu.
func (s *shard[V]) keep(e *entry[V], v *V) {
	e.kept, e.keptPlace = v, len(s.kept)
	s.kept = append(s.kept, e)
}

// makeRoom keeps one value less when there are more than so many: one that was not looked up since the hand has passed it, if
// there is one among the next. The caller holds mu.
func (s *shard[V]) makeRoom(most int) {
	if len(s.kept) <= most {
		return
	}
	for range keepLooks {
		s.hand %= len(s.kept)
		e := s.kept[s.hand]
		used := e.used.Load()
		if used&1 == 0 {
			break
		}
		e.used.Store(used - 1)
		s.hand++
	}
	s.hand %= len(s.kept)
	s.release(s.kept[s.hand])
	s.hand++ // the one added last stands there now
}

// release ends that the value of an entry is kept. Whoever refers to it still finds it. The caller holds mu.
func (s *shard[V]) release(e *entry[V]) {
	last := len(s.kept) - 1
	s.kept[e.keptPlace] = s.kept[last]
	s.kept[e.keptPlace].keptPlace = e.keptPlace
	s.kept[last] = nil
	s.kept = s.kept[:last]
	e.kept = nil
	if cap(s.kept) > fewEntries && last < cap(s.kept)/4 {
		s.kept = slices.Clone(s.kept)
	}
}

// Turn begins another turn. What was not looked up for ten turns is not kept any more; what was looked up since the last turn, and is
// still there, is kept again; what is gone is forgotten.
func (t *Table[V]) Turn() {
	turn := t.turn.Add(1)
	for i := range t.shards {
		s := &t.shards[i]
		s.mu.Lock()
		for i := len(s.order) - 1; i >= 0; i-- { // what moves up was looked at
			e := s.order[i]
			idle := turn - e.used.Load()/2
			switch {
			case e.kept != nil && idle > idleTurns:
				s.release(e)
			case e.kept == nil && idle <= 1 && len(s.kept) < t.kept:
				if v := e.value.Value(); v != nil {
					s.keep(e, v)
				}
			}
			if e.gone() {
				s.remove(e)
			}
		}
		s.mu.Unlock()
	}
}

// Len returns how many keys have an entry. Values that have gone since the last turn may count.
func (t *Table[V]) Len() (n int) {
	for i := range t.shards {
		s := &t.shards[i]
		s.mu.RLock()
		n += len(s.order)
		s.mu.RUnlock()
	}
	return n
}

// All returns all values, in no order. That they were seen here is no use of them.
func (t *Table[V]) All() (all []*V) {
	for i := range t.shards {
		s := &t.shards[i]
		s.mu.RLock()
		for _, e := range s.order {
			if v := e.value.Value(); v != nil {
				all = append(all, v)
			}
		}
		s.mu.RUnlock()
	}
	return all
}
