package peerlimit

import (
	"context"
	"flag"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/peerlimit/peerlimit/internal/limit"
	"github.com/peerlimit/peerlimit/internal/ring"
	"github.com/peerlimit/peerlimit/internal/wire"
	"github.com/stretchr/testify/require"
)

var fullKeys = flag.Int("full.keys", 1_000_000, "`number` of keys in the partition of BenchmarkFullPartition")

// BenchmarkFullPartition fills one partition and does to it whatever nodes do to partitions. For each it reports the longest
// that somebody waited for the partition's lock, on any of the nodes, and the longest that a take of another partition took
// which had to cross the same link, in milliseconds; and how many seconds it took.
//
//	go test -run '^$' -bench FullPartition -benchtime 1x .
func BenchmarkFullPartition(b *testing.B) {
	for range b.N {
		benchmarkFullPartition(b)
	}
}

func benchmarkFullPartition(b *testing.B) {
	nodes, part, r := fullCluster(b, 2, 0)
	w := &holdUps{b: b, part: part}
	defer w.end()
	w.watch(nodes[0])
	w.watch(nodes[1])
	w.take(nodes[1], nodes[0])
	holder := nodes[0]
	now := holder.now

	w.phase("fill", func() {
		var d limit.Decision
		for i := range *fullKeys {
			id := r.Bucket(fmt.Sprintf("user-%08d", i))
			holder.table.Decide(&d, part, id, &limit.Request{Set: r.Set, Cost: 1}, now())
		}
	})
	w.phase("replica", func() { awaitReplica(b, holder, part) })
	w.phase("sweep", func() { holder.table.Sweep(part, now()) })
	w.phase("anew", func() {
		holder.table.RepeatReplica(part)
		awaitReplica(b, holder, part)
	})
	w.phase("lapse", func() {
		holder.reach.Lapsing.Lock() // as when quorum lapses
		holder.lapse()
		holder.reach.Lapsing.Unlock()
		require.NoError(b, holder.WaitReady(b.Context(), 2))
		awaitReplica(b, holder, part)
	})
	w.phase("join", func() {
		nodes = append(nodes, addTo(b, nodes))
		w.watch(nodes[2])
	})
	w.phase("leave", func() {
		ctx, cancel := context.WithTimeout(b.Context(), time.Minute)
		defer cancel()
		require.NoError(b, holder.Leave(ctx))
		nodes = nodes[1:]
		require.NoError(b, nodes[0].WaitReady(b.Context(), 2))
	})
	b.ReportMetric(float64(*fullKeys-remembered(b, nodes, part, r, *fullKeys)), "forgotten")
	w.phase("drained", func() {
		for _, n := range nodes {
			n.table.Sweep(part, n.now()+int64(2*time.Hour))
		}
	})
}

// awaitReplica returns when the standby of a partition has all of it.
func awaitReplica(b *testing.B, n *Node, part uint16) {
	for began := time.Now(); ; time.Sleep(5 * time.Millisecond) {
		p := n.table.Lock(part)
		r := &p.Holding.Replication
		done := p.Holding.Holds && r.Standby != "" && !r.NeedsAll() && r.Acked == p.Holding.Copy.Seq
		p.Unlock()
		if done {
			return
		}
		require.Less(b, time.Since(began), time.Minute, "the standby gets it never")
	}
}

// holdUps are how long others have waited for what is done to a partition.
type holdUps struct {
	b     *testing.B
	part  uint16
	over  atomic.Bool
	tasks sync.WaitGroup

	locks, takes longest
}

// longest is the longest of some times.
type longest struct{ nanos atomic.Int64 }

func (l *longest) note(d time.Duration) {
	for {
		old := l.nanos.Load()
		if int64(d) <= old || l.nanos.CompareAndSwap(old, int64(d)) {
			return
		}
	}
}

// watch waits for the partition's lock on a node, again and again.
func (w *holdUps) watch(n *Node) {
	w.tasks.Go(func() {
		for !w.over.Load() {
			began := time.Now()
			p := n.table.Lock(w.part)
			waited := time.Since(began)
			p.Unlock()
			w.locks.note(waited)
			time.Sleep(100 * time.Microsecond)
		}
	})
}

// take takes from a key of another partition that a node holds, and from one of the partition, both on another node.
func (w *holdUps) take(from, holder *Node) {
	other := w.part
	for other == w.part || !holder.table.Holds(other) {
		other = (other + 1) % ring.Partitions
	}
	r, err := from.rules.Find(wire.AppendRule(nil, "other", []limit.Limit{perHour(1e9)}))
	if err != nil {
		panic(err)
	}
	key := ""
	for i := 0; key == "" || r.Hash.Partition(key) != other; i++ {
		key = fmt.Sprint(i)
	}
	w.tasks.Go(func() {
		for !w.over.Load() && !holder.closed.Load() {
			m := wire.Message{Kind: wire.KindTake, Rule: r.Encoded, Key: key, Cost: 1}
			began := time.Now()
			owner := from.route.Load().owner(other)
			if owner == nil {
				return
			}
			_, _ = from.others.call(context.Background(), owner, &m, from.now(), 10*time.Second)
			w.takes.note(time.Since(began))
			time.Sleep(100 * time.Microsecond)
		}
	})
}

// phase does something and reports how long others waited.
func (w *holdUps) phase(name string, do func()) {
	w.locks.nanos.Store(0)
	w.takes.nanos.Store(0)
	began := time.Now()
	do()
	w.b.ReportMetric(time.Since(began).Seconds(), name+"-s")
	w.b.ReportMetric(float64(w.locks.nanos.Load())/1e6, name+"-lock-ms")
	w.b.ReportMetric(float64(w.takes.nanos.Load())/1e6, name+"-take-ms")
}

func (w *holdUps) end() {
	w.over.Store(true)
	w.tasks.Wait()
}
