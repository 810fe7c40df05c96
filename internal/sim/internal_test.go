package sim

import (
	"context"
	"runtime"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// Simulations run for hours of virtual time: what is closed or killed must not
// stay in the network's books.
func TestNothingIsLeftBehind(t *testing.T) {
	for _, kill := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			n := New(1)
			defer n.Close()
			h := n.Host("10.0.0.1")
			l, err := h.Listen(":1")
			require.NoError(t, err)
			p, err := h.ListenPacket(":1")
			require.NoError(t, err)
			client, err := h.Dial(context.Background(), "10.0.0.1:1")
			require.NoError(t, err)
			server, err := l.Accept()
			require.NoError(t, err)
			_, err = client.Write([]byte("unread"))
			require.NoError(t, err)
			later := time.Now().Add(time.Hour)
			require.NoError(t, p.SetDeadline(later))
			require.NoError(t, client.SetDeadline(later))
			require.NoError(t, server.SetDeadline(later))
			if kill {
				n.Kill("10.0.0.1")
			} else {
				require.NoError(t, p.SetReadDeadline(time.Time{}))
				for _, socket := range []interface{ Close() error }{l, p, client, server} {
					require.NoError(t, socket.Close())
				}
			}
			time.Sleep(time.Second)
			n.mu.Lock()
			defer n.mu.Unlock()
			assert.Empty(t, h.sockets)
			assert.Empty(t, h.machine.streams)
			assert.Empty(t, h.machine.packets)
			assert.Empty(t, n.clock.queue)
		})
	}
}

func TestEventsOfAnInstantFireInOrder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var mu sync.Mutex
		var s schedule
		s.init(&mu)
		var fired []int
		events := make([]event, 20)
		mu.Lock()
		for i := range events {
			events[i].fire = func() { fired = append(fired, i) }
			s.set(&events[i], time.Second)
		}
		s.set(&events[3], time.Second) // moves behind the others
		s.set(&events[4], time.Minute)
		s.set(&events[5], time.Millisecond)
		s.cancel(&events[6])
		s.cancel(&events[6])
		mu.Unlock()
		time.Sleep(time.Hour)
		mu.Lock()
		defer mu.Unlock()
		assert.Equal(t, []int{5, 0, 1, 2, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 3, 4}, fired)
	})
}

func TestCloseWaitsForACallbackThatHasLeftTheTimer(t *testing.T) {
	var mu sync.Mutex
	var s schedule
	s.init(&mu)
	mu.Lock()
	defer mu.Unlock()
	late := event{fire: func() { t.Error("fired after close") }}
	s.set(&late, s.now())
	for s.timer.Stop() {
		s.timer.Reset(0)
		runtime.Gosched()
	}
	s.close()
	assert.Zero(t, s.callbacks)
	s.set(&late, s.now())
	assert.Empty(t, s.queue)
}
