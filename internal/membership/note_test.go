package membership

import (
	"fmt"
	"math"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestDeparturesBytes(t *testing.T) {
	departures := []departure{{"web-0011aabb", time.Hour}, {"w-1", 0}}
	wire := "\x01" + // version
		"\x01\x14" + // departures, 20 bytes
		"\x90\x1c\x0cweb-0011aabb" +
		"\x00\x03w-1"
	assert.Equal(t, wire, string(encodeDepartures(departures)))
	decoded, err := decodeNote([]byte(wire))
	require.NoError(t, err)
	assert.Equal(t, departures, decoded)

	for n := range len(wire) {
		if n == 1 {
			continue // a note without sections
		}
		_, err := decodeNote([]byte(wire[:n]))
		assert.ErrorIs(t, err, errBadNote, "%d of %d bytes", n, len(wire))
	}
}

func TestDeparturesSkipWhatTheyDoNotKnow(t *testing.T) {
	decoded, err := decodeNote([]byte("\x01" + "\x07\x03abc" + "\x01\x05\x02\x03w-1" + "\x63\x00"))
	require.NoError(t, err)
	assert.Equal(t, []departure{{"w-1", 2 * time.Second}}, decoded)
}

func TestDeparturesRefused(t *testing.T) {
	tooMany := make([]departure, maxTombstones+1)
	for i := range tooMany {
		tooMany[i] = departure{fmt.Sprint(i), time.Second}
	}
	_, err := decodeNote(encodeDepartures(tooMany[1:]))
	assert.NoError(t, err)
	for name, note := range map[string]string{
		"empty":                       "",
		"another version":             "\x02",
		"endless section length":      "\x01\x01" + strings.Repeat("\xff", 11),
		"section longer than note":    "\x01\x01\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01",
		"endless time":                "\x01\x01\x0e" + strings.Repeat("\xff", 11) + "\x01ab",
		"remembered for 200 years":    "\x01\x01\x07\xff\xff\xff\xff\x7f\x01a",
		"no name":                     "\x01\x01\x02\x01\x00",
		"name beyond its section":     "\x01\x01\x03\x01\x02a\x07\x00",
		"more than can be remembered": string(encodeDepartures(tooMany)),
	} {
		_, err := decodeNote([]byte(note))
		assert.ErrorIs(t, err, errBadNote, name)
	}
}

func TestDeparturesRememberedForEverAreEncodable(t *testing.T) {
	decoded, err := decodeNote(encodeDepartures([]departure{{"w-1", math.MaxInt64}}))
	require.NoError(t, err)
	assert.Greater(t, decoded[0].remember, 100*365*24*time.Hour)
}

func FuzzDepartures(f *testing.F) {
	f.Add(appendLastWords(encodeDepartures(nil), []LastWord{{"w-1", []byte("word")}}))
	f.Add(encodeDepartures(nil))
	f.Add(encodeDepartures([]departure{{"web-0011aabb", time.Hour}, {"w-1", 0}}))
	f.Add([]byte("\x01\x07\x03abc\x01\x05\x02\x03w-1\x63\x00"))
	f.Fuzz(func(t *testing.T, note []byte) {
		words := decodeLastWords(note)
		require.LessOrEqual(t, len(words), maxLastWords)
		if len(words) > 0 {
			require.Equal(t, words, decodeLastWords(appendLastWords([]byte{noteVersion}, words)))
		}
		departures, err := decodeNote(note)
		if err != nil {
			require.ErrorIs(t, err, errBadNote)
			return
		}
		require.LessOrEqual(t, len(departures), maxTombstones)
		again, err := decodeNote(encodeDepartures(departures))
		require.NoError(t, err)
		require.Equal(t, departures, again)
	})
}

func TestGoodbyeSaysOnceThatItWasSent(t *testing.T) {
	sent := 0
	g := newGoodbye(departure{"w-1", time.Second}, nil, func() { sent++ })
	g.Finished()
	g.Finished()
	assert.Equal(t, 1, sent)
	assert.True(t, g.Invalidates(newGoodbye(departure{"w-1", time.Hour}, nil, func() {})))
	assert.False(t, g.Invalidates(newGoodbye(departure{"w-2", time.Hour}, nil, func() {})))
}

// What a member says last goes with its goodbye, and with the departures of a push/pull.
func TestLastWordsTravel(t *testing.T) {
	words := []LastWord{{"w-1", []byte("word")}, {"w-2", []byte{}}}
	note := newGoodbye(departure{"w-1", time.Hour}, words, func() {}).Message()
	departures, err := decodeNote(note)
	require.NoError(t, err)
	assert.Equal(t, []departure{{"w-1", time.Hour}}, departures)
	assert.Equal(t, words, decodeLastWords(note))
	assert.Empty(t, decodeLastWords(newGoodbye(departure{"w-1", time.Hour}, nil, func() {}).Message()))
	for n := range len(note) {
		assert.Less(t, len(decodeLastWords(note[:n])), 2, "%d of %d bytes", n, len(note))
	}
	many := make([]LastWord, maxLastWords+1)
	for i := range many {
		many[i] = LastWord{fmt.Sprint("w-", i), nil}
	}
	assert.Len(t, decodeLastWords(appendLastWords([]byte{noteVersion}, many)), maxLastWords)
	long := appendLastWords([]byte{noteVersion}, []LastWord{{"w-1", make([]byte, maxLastWord+1)}})
	assert.Empty(t, decodeLastWords(long))
}
