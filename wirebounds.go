package peerlimit

import (
	"errors"
	"fmt"
	"time"
)

// Bounds of what can be encoded, in bytes.
const (
	maxNameLen     = 255  // of a limiter's name
	maxKeyLen      = 1024 // of a key
	maxIdentityLen = 255  // of a member's name: what a handshake can carry
)

// answerBudget bounds the buckets in one answer, in bytes: it takes a moment to send and a moment to take in, and for
// so long nobody decides about what it gives. The asker asks on for the rest.
const answerBudget = 128 << 10

// errRefused means that the other side answered that it cannot.
var errRefused = errors.New("peerlimit: the owner refused to answer")

// nameProblem says what is wrong with a limiter's name; nothing when it is right.
func nameProblem(name string) string {
	if name == "" {
		return "it is empty"
	}
	if len(name) > maxNameLen {
		return fmt.Sprintf("it is %d bytes long; at most %d are allowed", len(name), maxNameLen)
	}
	return ""
}

// borrowing is what a take says and asks about leases.
type borrowing struct {
	want     float64       // tokens to be set aside for the caller; 0 for none
	returned []leaseReturn // leases that the caller is done with
}

// leaseReturn ends a lease.
type leaseReturn struct {
	id     uint64
	unused float64
}

// maxReturns is how many leases one message ends at most.
const maxReturns = 8

// grant is what the holder answers.
type grant struct {
	id     uint64
	tokens float64 // 0: no lease

	// stands is for how long a denial is known to stand if nobody gives tokens back by a refund or a reset.
	stands time.Duration
}

// roomIn returns an empty slice with room for count more elements, taken from memory that is handed out piece by piece.
func roomIn[T any](memory *[]T, count int) []T {
	if cap(*memory)-len(*memory) < count {
		*memory = make([]T, 0, max(count, 2*cap(*memory), 64)) // what was handed out stays where it is
	}
	begin := len(*memory)
	*memory = (*memory)[:begin+count]
	return (*memory)[begin : begin : begin+count]
}
