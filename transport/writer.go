package transport

import (
	"net"
	"sync"
	"time"
)

// maxWaiting bounds the bytes that wait in an answerWriter. A few answers of the
// largest kind fit; a peer that reads more slowly than it asks is made to wait
// and in the end dropped by the write timeout.
const maxWaiting = 4 << 20

// answerWriter writes to one connection for several goroutines: the one that
// reads requests and those that answer late. There is no goroutine of its own:
// one that finds no other writing writes, and goes on with what others have left
// meanwhile. So a lone response leaves immediately and without a switch, and responses
// that come together go out together.
type answerWriter struct {
	conn    net.Conn
	timeout time.Duration

	armed time.Time // when the deadline was last set; only for the goroutine that writes

	// mu guards what follows. It is not held while writing or waiting.
	mu      sync.Mutex
	writing bool          // a goroutine is writing, and will look at queue afterwards
	queue   []byte        // left by others for that one
	room    chan struct{} // non-nil while a goroutine waits; closed when queue was taken
	err     error         // the first error; nothing is written after it
}

// send writes frames, or leaves them for the goroutine that is writing now. frames may be
// reused when it returns. It waits while that one has too much to do already;
// not longer than the write timeout.
func (w *answerWriter) send(frames []byte) error {
	w.mu.Lock()
	for w.err == nil && w.writing && len(w.queue) > 0 && len(w.queue)+len(frames) > maxWaiting {
		if w.room == nil {
			w.room = make(chan struct{})
		}
		room := w.room
		w.mu.Unlock()
		<-room
		w.mu.Lock()
	}
	if w.err != nil || w.writing {
		if w.err == nil {
			w.queue = append(w.queue, frames...)
		}
		defer w.mu.Unlock()
		return w.err
	}
	w.writing = true
	w.mu.Unlock()
	return w.writeAll(frames)
}

// writeAll writes frames and then whatever was left meanwhile. Only the
// goroutine that has set writing calls it.
func (w *answerWriter) writeAll(frames []byte) error {
	err := w.write(frames)
	var spare []byte
	for {
		w.mu.Lock()
		batch, room := w.queue, w.room
		w.queue, w.room = spare, nil
		done := err != nil || len(batch) == 0
		if done {
			w.writing, w.err = false, err
		}
		w.mu.Unlock()
		if room != nil {
			close(room)
		}
		if done {
			return err
		}
		err = w.write(batch)
		if spare = batch[:0]; cap(spare) > keptBuffer {
			spare = nil
		}
	}
}

// write writes with a deadline. Setting one moves a timer of the runtime, so it is
// renewed only when a quarter of it has passed.
func (w *answerWriter) write(frames []byte) error {
	if now := time.Now(); now.Sub(w.armed) > w.timeout/4 {
		if err := w.conn.SetWriteDeadline(now.Add(w.timeout)); err != nil {
			return err
		}
		w.armed = now
	}
	_, err := w.conn.Write(frames)
	return err
}
