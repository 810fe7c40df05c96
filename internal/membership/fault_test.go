package membership

import (
	"io"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// A peer that is refused while it is still writing hears why: its long message is reset, and what was answered before is read.
func TestWhyIsHeardByAPeerThatStillWrites(t *testing.T) {
	gossipPair(t, func(t *testing.T, a, b gossipTransport) {
		for range 20 {
			to := b.bound().String()
			a.gate().attempts.begin(to)
			near, err := a.DialTimeout(to, 5*time.Second)
			require.NoError(t, err)
			far := <-b.StreamCh()
			refused := make(chan struct{})
			go func() {
				defer close(refused)
				_, _ = io.ReadAll(far)
				_ = far.Close()
			}()
			_, err = near.Write(append([]byte{gossipHasLabel, 4}, "blue"...))
			<-refused
			for err == nil { // it is reset in the end
				_, err = near.Write(make([]byte, 1<<16))
			}
			require.Error(t, err)
			failed := a.gate().attempts.end(to)
			require.NotNil(t, failed)
			assert.Equal(t, FaultCluster.String(), failed.fault.String(), "%v", failed.cause)
		}
	})
}

// What is noted is of the attempt under way, and nothing is kept of others.
func TestAttempts(t *testing.T) {
	var a attempts
	a.note("x", FaultSilent, io.EOF)
	assert.Nil(t, a.end("x"))
	a.begin("x")
	assert.Nil(t, a.end("x"))
	a.begin("x")
	a.note("y", FaultSilent, io.EOF)
	a.note("x", FaultCluster, io.EOF)
	a.note("x", FaultSilent, io.EOF)
	assert.Equal(t, FaultCluster, a.end("x").fault, "the first")
	assert.Empty(t, a.faults)
}

// Every fault says what it is and what to set.
func TestEveryFaultHasAText(t *testing.T) {
	for f := NoFault + 1; f < Faults; f++ {
		assert.NotEmpty(t, f.String())
	}
	assert.Empty(t, NoFault.String())
	assert.Equal(t, "Fault(99)", Fault(99).String())
}
