package transport

import (
	"math"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

// The table must behave like a map, whatever the order of things.
func TestCallTableLikeMap(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		table := newCallTable()
		table.lastID = rapid.Uint32().Draw(t, "lastID")
		model := map[uint32]*call{}
		anyID := func(t *rapid.T) uint32 {
			ids := []uint32{table.lastID + 1, table.lastID - 1000}
			for id := range model {
				ids = append(ids, id)
			}
			return rapid.SampledFrom(ids).Draw(t, "id")
		}
		t.Repeat(map[string]func(*rapid.T){
			"add": func(t *rapid.T) {
				for range rapid.IntRange(1, 60).Draw(t, "how many") {
					c := &call{deadline: rapid.Int64Range(0, 1000).Draw(t, "deadline")}
					table.add(c)
					require.Nil(t, model[c.id], "an id in flight was given again")
					model[c.id] = c
				}
			},
			"take": func(t *rapid.T) {
				id := anyID(t)
				require.Same(t, model[id], table.take(id))
				delete(model, id)
			},
			"expire": func(t *rapid.T) {
				now := rapid.Int64Range(0, 1000).Draw(t, "now")
				for _, c := range table.takeExpired(now) {
					require.LessOrEqual(t, c.deadline, now)
					require.Same(t, model[c.id], c)
					delete(model, c.id)
				}
				for _, c := range model {
					if c.deadline <= now {
						t.Fatalf("call %d was due at %d, now is %d", c.id, c.deadline, now)
					}
				}
			},
			"": func(t *rapid.T) {
				require.Equal(t, len(model), table.count)
				for _, c := range model {
					if c.deadline < table.earliest {
						t.Fatalf("call %d is due at %d, before %d", c.id, c.deadline, table.earliest)
					}
				}
			},
		})
	})
}

func TestCallTableIdsWrapAround(t *testing.T) {
	table := newCallTable()
	table.lastID = math.MaxUint32 - 10
	calls := make([]*call, 1000)
	for i := range calls {
		calls[i] = &call{deadline: never}
		table.add(calls[i])
	}
	for _, c := range calls {
		assert.Same(t, c, table.take(c.id))
	}
	assert.Zero(t, table.count)
}

// A response that comes after its call was given up must find nobody, even when
// another call is in the same slot by then.
func TestCallTableIgnoresLateAnswers(t *testing.T) {
	table := newCallTable()
	old := &call{deadline: never}
	table.add(old)
	require.Same(t, old, table.take(old.id))
	young := &call{deadline: never}
	for young.id&(firstTableSize-1) != old.id&(firstTableSize-1) || young.id == 0 {
		table.take(young.id)
		table.add(young)
	}
	assert.Nil(t, table.take(old.id))
	assert.Same(t, young, table.take(young.id))
}
