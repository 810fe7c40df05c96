package transport

import (
	"context"
	"math/rand/v2"
	"time"
)

// backoff grows the delays between attempts twofold, with jitter so that the
// links of a whole cluster do not dial a returning node at the same moment.
type backoff struct {
	least, most time.Duration
	last        time.Duration
}

// next returns a delay between half of and the whole of the current step.
func (b *backoff) next() time.Duration {
	b.last = min(max(2*b.last, b.least), b.most)
	return b.last/2 + rand.N(b.last/2+1) // #nosec G404 -- only spreads attempts
}

func (b *backoff) reset() { b.last = 0 }

// sleep waits for d and reports false when ctx was done before that.
func sleep(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}
