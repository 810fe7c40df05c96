package waits_test

import (
	"sync"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/peerlimit/peerlimit/internal/limit"
	"github.com/peerlimit/peerlimit/internal/waits"
	"github.com/peerlimit/peerlimit/internal/wire"
)

func wake(w *waits.Wait, granted bool, remaining float64) *wire.Wake {
	return &wire.Wake{Turn: wire.Turn{Number: w.Number}, Granted: granted, Decision: limit.Decision{Remaining: remaining}}
}

func TestACallerIsToldWhileItWaits(t *testing.T) {
	var all waits.Waits
	one, two := all.Begin(), all.Begin()
	assert.NotEqual(t, one.Number, two.Number)
	assert.Equal(t, 2, all.Len())
	require.True(t, all.Tell(wake(one, true, 5)))
	assert.Equal(t, 5.0, (<-one.Woken).Decision.Remaining)
	assert.Empty(t, two.Woken, "the other one is told nothing")
	_, granted := all.End(one)
	assert.False(t, granted, "it has received it")
	assert.False(t, all.Tell(wake(one, true, 6)), "it waits no more")
	assert.Equal(t, 1, all.Len())
	assert.False(t, all.Tell(&wire.Wake{Turn: wire.Turn{Number: 1 << 60}}), "no such caller")
}

func TestATurnThatWasNotReceivedIsReturnedAtTheEnd(t *testing.T) {
	var all waits.Waits
	w := all.Begin()
	require.True(t, all.Tell(wake(w, true, 7)))
	last, granted := all.End(w)
	assert.True(t, granted)
	assert.Equal(t, 7.0, last.Decision.Remaining)
	_, granted = all.End(w)
	assert.False(t, granted, "once")
	asked := all.Begin()
	require.True(t, all.Tell(wake(asked, false, 0)))
	_, granted = all.End(asked)
	assert.False(t, granted, "to ask again is no turn")
	assert.Zero(t, all.Len())
}

// Of several that were not received the turn is kept, or else the last.
func TestATurnIsNotLostToWhatComesAfter(t *testing.T) {
	for _, granted := range [][]bool{{true, false}, {false, true}, {false, true, false}, {true, true}} {
		var all waits.Waits
		w := all.Begin()
		first := -1
		for i, is := range granted {
			if is && first < 0 {
				first = i
			}
			require.True(t, all.Tell(wake(w, is, float64(i))), "it waits")
		}
		got := <-w.Woken
		assert.True(t, got.Granted, "%v", granted)
		assert.Equal(t, float64(first), got.Decision.Remaining)
		assert.Empty(t, w.Woken)
	}
}

// Callers that end while they are told: each turn that was told is either received, or returned by End.
func TestNoTurnIsLostBetweenTellAndEnd(t *testing.T) {
	var all waits.Waits
	var told, got atomic.Int64
	var callers sync.WaitGroup
	for range 2000 {
		w := all.Begin()
		callers.Go(func() {
			if all.Tell(wake(w, true, 1)) {
				told.Add(1)
			}
		})
		callers.Go(func() {
			select {
			case <-w.Woken:
				got.Add(1)
			default:
			}
			if _, granted := all.End(w); granted {
				got.Add(1)
			}
		})
	}
	callers.Wait()
	assert.Equal(t, told.Load(), got.Load())
	assert.Zero(t, all.Len())
}
