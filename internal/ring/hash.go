package ring

import "github.com/cespare/xxhash/v2"

// Protocol constants: all nodes of a cluster must agree on them and on the formulas below, or they will disagree about
// which member owns what. Tests pin their results.
const (
	// Partitions is the number of partitions, the unit of ownership and hand-over. It is prime, so that no pattern
	// in the hashes survives the modulo, and large enough to give each of 300 members about a dozen.
	Partitions = 4093

	// MaxMembers is the largest number of members that a node counts.
	MaxMembers = 10_000

	// limiterSaltMultiplier makes the roles of limiter name and key differ, so that a key equal to its limiter's name
	// does not cancel out. It is odd, which keeps distinct name hashes distinct: 2^64 divided by the golden ratio.
	limiterSaltMultiplier = 0x9E3779B97F4A7C15
)

// PartitionOf returns the partition of a key under a limiter, in [0, Partitions):
//
//	(XXH64(limiter) * 0x9E3779B97F4A7C15 mod 2^64  XOR  XXH64(key)) mod 4093
//
// with XXH64 of seed 0 over the bytes of each string. Name and key are hashed apart and need no framing: no boundary
// between them can be misread. For one limiter the formula is a bijection of the key's hash before the modulo, so keys
// spread as evenly as XXH64 spreads them.
func PartitionOf(limiter, key string) uint16 {
	return NewHasher(limiter).Partition(key)
}

// Hasher finds the partitions of one limiter's keys without hashing the limiter's name again.
type Hasher struct {
	salt uint64
}

// NewHasher returns the Hasher of a limiter's keys.
func NewHasher(limiter string) Hasher {
	return Hasher{salt: xxhash.Sum64String(limiter) * limiterSaltMultiplier}
}

// Partition returns what PartitionOf returns for the limiter's name and key.
func (h Hasher) Partition(key string) uint16 {
	return uint16((h.salt ^ xxhash.Sum64String(key)) % Partitions)
}

// Rank is how many other members come before one member for a key, by highest random weight, or rendezvous, hashing (Thaler
// and Ravishankar, 1998), so that each key has other first members. Make it with NewRank; its zero value is of no use.
type Rank struct {
	self, key string
	own       uint64
	before    int
}

// NewRank begins to rank self for a key.
func NewRank(self, key string) Rank { return Rank{self: self, key: key, own: weight(self, key)} }

// Beside reckons with another member. Naming self changes nothing.
func (r *Rank) Beside(name string) {
	if name == r.self {
		return
	}
	if w := weight(name, r.key); w > r.own || w == r.own && name < r.self {
		r.before++
	}
}

// Before returns how many of the members that were named come before self.
func (r *Rank) Before() int { return r.before }

func weight(name, key string) uint64 {
	var d xxhash.Digest
	d.Reset()
	_, _ = d.WriteString(name) // never fails
	_, _ = d.Write([]byte{0})
	_, _ = d.WriteString(key)
	return d.Sum64()
}
