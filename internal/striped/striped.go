// Package striped has counters that many goroutines add to at once. They are kept several times over, by goroutine, so that
// processors rarely write to the same cache line, also when all count the same.
package striped

import "unsafe"

const stripes = 8

// stripe returns a number below stripes that mostly differs between goroutines: it comes from where their stacks are.
func stripe() uintptr {
	var onStack byte
	const golden = 0x9E3779B97F4A7C15
	at := uint64(uintptr(unsafe.Pointer(&onStack))) // #nosec G103 -- only the number is looked at
	return uintptr(at >> 11 * golden >> 61)
}
