package httplimit

import (
	"fmt"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

// networks are written as users write them.
func networks(t require.TestingT, written ...string) (prefixes []netip.Prefix) {
	for _, s := range written {
		p, err := netip.ParsePrefix(s)
		require.NoError(t, err)
		prefixes = append(prefixes, p)
	}
	return prefixes
}

// from is a request as a server sees it.
func from(peer, header string, lines ...string) *http.Request {
	return &http.Request{RemoteAddr: peer, Header: http.Header{header: lines}}
}

func TestClientIPWithoutProxies(t *testing.T) {
	for _, c := range []struct {
		bits      int
		peer, key string
	}{
		{0, "192.0.2.1:50000", "192.0.2.1"},
		{0, "[::ffff:192.0.2.1]:50000", "192.0.2.1"},
		{0, "[2001:db8:1:2:3:4:5:6]:50000", "2001:db8:1:2::/64"},
		{56, "[2001:db8:1:2ff:3:4:5:6]:50000", "2001:db8:1:200::/56"},
		{128, "[2001:db8::1]:50000", "2001:db8::1"},
		{128, "192.0.2.1:50000", "192.0.2.1"},
		{0, "[fe80::1%eth0]:50000", "fe80::/64"},
		{1, "[ff00::1]:50000", "8000::/1"},
		{0, "192.0.2.1", "192.0.2.1"}, // as some tests of handlers have it
	} {
		key, err := ClientIP(IPOptions{IPv6Prefix: c.bits})
		require.NoError(t, err)
		got, err := key(from(c.peer, "X-Forwarded-For", "198.51.100.7"))
		require.NoError(t, err)
		assert.Equal(t, c.key, got)
	}
	key, err := ClientIP(IPOptions{})
	require.NoError(t, err)
	for _, peer := range []string{"", "@", "localhost:80", "192.0.2.1:", "192.0.2.256:1", "[::1"} {
		_, err := key(from(peer, "X-Forwarded-For", "198.51.100.7"))
		assert.ErrorContains(t, err, fmt.Sprintf("RemoteAddr is %q", peer))
		assert.NotErrorIs(t, err, ErrNoKey, "the client has left out nothing")
	}
}

func TestClientIPBehindProxies(t *testing.T) {
	trusted := networks(t, "10.0.0.0/8", "::ffff:172.16.0.0/108", "2001:db8:ff::/48")
	xff, err := ClientIP(IPOptions{TrustedProxies: trusted})
	require.NoError(t, err)
	forwarded, err := ClientIP(IPOptions{TrustedProxies: trusted, Header: "forwarded"})
	require.NoError(t, err)
	for _, c := range []struct {
		name  string
		peer  string
		lines []string
		key   string
	}{
		{"not from a proxy", "192.0.2.1:1", []string{"198.51.100.7"}, "192.0.2.1"},
		{"from a proxy", "10.0.0.1:1", []string{"198.51.100.7"}, "198.51.100.7"},
		{"a proxy as IPv4 in IPv6", "[::ffff:10.0.0.1]:1", []string{"198.51.100.7"}, "198.51.100.7"},
		{"trusted as IPv4 in IPv6", "172.16.3.4:1", []string{"198.51.100.7"}, "198.51.100.7"},
		{"a proxy with IPv6", "[2001:db8:ff::1]:1", []string{"2001:db8:1:2:3::4"}, "2001:db8:1:2::/64"},
		{"what the client has written", "10.0.0.1:1", []string{"203.0.113.9, 198.51.100.7"}, "198.51.100.7"},
		{"in a line of its own", "10.0.0.1:1", []string{"203.0.113.9", "198.51.100.7"}, "198.51.100.7"},
		{"over two proxies", "10.0.0.1:1", []string{"203.0.113.9, 198.51.100.7 , 10.0.0.2"}, "198.51.100.7"},
		{"over lines", "10.0.0.1:1", []string{"203.0.113.9", "198.51.100.7", "10.0.0.2,10.0.0.3"}, "198.51.100.7"},
		{"no header", "10.0.0.1:1", nil, "10.0.0.1"},
		{"an empty header", "10.0.0.1:1", []string{""}, "10.0.0.1"},
		{"only proxies", "10.0.0.1:1", []string{"10.0.0.3, 10.0.0.2"}, "10.0.0.3"},
		{"no address", "10.0.0.1:1", []string{"unknown"}, "10.0.0.1"},
		{"no address behind a proxy", "10.0.0.1:1", []string{"203.0.113.9, nonsense, 10.0.0.2"}, "10.0.0.2"},
		{"an empty entry", "10.0.0.1:1", []string{"203.0.113.9,"}, "10.0.0.1"},
		{"a port", "10.0.0.1:1", []string{"198.51.100.7:4711"}, "198.51.100.7"},
		{"brackets", "10.0.0.1:1", []string{"[2001:db8:1:2::3]"}, "2001:db8:1:2::/64"},
		{"brackets and a port", "10.0.0.1:1", []string{"[2001:db8:1:2::3]:4711"}, "2001:db8:1:2::/64"},
		{"a zone", "10.0.0.1:1", []string{"fe80::1%x"}, "fe80::/64"},
		{"IPv4 in IPv6", "10.0.0.1:1", []string{"::ffff:198.51.100.7"}, "198.51.100.7"},
	} {
		t.Run(c.name, func(t *testing.T) {
			key, err := xff(from(c.peer, "X-Forwarded-For", c.lines...))
			require.NoError(t, err)
			assert.Equal(t, c.key, key)

			key, err = forwarded(from(c.peer, "Forwarded", asForwarded(c.lines)...))
			require.NoError(t, err)
			assert.Equal(t, c.key, key, "%q", asForwarded(c.lines))

			for _, unread := range []*http.Request{from(c.peer, "Forwarded", asForwarded(c.lines)...), from(c.peer, "X-Real-Ip", c.lines...)} {
				key, err := xff(unread)
				require.NoError(t, err)
				peer, _ := parseAddr(c.peer)
				assert.Contains(t, []string{peer.String(), netip.PrefixFrom(peer, 32).Masked().String(), "2001:db8:ff::/64"}, key)
			}
		})
	}
}

// asForwarded writes the entries of X-Forwarded-For as those of Forwarded.
func asForwarded(lines []string) (forwarded []string) {
	for _, line := range lines {
		var entries []string
		for entry := range strings.SplitSeq(line, ",") {
			entries = append(entries, fmt.Sprintf(`proto=https;For=%q; by=_x`, strings.TrimSpace(entry)))
		}
		forwarded = append(forwarded, strings.Join(entries, ", "))
	}
	return forwarded
}

func TestForwardedAsItIsWritten(t *testing.T) {
	key, err := ClientIP(IPOptions{TrustedProxies: networks(t, "10.0.0.0/8"), Header: "Forwarded"})
	require.NoError(t, err)
	for line, want := range map[string]string{
		`for=192.0.2.60;proto=http;by=203.0.113.43`:       "192.0.2.60",
		`for="[2001:db8:cafe::17]:4711"`:                  "2001:db8:cafe::/64",
		`FOR=192.0.2.43, For="198.51.100.17"`:             "198.51.100.17",
		`for=192.0.2.43,for=unknown`:                      "10.0.0.1",
		`for=192.0.2.43,for=_hidden`:                      "10.0.0.1",
		`for=192.0.2.43,proto=https`:                      "10.0.0.1",
		`for=192.0.2.43;for=192.0.2.44`:                   "10.0.0.1",
		`for="192.0.2.43`:                                 "10.0.0.1",
		`for="evil, for=198.51.100.17`:                    "198.51.100.17",
		`for=203.0.113.9;ext="a, for=10.9.9.9", for="::"`: "::/64",
	} {
		got, err := key(from("10.0.0.1:1", "Forwarded", line))
		require.NoError(t, err)
		assert.Equal(t, want, got, line)
	}
}

func TestClientIPRefusesBadOptions(t *testing.T) {
	mixed := netip.PrefixFrom(netip.MustParseAddr("::ffff:10.0.0.0"), 64)
	for _, c := range []struct {
		options IPOptions
		says    string
	}{
		{IPOptions{TrustedProxies: []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8"), {}}}, "TrustedProxies[1] is invalid Prefix"},
		{IPOptions{TrustedProxies: []netip.Prefix{mixed}}, "TrustedProxies[0] is ::ffff:10.0.0.0/64"},
		{IPOptions{IPv6Prefix: -1}, "IPv6Prefix is -1"},
		{IPOptions{IPv6Prefix: 129}, "IPv6Prefix is 129"},
		{IPOptions{TrustedProxies: networks(t, "10.0.0.0/8"), Header: "X-Real-IP"}, `Header is "X-Real-IP"`},
		{IPOptions{Header: "Forwarded"}, `Header is "Forwarded" and there are no TrustedProxies`},
	} {
		key, err := ClientIP(c.options)
		assert.ErrorIs(t, err, ErrInvalid)
		assert.ErrorContains(t, err, "httplimit: invalid: "+c.says)
		assert.NotContains(t, err.Error(), "\n")
		assert.Nil(t, key)
	}
}

// Whatever a client writes, and however many trusted proxies it is behind, its key is that of its address.
func TestAClientCannotChooseItsKey(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		header := rapid.SampledFrom([]string{"X-Forwarded-For", "Forwarded"}).Draw(t, "header")
		key, err := ClientIP(IPOptions{TrustedProxies: networks(t, "10.0.0.0/8"), Header: header})
		require.NoError(t, err)
		written := rapid.SliceOfN(rapid.OneOf(
			rapid.String(), rapid.StringMatching(`(for="?)?[0-9.:\[\]", =;a-f]{0,30}`), rapid.SampledFrom([]string{"10.0.0.1", "for=10.0.0.1", `for="`, ","}),
		), 0, 4).Draw(t, "written by the client")
		client := rapid.SampledFrom([]string{"198.51.100.7", "[2001:db8:1:2::3]:4711", "192.0.2.1:50000"}).Draw(t, "client")
		proxies := rapid.SliceOfN(rapid.SampledFrom([]string{"10.0.0.2", "10.0.0.3:80", "[::ffff:10.0.0.4]:80"}), 1, 4).Draw(t, "proxies")

		// Each proxy appends the address that it has heard from, to the last line or in a new one.
		r := from(proxies[len(proxies)-1], header, slices.Clone(written)...)
		for i := range proxies {
			entry := client
			if i > 0 {
				entry = proxies[i-1]
			}
			if header == "Forwarded" {
				entry = fmt.Sprintf("for=%q;proto=https", entry)
			}
			lines := r.Header[header]
			if n := len(lines); n > 0 && rapid.Bool().Draw(t, "same line") {
				lines[n-1] += ", " + entry
			} else {
				r.Header[header] = append(lines, entry)
			}
		}
		got, err := key(r)
		require.NoError(t, err)
		want, err := key(from(client, "None"))
		require.NoError(t, err)
		require.Equal(t, want, got, "%q", r.Header)
	})
}

// Whatever is sent, the key is an address or a network in its one canonical form.
func FuzzClientIP(f *testing.F) {
	for _, line := range []string{
		"", "198.51.100.7", "203.0.113.9, 10.0.0.2", "[2001:db8::1]:80", `for="[2001:db8::1]:80";by=x, for=10.0.0.1`, "::ffff:1.2.3.4%z", ",,,",
	} {
		f.Add("10.0.0.1:1", line, line)
		f.Add(line, "198.51.100.7", line)
	}
	trusted := networks(f, "10.0.0.0/8", "::/0")
	f.Fuzz(func(t *testing.T, peer, first, second string) {
		for _, header := range []string{"X-Forwarded-For", "Forwarded"} {
			key, err := ClientIP(IPOptions{TrustedProxies: trusted, Header: header})
			require.NoError(t, err)
			got, err := key(from(peer, header, first, second))
			if _, valid := parseAddr(peer); !valid {
				require.Error(t, err)
				continue
			}
			require.NoError(t, err)
			if prefix, err := netip.ParsePrefix(got); err == nil {
				require.Equal(t, 64, prefix.Bits())
				require.True(t, prefix.Addr().Is6() && !prefix.Addr().Is4In6())
				require.Equal(t, prefix.Masked().String(), got)
				continue
			}
			addr, err := netip.ParseAddr(got)
			require.NoError(t, err)
			require.True(t, addr.Is4())
			require.Equal(t, addr.String(), got)
		}
	})
}
