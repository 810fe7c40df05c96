package limit

import "math/rand/v2"

// Name is a limiter's name in this process. While anything refers to one there is no other of the same text (see rule.Rules), so
// that names are compared by where they are. A set that belongs to no limiter has none.
type Name struct {
	Text string
	hash uint64
}

func NewName(text string) *Name {
	return &Name{Text: text, hash: rand.Uint64()} // #nosec G404 -- only has to differ from those of other names
}

// Hash tells names apart, mostly. It differs in each process.
func (n *Name) Hash() uint64 {
	if n == nil {
		return 0
	}
	return n.hash
}
