package oracle

import (
	"math"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
)

const ms = time.Millisecond

// tenPerSecond holds five.
var tenPerSecond = Limit{Tokens: 10, Period: time.Second, Burst: 5}

// at is a take without duration.
func at(instant time.Duration, cost float64) Take {
	return Take{Start: instant, End: instant, Cost: cost}
}

// judge reports on takes under tenPerSecond.
func judge(takes ...Take) Report {
	o := New(tenPerSecond)
	for _, t := range takes {
		o.Admit(t)
	}
	return o.Report()
}

func TestAnEmptyRun(t *testing.T) {
	o := New(tenPerSecond)
	assert.Equal(t, Report{Limit: tenPerSecond}, o.Report())
	assert.True(t, o.Report().Within(0))
	assert.Zero(t, o.Utilization(0, time.Second))
	assert.Empty(t, o.Timeline(time.Second))
}

func TestReport(t *testing.T) {
	// 5 at once, then 1.5 in 100 ms where 1 flows in, then nothing for long.
	r := judge(at(time.Second, 5), at(1100*ms, 1.5), at(9*time.Second, 1))
	assert.Equal(t, 3, r.Takes)
	assert.InDelta(t, 0.5, r.Excess, 1e-12)
	assert.Equal(t, Window{From: time.Second, To: 1100 * ms, Admitted: 6.5, Allowed: 6}, r.Worst)
	assert.Equal(t, Window{From: time.Second, To: 9 * time.Second, Admitted: 7.5, Allowed: 85}, r.Run)
	assert.InDelta(t, 7.5/85, r.Ratio, 1e-12)
	assert.InDelta(t, 6.5, r.MaxRate, 1e-12)
	assert.False(t, r.Within(0.4))
	assert.True(t, r.Within(0.5))
	assert.Equal(t, "3 takes admitted 7.5 of 85 tokens (0.0882); worst window 1s–1.1s: 6.5 of 6, excess 0.5", r.String())
}

func TestNoExcess(t *testing.T) {
	r := judge(at(0, 5), at(100*ms, 1), at(200*ms, 1))
	assert.Zero(t, r.Excess)
	assert.True(t, r.Within(0))
	assert.False(t, r.Within(-1))
	assert.Equal(t, r.Worst.Admitted, r.Worst.Allowed, "the nearest window is reported all the same")
}

func TestTheToleranceIsSmall(t *testing.T) {
	r := Report{Worst: Window{Allowed: 1000}, Excess: 0.9e-6}
	assert.True(t, r.Within(0))
	r.Excess = 1.1e-6
	assert.False(t, r.Within(0))
	assert.True(t, r.Within(1e-6))
	r.Excess = 1000 + 1.9e-6
	assert.True(t, r.Within(1000), "extra tokens round too")
}

// The window's edge is where a fixed-window limiter admits twice its limit.
func TestNoWindowIsOverlooked(t *testing.T) {
	o := New(Limit{Tokens: 1000, Period: 2 * time.Second, Burst: 1000})
	for i := range 1000 {
		o.Admit(at(1900*ms+time.Duration(i)*100*time.Microsecond, 1))
		o.Admit(at(2001*ms+time.Duration(i)*100*time.Microsecond, 1))
	}
	r := o.Report()
	assert.Equal(t, 1900*ms, r.Worst.From)
	assert.InDelta(t, 2000-1000-500*0.2009, r.Excess, 1e-9)
}

func TestACallCountsWhenItLiesWhollyInTheWindow(t *testing.T) {
	five := at(time.Second, 5)
	assert.InDelta(t, 1.0, judge(five, Take{time.Second, time.Second, 1}).Excess, 1e-12)
	assert.InDelta(t, 0.5, judge(five, Take{time.Second, 1050 * ms, 1}).Excess, 1e-12, "allowed while it lasted")
	assert.Zero(t, judge(five, Take{time.Second, 1100 * ms, 1}).Excess)
	assert.InDelta(t, 0.5, judge(five, Take{950 * ms, time.Second, 1}).Excess, 1e-12)
	long := Take{0, 10 * time.Second, 200}
	r := judge(five, long)
	assert.InDelta(t, 100, r.Excess, 1e-12, "205 in 10 s, where 105 are allowed")
	assert.Equal(t, 0*time.Second, r.Worst.From)
}

