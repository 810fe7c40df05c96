package peerlimit

import (
	"context"
	"fmt"
	"time"

	"github.com/peerlimit/peerlimit/internal/intern"
	"github.com/peerlimit/peerlimit/internal/wire"
)

// MaxNameLen is the greatest length of a limiter's name, in bytes.
const MaxNameLen = wire.MaxNameLen

// MaxKeyLen is the greatest length of a key, in bytes. Keys are bytes: they need not be UTF-8.
const MaxKeyLen = wire.MaxKeyLen

// Bounds of what a node keeps although nothing refers to it. The first are for rules, most of which save other members' takes from
// being decoded anew.
const (
	leastRules   = 16_384
	keysPerRule  = 8 // of MaxKeys
	idleLimiters = 16_384
)

// forgetUnused forgets names and limits that nobody uses, from time to time until the node ends.
func (n *Node) forgetUnused(ctx context.Context) {
	ticker := time.NewTicker(intern.TurnTime)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
			n.rules.ForgetUnused()
			n.limiters.Turn()
		}
	}
}

// validateName refuses a limiter's name that is empty or too long.
func validateName(name string) error {
	if problem := wire.NameProblem(name); problem != "" {
		return fmt.Errorf("%w: %s", ErrInvalidName, problem)
	}
	return nil
}

// validateKey refuses a key that is empty or too long.
func validateKey(key string) error {
	if key == "" {
		return fmt.Errorf("%w: it is empty", ErrInvalidKey)
	}
	if len(key) > MaxKeyLen {
		return fmt.Errorf("%w: it is %d bytes long; at most %d are allowed", ErrInvalidKey, len(key), MaxKeyLen)
	}
	return nil
}
