package store

import (
	"flag"
	"fmt"
	"runtime"
	"testing"
	"time"

	"github.com/peerlimit/peerlimit/internal/limit"
	"github.com/peerlimit/peerlimit/internal/wire"
	"golang.org/x/sys/unix"
)

var fullKeys = flag.Int("full.keys", 1_000_000, "`number` of keys in the partition of BenchmarkFullPartitionHolds")

// BenchmarkFullPartitionHolds reports the longest that a partition's lock is held for what is done to one with a million
// keys, in milliseconds of processor time, so that it means something on a busy machine as well.
//
//	go test -run '^$' -bench FullPartitionHolds -benchtime 1x .
func BenchmarkFullPartitionHolds(b *testing.B) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	for range b.N {
		benchmarkHolds(b, *fullKeys)
	}
}

func benchmarkHolds(b *testing.B, keys int) {
	var began, longest time.Duration
	boundary := func() {
		now := threadTime(b)
		longest = max(longest, now-began)
		began = threadTime(b)
	}
	Probe.onReleased = boundary
	Probe.on.Store(true)
	defer func() {
		Probe.on.Store(false)
		Probe.onReleased = nil
	}()
	measure := func(what string, do func()) {
		runtime.GC()
		longest, began = 0, threadTime(b)
		do()
		b.ReportMetric(float64(longest)/1e6, what+"-ms")
	}

	r := newReplicaRig(b, "standby")
	standby := r.standbys["standby"].table
	r.holder.maxKeys, standby.maxKeys = 4<<20, 4<<20
	names := make([]string, keys)
	for i := range names {
		names[i] = fmt.Sprintf("user-%08d", i)
	}
	takeAll := func() {
		for _, key := range names {
			r.holder.decide(rigPart, r.rule.Bucket(key), &limit.Request{Set: r.rule.Set, Cost: 1}, 0)
			boundary()
		}
	}
	measure("take", takeAll)
	measure("sweep", func() { r.holder.Sweep(rigPart, 0) })
	measure("forget", func() { r.part().forgetChanges(); boundary(); r.holder.Sweep(rigPart, 0) })
	measure("pack", func() { shipAll(b, r, boundary, &began) })
	measure("changes", func() { takeAll(); shipAll(b, r, boundary, &began) })
	measure("again", func() {
		r.part().Holding.Replication.ResendAll = true
		r.holder.MarkChanged(rigPart)
		shipAll(b, r, boundary, &began)
	})
	measure("answer", func() {
		for from, more := uint32(0), true; more; {
			_, from, more = r.holder.collect(rigPart, from, wire.AcquireBudget, 0)
		}
	})
	measure("drop", func() {
		idle, _ := standby.IdleCopy(rigPart)
		standby.DropCopy(idle)
		boundary()
		standby.tidy(rigPart, 0)
	})
	measure("drained", func() { r.holder.Sweep(rigPart, int64(2*time.Hour)) })
}

// shipAll sends the rig's standby all that it lacks.
func shipAll(b *testing.B, r *replicaRig, boundary func(), began *time.Duration) {
	standby := r.standbys["standby"]
	var rest *Whole
	for more := true; more; {
		s := NewShipment()
		if rest != nil {
			if !r.holder.PackNext(s, rest, "standby", 0) {
				rest = nil
			}
		} else {
			more = false
			r.holder.MarkChanged(rigPart)
			r.holder.EachChanged(func(part uint16) { _, rest = r.holder.Pack(s, part, "standby", 0) })
		}
		if s.Empty() {
			continue
		}
		more = true
		q, err := (&wire.ReplicaMemory{Message: wire.AppendReplicaRequest(nil, &s.Request)}).Decode(standby.rules.PlainSet)
		if err != nil {
			b.Fatal(err)
		}
		*began = threadTime(b) // no lock was held
		ack, _ := standby.table.AcceptReplica(&q.Parts[0], true, standby.rules, 0)
		standby.table.tidy(rigPart, 0)
		r.holder.Delivered(s, 0, "standby", ack, false, 0)
		boundary()
	}
}

// threadTime returns the processor time that this thread has used.
func threadTime(b *testing.B) time.Duration {
	var now unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_THREAD_CPUTIME_ID, &now); err != nil {
		b.Fatal(err)
	}
	return time.Duration(now.Nano())
}
