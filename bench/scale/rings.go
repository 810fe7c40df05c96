package main

import (
	"bufio"
	"cmp"
	"fmt"
	"os"
	"regexp"
	"slices"
	"strconv"
	"time"
)

// ringResult is what a ring of so many members costs a node.
type ringResult struct {
	Members int
	Build   time.Duration // from nothing
	Change  time.Duration // one member more or less: the new ring, and the one without the node itself
	Bytes   int           // of what is made by a change
}

// ringLine is a line of BenchmarkRingBuild or BenchmarkRingChange.
var ringLine = regexp.MustCompile(`^BenchmarkRing(Build|Change)/(\d+)(?:-\d+)?\s+\d+\s+([\d.]+) ns/op\s+(\d+) B/op`)

// readRings reads the output of the benchmarks of rings.
func readRings(file string) (rings []ringResult, err error) {
	f, err := os.Open(file)
	if err != nil {
		return nil, fmt.Errorf("-rings: %w", err)
	}
	defer f.Close()
	byMembers := make(map[int]int)
	lines := bufio.NewScanner(f)
	for lines.Scan() {
		match := ringLine.FindStringSubmatch(lines.Text())
		if match == nil {
			continue
		}
		members, _ := strconv.Atoi(match[2])
		nanos, _ := strconv.ParseFloat(match[3], 64)
		bytes, _ := strconv.Atoi(match[4])
		i, ok := byMembers[members]
		if !ok {
			i = len(rings)
			byMembers[members] = i
			rings = append(rings, ringResult{Members: members})
		}
		if match[1] == "Build" {
			rings[i].Build = time.Duration(nanos)
		} else {
			rings[i].Change, rings[i].Bytes = time.Duration(nanos), bytes
		}
	}
	if len(rings) == 0 {
		return nil, fmt.Errorf("-rings: %s has no line of BenchmarkRingBuild or BenchmarkRingChange with -benchmem", file)
	}
	slices.SortFunc(rings, func(a, b ringResult) int { return cmp.Compare(a.Members, b.Members) })
	return rings, lines.Err()
}
