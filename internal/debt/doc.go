// Package debt keeps what this node has given out by its shares while the holder could not be asked, until a holder has
// charged it back. [Ledger] notes it, sends it to owners, and charges it to the partitions that this node holds or is about to.
package debt
