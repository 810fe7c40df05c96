// Command contestant is one of the limiters that the side-by-side benchmark compares, all but Gubernator, as a process that
// does what package contest describes:
//
//	contestant -program peerlimit
package main

import (
	"flag"
	"fmt"
	"maps"
	"os"
	"slices"

	"github.com/peerlimit/peerlimit/bench/contest"
)

// programs are what -program can name.
var programs = map[string]func() contest.Contestant{
	"peerlimit":      func() contest.Contestant { return &peerlimitNodes{} },
	"redis_rate":     func() contest.Contestant { return &redisRate{} },
	"ping-pong":      func() contest.Contestant { return &pingPong{} },
	"x/time/rate":    func() contest.Contestant { return &library{make: xTimeRate} },
	"go-limiter":     func() contest.Contestant { return &library{make: goLimiter} },
	"throttled":      func() contest.Contestant { return &library{make: throttledGCRA} },
	"uber/ratelimit": func() contest.Contestant { return &library{make: uberRatelimit} },
	"juju/ratelimit": func() contest.Contestant { return &library{make: jujuRatelimit} },
	"failsafe-go":    func() contest.Contestant { return &library{make: failsafeLimiter} },
}

func main() {
	program := flag.String("program", "", "which limiter to be")
	flag.Parse()
	create := programs[*program]
	if create == nil {
		fmt.Fprintf(os.Stderr, "-program is %q; it must be one of %q\n", *program, slices.Sorted(maps.Keys(programs)))
		os.Exit(2)
	}
	if err := contest.Serve(create(), os.Stdin, os.Stdout); err != nil {
		fmt.Fprintf(os.Stderr, "%s: %v\n", *program, err)
		os.Exit(1)
	}
}
