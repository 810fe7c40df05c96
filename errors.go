package peerlimit

import (
	"errors"
	"fmt"
	"time"

	"github.com/peerlimit/peerlimit/internal/membership"
)

// Errors say that a call was wrong, that its context ended or that the node is gone. None of them means "denied", but
// for [ErrLimited], which is returned only where a denial cannot be told through a [Decision]. Test for them with
// [errors.Is]; the text around them names the offending field and its value.
var (
	// ErrInvalidLimit means that a limit cannot be enforced as given, or that a limiter has none, or too many.
	ErrInvalidLimit = errors.New("peerlimit: invalid limit")

	// ErrInvalidCost means that a cost is zero, negative, NaN or infinite.
	ErrInvalidCost = errors.New("peerlimit: invalid cost")

	// ErrInvalidKey means that a key is empty or longer than [MaxKeyLen].
	ErrInvalidKey = errors.New("peerlimit: invalid key")

	// ErrInvalidName means that the name of a limiter is empty or longer than [MaxNameLen].
	ErrInvalidName = errors.New("peerlimit: invalid limiter name")

	// ErrNameTaken means that this node has a limiter of that name with other limits, which is held or was asked for lately; see
	// [Node.Limiter].
	ErrNameTaken = errors.New("peerlimit: limiter name taken")

	// ErrExceedsBurst means that a single take asks for more than the bucket can ever hold, so that waiting for it
	// would be in vain.
	ErrExceedsBurst = errors.New("peerlimit: cost exceeds burst")

	// ErrExceedsMaxWait means that a wait for so many tokens takes longer than waits may take, even from a full bucket: it can
	// never succeed. Ask for fewer, or raise Config.MaxWait.
	ErrExceedsMaxWait = errors.New("peerlimit: cost exceeds what can be waited for")

	// ErrQueueFull means that so many wait at the key's bucket, 65,536, or at the keys of the node that decides about it, 262,144,
	// that no more may. An error that matches it matches [ErrLimited] as well.
	ErrQueueFull = errors.New("peerlimit: too many are waiting")

	// ErrInvalidConfig means that a field of [Config] is out of range or contradicts another.
	ErrInvalidConfig = errors.New("peerlimit: invalid config")

	// ErrClosed means that the node was closed or has left.
	ErrClosed = errors.New("peerlimit: node closed")

	// ErrUnheard means that a node has gone and that nobody confirmed it: members that may still be there count it as failed.
	ErrUnheard = membership.ErrUnheard

	// ErrUnreachable means that the node which decides about a key could not be told to reset it. Takes never fail with
	// it: they fall back.
	ErrUnreachable = errors.New("peerlimit: owner unreachable")

	// ErrLimited means that the limit does not allow it now. Every error that matches it is a [*LimitedError], or wraps one.
	ErrLimited = errors.New("peerlimit: limited")
)

// LimitedError is a denial as an error: what [Decision.Err] returns, and what a wait or a reservation fails with when
// its turn would come too late.
type LimitedError struct {
	// Decision is the denial: its RetryAfter says when to try again.
	Decision Decision
}

// Error says which limit denied and when to come back.
func (e *LimitedError) Error() string {
	return fmt.Sprintf("%s by %s: retry after %s", ErrLimited, e.Decision.Limit, e.Decision.RetryAfter.Round(time.Microsecond))
}

// Is reports whether target is [ErrLimited].
func (e *LimitedError) Is(target error) bool { return target == ErrLimited }

// queueFull returns the error of a wait that was refused for want of room.
func queueFull(denial Decision) error { return fmt.Errorf("%w: %w", ErrQueueFull, denial.Err()) }
