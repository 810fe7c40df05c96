package intern

import (
	"fmt"
	"math/rand/v2"
	"runtime"
	"strconv"
	"sync"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/peerlimit/peerlimit/internal/onecore"
)

// value is what tests keep: it knows its key, and has a part that can be pointed to.
type value struct {
	key  string
	part [4]int
}

// get returns the value of a key, made if there is none.
func get(table *Table[value], key string) *value {
	if v := table.Find(key); v != nil {
		return v
	}
	return table.Add(key, &value{key: key})
}

// forgetAll has everything forgotten that nothing refers to.
func forgetAll(table *Table[value]) {
	for range idleTurns + 1 {
		table.Turn()
	}
	runtime.GC()
	table.Turn()
}

// Whatever is looked up, forgotten and collected: a key has one value as long as anything refers to that, and no value is that of
// two keys.
func TestAValueIsTheSameAsLongAsItIsInUse(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		table := New[value](rapid.SampledFrom([]int{0, 1, 1000, 2000}).Draw(t, "kept"))
		whole := map[string]*value{} // held by the value itself
		parts := map[string]*int{}   // held by a part of it
		key := func() string { return strconv.Itoa(rapid.IntRange(0, 30).Draw(t, "key")) }
		look := func(key string) *value {
			v := get(table, key)
			require.Equal(t, key, v.key)
			if held := whole[key]; held != nil {
				require.Same(t, held, v)
			}
			if held := parts[key]; held != nil {
				require.Same(t, held, &v.part[2])
			}
			return v
		}
		t.Repeat(map[string]func(*rapid.T){
			"look":        func(*rapid.T) { look(key()) },
			"hold":        func(*rapid.T) { k := key(); whole[k] = look(k) },
			"hold a part": func(*rapid.T) { k := key(); parts[k] = &look(k).part[2] },
			"give back":   func(*rapid.T) { k := key(); delete(whole, k); delete(parts, k) },
			"turn":        func(*rapid.T) { table.Turn() },
			"forget":      func(*rapid.T) { forgetAll(table) },
			"collect":     func(*rapid.T) { runtime.GC() },
		})
		held := map[string]bool{}
		for k := range whole {
			held[k] = true
			look(k)
		}
		for k := range parts {
			held[k] = true
			look(k)
		}
		forgetAll(table)
		require.Equal(t, len(held), table.Len())
		require.Len(t, table.All(), len(held))
		runtime.KeepAlive(whole)
		runtime.KeepAlive(parts)
	})
}

// The values that were looked up last are kept though nothing refers to them, about as many as the bound says.
func TestValuesUsedLatelyAreKept(t *testing.T) {
	const bound = 1 << 14
	table := New[value](bound)
	keys := func(from, count int, visit func(key string)) {
		for i := from; i < from+count; i++ {
			visit(strconv.Itoa(i))
		}
	}
	kept := func(from, count int) (n int) {
		runtime.GC()
		keys(from, count, func(key string) {
			s := table.shardOf(key)
			if e := s.entries[key]; e != nil && !e.gone() {
				n++
			}
		})
		return n
	}
	keys(0, bound/2, func(key string) { get(table, key) })
	require.Equal(t, bound/2, kept(0, bound/2))

	for range 2 { // those that are used go on, beside ever new ones
		keys(rand.IntN(1e9)+bound, 8*bound, func(key string) {
			get(table, key)
			keys(rand.IntN(bound/2-8), 8, func(key string) { get(table, key) })
		})
	}
	require.Greater(t, kept(0, bound/2), bound/2*9/10)
	table.Turn()
	require.LessOrEqual(t, table.Len(), bound)

	var used []*value // one that gave way and is not collected yet is found, and kept again only by the next turn
	for range idleTurns {
		table.Turn()
		keys(0, 100, func(key string) { used = append(used, get(table, key)) })
	}
	table.Turn()
	runtime.KeepAlive(used)
	runtime.GC()
	table.Turn()
	assert.Equal(t, 100, kept(0, 100))
	assert.Equal(t, 100, table.Len())
}

// What something else refers to is found though there is no room for it, and is kept again once there is.
func TestValuesInUseAreFoundBeyondTheBound(t *testing.T) {
	table := New[value](0)
	bounded := New[value](shardCount)
	var held []*value
	for i := range 10_000 {
		held = append(held, get(table, strconv.Itoa(i)), get(bounded, strconv.Itoa(i)))
	}
	forgetAll(table)
	forgetAll(bounded)
	for i := range 10_000 {
		require.Same(t, held[2*i], table.Find(strconv.Itoa(i)))
		require.Same(t, held[2*i+1], bounded.Find(strconv.Itoa(i)))
	}
	bounded.Turn()
	clear(held)
	runtime.GC()
	table.Turn()
	bounded.Turn()
	assert.Zero(t, table.Len())
	assert.Equal(t, shardCount, bounded.Len())
}

// Ever new keys leave nothing behind, neither entries nor room for them, whether or not turns come.
func TestEverNewKeysLeaveNothing(t *testing.T) {
	table := New[value](2000)
	for i := range 300_000 {
		get(table, strconv.Itoa(i))
		if i%20_000 == 0 {
			runtime.GC()
		}
	}
	require.Less(t, table.Len(), 100_000, "additions forget what is gone")
	forgetAll(table)
	require.Zero(t, table.Len())
	for i := range table.shards {
		s := &table.shards[i]
		assert.LessOrEqual(t, cap(s.order), fewEntries)
		assert.LessOrEqual(t, cap(s.kept), fewEntries)
		assert.LessOrEqual(t, s.most, fewEntries, "what the map has room for")
	}
}

// To find a value allocates nothing, whether it is kept or something else refers to it.
func TestFindDoesNotAllocate(t *testing.T) {
	for _, kept := range []int{0, 1 << 16} {
		table := New[value](kept)
		held := make([]*value, 1000)
		for i := range held {
			held[i] = get(table, strconv.Itoa(i))
		}
		next := 0
		keys := make([][]byte, len(held))
		for i := range keys {
			keys[i] = []byte(held[i].key)
		}
		assert.Zero(t, testing.AllocsPerRun(1000, func() {
			if table.Find(string(keys[next])) != held[next] {
				t.Error("another one")
			}
			next = (next + 1) % len(keys)
		}))
	}
}

// Goroutines that look up the same keys while turns come and garbage is collected agree about their values.
func TestGoroutinesAgree(t *testing.T) {
	rounds := 20_000
	if onecore.RaceDetector {
		rounds = 1000
	}
	table := New[value](300)
	shared := make([]sync.Map, 50)
	var wg sync.WaitGroup
	for g := range 8 {
		wg.Go(func() {
			for i := range rounds {
				k := rand.IntN(len(shared))
				v := get(table, fmt.Sprint("shared-", k))
				if before, was := shared[k].LoadOrStore("value", v); was && before != v {
					t.Error("two values of one key are in use")
				}
				get(table, fmt.Sprint(g, i))
				if i%500 == g {
					table.Turn()
					runtime.GC()
				}
			}
		})
	}
	wg.Wait()
	runtime.KeepAlive(shared)
}
