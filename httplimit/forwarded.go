package httplimit

import (
	"net/netip"
	"strings"
)

// A line of Forwarded (RFC 7239) is read from its end, because that is where a trusted proxy has written. An entry is read
// whole before it is believed: name=value pairs between semicolons, a value being a token or a quoted string. What a client
// gets a proxy to write, such as the Host of its request, is inside of a value then, whatever commas and semicolons it has;
// and what a client has written before the entry, such as a quote that nothing closes, is not looked at.
//
// Read from the end, a quoted string is as certain as from its beginning: a quote inside of it has an odd number of
// backslashes before it, and the one that opens it has none, because it follows a "=".

// maxPairs is how many pairs an entry may have: RFC 7239 knows four. Each is compared with the others.
const maxPairs = 16

// lastForwarded splits the last entry off a line of Forwarded and returns the address of its "for". It is not ok when the
// entry is not of RFC 7239's form, has a name twice, or has no address; spaces around semicolons are let pass. more
// reports whether there is another entry before it, which then is what rest ends with.
func lastForwarded(line string) (rest string, more bool, addr netip.Addr, ok bool) {
	var names [maxPairs]string
	pairs := 0
	rest = line
	for {
		rest = strings.TrimRight(rest, optionalSpace)
		if rest != "" && rest[len(rest)-1] != ';' && rest[len(rest)-1] != ',' { // pairs may be empty
			var name, value string
			if rest, name, value, ok = cutPair(rest); !ok || pairs == maxPairs || contains(names[:pairs], name) {
				return "", false, netip.Addr{}, false
			}
			names[pairs], pairs = name, pairs+1
			if strings.EqualFold(name, "for") {
				if addr, ok = parseAddr(value); !ok {
					return "", false, netip.Addr{}, false
				}
			}
			rest = strings.TrimRight(rest, optionalSpace)
		}
		switch {
		case rest == "":
			return "", false, addr, addr.IsValid()
		case rest[len(rest)-1] == ',':
			return rest[:len(rest)-1], true, addr, addr.IsValid()
		case rest[len(rest)-1] != ';':
			return "", false, netip.Addr{}, false
		}
		rest = rest[:len(rest)-1]
	}
}

// contains reports whether a name is among others, in whatever case.
func contains(names []string, name string) bool {
	for _, other := range names {
		if strings.EqualFold(other, name) {
			return true
		}
	}
	return false
}

// cutPair splits name=value off the end of s.
func cutPair(s string) (rest, name, value string, ok bool) {
	if s[len(s)-1] == '"' {
		s, value, ok = cutQuoted(s)
	} else {
		s, value = cutToken(s)
		ok = value != ""
	}
	if !ok || s == "" || s[len(s)-1] != '=' {
		return "", "", "", false
	}
	rest, name = cutToken(s[:len(s)-1])
	return rest, name, value, name != ""
}

// cutToken splits the longest token off the end of s; it may be empty.
func cutToken(s string) (rest, token string) {
	i := len(s)
	for i > 0 && isTokenByte(s[i-1]) {
		i--
	}
	return s[:i], s[i:]
}

// isTokenByte reports whether a byte may be part of a token (RFC 9110, 5.6.2).
func isTokenByte(b byte) bool {
	return 'a' <= b && b <= 'z' || 'A' <= b && b <= 'Z' || '0' <= b && b <= '9' || b != 0 && strings.IndexByte("!#$%&'*+-.^_`|~", b) >= 0
}

// cutQuoted splits a quoted string (RFC 9110, 5.6.4) off the end of s, which ends with a quote, and returns what is in it.
func cutQuoted(s string) (rest, value string, ok bool) {
	end := len(s) - 1
	if backslashes(s[:end])%2 == 1 {
		return "", "", false // that quote closes nothing
	}
	for i := end - 1; i >= 0; i-- {
		switch b := s[i]; {
		case b == '"' && backslashes(s[:i])%2 == 0:
			return s[:i], unescape(s[i+1 : end]), true
		case b == '"':
			i -= backslashes(s[:i])
		case b < ' ' && b != '\t', b == 0x7f:
			return "", "", false
		}
	}
	return "", "", false
}

// backslashes returns how many of them s ends with.
func backslashes(s string) int { return len(s) - len(strings.TrimRight(s, `\`)) }

// unescape takes the backslashes off the bytes that follow them.
func unescape(s string) string {
	if strings.IndexByte(s, '\\') < 0 {
		return s
	}
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		if s[i] == '\\' {
			i++ // there is another byte: the last one is not a backslash by itself
		}
		b.WriteByte(s[i])
	}
	return b.String()
}
