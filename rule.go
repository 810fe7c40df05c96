package peerlimit

import (
	"fmt"
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
type limiterID uint32

// Bounds of what a node remembers of names and rules. Both come from code, its own and that of other members, not from
// traffic; the bounds are for a LimiterFunc that computes its numbers without end.
const (
	maxRules = 1 << 14
	maxNames = 1 << 16
)

// rules finds the rule for an encoded name and limits.
type rules struct {
	// mu guards the maps. It is held for a look-up or an insertion only.
	mu    sync.RWMutex
	known map[string]*rule
	names map[string]limiterID
}

func newRules() *rules {
	return &rules{known: make(map[string]*rule), names: make(map[string]limiterID)}
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
	id, ok := r.names[name]
	if !ok {
		if len(r.names) >= maxNames {
			return nil, fmt.Errorf("%w: %q is one more than %d", ErrInvalidName, name, maxNames)
		}
		id = limiterID(len(r.names))
		r.names[name] = id
	}
	made.id = id
	if len(r.known) >= maxRules {
		// Rules are only remembered to save work: buckets follow a level's identity, not the rule's address.
		clear(r.known)
	}
	r.known[string(encoded)] = made
	return made, nil
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
