package limit

import (
	"encoding/binary"
	"math"
	"testing"
	"time"
)

// FuzzMeter runs whatever limit and operations it is given beside the exact model.
func FuzzMeter(f *testing.F) {
	script := func(operations ...fuzzOperation) (b []byte) {
		for _, o := range operations {
			b = o.append(b)
		}
		return b
	}
	f.Add(10.0, int64(time.Second), 0.0, false, script(fuzzOperation{cost: 10}, fuzzOperation{cost: 1, step: 5e8}, fuzzOperation{cost: 5, step: 5e8}))
	f.Add(1.0, int64(24*time.Hour), 1e9, false, script(fuzzOperation{cost: 1e9}, fuzzOperation{cost: 1e-9, step: 1}, fuzzOperation{refund: true, cost: 1e8}))
	f.Add(1e7, int64(time.Second), 0.5, true, script(fuzzOperation{cost: 0.5}, fuzzOperation{cost: 0.1, step: 1e6}, fuzzOperation{cost: 0.1, step: -1e6}))
	f.Add(math.MaxFloat64, int64(1), math.MaxFloat64, true, script(fuzzOperation{cost: math.MaxFloat64}, fuzzOperation{cost: 1, step: math.MaxInt64}))
	f.Add(1.0/3, int64(1<<53+1), 1.0, false, script(fuzzOperation{cost: 1.0 / 3}, fuzzOperation{cost: 1, step: 1<<54 + 1}))

	f.Fuzz(func(t *testing.T, tokens float64, period int64, burst float64, leaks bool, script []byte) {
		l := Limit{Tokens: tokens, Period: time.Duration(period), Burst: burst}
		if leaks {
			l = leaky(l)
		}
		if l.Problem() != "" || l.Capacity() < 1e-280 { // below, the exact model is more exact than any float64
			return
		}
		set := NewSet([]Limit{l})
		now := int64(0)
		j := newJudge(t, set, now)
		for count := 0; len(script) >= fuzzOperationLen && count < 64; count++ {
			var o fuzzOperation
			o, script = readFuzzOperation(script)
			now = moveClock(now, o.step)
			switch {
			case !ValidCost(o.cost):
				j.peek(set, now)
			case o.refund:
				j.refund(set, o.cost, now)
			case set.Fits(o.cost):
				j.take(set, o.cost, now)
			}
		}
	})
}

// moveClock keeps the clock between 0 and a century and a half.
func moveClock(now, step int64) int64 {
	if step > math.MaxInt64/2-now {
		return math.MaxInt64 / 2
	}
	return max(0, now+step)
}

// fuzzOperation is one line of a fuzzing script.
type fuzzOperation struct {
	refund bool
	cost   float64
	step   int64 // the clock moves that much before
}

const fuzzOperationLen = 1 + 8 + 8

func (o fuzzOperation) append(b []byte) []byte {
	kind := byte(0)
	if o.refund {
		kind = 1
	}
	b = append(b, kind)
	b = binary.LittleEndian.AppendUint64(b, math.Float64bits(o.cost))
	return binary.LittleEndian.AppendUint64(b, uint64(o.step))
}

func readFuzzOperation(b []byte) (fuzzOperation, []byte) {
	return fuzzOperation{
		refund: b[0]&1 == 1,
		cost:   math.Float64frombits(binary.LittleEndian.Uint64(b[1:])),
		step:   int64(binary.LittleEndian.Uint64(b[9:])) >> (b[0] >> 2), // all magnitudes
	}, b[fuzzOperationLen:]
}
