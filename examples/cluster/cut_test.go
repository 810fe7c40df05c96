package main

import (
	"context"
	"io"
	"net"
	"os"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// echo returns the address of a server that sends back what it gets.
func echo(t *testing.T) string {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	t.Cleanup(func() { _ = listener.Close() })
	go func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			go func() {
				defer conn.Close()
				_, _ = io.Copy(conn, conn)
			}()
		}
	}()
	return listener.Addr().String()
}

func TestCutStreamIsSilentAndEndsWhenTheNetworkIsWhole(t *testing.T) {
	network, addr := newCuttable(), echo(t)
	conn, err := network.Dial(t.Context(), addr)
	require.NoError(t, err)
	defer conn.Close()
	said := func() error {
		require.NoError(t, conn.SetDeadline(time.Now().Add(100*time.Millisecond)))
		if _, err := conn.Write([]byte("?")); err != nil {
			return err
		}
		_, err := io.ReadFull(conn, make([]byte, 1))
		return err
	}
	require.NoError(t, said())
	network.cut([]string{addr})
	require.ErrorIs(t, said(), os.ErrDeadlineExceeded)
	network.cut(nil)
	_, err = conn.Read(make([]byte, 1))
	require.ErrorIs(t, err, net.ErrClosed)
}

func TestDialWaitsForANetworkThatIsWhole(t *testing.T) {
	network, addr := newCuttable(), echo(t)
	network.cut([]string{addr})
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	_, err := network.Dial(ctx, addr)
	require.ErrorIs(t, err, context.DeadlineExceeded)

	dialled := make(chan error)
	go func() {
		conn, err := network.Dial(t.Context(), addr)
		if err == nil {
			err = conn.Close()
		}
		dialled <- err
	}()
	network.cut(nil)
	require.NoError(t, <-dialled)
}

func TestPacketsToWhoIsCutOffAreLost(t *testing.T) {
	network := newCuttable()
	from, err := network.ListenPacket("127.0.0.1:0")
	require.NoError(t, err)
	defer from.Close()
	to, err := net.ListenPacket("udp", "127.0.0.1:0")
	require.NoError(t, err)
	defer to.Close()
	network.cut([]string{to.LocalAddr().String()})
	n, err := from.WriteTo([]byte("lost"), to.LocalAddr())
	require.NoError(t, err)
	assert.Equal(t, 4, n)
	network.cut(nil)
	_, err = from.WriteTo([]byte("here"), to.LocalAddr())
	require.NoError(t, err)
	b := make([]byte, 9)
	require.NoError(t, to.SetReadDeadline(time.Now().Add(time.Minute)))
	n, _, err = to.ReadFrom(b)
	require.NoError(t, err)
	assert.Equal(t, "here", string(b[:n]))
}
