package peerlimit

import (
	"errors"
	"fmt"
	"net/netip"
	"testing"

	"github.com/peerlimit/peerlimit/internal/membership"
	"github.com/stretchr/testify/assert"
)

func TestMemberStateNames(t *testing.T) {
	assert.Equal(t, "alive suspect leaving lost MemberState(4)",
		fmt.Sprint(MemberAlive, MemberSuspect, MemberLeaving, MemberLost, MemberState(4)))
	var zero Member
	assert.Equal(t, MemberAlive, zero.State)
}

// What a membership knows of a member is what users see of it, state by state.
func TestMembersAreAsTheMembershipKnowsThem(t *testing.T) {
	for inner, want := range map[membership.State]MemberState{
		membership.Alive: MemberAlive, membership.Suspect: MemberSuspect, membership.Leaving: MemberLeaving, membership.Failed: MemberLost,
	} {
		got := memberFrom(membership.Info{
			Name: "n-1", Gossip: netip.MustParseAddrPort("10.0.0.1:7946"), RPC: netip.MustParseAddrPort("[::1]:80"), State: inner, Self: true,
		})
		assert.Equal(t, Member{Name: "n-1", Addr: "10.0.0.1:7946", RPCAddr: "[::1]:80", State: want, Self: true}, got)
	}
	assert.Equal(t, Member{Name: "n-1"}, memberFrom(membership.Info{Name: "n-1"}), "nobody has said where it is")
}

func TestErrorsOfTheMembershipCanBeTestedFor(t *testing.T) {
	assert.NoError(t, membershipError(nil))
	assert.ErrorIs(t, membershipError(fmt.Errorf("x: %w", membership.ErrClosed)), ErrClosed)
	other := errors.New("other")
	assert.Equal(t, other, membershipError(other))

	_, err := Start(Config{BindAddr: "[::]:0", Insecure: true}) // real sockets tell no address to advertise for IPv6
	assert.ErrorIs(t, err, ErrInvalidConfig)
	assert.ErrorContains(t, err, `AdvertiseAddr is empty and BindAddr is "[::]:0"; it must be the address that other nodes reach`)
}
