package main

import (
	"fmt"
	"math"
)

// budget is what peerlimit is meant to keep.
type budget struct {
	what     string
	least    bool // the bound is the least it may be; otherwise the most
	bound    float64
	show     func(float64) string
	measured figure
}

// outcome says whether the median is within the bound, and by how much it is not.
func (b *budget) outcome() string {
	m := b.measured.median
	switch {
	case b.measured.rounds == 0:
		return "not measured"
	case b.least && m >= b.bound, !b.least && m <= b.bound:
		return "met"
	case b.bound == 0:
		return "missed by " + b.show(m)
	case !b.least && m >= 2*b.bound:
		return "missed: " + times(m/b.bound) + " the budget"
	}
	return "missed by " + percent(math.Abs(m-b.bound)/b.bound)
}

func (b *budget) text() string {
	if b.least {
		return "≥ " + b.show(b.bound)
	}
	return "≤ " + b.show(b.bound)
}

// exactly allows for the clock, which is not the one that limiters decide by.
const exactly = 1.01

// budgets are all budgets with what was measured.
func (r *results) budgets() []budget {
	local := line{table: tableLocal, contestant: programPeerlimit, place: placeThree}
	localOf := func(contestant, place string) line {
		return line{table: tableLocal, contestant: contestant, place: place}
	}
	remote := func(contestant, place string, callers int) line {
		return line{table: tableRemote, contestant: contestant, place: place, callers: callers}
	}
	own1, own256 := remote(programPeerlimit, placeThree, 1), remote(programPeerlimit, placeThree, 256)
	var exact256, local3, hotAbove, hotInWay []line
	for _, mode := range exactModes {
		exact256 = append(exact256, remote("Gubernator "+mode, placeThree, 256))
	}
	hot := func(contestant, variant string) line {
		return line{table: tableHot, contestant: contestant, place: placeThree, variant: variant, callers: 256}
	}
	for _, mode := range modes {
		local3 = append(local3, localOf("Gubernator "+mode, placeThree))
		hotAbove = append(hotAbove, hot("Gubernator "+mode, variantAbove))
		hotInWay = append(hotInWay, hot("Gubernator "+mode, variantInWay))
	}
	variant := func(name string) line {
		return line{table: tableVariants, contestant: programPeerlimit, place: placeThree, variant: name, callers: 256}
	}
	memory := func(place string) line {
		return line{table: tableMemory, contestant: programPeerlimit, place: place, callers: 64}
	}
	bytes := func(x float64) string { return digits(x) + " bytes" }
	return []budget{
		{"local decision, time in parts of `x/time/rate` in a `sync.Map`", false, 0.5, times, r.ratio(local, perTake, localOf(programXTimeRate, placeAlone))},
		{"local decision, rate in multiples of Gubernator's fastest mode", true, 50, times, r.ratio(local, perSecond, local3...)},
		{"local decision, allocations", false, 0, digits, r.figure(local, callerMallocs)},
		{"remote, 256 callers, rate in multiples of Gubernator's best exact mode", true, 8, times, r.ratio(own256, perSecond, exact256...)},
		{"remote, 256 callers, rate in multiples of redis_rate's", true, 8, times, r.ratio(own256, perSecond, remote(programRedis, placeServer, 256))},
		{"lone remote take, p50 in parts of redis_rate's", false, 0.4, times, r.ratio(own1, p50, remote(programRedis, placeServer, 1))},
		{"lone remote take, p50 in multiples of a bare ping-pong's", false, 1.5, times, r.ratio(own1, p50, remote(programPingPong, placeTwo, 1))},
		{"remote, 256 callers, allocations of the caller's process per take", false, 1, digits, r.figure(own256, callerMallocs)},
		{"remote, 256 callers, allocations of the other two processes per take", false, 0, digits, r.figure(own256, otherMallocs)},
		{"the same without replication", false, 0, digits, r.figure(variant(variantNoCopy), otherMallocs)},
		{"remote, 256 callers, bytes to the owner per take", false, 60, bytes, r.figure(own256, wireOut)},
		{"remote, 256 callers, bytes back per take", false, 60, bytes, r.figure(own256, wireBack)},
		{"hot key, 256 callers, limit above the load, rate in multiples of Gubernator's fastest mode", true, 50, times, r.ratio(hot(programPeerlimit, variantAbove), perSecond, hotAbove...)},
		{"the same, limit in the way", true, 50, times, r.ratio(hot(programPeerlimit, variantInWay), perSecond, hotInWay...)},
		{"the same, admitted in parts of what is allowed", false, exactly, times, r.figure(hot(programPeerlimit, variantInWay), worstKey)},
		{"memory per key beyond its own bytes, one node", false, 128, bytes, r.figure(memory(placeAlone), heapBytes)},
		{"memory per key beyond its own bytes, one of three nodes, with replication", false, 128, bytes, r.figure(memory(placeThree), heapBytes)},
		{"replication, part of the processor time at full load: what is gone without it", false, 0.15, percent, r.replication(variant)},
		{"pings, part of the processor time at full load: 60 pings a second, each reckoned as a lone remote take", false, 0.01, percent, r.pings(own1, own256)},
	}
}

// replication is the part of the processor time of takes that is gone without it.
func (r *results) replication(variant func(string) line) figure {
	used := func(m *measurement) float64 { return otherCPU(m) + callerCPU(m) }
	without := r.ratio(variant(variantNoCopy), used, variant(variantAllowed))
	if without.rounds == 0 {
		return without
	}
	return figure{1 - without.median, 1 - without.most, 1 - without.least, without.rounds}
}

// pingsPerSecond is how many three nodes send together in a second to know that they are heard.
const pingsPerSecond = 6 * 10

// pings is the processor time of pings in parts of what takes use at full load. A ping is reckoned as a lone take, which
// is more: it has a bucket to look up as well, and processors to wake that at full load are awake.
func (r *results) pings(lone, full line) figure {
	used := func(m *measurement) float64 { return callerCPU(m) + otherCPU(m) }
	var parts []float64
	for round, at := range r.rounds(full) {
		if ping := r.rounds(lone)[round]; ping != nil {
			parts = append(parts, pingsPerSecond*used(ping)/(perSecond(at)*used(at)))
		}
	}
	return figureOf(parts)
}

func (r *results) budgetRows() (rows [][]string) {
	for _, b := range r.budgets() {
		rows = append(rows, []string{b.what, b.text(), b.measured.text(b.show), b.outcome()})
	}
	return rows
}

// missed says how many of the budgets are, in a sentence.
func (r *results) missed() string {
	met, missed := 0, 0
	for _, b := range r.budgets() {
		switch b.outcome() {
		case "met":
			met++
		case "not measured":
		default:
			missed++
		}
	}
	return fmt.Sprintf("%d of %d are met.", met, met+missed)
}
