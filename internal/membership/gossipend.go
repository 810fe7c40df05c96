package membership

import (
	"bytes"
	"context"
	"fmt"
	"runtime/pprof"
	"time"

	"github.com/hashicorp/memberlist"
)

// memberlist's Shutdown tells its goroutines to end and does not wait for them, nor does it say when they have: a probe
// that is under way sleeps through its interval, up to eight times that while the node takes itself to be unwell. So all
// of them carry a profiler label, which goroutines inherit, and closing looks for it in the goroutine profile until none
// is left. The label also tells them apart in a user's own profiles.

// gossipLabel is the profiler label of gossip's goroutines; its value is the node's identity.
const gossipLabel = "peerlimit-gossip"

// createLabelled is memberlist.Create with labelled goroutines. It uses a goroutine of its own, because the labels that
// the caller's may have cannot be read and so not be put back.
func createLabelled(config *memberlist.Config) (list *memberlist.Memberlist, err error) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		pprof.SetGoroutineLabels(pprof.WithLabels(context.Background(), pprof.Labels(gossipLabel, config.Name)))
		list, err = memberlist.Create(config)
	}()
	<-done
	return list, err
}

// Looking takes a moment of everybody's time, so it is done less and less often. The bound is the longest that
// memberlist's own waits take; what is left by then is stuck, and not worth hanging for.
const (
	firstGossipLook = time.Millisecond
	lastGossipLook  = 100 * time.Millisecond
	maxGossipEnd    = 15 * time.Second
)

// awaitGossipEnd returns when no goroutine of a node's memberlist is left.
func awaitGossipEnd(identity string) error {
	label := fmt.Appendf(nil, "%q:%q", gossipLabel, identity)
	deadline := time.Now().Add(maxGossipEnd)
	for pause := firstGossipLook; ; pause = min(2*pause, lastGossipLook) {
		var profile bytes.Buffer
		if err := pprof.Lookup("goroutine").WriteTo(&profile, 1); err != nil {
			return err
		}
		if !bytes.Contains(profile.Bytes(), label) {
			return nil
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("peerlimit: gossip has not ended after %v", maxGossipEnd)
		}
		time.Sleep(pause)
	}
}
