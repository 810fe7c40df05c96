//go:build unix

package main

import (
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// What the test below drives to exhaustion: a token comes back every six minutes, and the test takes a small part of that.
const (
	rollingKeys  = 300
	rollingBurst = 10
	rollingHours = time.Hour // for rollingBurst tokens
)

// TestLimitsSurviveDeploymentsAndCrashes exhausts the limits of many keys and then does to the processes what happens to a
// service: one more is started, all old ones are replaced, one is killed. No key may get a token again because of that.
func TestLimitsSurviveDeploymentsAndCrashes(t *testing.T) {
	c := newCrew(t)
	for range 3 {
		c.start()
	}
	c.awaitMembers(3)
	c.phase("exhaustion")
	began := time.Now()
	c.exhaust()
	endTraffic := c.sendTraffic()

	c.phase("a fourth joins")
	fourth := c.start()
	c.awaitMembers(4)
	c.sweep()
	assert.Empty(t, c.early(), "keys that admit again after a join")

	for i, old := range slices.Clone(c.running()) {
		if old == fourth {
			continue
		}
		c.phase("replacement of " + old.name)
		if i%2 == 0 { // a deployment may start the new one first, or end the old one first
			c.start()
			c.awaitMembers(5)
			c.retire(old)
		} else {
			c.retire(old)
			c.start()
		}
		c.awaitMembers(4)
		c.sweep()
		assert.Empty(t, c.early(), "keys that admit again after the replacement of %s", old.name)
	}
	assert.Empty(t, c.takeFailures(), "nothing but 200 and 429 while processes come and go in order")

	c.phase("a crash")
	c.crash(fourth)
	c.sweep() // while nobody has taken over yet
	c.awaitMembers(3)
	c.sweep()
	// What a key admitted within one ReplicaInterval before the crash may be forgotten. That was nothing.
	assert.Empty(t, c.early(), "keys that admit again after a crash")
	endTraffic()
	assert.Empty(t, c.takeFailures(), "nothing but 200 and 429 from processes that survive a crash")

	require.Less(t, time.Since(began), rollingHours/rollingBurst, "a token has come back by itself: too slow to tell anything")
}