func TestRefunds(t *testing.T) {
	for name, test := range map[string]struct {
		refund Take
		want   float64
	}{
		"between the takes":      {at(1050*ms, 1.5), 0.5},
		"at the first":           {at(time.Second, 1.5), 0.5},
		"at the last":            {at(1100*ms, 1.5), 0.5},
		"a call that reaches in": {Take{0, time.Second, 1.5}, 0.5},
		"one that reaches out":   {Take{1100 * ms, time.Hour, 1.5}, 0.5},
		"around it all":          {Take{0, time.Hour, 1.5}, 0.5},
		"before":                 {Take{0, time.Second - 1, 1.5}, 2},
		"after":                  {Take{1100*ms + 1, time.Hour, 1.5}, 2},
	} {
		t.Run(name, func(t *testing.T) {
			o := New(tenPerSecond)
			o.Admit(at(time.Second, 5))
			o.Admit(at(1100*ms, 3))
			o.Refund(test.refund)
			r := o.Report()
			assert.InDelta(t, test.want, r.Excess, 1e-12)
			assert.InDelta(t, 2-test.want, r.Worst.Refunded, 1e-12)
		})
	}
}

func TestBetweenAndAgainst(t *testing.T) {
	o := New(tenPerSecond)
	o.Admit(at(0, 10))
	o.Admit(Take{900 * ms, 1100 * ms, 100})
	o.Admit(at(2*time.Second, 5))
	o.Refund(Take{900 * ms, time.Second, 1})
	assert.InDelta(t, 110-(5+11)-1, o.Report().Excess, 1e-9, "to 1.1 s")

	end := o.Between(time.Second, 2*time.Second)
	assert.Equal(t, 1, end.Report().Takes)
	assert.Equal(t, 2*time.Second, end.Report().Run.From)
	assert.InDelta(t, 5.0/(5+10+1), end.Utilization(time.Second, 2*time.Second), 1e-12, "the refund touches its edge")
	assert.InDelta(t, 5.0/(5+10), o.Between(time.Second+1, 2*time.Second).Utilization(time.Second, 2*time.Second), 1e-12)

	assert.InDelta(t, 100-2*(5+2)-1, o.Against(tenPerSecond.Times(2)).Excess, 1e-9, "from 0.9 s")
	assert.True(t, o.Against(tenPerSecond.Times(20)).Within(0))
	assert.Equal(t, tenPerSecond.Times(2), o.Against(tenPerSecond.Times(2)).Limit)
}

func TestUtilization(t *testing.T) {
	o := New(tenPerSecond)
	o.Admit(at(0, 5))
	for i := range 50 {
		o.Admit(at(time.Duration(i+1)*100*ms, 1))
	}
	assert.InDelta(t, 1, o.Utilization(0, 5*time.Second), 1e-12, "burst and rate")
	assert.InDelta(t, 1, o.Utilization(2001*ms, 5*time.Second), 0.01, "the bucket is empty by then")
	assert.InDelta(t, 0.5, o.Utilization(0, 10500*ms), 1e-12, "nothing in the second half")
	assert.InDelta(t, 0, o.Utilization(6*time.Second, 7*time.Second), 1e-12)
	// From the first take after one second of rest: 0.5 s of 10/s flowed in.
	o.Admit(at(5500*ms, 5))
	assert.InDelta(t, 1, o.Utilization(5500*ms, 5500*ms), 1e-12)
	o.Refund(at(5500*ms, 5))
	assert.InDelta(t, 0.5, o.Utilization(5500*ms, 5500*ms), 1e-12)

	rested := New(tenPerSecond)
	rested.Admit(at(0, 5))
	rested.Admit(at(time.Minute, 3))
	rested.Admit(at(time.Minute+100*ms, 3))
	assert.InDelta(t, 1, rested.Utilization(time.Minute+1, time.Minute+100*ms), 1e-6, "a minute of rest fills no more than the bucket")

	over := New(tenPerSecond)
	over.Admit(at(-time.Second, 50))
	over.Admit(at(time.Second, 1))
	assert.Equal(t, math.Inf(1), over.Utilization(time.Second, 2*time.Second), "25 too many were taken before")
	over.Refund(at(0, 1000))
	assert.InDelta(t, 1.0/15, over.Utilization(time.Second, 2*time.Second), 1e-12, "a refund fills no more than the bucket")
	assert.Panics(t, func() { over.Utilization(1, 0) })
}

