package peerlimit

import (
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
)

// MaxNameLen is the greatest length of a limiter's name, in bytes.
const MaxNameLen = 255

// MaxKeyLen is the greatest length of a key, in bytes. Keys are bytes: they need not be UTF-8.
const MaxKeyLen = 1024

// rule is a limiter's name and limits as this node enforces them. Requests from anywhere that say the same share one
// rule, so that their buckets need no comparing. It is immutable but for what it remembers to save work.
type rule struct {
	name    string
	id      limiterID
	set     *limitSet
	encoded []byte    // what requests about it begin with
	hash    keyHasher // of the name: partitions of its keys

	// lastScaled is this rule under the share it last had when this node had to decide alone.
	lastScaled atomic.Pointer[scaledRule]
}

// limiterID stands for a limiter's name in this process: buckets are many, names are few.
type limiterID uint16

// Bounds of what a node remembers of names and rules. Both come from code, its own and that of other members, not from
// traffic; the bounds are for a LimiterFunc that computes its numbers without end.
const (
	maxRules = 1 << 14
	maxNames = 1 << 16 // as many as a limiterID can tell apart
)

// rules finds the rule for an encoded name and limits.
type rules struct {
	// mu guards the maps. It is held for a look-up or an insertion only.
	mu    sync.RWMutex
	known map[string]*rule
	ids   map[string]limiterID
	names []string // by id
}

func newRules() *rules {
	return &rules{known: make(map[string]*rule), ids: make(map[string]limiterID)}
}

// lookup returns the rule that encoded says when it has been seen before, or nil.
func (r *rules) lookup(encoded []byte) *rule {
	r.mu.RLock()
	defer r.mu.RUnlock()
	return r.known[string(encoded)]
}

// find returns the rule that encoded says, decoding it only the first time.
func (r *rules) find(encoded []byte) (*rule, error) {
	if found := r.lookup(encoded); found != nil {
		return found, nil
	}
	name, limits, err := decodeRule(encoded)
	if err != nil {
		return nil, err
	}
	made := &rule{
		name: name, set: newLimitSet(limits), hash: newKeyHasher(name),
		encoded: appendRule(nil, name, limits), // not the caller's bytes: they may carry more than this version knows
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if found := r.known[string(encoded)]; found != nil {
		return found, nil
	}
	if made.id, err = r.identify(name); err != nil {
		return nil, err
	}
	if len(r.known) >= maxRules {
		// Rules are only remembered to save work: buckets follow a level's identity, not the rule's address.
		clear(r.known)
	}
	r.known[string(encoded)] = made
	return made, nil
}

// identify returns the id of a valid name, which is a new one when the name is. The caller holds r.mu.
func (r *rules) identify(name string) (limiterID, error) {
	if id, ok := r.ids[name]; ok {
		return id, nil
	}
	if len(r.names) >= maxNames {
		return 0, fmt.Errorf("%w: %q is one more than %d", ErrInvalidName, name, maxNames)
	}
	id := limiterID(len(r.names))
	r.ids[name], r.names = id, append(r.names, name)
	return id, nil
}

// idOf returns the id of a limiter's name. It fails for a name that is not valid or is one too many.
func (r *rules) idOf(name string) (limiterID, error) {
	r.mu.RLock()
	id, ok := r.ids[name]
	r.mu.RUnlock()
	if ok {
		return id, nil
	}
	if err := validateName(name); err != nil {
		return 0, err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.identify(strings.Clone(name)) // not a part of a message
}

// name returns the name that an id stands for.
func (r *rules) name(id limiterID) string {
	r.mu.RLock()
	defer r.mu.RUnlock()
	return r.names[id]
}

// plainSet returns the set of a limiter that has these limits and remembers no others: the one that requests with them
// use, so that buckets which came from elsewhere need no comparing.
func (r *rules) plainSet(limiter string, limits []Limit) (*limitSet, error) {
	found, err := r.find(appendRule(make([]byte, 0, maxRuleLen), limiter, limits))
	if err != nil {
		return nil, err
	}
	return found.set, nil
}

// validateName refuses a limiter's name that is empty or too long.
func validateName(name string) error {
	if name == "" {
		return fmt.Errorf("%w: it is empty", ErrInvalidName)
	}
	if len(name) > MaxNameLen {
		return fmt.Errorf("%w: it is %d bytes long; at most %d are allowed", ErrInvalidName, len(name), MaxNameLen)
	}
	return nil
}

// validateKey refuses a key that is empty or too long.
func validateKey(key string) error {
	if key == "" {
		return fmt.Errorf("%w: it is empty", ErrInvalidKey)
	}
	if len(key) > MaxKeyLen {
		return fmt.Errorf("%w: it is %d bytes long; at most %d are allowed", ErrInvalidKey, len(key), MaxKeyLen)
	}
	return nil
}
