package membership

import (
	"errors"
	"fmt"
	"net"
	"os"
	"slices"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// leaveAtOnce has members say goodbye and close, all at the same moment, and returns what Leave returned and how long the slowest took.
func (c *testCluster) leaveAtOnce(members []*testMember) (errs []error, slowest time.Duration) {
	errs = make([]error, len(members))
	var ending sync.WaitGroup
	began := time.Now()
	for i, m := range members {
		ending.Go(func() {
			errs[i] = errors.Join(m.AnnounceLeaving(), m.Leave(3*time.Second, nil))
			require.NoError(c.t, m.Close())
		})
	}
	ending.Wait()
	return errs, time.Since(began)
}

// Whoever leaves while others do, is told by some and tells some; it waits for nobody who is gone. More than are told one by one
// leave as well.
func TestMembershipManyLeaveAtOnce(t *testing.T) {
	const all = 24
	for _, staying := range []int{0, 1, 3, 20, all - 1} {
		t.Run(fmt.Sprintf("%d of %d stay", staying, all), func(t *testing.T) {
			inCluster(t, func(t *testing.T, c *testCluster) {
				c.startAll(all)
				c.within(30*time.Second, "all see all", func() bool { return agree(c.all...) })
				time.Sleep(10 * time.Second) // until gossip is done with the news of who has joined: it comes first
				leaving := slices.Clone(c.all[staying:])
				errs, slowest := c.leaveAtOnce(leaving)
				assert.Less(t, slowest, 2*time.Second)
				for _, err := range errs {
					assert.NoError(t, err)
				}
				if staying > 0 {
					c.within(2*time.Second, "those that stay see each other", func() bool { return agree(c.all[:staying]...) })
				}
				for _, m := range leaving {
					for _, other := range c.all[:staying] {
						assert.NotContains(t, other.statesOf(m.identity), Failed)
					}
				}
			})
		})
	}
}

// A goodbye that was confirmed has been taken in when Leave returns, also where all packets are lost: it is told on a stream.
func TestMembershipGoodbyeIsConfirmed(t *testing.T) {
	inCluster(t, func(t *testing.T, c *testCluster) {
		c.startAll(3)
		c.within(10*time.Second, "all see all", func() bool { return agree(c.all...) })
		require.NoError(t, c.all[0].Leave(time.Second, nil))
		for _, m := range c.all[1:] {
			assert.True(t, m.Departed()[c.all[0].identity])
		}
	})
}

// Who answers that it is leaving itself has confirmed nothing, and the others may still be there.
func TestMembershipLeaverConfirmsNothing(t *testing.T) {
	inCluster(t, func(t *testing.T, c *testCluster) {
		c.startAll(3)
		c.within(10*time.Second, "all see all", func() bool { return agree(c.all...) })
		c.network.CutBoth(simIP(0), simIP(2))
		require.NoError(t, c.all[1].AnnounceLeaving())
		err := c.all[0].Leave(time.Second, nil)
		assert.ErrorIs(t, err, ErrUnheard)
		assert.ErrorContains(t, err, c.all[2].identity)
		assert.NotContains(t, err.Error(), c.all[1].identity)
	})
}

// A failed member may be there, beyond a cut. It is tried once and not waited for; it counts as dead only by the word of a majority.
func TestMembershipGoodbyeToFailedMembers(t *testing.T) {
	for _, known := range []bool{false, true} {
		t.Run(fmt.Sprintf("known to be dead: %v", known), func(t *testing.T) {
			inCluster(t, func(t *testing.T, c *testCluster) {
				c.startAll(2)
				c.within(10*time.Second, "both see both", func() bool { return agree(c.all...) })
				c.network.CutBoth(simIP(0), simIP(1))
				m, other := c.all[0], c.all[1].identity
				c.within(time.Minute, "it has failed", func() bool { state, _ := m.stateOf(other); return state == Failed })
				began := time.Now()
				if known {
					assert.NoError(t, m.Leave(time.Minute, map[string]bool{other: true}))
					assert.Less(t, time.Since(began), time.Millisecond)
					return
				}
				assert.ErrorIs(t, m.Leave(time.Minute, nil), ErrUnheard)
				assert.Less(t, time.Since(began), 5*time.Second)
			})
		})
	}
}

// A member that gossip alone tells of does not count this node, so it makes no Leave fail.
func TestMembershipGoodbyeToUnprovedMembers(t *testing.T) {
	inCluster(t, func(t *testing.T, c *testCluster) {
		m := c.start(simIP(0), nil, simIP(2))
		m.links.Store(nil) // nobody proves itself to it
		ghost := c.start(simIP(1), nil, simIP(0))
		c.within(time.Minute, "there is one", func() bool { return len(m.View().Unproved) == 1 })
		c.network.PowerOff(ghost.ip)
		began := time.Now()
		assert.NoError(t, m.Leave(3*time.Second, nil))
		assert.LessOrEqual(t, time.Since(began), 3*time.Second)
	})
}

func TestRefusedIsTold(t *testing.T) {
	refused := &net.OpError{Op: "dial", Net: "tcp", Err: os.NewSyscallError("connect", syscall.ECONNREFUSED)}
	assert.True(t, isRefused(fmt.Errorf("failed to join: %w", refused)))
	assert.False(t, isRefused(errors.New("i/o timeout")))
}
