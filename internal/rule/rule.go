package rule

import (
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/peerlimit/peerlimit/internal/limit"
	"github.com/peerlimit/peerlimit/internal/ring"
	"github.com/peerlimit/peerlimit/internal/wire"
)

// ErrName means that the name of a limiter is empty, too long, or one more than a node remembers.
var ErrName = errors.New("peerlimit: invalid limiter name")

// Rule is a limiter's name and limits as this node enforces them. Requests from anywhere that say the same share one
// rule, so that their buckets need no comparing. It is immutable but for what it remembers to save work.
type Rule struct {
	name    string
	ID      LimiterID
	Set     *limit.Set
	Encoded []byte      // what requests about it begin with
	Hash    ring.Hasher // of the name: partitions of its keys

	use *nameUse

	// lastScaled is this rule under the share it last had when this node had to decide alone.
	lastScaled atomic.Pointer[scaledRule]
}

// LimiterID stands for a limiter's name in this process: buckets are many, names are few.
type LimiterID uint16

// Bounds of what a node remembers of names and rules. Both come from code, its own and that of other members, not from
// traffic; the bounds are for a LimiterFunc that computes its numbers without end.
const (
	maxRules = 1 << 14
	maxNames = 1 << 16 // as many as a LimiterID can tell apart
)

const (
	// ownNames of maxNames are for this node's own limiters: those that others ask about leave them free.
	ownNames = maxNames / 4

	// NameTurn is how often names are looked over that nobody uses, and nameTurns how many times one must be found without use
	// in a row, and no bucket under it, to be forgotten.
	NameTurn  = time.Minute
	nameTurns = 10

	// fewNames are not worth looking over.
	fewNames = maxNames / 8
)

// nameUse is what is known of a name's use.
type nameUse struct {
	name string
	turn atomic.Uint32 // when it was looked up last
	own  bool          // this node has a limiter of that name; guarded by rules.mu
}

// Rules finds the rule for an encoded name and limits.
type Rules struct {
	turn atomic.Uint32 // counts NameTurn

	// mu guards the maps. It is held for a look-up or an insertion, or to forget names, only.
	mu    sync.RWMutex
	known map[string]*Rule
	ids   map[string]LimiterID
	names []*nameUse  // by id; nil for one that is free
	free  []LimiterID // ids of names that were forgotten
	count int         // names in use that are not this node's own
}

func New() *Rules {
	return &Rules{known: make(map[string]*Rule), ids: make(map[string]LimiterID)}
}

// used notes that a name was looked up.
func (r *Rules) used(u *nameUse) {
	if turn := r.turn.Load(); u.turn.Load() != turn { // mostly not, and processors need not take the line from each other
		u.turn.Store(turn)
	}
}

// Lookup returns the rule that encoded says when it has been seen before, or nil.
func (r *Rules) Lookup(encoded []byte) *Rule {
	r.mu.RLock()
	defer r.mu.RUnlock()
	found := r.known[string(encoded)]
	if found != nil {
		r.used(found.use) // with mu held: it is not forgotten in between
	}
	return found
}

// Find returns the rule that encoded says, decoding it only the first time.
func (r *Rules) Find(encoded []byte) (*Rule, error) {
	if found := r.Lookup(encoded); found != nil {
		return found, nil
	}
	name, limits, err := wire.DecodeRule(encoded)
	if err != nil {
		return nil, err
	}
	made := &Rule{
		name: name, Set: limit.NewSet(limits), Hash: ring.NewHasher(name),
		Encoded: wire.AppendRule(nil, name, limits), // not the caller's bytes: they may carry more than this version knows
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if found := r.known[string(encoded)]; found != nil {
		return found, nil
	}
	if made.ID, err = r.identify(name, false); err != nil {
		return nil, err
	}
	made.use = r.names[made.ID]
	if len(r.known) >= maxRules {
		// Rules are only remembered to save work: buckets follow a level's identity, not the rule's address.
		clear(r.known)
	}
	r.known[string(encoded)] = made
	return made, nil
}

// identify returns the id of a valid name, which is a new one when the name is; own says that this node has a limiter of that
// name. The caller holds r.mu.
func (r *Rules) identify(name string, own bool) (LimiterID, error) {
	id, ok := r.ids[name]
	switch {
	case ok:
		r.used(r.names[id])
	case len(r.ids) >= maxNames, !own && r.count >= maxNames-ownNames:
		return 0, fmt.Errorf("%w: %q is one more than %d", ErrName, name, len(r.ids))
	case len(r.free) > 0:
		id, r.free = r.free[len(r.free)-1], r.free[:len(r.free)-1]
	default:
		id, r.names = LimiterID(len(r.names)), append(r.names, nil)
	}
	if !ok {
		u := &nameUse{name: strings.Clone(name)} // not a part of a message
		u.turn.Store(r.turn.Load())
		r.ids[u.name], r.names[id] = id, u
		r.count++
	}
	if u := r.names[id]; own && !u.own {
		u.own = true
		r.count--
	}
	return id, nil
}

// Keep gives a limiter's name an id for good: it is one of this node's own.
func (r *Rules) Keep(name string) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	_, err := r.identify(name, true)
	return err
}

// IDOf returns the id of a limiter's name. It fails for a name that is not valid or is one too many.
func (r *Rules) IDOf(name string) (LimiterID, error) {
	r.mu.RLock()
	id, ok := r.ids[name]
	if ok {
		r.used(r.names[id])
	}
	r.mu.RUnlock()
	if ok {
		return id, nil
	}
	if problem := wire.NameProblem(name); problem != "" {
		return 0, fmt.Errorf("%w: %s", ErrName, problem)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.identify(name, false)
}

// Name returns the name that an id stands for.
func (r *Rules) Name(id LimiterID) string {
	r.mu.RLock()
	defer r.mu.RUnlock()
	return r.names[id].name
}

// ForgetNames begins another turn, and forgets names that others have asked about, and not for long, and that no bucket
// is under: inUse marks those that there are buckets under. It is called every NameTurn.
func (r *Rules) ForgetNames(inUse func(mark func(LimiterID))) {
	turn := r.turn.Add(1)
	r.mu.RLock()
	few := r.count < fewNames
	r.mu.RUnlock()
	if few {
		return
	}
	var kept [maxNames / 64]uint64
	inUse(func(id LimiterID) { kept[id/64] |= 1 << (id % 64) })
	r.mu.Lock()
	defer r.mu.Unlock()
	forgot := false
	for id, u := range r.names {
		if u == nil || u.own || turn-u.turn.Load() < nameTurns || kept[id/64]>>(id%64)&1 == 1 {
			continue // what was looked up since the buckets were looked over may have one by now
		}
		delete(r.ids, u.name)
		r.names[id], r.free = nil, append(r.free, LimiterID(id))
		r.count--
		forgot = true
	}
	if forgot {
		clear(r.known) // those of names that are left are made anew
	}
}

// PlainSet returns the set of a limiter that has these limits and remembers no others: the one that requests with them
// use, so that buckets which came from elsewhere need no comparing.
func (r *Rules) PlainSet(limiter string, limits []limit.Limit) (*limit.Set, error) {
	found, err := r.Find(wire.AppendRule(make([]byte, 0, wire.MaxRuleLen), limiter, limits))
	if err != nil {
		return nil, err
	}
	return found.Set, nil
}
