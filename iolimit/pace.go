package iolimit

import (
	"time"

	"github.com/peerlimit/peerlimit"
)

const (
	// takeTime is for how long a take should last its reader or writer, at the speed at which it moves bytes when it does not
	// wait for bandwidth.
	takeTime = 10 * time.Millisecond

	// turnTime is how long a take should keep the others waiting, at most. All transfers that want more take as much then, so turns
	// are equal shares; and all together they take 200 times a second, however many they are.
	turnTime = 5 * time.Millisecond

	// A read or write may move firstPiece bytes as long as nothing is known of the limit, and leastPiece in any case.
	firstPiece = 4 << 10
	leastPiece = 512
)

// pace sizes takes by how fast bytes were used since the last one, and by the limit. It is plain state; its owner has
// the turn.
type pace struct {
	max    int   // bytes; MaxTake, or what was found to fit into the burst
	inTurn int64 // bytes that the limit lets pass in turnTime; 0 when not known

	at   time.Time // when the last take was granted
	last int       // bytes it took
	used int       // bytes used since
}

// ahead returns how many bytes will be used within takeTime if it goes on as since the last take, at most what is due in
// a turn. It at most doubles from take to take. It is 0 before the first take.
func (p *pace) ahead(now time.Time) int {
	size := min(2*int64(p.last), int64(p.max))
	if p.inTurn > 0 {
		size = min(size, p.inTurn)
	}
	if elapsed := now.Sub(p.at); elapsed > 0 {
		speed := float64(p.used) / float64(elapsed)
		size = int64(min(float64(size), speed*float64(takeTime)))
	}
	return int(size)
}

// piece returns how many bytes to move in one step.
func (p *pace) piece(now time.Time) int {
	least := firstPiece
	if p.inTurn > 0 {
		least = int(min(max(p.inTurn, leastPiece), firstPiece))
	}
	return min(max(p.ahead(now), least), p.max)
}

// granted says that a take of so many bytes was granted, with what the limit is, and that it had its turn at that time.
func (p *pace) granted(bytes int, limit peerlimit.Limit, at time.Time) {
	p.at, p.last, p.used = at, bytes, 0
	if limit.Tokens > 0 && limit.Period > 0 {
		p.inTurn = int64(min(limit.Tokens*(float64(turnTime)/float64(limit.Period)), float64(p.max)))
		p.inTurn = max(p.inTurn, 1)
	}
}

// exceeded says that so many bytes, more than one, are more than the burst, and returns how many to try instead.
func (p *pace) exceeded(bytes int) int {
	p.max = bytes / 2
	return p.max
}
