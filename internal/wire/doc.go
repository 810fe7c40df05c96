// Package wire has what nodes say to each other, as types and as bytes: takes and their responses, and the messages about which
// node decides. It knows nothing of locks, clocks or connections. The bytes of version 1 are pinned in testdata/wire.
package wire
