package peerlimit

import (
	"context"
	"fmt"
	"time"

	"github.com/peerlimit/peerlimit/internal/rule"
	"github.com/peerlimit/peerlimit/internal/wire"
)

// MaxNameLen is the greatest length of a limiter's name, in bytes.
const MaxNameLen = wire.MaxNameLen

// MaxKeyLen is the greatest length of a key, in bytes. Keys are bytes: they need not be UTF-8.
const MaxKeyLen = wire.MaxKeyLen

// ForgetNames forgets what nobody uses, from time to time until the node ends.
func (n *Node) forgetNames(ctx context.Context) {
	ticker := time.NewTicker(rule.NameTurn)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
			n.rules.ForgetNames(func(mark func(rule.LimiterID)) {
				n.table.MarkNames(mark)
				n.alone.MarkNames(mark)
			})
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
