package main

import (
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"
)

// shown returns s with what does not print as Go writes it in a string. Names and errors come from other processes, and an
// escape sequence in one would move the cursor of the terminal, or rename its window.
func shown(s string) string { return escape(s, "") }

// shownLines is shown that lets line ends and tabs be.
func shownLines(s string) string { return escape(s, "\n\t") }

func escape(s, but string) string {
	var b strings.Builder
	for len(s) > 0 {
		r, size := utf8.DecodeRuneInString(s)
		if part := s[:size]; unicode.IsPrint(r) && (r != utf8.RuneError || size > 1) || strings.ContainsRune(but, r) {
			b.WriteString(part)
		} else {
			b.WriteString(strings.Trim(strconv.QuoteToASCII(part), `"`))
		}
		s = s[size:]
	}
	return b.String()
}
