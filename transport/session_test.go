package transport

import (
	"io"
	"math"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// newTestSession is a session that nobody reads or writes, with a clock by hand.
func newTestSession(t *testing.T) (s *session, now *int64) {
	client := NewClient(ClientConfig{})
	t.Cleanup(func() { client.Close() })
	conn := &memConn{in: newMemStream(1 << 20), out: newMemStream(1 << 20)}
	s = newSession(conn, conn, Version, client, newLinkErrors("peer"))
	now = new(int64)
	s.clock = func() int64 { return *now }
	return s, now
}

// A call that meets a session that has just ended was not sent.
func TestCallOnEndedSession(t *testing.T) {
	s, _ := newTestSession(t)
	s.fail(io.EOF)
	s.fail(ErrClosed) // too late to matter
	_, err := s.call(t.Context(), nil, nil, time.Second)
	require.ErrorIs(t, err, ErrUnreachable)
	assert.NotErrorIs(t, err, ErrBroken)
	require.ErrorIs(t, s.post(nil), ErrUnreachable)
	assert.Equal(t, health{next: never}, s.check())

	s, _ = newTestSession(t)
	s.fail(ErrClosed)
	_, err = s.call(t.Context(), nil, nil, time.Second)
	require.ErrorIs(t, err, ErrClosed)
}

func TestCheckAsksSilentPeer(t *testing.T) {
	s, now := newTestSession(t)
	require.NoError(t, s.post([]byte("x")))
	queued := len(s.queue)

	*now = int64(DefaultPingInterval/2) - 1
	found := s.check()
	assert.Len(t, s.queue, queued, "too early to ask")
	*now = max(found.next, *now+1)
	s.check()
	assert.Len(t, s.queue, queued+headerSize, "one ping")
	s.check()
	assert.Len(t, s.queue, queued+headerSize, "not another one at once")

	s.heard()
	found = s.check()
	assert.EqualValues(t, never, found.next, "nothing to wait for once the peer has answered")
}

// After this process was stopped for a minute the responses may be there, unread.
func TestCheckDoesNotTakeOwnPauseForSilence(t *testing.T) {
	s, now := newTestSession(t)
	require.NoError(t, s.post(nil))
	*now += int64(time.Minute)
	for range DefaultLostAfter / DefaultPingInterval {
		assert.False(t, s.check().lost)
		*now += int64(DefaultPingInterval)
	}
	assert.True(t, s.check().lost, "pings were not answered for DefaultLostAfter")
}

func TestCheckLeavesTimeBetweenSearches(t *testing.T) {
	s, now := newTestSession(t)
	for i := range int64(1000) {
		c := &call{done: make(chan struct{}, 1), deadline: i * int64(time.Microsecond)}
		s.calls.add(c)
	}
	checks := 0
	for found := (health{}); found.next != never; checks++ {
		*now = found.next
		found = s.check()
		s.heard()
	}
	assert.LessOrEqual(t, checks, 3, "1000 deadlines within a millisecond")
}

func TestLater(t *testing.T) {
	assert.EqualValues(t, 15, later(5, 10))
	assert.EqualValues(t, never, later(5, math.MaxInt64))
	assert.EqualValues(t, never, later(never, 1))
}
