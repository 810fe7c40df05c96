package main

import (
	"io"
	"net"
	"os"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// What goes over a connection is counted to the byte, once each way.
func TestTraffic(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer l.Close()
	there, err := net.Dial("tcp", l.Addr().String())
	require.NoError(t, err)
	defer there.Close()
	here, err := l.Accept()
	require.NoError(t, err)
	defer here.Close()
	before, err := trafficOf([]int{os.Getpid()})
	if err != nil {
		t.Skipf("the kernel does not tell: %v", err)
	}
	for range 10 {
		exchange(t, there, here, 100)
		exchange(t, here, there, 7)
	}
	after, err := trafficOf([]int{os.Getpid()})
	require.NoError(t, err)
	w := after.since(before)
	assert.EqualValues(t, 1000, w.Out)
	assert.EqualValues(t, 70, w.Back)
	assert.EqualValues(t, 1070, w.All)
}

func exchange(t *testing.T, from, to net.Conn, length int) {
	t.Helper()
	_, err := from.Write(make([]byte, length))
	require.NoError(t, err)
	_, err = io.ReadFull(to, make([]byte, length))
	require.NoError(t, err)
}

func TestProcessorTime(t *testing.T) {
	used, err := processorTime(os.Getpid())
	require.NoError(t, err)
	assert.GreaterOrEqual(t, used.Nanoseconds(), int64(0))
	_, err = processorTime(-1)
	assert.Error(t, err)
}
