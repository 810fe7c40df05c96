package main

import (
	"os"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"time"
)

// processesResult is how some processes do on one machine.
type processesResult struct {
	Processes  int
	PerSecond  float64       // decisions of all of them together
	PerMillion time.Duration // processor time for a million decisions, of all of them together
	IdleCore   float64       // part of a core that each uses when nothing is asked for
	IdleBytes  float64       // a second that each sends then, over loopback with headers
}

const (
	loadKeys    = 100_000
	loadCallers = 256 // of all processes together
)

// measureProcesses has n processes take from the same keys at once, and then nothing.
func measureProcesses(n int, lasts time.Duration) (result processesResult, err error) {
	var c cluster
	defer func() { c.close() }()
	join := ""
	for range n {
		if _, err := c.add(&join); err != nil {
			return result, err
		}
	}
	if _, err := c.all(order{Do: "meet", Members: n}); err != nil {
		return result, err
	}
	if _, err := c[0].tell(order{Do: "fill", Keys: loadKeys}); err != nil {
		return result, err
	}
	time.Sleep(3 * time.Second) // standbys and replicas

	load := order{Do: "load", Callers: loadCallers / n, Keys: loadKeys, Lasts: lasts}
	reports, err := c.all(load)
	if err != nil {
		return result, err
	}
	result.Processes = n
	decisions, used := 0.0, time.Duration(0)
	for _, r := range reports {
		decisions += float64(r.Decisions)
		used += r.CPU
	}
	result.PerSecond = decisions / lasts.Seconds()
	result.PerMillion = time.Duration(float64(used) / decisions * 1e6)

	time.Sleep(2 * time.Second)
	const idle = 5 * time.Second
	before, err := c.usage()
	if err != nil {
		return result, err
	}
	sent := loopbackBytes()
	time.Sleep(idle)
	after, err := c.usage()
	if err != nil {
		return result, err
	}
	result.IdleCore = (after - before).Seconds() / idle.Seconds() / float64(n)
	result.IdleBytes = float64(loopbackBytes()-sent) / idle.Seconds() / float64(n)
	return result, nil
}

// usage is the processor time that all processes have used.
func (c cluster) usage() (sum time.Duration, err error) {
	reports, err := c.all(order{Do: "status"})
	for _, r := range reports {
		sum += r.Status.CPU
	}
	return sum, err
}

// loopbackBytes is what was sent over loopback since the machine started; 0 where nobody counts.
func loopbackBytes() uint64 {
	text, err := os.ReadFile("/proc/net/dev")
	if err != nil {
		return 0
	}
	for line := range strings.Lines(string(text)) {
		name, figures, _ := strings.Cut(line, ":")
		if fields := strings.Fields(figures); strings.TrimSpace(name) == "lo" && len(fields) > 0 {
			n, _ := strconv.ParseUint(fields[0], 10, 64)
			return n
		}
	}
	return 0
}

// heapMB is the live heap.
func heapMB() float64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return float64(m.HeapAlloc) / 1e6
}

// moveResult is how a newcomer got its part of the keys.
type moveResult struct {
	Keys   int // in all
	Moved  int // to the newcomer, about
	Fill   time.Duration
	Joined time.Duration // from its start until it holds all that is its own
	HeapMB float64       // of an old node before, live
	Before latencies     // of takes from another node
	During latencies
	After  latencies
}

// latencies are of takes at a steady rate.
type latencies struct {
	Calls         int
	P50, P99, Max time.Duration
	ByShare       int // decided by a standby or alone
}

const probeRate = 1000

// measureMove fills three processes with live keys, has a fourth join, and takes meanwhile.
func measureMove(keys int) (result moveResult, err error) {
	var c cluster
	defer func() { c.close() }()
	join := ""
	result.Keys = keys
	if err := result.fill(&c, &join); err != nil {
		return result, err
	}
	err = result.join(&c, &join)
	return result, err
}

// fill starts three processes and makes the keys, all of them live.
func (m *moveResult) fill(c *cluster, join *string) error {
	for range 3 {
		if _, err := c.add(join); err != nil {
			return err
		}
	}
	if _, err := c.all(order{Do: "meet", Members: 3}); err != nil {
		return err
	}
	filled, err := (*c)[0].tell(order{Do: "fill", Keys: m.Keys})
	if err != nil {
		return err
	}
	m.Fill = filled.Took
	time.Sleep(5 * time.Second)
	status, err := (*c)[0].tell(order{Do: "status", Heap: true})
	if err != nil {
		return err
	}
	m.HeapMB = status.Status.HeapMB
	return nil
}

// join has one more process join while the first one takes at a steady rate.
func (m *moveResult) join(c *cluster, join *string) error {
	const quiet, whole = 3 * time.Second, 33 * time.Second
	probing := make(chan error, 1)
	var probed report
	began, prober := time.Now(), (*c)[0]
	go func() {
		var err error
		probed, err = prober.tell(order{Do: "probe", Keys: m.Keys, Lasts: whole, Rate: probeRate})
		probing <- err
	}()
	time.Sleep(quiet)
	started := time.Now()
	newcomer, err := c.add(join)
	if err != nil {
		return err
	}
	if _, err := newcomer.tell(order{Do: "meet", Members: 4}); err != nil {
		return err
	}
	m.Joined = time.Since(started)
	m.Moved = m.Keys / 4
	if err := <-probing; err != nil {
		return err
	}
	first, last := started.Sub(began), started.Sub(began)+m.Joined
	m.Before = latenciesOf(probed.Calls, 0, first)
	m.During = latenciesOf(probed.Calls, first, last)
	m.After = latenciesOf(probed.Calls, last, whole)
	return nil
}

// latenciesOf are those of the calls that began in a part of the probe.
func latenciesOf(calls []call, from, to time.Duration) (l latencies) {
	var took []time.Duration
	for _, c := range calls {
		if c.At < from || c.At >= to {
			continue
		}
		took = append(took, c.Took)
		if c.Origin == "standby" || c.Origin == "fallback" {
			l.ByShare++
		}
	}
	if l.Calls = len(took); l.Calls == 0 {
		return l
	}
	slices.Sort(took)
	l.P50, l.P99, l.Max = took[len(took)/2], took[len(took)*99/100], took[len(took)-1]
	return l
}