func TestTimeline(t *testing.T) {
	o := New(tenPerSecond)
	o.Admit(at(-1, 1))
	o.Admit(Take{0, 2500 * ms, 2})
	o.Admit(at(2*time.Second, 3))
	o.Refund(Take{0, 3 * time.Second, 4})
	assert.Equal(t, []Point{
		{At: -time.Second, Admitted: 1}, {At: 0}, {At: time.Second},
		{At: 2 * time.Second, Admitted: 5}, {At: 3 * time.Second, Refunded: 4},
	}, o.Timeline(time.Second))
	assert.Panics(t, func() { o.Timeline(0) })
	assert.Panics(t, func() { o.Timeline(1) })
}

func TestOutOfRange(t *testing.T) {
	o := New(tenPerSecond)
	for name, call := range map[string]func(){
		"backwards":       func() { o.Admit(Take{Start: 1, End: 0}) },
		"negative cost":   func() { o.Admit(at(0, -1)) },
		"no number":       func() { o.Refund(at(0, math.NaN())) },
		"infinite":        func() { o.Admit(at(0, math.Inf(1))) },
		"no period":       func() { New(Limit{Tokens: 1, Burst: 1}) },
		"negative rate":   func() { New(Limit{Tokens: -1, Period: 1}) },
		"negative burst":  func() { o.Against(Limit{Burst: -1, Period: 1}) },
		"infinite factor": func() { o.Against(tenPerSecond.Times(math.Inf(1))) },
	} {
		assert.Panics(t, call, name)
	}
	assert.Zero(t, o.Report().Takes)
}

// A nanosecond of difference must not drown in a day of run.
func TestLongRuns(t *testing.T) {
	const day = 24 * time.Hour
	o := New(Limit{Tokens: 1e6, Period: time.Second, Burst: 10})
	o.Admit(at(0, 10))
	o.Admit(at(day, 10))
	o.Admit(at(day+time.Microsecond, 1.001))
	r := o.Report()
	assert.InDelta(t, 0.001, r.Excess, 1e-12)
	assert.Equal(t, day, r.Worst.From)

	tenths := New(Limit{Tokens: 0, Period: time.Second, Burst: 10_000})
	for i := range 100_000 {
		tenths.Admit(at(time.Duration(i), 0.1))
	}
	assert.LessOrEqual(t, tenths.Report().Excess, 1e-12*10_000)
}

func TestConcurrentUse(t *testing.T) {
	o := New(tenPerSecond)
	var group sync.WaitGroup
	for i := range 8 {
		group.Go(func() {
			for j := range 100 {
				o.Admit(at(time.Duration(i*100+j), 1))
				o.Refund(at(time.Duration(i*100+j), 1))
				if j == 50 {
					assert.Zero(t, o.Between(0, time.Hour).Report().Run.Admitted*0)
					o.Utilization(0, time.Second)
					o.Timeline(time.Second)
				}
			}
		})
	}
	group.Wait()
	r := o.Report()
	assert.Equal(t, 800.0, r.Run.Admitted)
	assert.Equal(t, 800.0, r.Run.Refunded)
}
