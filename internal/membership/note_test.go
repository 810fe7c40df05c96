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
	decoded, _, err := decodeNote([]byte(wire))
	require.NoError(t, err)
	assert.Equal(t, departures, decoded)

	for n := range len(wire) {
		if n == 1 {
			continue // a note without sections
		}
		_, _, err := decodeNote([]byte(wire[:n]))
		assert.ErrorIs(t, err, errBadNote, "%d of %d bytes", n, len(wire))
	}
}

func TestDeparturesSkipWhatTheyDoNotKnow(t *testing.T) {
	decoded, _, err := decodeNote([]byte("\x01" + "\x07\x03abc" + "\x01\x05\x02\x03w-1" + "\x63\x00"))
	require.NoError(t, err)
	assert.Equal(t, []departure{{"w-1", 2 * time.Second}}, decoded)
}

func TestDeparturesRefused(t *testing.T) {
	tooMany := make([]departure, maxTombstones+1)
	for i := range tooMany {
		tooMany[i] = departure{fmt.Sprint(i), time.Second}
	}
	_, _, err := decodeNote(encodeDepartures(tooMany[1:]))
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
		_, _, err := decodeNote([]byte(note))
		assert.ErrorIs(t, err, errBadNote, name)
	}
}

func TestDeparturesRememberedForEverAreEncodable(t *testing.T) {
	decoded, _, err := decodeNote(encodeDepartures([]departure{{"w-1", math.MaxInt64}}))
	require.NoError(t, err)
	assert.Greater(t, decoded[0].remember, 100*365*24*time.Hour)
}

func FuzzDepartures(f *testing.F) {
	f.Add(appendKnown(encodeDepartures(nil), []string{"web-0011aabb", "w-1"}))
	f.Add(encodeDepartures(nil))
	f.Add(encodeDepartures([]departure{{"web-0011aabb", time.Hour}, {"w-1", 0}}))
	f.Add([]byte("\x01\x07\x03abc\x01\x05\x02\x03w-1\x63\x00"))
	f.Fuzz(func(t *testing.T, note []byte) {
		departures, _, err := decodeNote(note)
		if err != nil {
			require.ErrorIs(t, err, errBadNote)
			return
		}
		require.LessOrEqual(t, len(departures), maxTombstones)
		again, _, err := decodeNote(encodeDepartures(departures))
		require.NoError(t, err)
		require.Equal(t, departures, again)
	})
}

func TestGoodbyeSaysOnceThatItWasSent(t *testing.T) {
	sent := 0
	g := newGoodbye(departure{"w-1", time.Second}, nil, nil, func() { sent++ })
	g.Finished()
	g.Finished()
	assert.Equal(t, 1, sent)
	assert.True(t, g.Invalidates(newGoodbye(departure{"w-1", time.Hour}, nil, nil, func() {})))
	assert.False(t, g.Invalidates(newGoodbye(departure{"w-2", time.Hour}, nil, nil, func() {})))
}

// A member that hears of a departure hears of others that are there: as many as a packet has room for.
func TestGoodbyeNamesOthers(t *testing.T) {
	for _, members := range []int{0, 3, 1000} {
		var names []string
		for i := range members {
			names = append(names, fmt.Sprintf("web-%08x", i))
		}
		g := newGoodbye(departure{"w-1", time.Hour}, names, nil, func() {})
		departures, known, err := decodeNote(g.Message())
		require.NoError(t, err)
		assert.Equal(t, []departure{{"w-1", time.Hour}}, departures)
		if members < 40 {
			assert.Equal(t, names, known)
			continue
		}
		assert.Greater(t, len(known), 40)
		assert.Less(t, len(g.Message()), 700)
	}
}
