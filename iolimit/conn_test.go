package iolimit_test

import (
	"bytes"
	"errors"
	"io"
	"net"
	"os"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/peerlimit/peerlimit"
	"github.com/peerlimit/peerlimit/iolimit"
)

// pipe returns the two ends of a connection in memory, the first limited.
func pipe(t *testing.T, read, write iolimit.Bandwidth) (*iolimit.Conn, net.Conn) {
	t.Helper()
	here, there := net.Pipe()
	conn, err := iolimit.NewConn(here, read, write)
	require.NoError(t, err)
	t.Cleanup(func() {
		conn.Close()
		there.Close()
	})
	return conn, there
}

var noLimit iolimit.Bandwidth

func TestConnKeepsBothLimits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		down, up := newTally(t, peerlimit.PerSecond(1000).WithBurst(100)), newTally(t, peerlimit.PerSecond(100).WithBurst(100))
		conn, far := pipe(t, iolimit.Bandwidth{Taker: down, Key: "k"}, iolimit.Bandwidth{Taker: up, Key: "k"})
		began := time.Now()
		go func() { _, _ = far.Write(content(1100)) }()
		got := make([]byte, 1100)
		_, err := io.ReadFull(conn, got)
		require.NoError(t, err)
		sameBytes(t, content(1100), got)
		assert.InDelta(t, 1.0, time.Since(began).Seconds(), 0.01)

		arrived := make(chan []byte)
		go func() {
			p, _ := io.ReadAll(far)
			arrived <- p
		}()
		began = time.Now()
		_, err = conn.Write(content(300))
		require.NoError(t, err)
		assert.InDelta(t, 2.0, time.Since(began).Seconds(), 0.01)
		require.NoError(t, conn.Close())
		sameBytes(t, content(300), <-arrived)
		assert.InDelta(t, 300, up.net(), 1e-6)
		assert.InDelta(t, 1100, down.net(), 1e-6)
	})
}

func TestDeadlineEndsAWriteThatWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		bucket := newTally(t, peerlimit.PerSecond(100))
		conn, far := pipe(t, noLimit, iolimit.Bandwidth{Taker: bucket, Key: "k"})
		go func() { _, _ = io.Copy(io.Discard, far) }()
		began := time.Now()
		require.NoError(t, conn.SetDeadline(began.Add(1500*ms)))
		n, err := conn.Write(make([]byte, 1000))
		assert.Equal(t, 1500*ms, time.Since(began))
		isTimeout(t, err)
		assert.LessOrEqual(t, n, 250)
		assert.Positive(t, n)
		assert.InDelta(t, 250-n, bucket.Peek().Remaining, 1e-6, "nothing is lost: everything is passed, or back in the bucket")

		_, err = conn.Write([]byte("x"))
		isTimeout(t, err)
		require.NoError(t, conn.SetWriteDeadline(time.Time{}))
		_, err = conn.Write([]byte("x"))
		require.NoError(t, err)
	})
}

// isTimeout says what servers and clients look for when a deadline has come.
func isTimeout(t *testing.T, err error) {
	t.Helper()
	require.ErrorIs(t, err, os.ErrDeadlineExceeded)
	var timeout net.Error
	require.ErrorAs(t, err, &timeout)
	assert.True(t, timeout.Timeout())
}

// A deadline may be set, put off or brought forward while a call waits for it.
func TestDeadlineChangesWhileWaiting(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		bucket := newTally(t, peerlimit.PerSecond(1).WithBurst(1000))
		bucket.AllowN(1000)
		conn, _ := pipe(t, noLimit, iolimit.Bandwidth{Taker: bucket, Key: "k"})
		began := time.Now()
		done := make(chan error)
		go func() {
			_, err := conn.Write(make([]byte, 100))
			done <- err
		}()
		require.NoError(t, conn.SetDeadline(began.Add(2*time.Second)))
		time.Sleep(time.Second)
		require.NoError(t, conn.SetDeadline(began.Add(9*time.Second)))
		time.Sleep(time.Second)
		require.NoError(t, conn.SetDeadline(began.Add(5*time.Second)))
		isTimeout(t, <-done)
		assert.Equal(t, 5*time.Second, time.Since(began))

		go func() {
			_, err := conn.Write(make([]byte, 100))
			done <- err
		}()
		isTimeout(t, <-done)
		require.NoError(t, conn.SetDeadline(time.Time{}))
		go func() {
			_, err := conn.Write(make([]byte, 100))
			done <- err
		}()
		synctest.Wait()
		require.NoError(t, conn.SetDeadline(began))
		isTimeout(t, <-done)
		assert.Equal(t, 5*time.Second, time.Since(began), "a deadline that has passed ends waiting at once")
	})
}

// What was read when the deadline came is there afterwards, and so is what the source said with it.
func TestDeadlineLosesNothingThatWasRead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		bucket := newTally(t, peerlimit.PerSecond(100))
		bucket.AllowN(100)
		conn, far := pipe(t, iolimit.Bandwidth{Taker: bucket, Key: "k"}, noLimit)
		go func() {
			_, _ = far.Write(content(200))
			far.Close()
		}()
		var got bytes.Buffer
		timeouts := 0
		for {
			_ = conn.SetReadDeadline(time.Now().Add(700 * ms)) // fails below when the far end is closed; it counts here
			p := make([]byte, 150)
			n, err := conn.Read(p)
			got.Write(p[:n])
			assert.Equal(t, make([]byte, 150-n), p[n:], "no byte that was not paid for")
			if errors.Is(err, os.ErrDeadlineExceeded) {
				timeouts++
				time.Sleep(time.Second)
				continue
			}
			if err == io.EOF {
				break
			}
			require.NoError(t, err)
		}
		sameBytes(t, content(200), got.Bytes())
		assert.Positive(t, timeouts)
	})
}

func TestCloseEndsAConnThatWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		bucket := newTally(t, peerlimit.PerSecond(100))
		b := iolimit.Bandwidth{Taker: bucket, Key: "k"}
		conn, far := pipe(t, b, b)
		bucket.AllowN(100)
		began := time.Now()
		done := make(chan error, 3)
		go func() {
			_, err := conn.Write(make([]byte, 50))
			done <- err
		}()
		go func() {
			_, err := conn.Write(make([]byte, 50)) // behind the first
			done <- err
		}()
		go func() { _, _ = far.Write(make([]byte, 20)) }()
		go func() {
			_, err := conn.Read(make([]byte, 50))
			done <- err
		}()
		time.Sleep(100 * ms)
		require.NoError(t, conn.Close())
		for range 3 {
			assert.ErrorIs(t, <-done, net.ErrClosed)
		}
		assert.Equal(t, 100*ms, time.Since(began))
		assert.InDelta(t, 10, bucket.Peek().Remaining, 1e-6, "all turns were given up")
		_, err := conn.Write([]byte("x"))
		assert.ErrorIs(t, err, net.ErrClosed)
		_, err = conn.Read(make([]byte, 1))
		assert.ErrorIs(t, err, net.ErrClosed)
	})
}

// A write that is blocked below when the connection is closed gives back what it had paid for.
func TestCloseGivesBackWhatWasNotWritten(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		bucket := newTally(t, peerlimit.PerHour(1e6))
		conn, far := pipe(t, noLimit, iolimit.Bandwidth{Taker: bucket, Key: "k"})
		done := make(chan int)
		go func() {
			n, _ := conn.Write(make([]byte, 3000))
			done <- n
		}()
		_, err := io.ReadFull(far, make([]byte, 1000))
		require.NoError(t, err)
		synctest.Wait()
		require.NoError(t, conn.Close())
		n := <-done
		assert.Equal(t, 1000, n)
		assert.EqualValues(t, 1000, bucket.net())
	})
}

// Writes of several goroutines do not come apart, as those of a TCP connection do not.
func TestConcurrentWritesStayWhole(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		bucket := newTally(t, peerlimit.PerSecond(100_000).WithBurst(1000)) // so that each piece has to wait
		conn, far := pipe(t, noLimit, iolimit.Bandwidth{Taker: bucket, Key: "k"})
		const size = 20_000
		for i := range 5 {
			go func() {
				_, err := conn.Write(bytes.Repeat([]byte{byte('a' + i)}, size))
				assert.NoError(t, err)
			}()
		}
		for range 5 {
			message := make([]byte, size)
			_, err := io.ReadFull(far, message)
			require.NoError(t, err)
			assert.Equal(t, size, bytes.Count(message, message[:1]))
		}
		synctest.Wait()
	})
}

func TestConnOverTCP(t *testing.T) {
	bucket := newTally(t, peerlimit.PerSecond(50e6))
	b := iolimit.Bandwidth{Taker: bucket, Key: "k"}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer listener.Close()
	sent := content(1 << 20)
	failed := make(chan error, 1)
	go func() {
		failed <- func() error {
			accepted, err := listener.Accept()
			if err != nil {
				return err
			}
			conn, err := iolimit.NewConn(accepted, noLimit, b)
			if err != nil {
				return err
			}
			defer conn.Close()
			if _, err := conn.Write(sent); err != nil {
				return err
			}
			return conn.CloseWrite()
		}()
	}()
	dialled, err := net.Dial("tcp", listener.Addr().String())
	require.NoError(t, err)
	conn, err := iolimit.NewConn(dialled, b, noLimit)
	require.NoError(t, err)
	got, err := io.ReadAll(conn)
	require.NoError(t, err)
	require.NoError(t, <-failed)
	sameBytes(t, sent, got)
	require.NoError(t, conn.SetReadDeadline(time.Now().Add(-time.Second)))
	_, err = conn.Read(make([]byte, 1))
	isTimeout(t, err)
	require.NoError(t, conn.Close())
	assert.EqualValues(t, 2<<20, bucket.net())
}

func TestConnRefusesWhatItCannotLimit(t *testing.T) {
	packets, err := net.ListenPacket("udp", "127.0.0.1:0")
	require.NoError(t, err)
	defer packets.Close()
	datagrams, err := net.Dial("udp", packets.LocalAddr().String())
	require.NoError(t, err)
	defer datagrams.Close()
	_, err = iolimit.NewConn(datagrams, noLimit, noLimit)
	assert.ErrorIs(t, err, iolimit.ErrInvalid)
	assert.ErrorContains(t, err, `"udp"`)

	_, err = iolimit.NewConn(nil, noLimit, noLimit)
	assert.ErrorIs(t, err, iolimit.ErrInvalid)

	here, there := net.Pipe()
	defer here.Close()
	defer there.Close()
	_, err = iolimit.NewConn(here, iolimit.Bandwidth{Key: "k"}, noLimit)
	assert.ErrorIs(t, err, iolimit.ErrInvalid)
	assert.ErrorContains(t, err, "to read")
	_, err = iolimit.NewConn(here, noLimit, iolimit.Bandwidth{Key: "k"})
	assert.ErrorContains(t, err, "to write")
	conn, err := iolimit.NewConn(here, noLimit, noLimit)
	require.NoError(t, err)
	assert.ErrorIs(t, conn.CloseWrite(), errors.ErrUnsupported)
}
