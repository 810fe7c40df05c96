package main

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"

	"github.com/peerlimit/peerlimit"
)

// diary is an observer that writes down what it is shown.
type diary struct {
	events  []event
	samples []sample
	order   []time.Duration
}

func (d *diary) Began([]castMember) {}
func (d *diary) Judged(verdict)     {}

func (d *diary) Sampled(s sample) {
	d.samples = append(d.samples, s)
	d.order = append(d.order, s.At)
}

func (d *diary) Happened(e event) {
	d.events = append(d.events, e)
	d.order = append(d.order, e.At)
}

func (d *diary) texts() []string {
	var texts []string
	for _, e := range d.events {
		texts = append(texts, e.Text)
	}
	return texts
}

// narrate runs a narrator in virtual time while story happens.
func narrate(t *testing.T, story func(*narrator)) *diary {
	d := &diary{}
	synctest.Test(t, func(t *testing.T) {
		c := new(clock)
		n := newNarrator(d, c, newRecorder(peerlimit.PerSecond(1).WithBurst(1)), func() float64 { return 3 })
		c.start()
		ended := make(chan struct{})
		go func() {
			defer close(ended)
			n.run()
		}()
		story(n)
		n.stop()
		<-ended
	})
	return d
}

func TestNoticesOfOneThingAreToldOnce(t *testing.T) {
	d := narrate(t, func(n *narrator) {
		time.Sleep(100 * time.Millisecond)
		n.did("KILL node-3")
		lost := nodeEvent{Kind: peerlimit.EventMemberFailed, Member: "node-3"}
		n.hear("node-1", lost)
		time.Sleep(100 * time.Millisecond)
		n.hear("node-2", lost)
		n.hear("node-2", lost)
		n.hear("node-2", nodeEvent{Kind: peerlimit.EventMemberFailed, Member: "node-4"})
		n.hear("node-2", nodeEvent{Kind: peerlimit.EventLinkUp, Member: "node-4"}) // is no news
		time.Sleep(2 * gathering)
		n.hear("node-4", lost) // is late, and told on its own
	})
	assert.Equal(t, []string{
		"KILL node-3", "node-3 failed (2 nodes)", "node-4 failed (1 node)",
		"node-3 failed (1 node)",
	}, d.texts())
	assert.True(t, d.events[0].Done)
	assert.False(t, d.events[1].Done)
}

func TestAConnectionIsDownOnceUntilItIsUp(t *testing.T) {
	d := narrate(t, func(n *narrator) {
		for _, kind := range []peerlimit.EventKind{
			peerlimit.EventLinkDown, peerlimit.EventLinkDown, peerlimit.EventLinkUp, peerlimit.EventLinkDown,
		} {
			n.hear("node-1", nodeEvent{Kind: kind, Member: "node-3"})
			time.Sleep(2 * gathering)
		}
	})
	down := "the connection to node-3 is down (1 node)"
	assert.Equal(t, []string{down, down}, d.texts())
}

func TestWhatIsTakenOverIsAddedUp(t *testing.T) {
	d := narrate(t, func(n *narrator) {
		gain := func(from string, g gains) { n.hear(from, nodeEvent{Kind: peerlimit.EventAcquired, Gains: g}) }
		gain("node-2", gains{Given: 1, Replica: 2})
		gain("node-1", gains{Replica: 3})
		gain("node-2", gains{Given: 4})
		time.Sleep(2 * gathering)
		gain("node-3", gains{Empty: 7})
		gain("node-3", gains{}) // was told with the one before
		time.Sleep(2 * gathering)
		gain("node-3", gains{})
		n.hear("node-1", nodeEvent{Kind: peerlimit.EventQuorumLost})
		n.hear("node-2", nodeEvent{Kind: peerlimit.EventQuorumLost})
	})
	assert.Equal(t, []string{
		"node-1 and node-2 took over partitions: 5 handed over and 5 from replicas",
		"node-3 took over partitions: 7 empty",
		"no answers from most others in time: only shares of the limits, for a while (2 nodes)",
	}, d.texts())
}

func TestSamplesAndEventsComeInOrder(t *testing.T) {
	d := narrate(t, func(n *narrator) {
		time.Sleep(950 * time.Millisecond)
		n.hear("node-1", nodeEvent{Kind: peerlimit.EventMemberFailed, Member: "node-3"})
		time.Sleep(100 * time.Millisecond)
		n.came("all agree")
		n.recorder.add(call{key: "bob", node: "node-1", admitted: true, origin: "remote"})
		n.recorder.add(call{key: "bob", node: "node-2"})
		time.Sleep(1450 * time.Millisecond)
	})
	assert.IsIncreasing(t, d.order)
	assert.Len(t, d.events, 2)

	assert.Len(t, d.samples, 3)
	assert.Equal(t, 0, d.samples[0].Offered)
	assert.Equal(t, sample{
		At: 2 * time.Second, Interval: time.Second, Limit: 3,
		counts: counts{Offered: 2, Admitted: 1, ByNode: map[string]int{"node-1": 1}, ByOrigin: map[string]int{"remote": 1}, ByKey: map[string]int{"bob": 1}},
	}, d.samples[1])
	assert.Equal(t, 500*time.Millisecond, d.samples[2].Interval)
}

func TestNewOwnersAreGrouped(t *testing.T) {
	d := disturbance{Moved: map[string]move{"alice": {To: "node-2"}, "bob": {To: "node-4"}, "carol": {To: "node-2"}}}
	assert.Equal(t, "node-2 owns alice and carol, node-4 owns bob", newOwners(d))
	assert.Equal(t, "all keys have the owners they had", newOwners(disturbance{}))
}
