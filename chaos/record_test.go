//go:build linux

package chaos

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// record is one call, as a driver saw it. Times are of the machine's monotonic clock.
type record struct {
	node, key  string
	start, end time.Duration
	status     string
	why        string // of a failure; or the origin of the decision
}

func parseRecord(line string) (record, error) {
	fields := strings.SplitN(line, " ", 6)
	if len(fields) < 5 {
		return record{}, fmt.Errorf("chaos: a record of %d fields: %q", len(fields), line)
	}
	r := record{node: fields[0], key: fields[1], status: fields[4]}
	for i, to := range []*time.Duration{&r.start, &r.end} {
		n, err := strconv.ParseInt(fields[2+i], 10, 64)
		if err != nil {
			return record{}, fmt.Errorf("chaos: a record with the time %q: %w", fields[2+i], err)
		}
		*to = time.Duration(n)
	}
	if r.end < r.start {
		return record{}, fmt.Errorf("chaos: a record that ends before it starts: %q", line)
	}
	if !slices.Contains([]string{"allowed", "denied", "failed", "broken", "alive"}, r.status) {
		return record{}, fmt.Errorf("chaos: a record with the status %q", r.status)
	}
	if len(fields) == 6 {
		r.why = fields[5]
	}
	return r, nil
}

// clock returns the time of the machine's monotonic clock, as the drivers do.
func clock() time.Duration {
	var t unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &t); err != nil {
		panic(err) // every Linux has it
	}
	return time.Duration(t.Nano())
}
