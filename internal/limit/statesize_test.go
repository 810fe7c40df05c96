package limit

import (
	"testing"
	"unsafe"

	"github.com/stretchr/testify/assert"
)

// What docs/operations.md computes the memory of a key with several limits from.
func TestSizeOfSeveralLevels(t *testing.T) {
	if unsafe.Sizeof(uintptr(0)) != 8 {
		t.Skip("the sizes are those of 64 bits")
	}
	assert.EqualValues(t, 136, unsafe.Sizeof(extra{})+unsafe.Sizeof(otherLevels{})) // 144 with its size class
}
