package grpclimit_test

import (
	"context"
	"errors"
	"net"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/peer"

	"github.com/peerlimit/peerlimit/grpclimit"
)

func TestPeerIP(t *testing.T) {
	for want, addr := range map[string]net.Addr{
		"192.0.2.7":          &net.TCPAddr{IP: net.ParseIP("192.0.2.7"), Port: 5},
		"192.0.2.8":          &net.TCPAddr{IP: net.ParseIP("::ffff:192.0.2.8"), Port: 5},
		"2001:db8:1:2::/64":  &net.TCPAddr{IP: net.ParseIP("2001:db8:1:2:3:4:5:6"), Port: 5},
		"2001:db8:0:1::/64":  &net.TCPAddr{IP: net.ParseIP("2001:db8:0:1::9"), Port: 5},
		"fe80::/64":          &net.TCPAddr{IP: net.ParseIP("fe80::1"), Zone: "eth0", Port: 5},
		"192.0.2.9":          &net.IPAddr{IP: net.ParseIP("192.0.2.9")},
		"2001:db8:ffff::/64": &net.IPAddr{IP: net.ParseIP("2001:db8:ffff::2")},
		"":                   &net.UnixAddr{Name: "/run/x.sock", Net: "unix"},
	} {
		key, err := grpclimit.PeerIP(peer.NewContext(t.Context(), &peer.Peer{Addr: addr}), grpclimit.Call{})
		assert.Equal(t, want, key)
		assert.Equal(t, want == "", errors.Is(err, grpclimit.ErrNoKey), "%v", err)
	}
	for _, ctx := range []context.Context{t.Context(), peer.NewContext(t.Context(), &peer.Peer{})} {
		_, err := grpclimit.PeerIP(ctx, grpclimit.Call{})
		assert.ErrorIs(t, err, grpclimit.ErrNoKey)
	}
}

func TestMetadataOfClients(t *testing.T) {
	key := grpclimit.Metadata("Tenant")
	ctx := metadata.AppendToOutgoingContext(t.Context(), "tenant", "a", "tenant", "b")
	got, err := key(ctx, grpclimit.Call{Client: true})
	require.NoError(t, err)
	assert.Equal(t, "a", got)
	_, err = key(ctx, grpclimit.Call{})
	assert.ErrorIs(t, err, grpclimit.ErrNoKey, "what a server's own calls send is not what it was sent")
	_, err = key(metadata.AppendToOutgoingContext(t.Context(), "tenant", ""), grpclimit.Call{Client: true})
	assert.ErrorIs(t, err, grpclimit.ErrNoKey)
	_, err = grpclimit.Target(ctx, grpclimit.Call{})
	assert.ErrorIs(t, err, grpclimit.ErrNoKey)
}

func TestJoinedKeysAreUnambiguous(t *testing.T) {
	fixed := func(s string) grpclimit.KeyFunc {
		return func(context.Context, grpclimit.Call) (string, error) { return s, nil }
	}
	join := func(parts []string) string {
		functions := make([]grpclimit.KeyFunc, len(parts))
		for i, part := range parts {
			functions[i] = fixed(part)
		}
		key, err := grpclimit.Join(functions...)(t.Context(), grpclimit.Call{})
		require.NoError(t, err)
		return key
	}
	parts := []string{""} // all of up to three characters
	for i := 0; len(parts) < 1+3+9+27; i++ {
		parts = append(parts, parts[i]+"a", parts[i]+"|", parts[i]+`\`)
	}
	made := make(map[string][]string)
	for _, one := range parts {
		for _, other := range parts {
			key := join([]string{one, other})
			require.Nil(t, made[key], "%q is also that of %q", key, []string{one, other})
			made[key] = []string{one, other}
		}
	}
	_, err := grpclimit.Join()(t.Context(), grpclimit.Call{})
	assert.ErrorContains(t, err, "no parts")
	_, err = grpclimit.Join(grpclimit.Method, grpclimit.Target)(t.Context(), grpclimit.Call{})
	assert.ErrorIs(t, err, grpclimit.ErrNoKey)
}
