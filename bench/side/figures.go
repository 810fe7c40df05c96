package main

import (
	"fmt"
	"math"
	"slices"
	"strconv"
)

// figure is what one quantity was in all rounds.
type figure struct {
	median, least, most float64
	rounds              int
}

func figureOf(values []float64) (f figure) {
	if len(values) == 0 {
		return f
	}
	values = slices.Sorted(slices.Values(values))
	n := len(values)
	return figure{(values[(n-1)/2] + values[n/2]) / 2, values[0], values[n-1], n}
}

// line is one line of a table: a contestant in one of the table's scenarios.
type line struct {
	table, contestant, place, variant string
	callers                           int
}

func lineOf(m *measurement) line {
	l := line{table: m.Table, contestant: m.Contestant, place: m.Place, variant: m.Variant}
	if m.Scenario != nil {
		l.callers = m.Scenario.Callers
	}
	return l
}

// rounds are the measurements of one line by round.
func (r *results) rounds(l line) map[int]*measurement {
	found := make(map[int]*measurement)
	for i := range r.Measurements {
		if m := &r.Measurements[i]; lineOf(m) == l {
			found[m.Round] = m
		}
	}
	return found
}

// figure is a quantity of one line; rounds in which it is not a number do not count.
func (r *results) figure(l line, quantity func(*measurement) float64) figure {
	var values []float64
	for _, m := range r.rounds(l) {
		if value := quantity(m); !math.IsNaN(value) {
			values = append(values, value)
		}
	}
	return figureOf(values)
}

// ratio is a quantity of one line in parts of another one's: of the greatest of them when there are several. It is computed
// in each round, so that how fast the machine was cancels out.
func (r *results) ratio(l line, quantity func(*measurement) float64, others ...line) figure {
	var values []float64
	for round, m := range r.rounds(l) {
		greatest := math.Inf(-1)
		for _, other := range others {
			if o := r.rounds(other)[round]; o != nil {
				greatest = max(greatest, quantity(o))
			}
		}
		if greatest > 0 {
			values = append(values, quantity(m)/greatest)
		}
	}
	return figureOf(values)
}

// lines are those of a table, in the order in which they were first measured in round one.
func (r *results) lines(table string) (lines []line) {
	for i := range r.Measurements {
		if l := lineOf(&r.Measurements[i]); l.table == table && !slices.Contains(lines, l) {
			lines = append(lines, l)
		}
	}
	return lines
}

// The quantities.

func perSecond(m *measurement) float64 { return m.Result.PerSecond() }
func perTake(m *measurement) float64   { return m.Result.PerTake() }
func p50(m *measurement) float64       { return m.Result.P50 }
func p99(m *measurement) float64       { return m.Result.P99 }
func p999(m *measurement) float64      { return m.Result.P999 }

func takes(m *measurement) float64 { return float64(max(1, m.Result.Takes)) }

func callerMallocs(m *measurement) float64 { return float64(m.Result.Mallocs) / takes(m) }
func otherMallocs(m *measurement) float64  { return float64(m.Others.Mallocs) / takes(m) }

// callerCPU and otherCPU are seconds per million takes.
func callerCPU(m *measurement) float64 { return m.Result.CPUSeconds / takes(m) * 1e6 }
func otherCPU(m *measurement) float64  { return m.Others.CPUSeconds / takes(m) * 1e6 }

// callerCPUPerTake and otherCPUPerTake are nanoseconds.
func callerCPUPerTake(m *measurement) float64 { return callerCPU(m) * 1e3 }
func otherCPUPerTake(m *measurement) float64  { return otherCPU(m) * 1e3 }

func wireOut(m *measurement) float64  { return float64(m.Wire.Out) / takes(m) }
func wireBack(m *measurement) float64 { return float64(m.Wire.Back) / takes(m) }
func wireAll(m *measurement) float64  { return float64(m.Wire.All) / takes(m) }

func failedShare(m *measurement) float64 { return float64(m.Result.Failed) / takes(m) }
func admittedShare(m *measurement) float64 {
	return float64(m.Result.Judged.Admitted) / m.Result.Judged.Allowed
}
func worstKey(m *measurement) float64 { return m.Result.Judged.Worst }

// idleCPU is a part of a core.
func idleCPU(m *measurement) float64 { return m.Others.CPUSeconds / m.Seconds }

// keyLength is that of package contest's keys. What a key takes is counted beyond it.
const keyLength = 20

func liveBytes(m *measurement) float64 {
	return float64(m.Memory.LiveBytes)/float64(m.Memory.Keys) - keyLength
}

func heapBytes(m *measurement) float64 {
	return float64(m.Memory.HeapBytes)/float64(m.Memory.Keys) - keyLength
}

// text shows the figure in a table: the median, and the least and the most when there were several rounds.
func (f figure) text(show func(float64) string) string {
	median, least, most := show(f.median), show(f.least), show(f.most)
	switch {
	case f.rounds == 0:
		return "–"
	case least == most:
		return median
	}
	return fmt.Sprintf("%s (%s–%s)", median, least, most)
}

// duration shows nanoseconds.
func duration(ns float64) string {
	switch {
	case ns == 0:
		return "0"
	case ns < 1e3:
		return digits(ns) + " ns"
	case ns < 1e6:
		return digits(ns/1e3) + " µs"
	case ns < 1e9:
		return digits(ns/1e6) + " ms"
	}
	return digits(ns/1e9) + " s"
}

// digits shows a number with three digits that count, or all of an integer's, in groups of three.
func digits(x float64) string {
	switch size := math.Abs(x); {
	case size >= 1000:
		return grouped(int64(math.Round(x)))
	case size >= 99.95:
		return strconv.FormatFloat(x, 'f', 0, 64)
	case size >= 9.995:
		return strconv.FormatFloat(x, 'f', 1, 64)
	case size < 0.0005:
		return "0"
	case size < 0.0995:
		return strconv.FormatFloat(x, 'f', 3, 64)
	}
	return strconv.FormatFloat(x, 'f', 2, 64)
}

func grouped(n int64) string {
	text := strconv.FormatInt(n, 10)
	for i := len(text) - 3; i > 0 && text[i-1] != '-'; i -= 3 {
		text = text[:i] + "," + text[i:]
	}
	return text
}

// rate shows takes a second, to three digits.
func rate(x float64) string {
	if x < 1000 {
		return digits(x)
	}
	unit := math.Pow(10, math.Floor(math.Log10(x))-2)
	return grouped(int64(math.Round(x/unit) * unit))
}

func percent(x float64) string { return strconv.FormatFloat(100*x, 'f', 1, 64) + " %" }

func times(x float64) string { return digits(x) + " ×" }
