package peerlimit

import (
	"fmt"
	"math/rand/v2"
	"slices"

	"github.com/peerlimit/peerlimit/internal/limit"
	"github.com/peerlimit/peerlimit/internal/wire"
)

// Sample is a take or a reservation that was decided for a caller of this node.
type Sample struct {
	Limiter string // its name
	Key     string
	Cost    float64 // in tokens
	Allowed bool
	Origin  Origin // which node decided
}

// sampler receives some of the takes.
type sampler struct {
	every   uint32
	receive func(Sample)
}

// SampleTakes has receive called with one of every so many takes and reservations of this node, chosen at random: 1 means
// all of them. It is called on the caller's goroutine, from many at once, so it must be quick, and must not call the node.
// stop ends it; a call that is under way may still come. The error matches [ErrInvalidConfig] when every is below 1 or
// receive is nil.
func (n *Node) SampleTakes(every int, receive func(Sample)) (stop func(), err error) {
	if every < 1 || int64(every) > 1<<32-1 {
		return nil, fmt.Errorf("%w: every is %d; it must be 1 to 4294967295", ErrInvalidConfig, every)
	}
	if receive == nil {
		return nil, fmt.Errorf("%w: receive is nil", ErrInvalidConfig)
	}
	s := &sampler{uint32(every), receive}
	n.changeSamplers(func(all []*sampler) []*sampler { return append(all, s) })
	return func() {
		n.changeSamplers(func(all []*sampler) []*sampler {
			return slices.DeleteFunc(all, func(other *sampler) bool { return other == s })
		})
	}, nil
}

func (n *Node) changeSamplers(change func([]*sampler) []*sampler) {
	n.mu.Lock()
	defer n.mu.Unlock()
	var all []*sampler
	if old := n.samplers.Load(); old != nil {
		all = slices.Clone(*old)
	}
	if all = change(all); len(all) == 0 {
		n.samplers.Store(nil) // takes have one load to do, and no more
		return
	}
	n.samplers.Store(&all)
}

// decided counts a decision that a caller gets, and shows it to the samplers.
func (l *Limiter) decided(key string, cost float64, d *limit.Decision) {
	l.counts.Add(d)
	if samplers := l.node.samplers.Load(); samplers != nil {
		l.sample(*samplers, key, cost, d)
	}
}

func (l *Limiter) sample(samplers []*sampler, key string, cost float64, d *limit.Decision) {
	for _, s := range samplers {
		if rand.Uint32N(s.every) == 0 { // #nosec G404 -- nothing depends on it but a picture
			s.receive(Sample{Limiter: l.name, Key: key, Cost: cost, Allowed: d.Allowed, Origin: Origin(d.Origin)})
		}
	}
}

// answered is decided for what is an answer to a take or a reservation; other answers decide nothing.
func (l *Limiter) answered(m *wire.Message, a *wire.Response) {
	if m.Kind == wire.KindTake || m.Kind == wire.KindReserve {
		l.decided(m.Key, m.Cost, &a.Decision)
	}
}
