package wire

import (
	"errors"
	"fmt"
	"time"
)

// Bounds of what can be encoded, in bytes.
const (
	MaxNameLen     = 255  // of a limiter's name
	MaxKeyLen      = 1024 // of a key
	MaxIdentityLen = 255  // of a member's name: what a handshake can carry
)

// AcquireBudget bounds the buckets in one answer, in bytes: it takes a moment to send and a moment to take in, and for
// so long nobody decides about what it gives. The asker asks on for the rest.
const AcquireBudget = 128 << 10

// ErrRefused means that the other side answered that it cannot.
var ErrRefused = errors.New("peerlimit: the owner refused to answer")

// NameProblem says what is wrong with a limiter's name; nothing when it is right.
func NameProblem(name string) string {
	if name == "" {
		return "it is empty"
	}
	if len(name) > MaxNameLen {
		return fmt.Sprintf("it is %d bytes long; at most %d are allowed", len(name), MaxNameLen)
	}
	return ""
}

// Borrowing is what a take says and asks about leases.
type Borrowing struct {
	Want     float64       // tokens to be set aside for the caller; 0 for none
	Returned []LeaseReturn // leases that the caller is done with
}

// LeaseReturn ends a lease.
type LeaseReturn struct {
	ID     uint64
	Unused float64
}

// MaxReturns is how many leases one message ends at most.
const MaxReturns = 8

// Grant is what the holder answers.
type Grant struct {
	ID     uint64
	Tokens float64 // 0: no lease

	// Stands is for how long a denial is known to stand if nobody gives tokens back by a refund or a reset.
	Stands time.Duration
}

// RoomIn returns an empty slice with room for count more elements, taken from memory that is handed out piece by piece.
func RoomIn[T any](memory *[]T, count int) []T {
	if cap(*memory)-len(*memory) < count {
		*memory = make([]T, 0, max(count, 2*cap(*memory), 64)) // what was handed out stays where it is
	}
	begin := len(*memory)
	*memory = (*memory)[:begin+count]
	return (*memory)[begin : begin : begin+count]
}
