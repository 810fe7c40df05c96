package membership

import (
	"context"
	"fmt"
	"log/slog"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/memberlist"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// gossipGoroutines returns the stacks of the goroutines of memberlist that are there now, in this process.
func gossipGoroutines() (stacks []string) {
	all := make([]byte, 4<<20)
	for stack := range strings.SplitSeq(string(all[:runtime.Stack(all, true)]), "\n\n") {
		if strings.Contains(stack, "hashicorp/memberlist.") {
			stacks = append(stacks, stack)
		}
	}
	return stacks
}

// Close ends all goroutines of memberlist, however long they would sleep: a probe of a member that does not answer, probes for
// others, what they have to do with encryption, compression or neither. Nothing of the virtual time passes, and nothing is left
// when all that can run has run.
func TestMembershipCloseEndsProbes(t *testing.T) {
	for name, configure := range map[string]func(*Config){
		"plain":      func(*Config) {},
		"encrypted":  func(c *Config) { c.Keyring = gateConfig(t, gateSecret).Keyring },
		"compressed": func(c *Config) { c.Memberlist = func(m *memberlist.Config) { m.EnableCompression = true } },
		"slow":       func(c *Config) { c.Memberlist = func(m *memberlist.Config) { m.ProbeTimeout = 900 * time.Millisecond } },
	} {
		t.Run(name, func(t *testing.T) {
			for step := range 12 {
				inCluster(t, func(t *testing.T, c *testCluster) {
					for i := range 5 {
						c.start(simIP(i), configure, simIP(0))
					}
					c.within(10*time.Second, "all see all", func() bool { return agree(c.all...) })
					c.network.PowerOff(simIP(4)) // it does not answer, and nothing says so
					time.Sleep(time.Second + time.Duration(step)*300*time.Millisecond)
					began := time.Now()
					for _, m := range c.all {
						require.NoError(t, m.Close())
						require.NoError(t, m.Close(), "again")
					}
					synctest.Wait()
					assert.Zero(t, time.Since(began))
					assert.Empty(t, gossipGoroutines())
				})
			}
		})
	}
}

// A probe that nobody answers, of a node that takes itself to be unwell, lasts eight intervals.
func TestMembershipCloseEndsTheLongestProbe(t *testing.T) {
	inCluster(t, func(t *testing.T, c *testCluster) {
		c.startAll(4)
		c.within(10*time.Second, "all see all", func() bool { return agree(c.all...) })
		m := c.all[0]
		for _, other := range c.all[1:] {
			c.network.CutBoth(m.ip, other.ip)
		}
		c.within(time.Minute, "it is unwell", func() bool { return m.list.GetHealthScore() >= 2 || m.View().Reachable == 1 })
		require.GreaterOrEqual(t, m.list.GetHealthScore(), 1)
		began := time.Now()
		require.NoError(t, m.Close())
		synctest.Wait()
		assert.Zero(t, time.Since(began))
	})
}

// A probe for another member that is asked for at the last moment ends as well.
func TestMembershipCloseEndsAProbeForAnother(t *testing.T) {
	inCluster(t, func(t *testing.T, c *testCluster) {
		m := c.start(simIP(0), nil)
		time.Sleep(time.Second)
		silent := []byte{10, 0, 0, 9}
		asked := append([]byte{gossipIndirectPing}, msgpack("SeqNo", 1, "Target", silent, "Port", testPort, "Nack", raw{0xc3}, "Node", "silent",
			"SourceAddr", silent, "SourcePort", testPort)...)
		packet, err := m.gate.wrap(asked)
		require.NoError(t, err)
		require.NoError(t, m.gate.judgePacket(packet))
		began := time.Now()
		m.gossip.injected() <- &memberlist.Packet{Buf: packet, From: m.gossip.localAddr(), Timestamp: time.Now()}
		require.NoError(t, m.Close())
		synctest.Wait()
		assert.Zero(t, time.Since(began))
		assert.Empty(t, gossipGoroutines())
		assert.NotEmpty(t, m.gate.pings.close(), "the ping was sent")
	})
}

// A user's log handler hears nothing more when Close has returned: some, such as those of a test, must not be called then.
func TestMembershipLogsNothingAfterItsEnd(t *testing.T) {
	inCluster(t, func(t *testing.T, c *testCluster) {
		handler := new(lastCall)
		m := c.start(simIP(0), func(s *Config) { s.Logger = slog.New(handler) }, simIP(1))
		time.Sleep(time.Second)
		m.log.With("a", 1).WithGroup("g").Warn("before")
		assert.NotZero(t, handler.calls.Load())
		require.NoError(t, m.Close())
		calls := handler.calls.Load()
		m.log.Warn("after")
		m.log.With("a", 1).WithGroup("g").Warn("after")
		assert.Equal(t, calls, handler.calls.Load())
	})
}

// A log handler that does not return, or that ends the node itself, does not keep Close from returning.
func TestMembershipCloseWaitsForNoLogHandlerWithoutEnd(t *testing.T) {
	inCluster(t, func(t *testing.T, c *testCluster) {
		quiet := newSilencer(slog.DiscardHandler)
		require.True(t, quiet.enter())
		began := time.Now()
		quiet.close()
		assert.Equal(t, endPatience, time.Since(began))
		quiet.leave()
		assert.False(t, quiet.enter())
	})
}

// Pings are remembered for as long as anybody may wait for them, and no longer.
func TestPingsAreForgotten(t *testing.T) {
	p := pingsOut{keep: 8 * time.Second}
	began := time.Now()
	for second := range 1000 {
		require.True(t, p.add([]uint32{uint32(second)}, began.Add(time.Duration(second)*time.Second)))
		require.LessOrEqual(t, len(p.pings), 9)
	}
	assert.Equal(t, []uint32{991, 992, 993, 994, 995, 996, 997, 998, 999}, p.close())
	assert.False(t, p.add([]uint32{1}, began), "nothing is sent any more")
}

func TestAcknowledgements(t *testing.T) {
	for _, n := range []int{0, 1, 255, 256, 1000} {
		var numbers []uint32
		for i := range n {
			numbers = append(numbers, uint32(i)<<20)
		}
		var acked []uint32
		for _, message := range acknowledgements(numbers) {
			_, err := judgePacketMessage(message)
			require.NoError(t, err)
			require.NoError(t, eachPart(message, func(part []byte) error {
				number, err := readNumbers(&intake{buf: part[1:]}, "SeqNo")
				acked = append(acked, uint32(number[0]))
				return err
			}))
		}
		assert.Equal(t, numbers, acked, fmt.Sprint(n))
	}
}

// lastCall is a log handler that counts its calls.
type lastCall struct {
	slog.Handler
	calls atomic.Int32
}

func (*lastCall) Enabled(context.Context, slog.Level) bool    { return true }
func (h *lastCall) WithAttrs([]slog.Attr) slog.Handler        { return h }
func (h *lastCall) WithGroup(string) slog.Handler             { return h }
func (h *lastCall) Handle(context.Context, slog.Record) error { h.calls.Add(1); return nil }
