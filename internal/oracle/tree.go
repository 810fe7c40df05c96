package oracle

import "math"

// A suffixTree holds positions with a base and an amount each, and finds the
// open position p for which base[p] plus the amounts of p and of all positions
// after it is greatest. An amount added at p is thus one added for every
// position up to p.
type suffixTree struct {
	base   []float64    // by position; −∞ until the position is open
	nodes  []suffixNode // 1 is the root, the children of i are 2i and 2i+1
	leaves int          // position p is node leaves + p; a power of two
}

// A suffixNode describes the positions below it. It is recomputed from its
// children each time, so nothing rounds twice but the amount of one position.
type suffixNode struct {
	amount float64 // sum over all positions
	best   float64 // greatest base plus amounts from there on, within the node
	at     int     // the position that is best
}

func newSuffixTree(positions int) *suffixTree {
	leaves := 1
	for leaves < positions {
		leaves *= 2
	}
	t := &suffixTree{base: make([]float64, positions), nodes: make([]suffixNode, 2*leaves), leaves: leaves}
	for p := range t.base {
		t.base[p] = math.Inf(-1)
	}
	for i := range t.nodes {
		t.nodes[i].best = math.Inf(-1)
	}
	return t
}

// open lets position p be chosen.
func (t *suffixTree) open(p int, base float64) {
	t.base[p] = base
	t.update(p)
}

// add adds amount for every position up to p; -1 is no position.
func (t *suffixTree) add(p int, amount float64) {
	if p >= 0 {
		t.nodes[t.leaves+p].amount += amount
		t.update(p)
	}
}

// update recomputes the nodes that position p is part of.
func (t *suffixTree) update(p int) {
	leaf := &t.nodes[t.leaves+p]
	leaf.best, leaf.at = t.base[p]+leaf.amount, p
	for i := (t.leaves + p) / 2; i > 0; i /= 2 {
		left, right := t.nodes[2*i], t.nodes[2*i+1]
		node := right
		if value := left.best + right.amount; value > right.best {
			node.best, node.at = value, left.at
		}
		node.amount = left.amount + right.amount
		t.nodes[i] = node
	}
}

// best returns the greatest value over the open positions, and where it is.
func (t *suffixTree) best() (value float64, at int) { return t.nodes[1].best, t.nodes[1].at }

// from returns the sum of the amounts of p and all positions after it.
func (t *suffixTree) from(p int) float64 {
	i := t.leaves + p
	total := t.nodes[i].amount
	for ; i > 1; i /= 2 {
		if i%2 == 0 {
			total += t.nodes[i+1].amount
		}
	}
	return total
}
