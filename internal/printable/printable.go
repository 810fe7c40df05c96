// Package printable makes text that clients and peers have chosen, such as keys and names, safe to show: on a terminal, where an
// escape sequence moves the cursor, renames the window or hides a line, and to people, who are misled by text that runs
// backwards or cannot be seen.
package printable

import (
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"
)

// Text returns s with what does not print as Go writes it in a string: \n, \x1b, \u202e, and \xff for a byte that is not
// UTF-8. That is all control characters, those that set a direction or have no width, and spaces but U+0020. What prints
// stays as it is, backslashes too.
func Text(s string) string { return escape(s, "") }

// Lines is Text that lets line ends and tabs be.
func Lines(s string) string { return escape(s, "\n\t") }

// Cut is Text of the first most bytes of s. Of a longer one it also says how many bytes there are.
func Cut(s string, most int) string {
	if len(s) <= most {
		return Text(s)
	}
	head := s[:most]
	for i := 1; i < utf8.UTFMax && i <= len(head); i++ { // no half of a character
		if start := len(head) - i; utf8.RuneStart(head[start]) {
			if !utf8.FullRuneInString(head[start:]) {
				head = head[:start]
			}
			break
		}
	}
	return Text(head) + "… (" + strconv.Itoa(len(s)) + " bytes)"
}

// Is reports whether Text would change nothing.
func Is(s string) bool { return firstHidden(s, "") < 0 }

func escape(s, but string) string {
	first := firstHidden(s, but)
	if first < 0 {
		return s
	}
	var b strings.Builder
	b.WriteString(s[:first])
	for i := first; i < len(s); {
		r, size := utf8.DecodeRuneInString(s[i:])
		part := s[i : i+size]
		i += size
		if isHidden(r, size) && !strings.ContainsRune(but, r) {
			part = strings.Trim(strconv.QuoteToASCII(part), `"`)
		}
		b.WriteString(part)
	}
	return b.String()
}

// firstHidden returns where the first character is that is not shown, or -1.
func firstHidden(s, but string) int {
	for i := 0; i < len(s); {
		r, size := utf8.DecodeRuneInString(s[i:])
		if isHidden(r, size) && !strings.ContainsRune(but, r) {
			return i
		}
		i += size
	}
	return -1
}

// isHidden reports whether a character is not to be seen for what it is. Fillers and variation selectors count as letters
// and marks in Unicode, and show nothing.
func isHidden(r rune, size int) bool {
	switch {
	case r == utf8.RuneError && size == 1:
		return true
	case r < utf8.RuneSelf:
		return !unicode.IsPrint(r)
	}
	return !unicode.IsPrint(r) || unicode.In(r, unicode.Other_Default_Ignorable_Code_Point, unicode.Variation_Selector)
}
