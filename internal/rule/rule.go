package rule

import (
	"hash/maphash"
	"sync/atomic"
	"unsafe"

	"github.com/peerlimit/peerlimit/internal/intern"
	"github.com/peerlimit/peerlimit/internal/limit"
	"github.com/peerlimit/peerlimit/internal/ring"
	"github.com/peerlimit/peerlimit/internal/wire"
)

// Rule is a limiter's name and limits as this node enforces them. Requests from anywhere that say the same share one
// rule, so that their buckets need no comparing. It is immutable but for what it remembers to save work.
type Rule struct {
	Name    *limit.Name
	Set     *limit.Set  // of the name
	Encoded []byte      // what requests about it begin with
	Hash    ring.Hasher // of the name: partitions of its keys

	// set is what Set points to. It is a part of the rule: a bucket that has the set refers to the rule, and as long as it does,
	// the next request that says the same finds the same rule.
	set limit.Set

	// lastScaled is this rule under the share it last had when this node had to decide alone.
	lastScaled atomic.Pointer[scaledRule]
}

// newRule returns a rule; encoded is not copied.
func newRule(name *limit.Name, limits []limit.Limit, encoded []byte) *Rule {
	r := &Rule{Name: name, Encoded: encoded, Hash: ring.NewHasher(name.Text)}
	r.set.Prepare(name, limits)
	r.Set = &r.set
	return r
}

// Bucket returns what the bucket of a key under the rule is found by.
func (r *Rule) Bucket(key string) BucketKey { return BucketKey{Key: key, Limiter: r.Name} }

// BucketKey names a bucket.
type BucketKey struct {
	Key     string
	Limiter *limit.Name
}

// Hash is seeded in each process: a caller that chooses the keys can aim at a partition, whose formula is public, and
// still not at a slot.
func (k BucketKey) Hash(seed maphash.Seed) uint64 {
	return maphash.String(seed, k.Key) + k.Limiter.Hash()
}

// Rules finds the rule for an encoded name and limits. Rules and names are found as long as anything refers to them: a limiter, a
// bucket, a lease, a debt, a request under way. Rules that were asked for lately are kept without that, to save work.
type Rules struct {
	known *intern.Table[Rule] // by what they were asked for with
	names *intern.Table[limit.Name]
}

// New returns an empty set of rules of which about that many are kept although nothing refers to them.
func New(kept int) *Rules {
	return &Rules{known: intern.New[Rule](kept), names: intern.New[limit.Name](0)}
}

// Lookup returns the rule that encoded says when it has been seen before, or nil.
func (r *Rules) Lookup(encoded []byte) *Rule {
	return r.known.Find(unsafe.String(unsafe.SliceData(encoded), len(encoded))) // #nosec G103 -- Find keeps nothing of it
}

// Find returns the rule that encoded says, decoding it only the first time. An error matches [wire.ErrMalformed].
func (r *Rules) Find(encoded []byte) (*Rule, error) {
	if found := r.Lookup(encoded); found != nil {
		return found, nil
	}
	name, limits, err := wire.DecodeRule(encoded)
	if err != nil {
		return nil, err
	}
	// Not the caller's bytes: they may carry more than this version knows.
	made := newRule(r.name(name), limits, wire.AppendRule(nil, name, limits))
	return r.known.Add(string(encoded), made), nil
}

// name returns the name of a valid text, which is a new one if nothing refers to one.
func (r *Rules) name(text string) *limit.Name {
	if name := r.names.Find(text); name != nil {
		return name
	}
	return r.names.Add(text, limit.NewName(text))
}

// NameOf returns the name with that text if anything refers to one, or nil: then there is no bucket under it.
func (r *Rules) NameOf(text string) *limit.Name { return r.names.Find(text) }

// ForgetUnused begins another turn of forgetting what nobody uses. It is to be called every [intern.TurnTime].
func (r *Rules) ForgetUnused() {
	r.known.Turn()
	r.names.Turn()
}

// Len returns how many rules and names there are.
func (r *Rules) Len() (rules, names int) { return r.known.Len(), r.names.Len() }

// PlainSet returns the set of a limiter that has these limits and remembers no others: the one that requests with them
// use, so that buckets which came from elsewhere need no comparing.
func (r *Rules) PlainSet(limiter string, limits []limit.Limit) (*limit.Set, error) {
	found, err := r.Find(wire.AppendRule(make([]byte, 0, wire.MaxRuleLen), limiter, limits))
	if err != nil {
		return nil, err
	}
	return found.Set, nil
}
