// Package hotkeys is what a caller remembers of keys that other nodes hold and that it takes from often: leases, which are
// tokens set aside for it, and denials, for as long as they stand. [Cache] keeps them, bounded in number.
package hotkeys
