// Command gubernator is Gubernator in the side-by-side benchmark: a process that does what package contest describes. It
// asks the daemon of its own process through its Go API, as a service that embeds it would; the behavior is the scenario's
// mode.
package main

import (
	"fmt"
	"os"

	"github.com/peerlimit/peerlimit/bench/contest"
)

func main() {
	if err := contest.Serve(&daemons{}, os.Stdin, os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "gubernator:", err)
		os.Exit(1)
	}
}
