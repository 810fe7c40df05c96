package source

import (
	"net"
	"testing"

	"github.com/stretchr/testify/assert"
)

func TestOf(t *testing.T) {
	tcp := func(ip string, port int) net.Addr { return &net.TCPAddr{IP: net.ParseIP(ip), Port: port, Zone: ""} }
	for _, c := range []struct {
		addr net.Addr
		want string
	}{
		{tcp("10.0.0.1", 7), "10.0.0.1/32"},
		{tcp("::ffff:10.0.0.1", 8), "10.0.0.1/32"},
		{tcp("2001:db8:1:2:3:4:5:6", 9), "2001:db8:1:2::/64"},
		{&net.UDPAddr{IP: net.ParseIP("fe80::1"), Port: 1, Zone: "eth0"}, "fe80::/64"},
		{&net.UnixAddr{Name: "@", Net: "unix"}, "invalid Prefix"},
	} {
		assert.Equal(t, c.want, Of(c.addr).String())
	}
}
