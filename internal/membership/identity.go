package membership

import (
	"crypto/rand"
	"encoding/hex"
	"strings"
	"unicode"
)

// IsLabel reports whether a name may be part of an identity: it is printable and without spaces.
func IsLabel(name string) bool {
	return !strings.ContainsFunc(name, func(r rune) bool {
		return !unicode.IsPrint(r) || unicode.IsSpace(r) || r == unicode.ReplacementChar // which is what bytes are that are not UTF-8
	})
}

// NewIdentity returns label and eight random hexadecimal digits. They make a restarted process a new member: what others
// remember of the old one, its tombstone above all, must not apply to it. Among 10,000 processes of one label two share
// their digits with a probability of about 1 %, and it matters only when both live at the same time or within the hour
// for which tombstones are kept.
func NewIdentity(label string) string {
	var digits [4]byte
	_, _ = rand.Read(digits[:]) // never fails: the program is stopped instead
	return label + "-" + hex.EncodeToString(digits[:])
}
