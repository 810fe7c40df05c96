package contest

import (
	"fmt"
	"math/rand/v2"
)

// Keys are numbers below keySpace, in an order that has nothing to do with their digits: hashes of neighbours would lie beside
// each other with some contestants. As scatter has no factor in common with keySpace, none comes twice.
const (
	keySpace = 100_000_000_000
	scatter  = 61_803_398_879
)

// key returns the i-th key, 20 bytes long. Processes that know a number know the key.
func key(i int) string { return fmt.Sprintf("customer-%011d", i*scatter%keySpace) }

// chooseKeys returns the scenario's keys, and the number of keys that were looked at to find them.
func chooseKeys(c Contestant, s *Scenario) (keys []string, seen int, err error) {
	keys = make([]string, 0, s.KeyCount)
	for ; len(keys) < s.KeyCount; seen++ {
		if seen > 10_000+100*s.KeyCount {
			return nil, 0, fmt.Errorf("of %d keys %d are %s; %d are needed", seen, len(keys), s.Keys, s.KeyCount)
		}
		k := key(seen)
		if s.Keys == KeysAny || c.Owns(s, k) == (s.Keys == KeysLocal) {
			keys = append(keys, k)
		}
	}
	return keys, seen, nil
}

const (
	// orderLength is how many choices are made before a run, a power of two. Callers go through them from different places, so
	// that choosing costs a take next to nothing.
	orderLength = 1 << 20

	zipfExponent = 1.1
)

// chooseOrder returns which of so many keys are taken from, one after the other, over and over.
func chooseOrder(choice string, keyCount int, random *rand.Rand) []uint32 {
	order := make([]uint32, orderLength)
	if choice == ChoiceZipf {
		zipf := rand.NewZipf(random, zipfExponent, 1, uint64(keyCount-1))
		for i := range order {
			order[i] = uint32(zipf.Uint64())
		}
		return order
	}
	for i := range order {
		order[i] = uint32(random.IntN(keyCount))
	}
	return order
}
