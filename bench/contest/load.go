package contest

import (
	"math/rand/v2"
	"runtime"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"
)

// Durations are told apart to one part in a hundred.
const (
	longest = int64(time.Minute)
	digits  = 2
)

// load is one run of a scenario.
type load struct {
	scenario *Scenario
	take     Take
	keys     []string
	order    []uint32
	stop     atomic.Bool
}

// caller is what one caller has seen.
type caller struct {
	load      *load
	from      int // in the order
	durations *hdrhistogram.Histogram
	result    Result
	tally     []count // by key; nil unless there is somebody to judge
}

type count struct{ asked, admitted atomic.Uint32 }

// ownTally is up to how many keys each caller counts by itself. For more it would take too much memory; then they are so many
// that callers rarely meet at one, but at the first few of a Zipf distribution.
const ownTally = 1000

// run lets the callers take until the scenario's time is over.
func (l *load) run() Result {
	callers := l.callers()
	runtime.GC()
	before := UsageNow()
	began := time.Now()
	var running sync.WaitGroup
	for _, c := range callers {
		running.Go(c.run)
	}
	time.Sleep(l.scenario.Lasts)
	l.stop.Store(true)
	running.Wait()
	elapsed := time.Since(began)
	after := UsageNow()

	total := Result{
		Callers: len(callers), Seconds: elapsed.Seconds(),
		CPUSeconds: after.CPUSeconds - before.CPUSeconds, Mallocs: after.Mallocs - before.Mallocs,
	}
	durations := newDurations()
	for _, c := range callers {
		total.Takes += c.result.Takes
		total.Admitted += c.result.Admitted
		total.Denied += c.result.Denied
		total.Failed += c.result.Failed
		if total.FirstFailure == "" {
			total.FirstFailure = c.result.FirstFailure
		}
		durations.Merge(c.durations)
	}
	total.P50 = float64(durations.ValueAtQuantile(50))
	total.P99 = float64(durations.ValueAtQuantile(99))
	total.P999 = float64(durations.ValueAtQuantile(99.9))
	if l.scenario.Judge {
		total.Judged = judge(l.scenario, callers, elapsed)
	}
	return total
}

func (l *load) callers() []*caller {
	n := l.scenario.Callers
	if n == 0 {
		n = runtime.GOMAXPROCS(0)
	}
	var shared []count
	if l.scenario.Judge && len(l.keys) > ownTally {
		shared = make([]count, len(l.keys))
	}
	callers := make([]*caller, n)
	for i := range callers {
		c := &caller{load: l, from: rand.IntN(len(l.order)), durations: newDurations(), tally: shared}
		if l.scenario.Judge && shared == nil {
			c.tally = make([]count, len(l.keys))
		}
		callers[i] = c
	}
	return callers
}

func newDurations() *hdrhistogram.Histogram { return hdrhistogram.New(1, longest, digits) }

// run takes, again and again, until the load is over.
func (c *caller) run() {
	l := c.load
	every, mask := l.scenario.TimeEvery, len(l.order)-1
	expectAllowed, expectDenied := l.scenario.Expect == ExpectAllowed, l.scenario.Expect == ExpectDenied
	var r Result // here, or callers would write to each other's cache lines
	for n := 0; !l.stop.Load(); n++ {
		which := l.order[(c.from+n)&mask]
		timed := n%every == 0
		var began time.Time
		if timed {
			began = time.Now()
		}
		admitted, err := l.take(l.keys[which])
		if timed {
			_ = c.durations.RecordValue(min(int64(time.Since(began)), longest)) // it fails for what is longer alone
		}
		r.Takes++
		switch {
		case err != nil:
			r.fail(err.Error())
		case admitted && expectDenied, !admitted && expectAllowed:
			r.fail("the answer is not: " + l.scenario.Expect)
		case admitted:
			r.Admitted++
		default:
			r.Denied++
		}
		if c.tally != nil {
			c.tally[which].asked.Add(1)
			if admitted {
				c.tally[which].admitted.Add(1)
			}
		}
	}
	c.result = r
}

func (r *Result) fail(why string) {
	r.Failed++
	if r.FirstFailure == "" {
		r.FirstFailure = why
	}
}

// judge adds up what callers have counted.
func judge(s *Scenario, callers []*caller, elapsed time.Duration) *Judged {
	j := &Judged{}
	limit := s.Limits[0]
	most := float64(limit.Burst) + limit.PerSecond()*elapsed.Seconds()
	shared := len(callers) > 1 && &callers[0].tally[0] == &callers[1].tally[0]
	for key := range callers[0].tally {
		var asked, admitted int64
		for _, c := range callers {
			asked += int64(c.tally[key].asked.Load())
			admitted += int64(c.tally[key].admitted.Load())
			if shared {
				break
			}
		}
		j.Admitted += admitted
		j.Allowed += min(float64(asked), most)
		j.Worst = max(j.Worst, float64(admitted)/most)
	}
	return j
}

// UsageNow is what this process has used so far.
func UsageNow() Usage {
	var memory runtime.MemStats
	runtime.ReadMemStats(&memory)
	var used syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &used); err != nil {
		panic(err) // it fails for wrong arguments alone
	}
	return Usage{CPUSeconds: float64(used.Utime.Nano()+used.Stime.Nano()) / 1e9, Mallocs: memory.Mallocs}
}
