package printable_test

import (
	"strings"
	"testing"
	"unicode"
	"unicode/utf8"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/peerlimit/peerlimit/internal/printable"
)

func TestText(t *testing.T) {
	for s, want := range map[string]string{
		"": "",
		`user-1 "ü" \ 日本 é🙂 e` + "\u0301":        `user-1 "ü" \ 日本 é🙂 e` + "\u0301",
		"\x1b[2J\x1b]0;x\a":                      `\x1b[2J\x1b]0;x\a`,
		"a\r\nb\tc\x00\x7f":                      `a\r\nb\tc\x00\x7f`,
		"\u009b31m":                              `\u009b31m`,        // an escape sequence in one character
		"alice\u202eecila":                       `alice\u202eecila`, // runs backwards
		"\u2066\u200b\u200d\ufeff":               `\u2066\u200b\u200d\ufeff`,
		"a\u00a0b\u2028\u3164\ufe0f\u115f\u034f": `a\u00a0b\u2028\u3164\ufe0f\u115f\u034f`,
		"\xff\xc3(\xed\xa0\x80":                  `\xff\xc3(\xed\xa0\x80`,
		"\ufffd":                                 "\ufffd",
		"\U000e0041":                             `\U000e0041`, // a tag
	} {
		assert.Equal(t, want, printable.Text(s), "%q", s)
		assert.Equal(t, s == want, printable.Is(s), "%q", s)
	}
	assert.Equal(t, "a\n\tb\\x1b", printable.Lines("a\n\tb\x1b"))
	assert.Equal(t, "abc", printable.Cut("abc", 3))
	assert.Equal(t, "ab… (4 bytes)", printable.Cut("ab\u00fc", 3))
	assert.Equal(t, "abü… (5 bytes)", printable.Cut("ab\u00fcc", 4))
	assert.Equal(t, `\xff\xff… (3 bytes)`, printable.Cut("\xff\xff\xff", 2))
	assert.Equal(t, "… (3 bytes)", printable.Cut("日", 2))
}

// Whatever is shown, all of it prints, and none of what printed is lost.
func FuzzText(f *testing.F) {
	for _, s := range []string{"", "a\x1b[31m", "\xff\u202e", "日本\u200b", "\U000e0041"} {
		f.Add(s, 3)
	}
	f.Fuzz(func(t *testing.T, s string, most int) {
		for _, shown := range []string{printable.Text(s), printable.Cut(s, max(0, most)), strings.NewReplacer("\n", "", "\t", "").Replace(printable.Lines(s))} {
			require.True(t, utf8.ValidString(shown))
			for _, r := range shown {
				require.True(t, unicode.IsPrint(r), "%q", shown)
			}
			require.Equal(t, shown, printable.Text(shown), "it can be shown twice")
		}
		require.Equal(t, printable.Is(s), printable.Text(s) == s)
		require.LessOrEqual(t, len(printable.Cut(s, max(0, min(most, len(s))))), 4*len(s)+30)
	})
}
