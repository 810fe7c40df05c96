package httplimit

import (
	"fmt"
	"net/netip"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

// behindProxies finds clients behind proxies of 10.0.0.0/8.
func behindProxies(t require.TestingT, header string) KeyFunc {
	key, err := ClientIP(IPOptions{TrustedProxies: networks(t, "10.0.0.0/8"), Header: header})
	require.NoError(t, err)
	return key
}

// What a client gets a proxy to write is inside of a value, and no entry of its own. Where an entry is not of the form that
// RFC 7239 gives it, the client is the nearest proxy that vouched for anything, and nobody further left.
func TestForwardedValuesAreReadWhole(t *testing.T) {
	key := behindProxies(t, "Forwarded")
	for _, c := range []struct{ line, want string }{
		// Host: a,for=6.6.6.1;x=
		{`for=203.0.113.7;host="a,for=6.6.6.1;x="`, "203.0.113.7"},
		{`host="a,for=6.6.6.1;x=";for=203.0.113.7`, "203.0.113.7"},
		{`for=203.0.113.7;host=a,for=6.6.6.1;x=`, "10.0.0.1"}, // by a proxy that does not quote
		{`host=a,for=6.6.6.1;x=;for=203.0.113.7`, "10.0.0.1"},
		{`host=a;for=6.6.6.1;x=y;for=203.0.113.7`, "10.0.0.1"},

		{`for=203.0.113.7;host="a,for=6.6.6.1"`, "203.0.113.7"},
		{`for=203.0.113.7;host="a\",for=6.6.6.1;x=\""`, "203.0.113.7"}, // Host: a",for=6.6.6.1;x="
		{`for=203.0.113.7;host="a\\\",for=6.6.6.1;x=\\"`, "203.0.113.7"},
		{`for=203.0.113.7;host=",for=6.6.6.1;x=\\"`, "203.0.113.7"},
		{`for=203.0.113.7;host="for=6.6.6.1"`, "203.0.113.7"},
		{`for=203.0.113.7;host=";for=6.6.6.1"`, "203.0.113.7"},
		{`for=203.0.113.7;host="` + "\xff\x80, \t" + `"`, "203.0.113.7"},
		{`for=203.0.113.7;host=""`, "203.0.113.7"},
		{`for=6.6.6.1;x="a, for=203.0.113.7;host="a,for=6.6.6.2;y="`, "203.0.113.7"}, // a quote that the client has opened
		{`for="6.6.6.1, for=203.0.113.7`, "203.0.113.7"},
		{`\", for=203.0.113.7`, "203.0.113.7"},
		{`for=203.0.113.7;x="\", for=10.0.0.2`, "10.0.0.2"},
		{`for=203.0.113.7, for=10.0.0.2;host="a,for=6.6.6.1"`, "203.0.113.7"},
		{`for=203.0.113.7;proto="x, for=6.6.6.1", for=10.0.0.2`, "203.0.113.7"},

		{`FOR=203.0.113.7; Host=a ;	proto=https`, "203.0.113.7"},
		{` for=203.0.113.7;;by=_x; `, "203.0.113.7"},
		{`for="203.0.113.7:80"`, "203.0.113.7"},
		{`for="20\3.0.113\.7"`, "203.0.113.7"},
		{`for="[2001:db8::7%eth0]:80"`, "2001:db8::/64"},
		{`for="[::ffff:203.0.113.7]"`, "203.0.113.7"},
		{`for="::ffff:203.0.113.7"`, "203.0.113.7"},

		{`for=203.0.113.7:80`, "10.0.0.1"}, // no token
		{`for=2001:db8::7`, "10.0.0.1"},
		{`for="[203.0.113.7]"`, "10.0.0.1"},
		{`for="203.0.113.7`, "10.0.0.1"},
		{`for=203.0.113.7"`, "10.0.0.1"},
		{`for="203.0.113.7"x`, "10.0.0.1"},
		{`for="203.0.113.7"";x=y`, "10.0.0.1"},
		{`for=x"203.0.113.7"`, "10.0.0.1"},
		{`for="203.0.113.7\"`, "10.0.0.1"},
		{`for=\"203.0.113.7"`, "10.0.0.1"},
		{`for= 203.0.113.7`, "10.0.0.1"},
		{`for =203.0.113.7`, "10.0.0.1"},
		{`for=" 203.0.113.7"`, "10.0.0.1"},
		{`for=203.0.113.7;x`, "10.0.0.1"},
		{`for=203.0.113.7;x=`, "10.0.0.1"},
		{`for=203.0.113.7;=x`, "10.0.0.1"},
		{`for=203.0.113.7;x=y=z`, "10.0.0.1"},
		{`for=203.0.113.7;x="a"b="c"`, "10.0.0.1"},
		{`for=203.0.113.7;x=` + "\x80", "10.0.0.1"},
		{`for=203.0.113.7;x="` + "\x00" + `"`, "10.0.0.1"},
		{`for=203.0.113.7;x="` + "\x7f" + `"`, "10.0.0.1"},
		{`for=203.0.113.7;FOR=203.0.113.7`, "10.0.0.1"},
		{`for=203.0.113.7;host=a;Host=b`, "10.0.0.1"},
		{`for=203.0.113.7` + strings.Repeat(";x=y", 2), "10.0.0.1"},
		{`for=203.0.113.7 for=203.0.113.8`, "10.0.0.1"},
		{"\u00a0for=203.0.113.7", "10.0.0.1"},
		{`for=203.0.113.7,`, "10.0.0.1"},
		{`for=203.0.113.7,, for=10.0.0.2`, "10.0.0.2"},
		{`for=203.0.113.7;x="a, for=10.0.0.3", for=10.0.0.2`, "203.0.113.7"},
		{`for=203.0.113.7;x=a", for=10.0.0.3;y="b, for=10.0.0.2`, "10.0.0.2"}, // whose quotes would pair up from the left
		{`for=6.6.6.1;x="a,for=6.6.6.2"b", for=10.0.0.2`, "10.0.0.2"},
	} {
		got, err := key(from("10.0.0.1:1", "Forwarded", c.line))
		require.NoError(t, err)
		assert.Equal(t, c.want, got, "%q", c.line)
	}
	many := "for=203.0.113.7"
	for i := range 15 {
		many += fmt.Sprintf(";x%d=y", i)
	}
	for line, want := range map[string]string{many: "203.0.113.7", many + ";z=y": "10.0.0.1"} {
		got, err := key(from("10.0.0.1:1", "Forwarded", line))
		require.NoError(t, err)
		assert.Equal(t, want, got, "%q", line)
	}
}

// An entry with nothing in it is no address, wherever a line ends: a proxy that knew no address may have written it, and
// what is left of it anybody.
func TestAnEmptyEntryEndsTheWalk(t *testing.T) {
	for _, header := range []string{"X-Forwarded-For", "Forwarded"} {
		key := behindProxies(t, header)
		entry := func(addr string) string {
			if header == "Forwarded" {
				return "for=" + addr
			}
			return addr
		}
		for _, c := range []struct {
			lines []string
			want  string
		}{
			{[]string{entry("203.0.113.7"), ""}, "10.0.0.1"},
			{[]string{entry("203.0.113.7"), " ", entry("10.0.0.2")}, "10.0.0.2"},
			{[]string{entry("203.0.113.7"), "", entry("10.0.0.2")}, "10.0.0.2"},
			{[]string{entry("203.0.113.7"), "," + entry("10.0.0.2")}, "10.0.0.2"},
			{[]string{entry("203.0.113.7"), " , " + entry("10.0.0.3") + ", " + entry("10.0.0.2")}, "10.0.0.3"},
			{[]string{entry("203.0.113.7"), entry("10.0.0.3") + ",\t," + entry("10.0.0.2")}, "10.0.0.2"},
			{[]string{entry("203.0.113.7"), entry("10.0.0.3"), entry("10.0.0.2")}, "203.0.113.7"},
		} {
			got, err := key(from("10.0.0.1:1", header, c.lines...))
			require.NoError(t, err)
			assert.Equal(t, c.want, got, "%q", c.lines)
		}
	}
}

// Whatever Host a client sends, and whatever it has written into the header, a proxy that quotes decides its key. Names of
// hosts have no quotes and no backslashes in them (RFC 3986); where a proxy checks that, it need not escape any.
func TestAClientCannotChooseItsKeyByWhatAProxyQuotes(t *testing.T) {
	key := behindProxies(t, "Forwarded")
	hostile := rapid.OneOf(
		rapid.String(), rapid.StringMatching(`[a-z0-9,;= .:\[\]"\\]{0,20}`),
		rapid.SampledFrom([]string{`a,for=6.6.6.1;x=`, `a",for=6.6.6.1;x="`, `a\`, `",for=6.6.6.1;x="\`, `,for="6.6.6.1`, `;for=6.6.6.1`}),
	)
	rapid.Check(t, func(t *rapid.T) {
		written := rapid.SliceOfN(rapid.OneOf(hostile, rapid.SampledFrom([]string{`for=6.6.6.1;x="`, `for=6.6.6.1;x="\`, `"`})), 0, 3).Draw(t, "written by the client")
		host := hostile.Draw(t, "host")
		quoted := quote(host)
		if !strings.ContainsAny(host, `"\`) && rapid.Bool().Draw(t, "checked") {
			quoted = `"` + printable(host) + `"`
		}
		client := rapid.SampledFrom([]string{"198.51.100.7", "[2001:db8:1:2::3]:4711"}).Draw(t, "client")
		pairs := rapid.Permutation([]string{"for=" + quote(client), "host=" + quoted, "proto=https"}).Draw(t, "pairs")
		lines := append(written, strings.Join(pairs, ";"))
		if n := len(written); n > 0 && rapid.Bool().Draw(t, "same line") {
			lines = append(written[:n-1:n-1], written[n-1]+", "+lines[n])
		}
		if rapid.Bool().Draw(t, "another proxy") {
			lines[len(lines)-1] += ", for=10.0.0.2;host=" + quoted
		}
		got, err := key(from("10.0.0.1:1", "Forwarded", lines...))
		require.NoError(t, err)
		want, err := key(from(client, "None"))
		require.NoError(t, err)
		require.Equal(t, want, got, "%q", lines)
	})
}

// quote writes what can be written as a quoted string.
func quote(s string) string {
	return `"` + regexp.MustCompile(`["\\]`).ReplaceAllString(printable(s), `\$0`) + `"`
}

// printable leaves out what cannot be in a header.
func printable(s string) string {
	return regexp.MustCompile(`[\x00-\x1f\x7f]`).ReplaceAllString(s, "")
}

// The parser that is compared with is that of RFC 7239 read from left to right, one production a function. Each gets what
// is left, and returns what is left after it; ok is false when what it is to read is not there.

type slowPair struct{ name, value string }

// slowElement reads [ forwarded-pair ] *( ";" [ forwarded-pair ] ), with spaces around it and around the semicolons.
func slowElement(s string) (pairs []slowPair, rest string, ok bool) {
	for {
		s = slowSpace(s)
		if s != "" && s[0] != ';' && s[0] != ',' {
			var pair slowPair
			if pair, s, ok = slowPairOf(s); !ok {
				return nil, "", false
			}
			pairs = append(pairs, pair)
			s = slowSpace(s)
		}
		if s == "" || s[0] != ';' {
			return pairs, s, true
		}
		s = s[1:]
	}
}

func slowSpace(s string) string {
	for s != "" && (s[0] == ' ' || s[0] == '\t') {
		s = s[1:]
	}
	return s
}

// slowPairOf reads token "=" value.
func slowPairOf(s string) (pair slowPair, rest string, ok bool) {
	pair.name, s = slowToken(s)
	if pair.name == "" || s == "" || s[0] != '=' {
		return pair, "", false
	}
	if s = s[1:]; s != "" && s[0] == '"' {
		pair.value, s, ok = slowQuoted(s[1:])
		return pair, s, ok
	}
	pair.value, s = slowToken(s)
	return pair, s, pair.value != ""
}

func slowToken(s string) (token, rest string) {
	const tchar = "!#$%&'*+-.^_`|~0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
	for rest = s; rest != "" && strings.Contains(tchar, rest[:1]); rest = rest[1:] {
		token += rest[:1]
	}
	return token, rest
}

// slowQuoted reads *( qdtext / quoted-pair ) DQUOTE.
func slowQuoted(s string) (value, rest string, ok bool) {
	text := func(b byte) bool { return b == '\t' || b >= ' ' && b != 0x7f }
	for s != "" {
		switch {
		case s[0] == '"':
			return value, s[1:], true
		case s[0] == '\\' && len(s) > 1 && text(s[1]):
			value, s = value+s[1:2], s[2:]
		case s[0] != '\\' && text(s[0]):
			value, s = value+s[:1], s[1:]
		default:
			return "", "", false
		}
	}
	return "", "", false
}

// slowAddr returns the address of an entry.
func slowAddr(pairs []slowPair) (addr netip.Addr, ok bool) {
	seen := make(map[string]bool)
	for _, p := range pairs {
		name := strings.ToLower(p.name)
		if seen[name] {
			return netip.Addr{}, false
		}
		seen[name] = true
		if name == "for" {
			if addr, ok = parseAddr(p.value); !ok {
				return netip.Addr{}, false
			}
		}
	}
	return addr, addr.IsValid() && len(pairs) <= 16
}

// slowEntries returns the entries of a line, when all of it is of RFC 7239's form.
func slowEntries(line string) (entries [][]slowPair, ok bool) {
	for {
		pairs, rest, ok := slowElement(line)
		if !ok {
			return nil, false
		}
		entries = append(entries, pairs)
		if rest == "" {
			return entries, true
		}
		if rest[0] != ',' {
			return nil, false
		}
		line = rest[1:]
	}
}

// slowLast finds the entry that a line ends with: what is behind one of its commas, or all of it, and is an entry.
func slowLast(t *testing.T, line string) (pairs []slowPair, rest string, more, ok bool) {
	for i := -1; i < len(line); i++ {
		if i >= 0 && line[i] != ',' {
			continue
		}
		if entries, is := slowEntries(line[i+1:]); is && len(entries) == 1 {
			require.False(t, ok, "two entries that %q could end with", line)
			pairs, rest, more, ok = entries[0], line[:max(i, 0)], i >= 0, true
		}
	}
	return pairs, rest, more, ok
}

// slowClient walks as ClientIP says that it does.
func slowClient(t *testing.T, peer netip.Addr, lines []string, trusts func(netip.Addr) bool) netip.Addr {
	for n := len(lines) - 1; n >= 0; n-- {
		for line, more := lines[n], true; more; {
			if !trusts(peer) {
				return peer
			}
			pairs, rest, before, ok := slowLast(t, line)
			if !ok {
				return peer
			}
			addr, ok := slowAddr(pairs)
			if !ok {
				return peer
			}
			peer, line, more = addr, rest, before
		}
	}
	return peer
}

// Whatever is sent, the key is the one that RFC 7239's grammar gives: entry by entry from the right, and where a whole line
// is of its form, by its entries as they are from the left.
func FuzzForwarded(f *testing.F) {
	for _, line := range []string{
		`for=203.0.113.7;host="a,for=6.6.6.1;x="`, `for=203.0.113.7;host=a,for=6.6.6.1;x=`, `for=6.6.6.1;x="a\", for="[2001:db8::1]:80"`,
		`for=10.0.0.3;x="a,b;c\"d\\", For="10.0.0.2";by=_x;HOST=a`, `for=1.2.3.4;for=1.2.3.4`, `for="1.2.3.4`, ",, ,", `for=10.0.0.2,`, "x=\"\xff\", for=10.0.0.2",
		`a="b="c"`, `a="b\"=";c="\\"`, `for=10.0.0.2;;;`,
	} {
		f.Add(line, `for=10.0.0.2;host="`+line+`"`)
		f.Add(line+", for=10.0.0.4", `for=10.0.0.2`)
	}
	trusted := networks(f, "10.0.0.0/8")
	f.Fuzz(func(t *testing.T, first, second string) {
		if len(first)+len(second) > 200 {
			t.Skip("slow is slow")
		}
		peer := netip.MustParseAddr("10.0.0.1")
		for _, trusts := range []func(netip.Addr) bool{trusted[0].Contains, func(netip.Addr) bool { return true }} {
			finder := ipFinder{trusted: trusted, last: lastForwarded}
			if trusts(netip.IPv6Unspecified()) {
				finder.trusted = networks(t, "0.0.0.0/0", "::/0")
			}
			lines := []string{first, second}
			got := finder.client(peer, lines)
			require.Equal(t, slowClient(t, peer, lines, trusts), got, "%q", lines)

			entries, ok := slowEntries(second)
			if !ok {
				continue
			}
			want := peer
			for i := len(entries) - 1; i >= 0 && trusts(want); i-- {
				addr, ok := slowAddr(entries[i])
				if !ok {
					break
				}
				want = addr
			}
			require.Equal(t, want, finder.client(peer, []string{second}), "%q", second)
		}
	})
}
