package signal_test

import (
	"sync/atomic"
	"testing"
	"testing/synctest"

	"github.com/stretchr/testify/assert"

	"github.com/peerlimit/peerlimit/internal/signal"
)

func TestManySendsAreOne(t *testing.T) {
	s := signal.New()
	assert.Empty(t, s)
	for range 3 {
		s.Send() // nobody receives: it must not wait
	}
	<-s
	assert.Empty(t, s)
	s.Send()
	<-s
}

func TestNoSendIsLost(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := signal.New()
		var work, done atomic.Int64
		go func() {
			for range s {
				done.Add(work.Swap(0))
			}
		}()
		for range 100 {
			go func() {
				work.Add(1)
				s.Send()
			}()
		}
		synctest.Wait()
		assert.EqualValues(t, 100, done.Load())
		close(s)
	})
}

func TestTheZeroSignalIsNeverReceived(t *testing.T) {
	var s signal.Signal
	s.Send()
	select {
	case <-s:
		t.Error("received")
	default:
	}
}
