package transport

import (
	"bytes"
	"io"
	"math/rand/v2"
	"os"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// Whatever is sent from wherever arrives once, whole, and in the order of each
// sender.
func TestAnswerWriterConcurrently(t *testing.T) {
	out := newMemStream(10_000)
	w := answerWriter{conn: &memConn{in: newMemStream(0), out: out}, timeout: time.Minute}
	const senders, each = 8, 300
	var sending sync.WaitGroup
	for sender := range uint32(senders) {
		sending.Go(func() {
			for i := range uint32(each) {
				payload := bytes.Repeat([]byte{byte(sender)}, rand.IntN(2000))
				if !assert.NoError(t, w.send(appendFrame(nil, kindResponse, sender<<16|i, payload))) {
					return
				}
			}
		})
	}
	reader := newFrameReader(readerFunc(out.read))
	var next [senders]uint32
	for received := 0; received < senders*each; {
		f, ok, err := reader.next()
		require.NoError(t, err)
		if !ok {
			require.NoError(t, reader.fill())
			continue
		}
		received++
		sender := f.id >> 16
		require.Equal(t, next[sender], f.id&0xFFFF)
		next[sender]++
		require.Equal(t, len(f.payload), bytes.Count(f.payload, []byte{byte(sender)}))
	}
	sending.Wait()
	assert.False(t, w.writing)
	assert.Empty(t, w.queue)
}

// What waits is bounded, and a goroutine that waits for room is let go when the peer is
// dropped.
func TestAnswerWriterIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := answerWriter{conn: &memConn{in: newMemStream(0), out: newMemStream(100)}, timeout: time.Second}
		began := time.Now()
		const senders = 20
		results := make(chan error, senders)
		for range senders {
			go func() { results <- w.send(make([]byte, MaxFrame)) }()
		}
		synctest.Wait()
		w.mu.Lock()
		assert.Len(t, w.queue, maxWaiting)
		w.mu.Unlock()
		failed := 0
		for range senders {
			if err := <-results; err != nil {
				assert.ErrorIs(t, err, os.ErrDeadlineExceeded)
				failed++
			}
		}
		assert.Equal(t, senders-maxWaiting/MaxFrame, failed, "all but those that were queued are told")
		assert.Equal(t, time.Second, time.Since(began))
		assert.ErrorIs(t, w.send([]byte("x")), os.ErrDeadlineExceeded, "nothing is written after an error")
	})
}

// The deadline is renewed in time for every write.
func TestAnswerWriterRenewsDeadline(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		out := newMemStream(1 << 20)
		w := answerWriter{conn: &memConn{in: newMemStream(0), out: out}, timeout: time.Second}
		for i := range 100 {
			require.NoError(t, w.send([]byte("x")))
			left := time.Until(out.writeDeadline)
			require.GreaterOrEqual(t, left, 3*time.Second/4)
			require.LessOrEqual(t, left, time.Second)
			time.Sleep(time.Duration(i) * 10 * time.Millisecond)
		}
		n, err := io.ReadFull(readerFunc(out.read), make([]byte, 100))
		require.NoError(t, err)
		require.Equal(t, 100, n)
	})
}
