package membership

import (
	"bytes"
	"encoding/binary"
	"errors"
	"sync"
	"time"

	"github.com/hashicorp/memberlist"
)

// A member that leaves says so in a message of its own. memberlist does tell a leave from a failure, but does not let
// anyone know: the State of the node that it hands to NotifyLeave is never set (hashicorp/memberlist#293).
//
// The message, a note, is gossiped to all, and every push/pull carries the notes of all departures still remembered. A
// note is
//
//	version   1 byte, noteVersion
//	sections  each: kind, 1 byte; length, uvarint; that many bytes
//
// and sections of an unknown kind are skipped. One kind lists departures, each: seconds for which it is to be remembered,
// uvarint; length of the name, 1 byte; name. Another, which no version sends any more, listed known names. The third has last
// words, of those that have left lately, each: length of the name, 1 byte; name; length, uvarint; the bytes, which gossip does
// not look into.
const (
	noteVersion        = 1
	sectionDepartures  = 1
	sectionLastWords   = 3
	maxRememberSeconds = 1 << 32
)

var errBadNote = errors.New("peerlimit: malformed gossip note")

// departure is a member that has left, and for how long that is still to be remembered. Durations, not times, go from
// node to node, because clocks differ; and they are what is left, so that a departure passed around forever is not
// remembered forever.
type departure struct {
	name     string
	remember time.Duration
}

func encodeDepartures(departures []departure) []byte {
	var section []byte
	for _, d := range departures {
		section = binary.AppendUvarint(section, uint64(min(d.remember/time.Second, maxRememberSeconds)))
		section = append(section, byte(len(d.name)))
		section = append(section, d.name...)
	}
	note := append(make([]byte, 0, len(section)+8), noteVersion, sectionDepartures)
	note = binary.AppendUvarint(note, uint64(len(section)))
	return append(note, section...)
}

// LastWord is what a member has said last, when it left. Whoever hears it passes it on as it is.
type LastWord struct {
	Name string
	Word []byte
}

// maxLastWord bounds one last word, and maxLastWords how many are remembered and told at once.
const (
	maxLastWord  = 1024
	maxLastWords = 64
)

// appendLastWords adds last words to a note.
func appendLastWords(note []byte, words []LastWord) []byte {
	if len(words) == 0 {
		return note
	}
	var section []byte
	for _, w := range words {
		section = append(append(section, byte(len(w.Name))), w.Name...)
		section = binary.AppendUvarint(section, uint64(len(w.Word)))
		section = append(section, w.Word...)
	}
	note = binary.AppendUvarint(append(note, sectionLastWords), uint64(len(section)))
	return append(note, section...)
}

// section is a part of a note.
type section struct {
	kind byte
	body []byte
}

// sectionsOf takes a note apart, which may be anything: the error is errBadNote then.
func sectionsOf(note []byte) (sections []section, err error) {
	if len(note) == 0 || note[0] != noteVersion {
		return nil, errBadNote
	}
	for rest := note[1:]; len(rest) > 0; {
		length, n := binary.Uvarint(rest[1:])
		if n <= 0 || length > uint64(len(rest)-1-n) {
			return nil, errBadNote
		}
		sections = append(sections, section{rest[0], rest[1+n:][:length]})
		rest = rest[1+n+int(length):]
	}
	return sections, nil
}

// decodeNote returns the departures in a note, which may be anything: the error is errBadNote then,
// and what was readable before the fault is dropped too. The result holds no reference to the note.
func decodeNote(note []byte) (departures []departure, err error) {
	sections, err := sectionsOf(note)
	if err != nil {
		return nil, err
	}
	for _, s := range sections {
		if s.kind != sectionDepartures {
			continue
		}
		for rest := s.body; len(rest) > 0; {
			var d departure
			if d, rest, err = cutDeparture(rest); err != nil || len(departures) == maxTombstones {
				return nil, errBadNote
			}
			departures = append(departures, d)
		}
	}
	return departures, nil
}

// decodeLastWords returns the last words in a note, at most maxLastWords. Of a note that makes no sense, and from the first word
// that makes none, there is nothing. The result holds no reference to the note.
func decodeLastWords(note []byte) (words []LastWord) {
	sections, err := sectionsOf(note)
	if err != nil {
		return nil
	}
	for _, s := range sections {
		if s.kind != sectionLastWords {
			continue
		}
		for rest := s.body; len(rest) > 0 && len(words) < maxLastWords; {
			size := int(rest[0])
			if size == 0 || size >= len(rest)-1 {
				return words
			}
			name := string(rest[1 : 1+size])
			length, n := binary.Uvarint(rest[1+size:])
			rest = rest[1+size:]
			if n <= 0 || length > maxLastWord || length > uint64(len(rest)-n) {
				return words
			}
			words = append(words, LastWord{name, bytes.Clone(rest[n:][:length])})
			rest = rest[n+int(length):]
		}
	}
	return words
}

// cutDeparture decodes the departure that section begins with and returns what follows it.
func cutDeparture(section []byte) (d departure, rest []byte, err error) {
	seconds, n := binary.Uvarint(section)
	if n <= 0 || seconds > maxRememberSeconds || n == len(section) {
		return departure{}, nil, errBadNote
	}
	nameLen := int(section[n])
	section = section[n+1:]
	if nameLen == 0 || nameLen > len(section) {
		return departure{}, nil, errBadNote
	}
	return departure{string(section[:nameLen]), time.Duration(seconds) * time.Second}, section[nameLen:], nil
}

// goodbye gossips one departure.
type goodbye struct {
	name string
	note []byte
	sent func() // called once, when it was sent often enough or is replaced; must not block
}

var _ memberlist.NamedBroadcast = (*goodbye)(nil)

// newGoodbye tells of a departure. words has the last word of the one that departs, if it has left one.
func newGoodbye(d departure, words []LastWord, sent func()) *goodbye {
	return &goodbye{name: d.name, note: appendLastWords(encodeDepartures([]departure{d}), words), sent: sync.OnceFunc(sent)}
}

// Name identifies what is being said: a newer goodbye of the same name replaces an older one in the queue.
func (g *goodbye) Name() string { return g.name }

// Message is what is sent.
func (g *goodbye) Message() []byte { return g.note }

// Finished is called by the queue, under its lock.
func (g *goodbye) Finished() { g.sent() }

// Invalidates is not called for broadcasts that have a name.
func (g *goodbye) Invalidates(other memberlist.Broadcast) bool {
	named, ok := other.(memberlist.NamedBroadcast)
	return ok && named.Name() == g.name
}
