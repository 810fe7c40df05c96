package main

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"time"
)

// options are the flags, checked.
type options struct {
	nodes    int
	rate     float64 // tokens per second for each key
	burst    float64 // tokens
	duration time.Duration
	chaos    bool
	page     string // the address of the page; none when empty
}

// Bounds of the flags.
const (
	maxNodes    = 7 // with the one that is started later, a column each, they fit a terminal of 100 columns
	maxRate     = 10_000
	maxBurst    = 1_000_000
	minDuration = 2 * time.Second
	maxDuration = 10 * time.Minute // every admitted call is kept until the verdict
)

// demand is how often the driver asks for a key, as a multiple of the limit.
type demand struct {
	key   string
	times float64
}

// demands are the keys and how far each is overdriven; the first is the hottest.
var demands = []demand{{"alice", 4}, {"bob", 2}, {"carol", 2}}

func keyNames() []string {
	names := make([]string, len(demands))
	for i, d := range demands {
		names[i] = d.key
	}
	return names
}

const usageText = `Usage: cluster [flags]

Starts some processes of a small HTTP service. All of them together keep to one rate limit per key,
with no Redis and no coordinator: each just embeds a peerlimit node. Then it sends HTTP requests for
the keys alice, bob and carol to all of them in turn, 2 to 4 times as many as the limit allows, and
shows every second:

  offered    requests per second that were sent
  admitted   how many of them were let through: close to the limit, however many are sent
  limit      what the limits of all keys allow together, per second
  node-1 ... those admitted, by the process that was asked
  local      those admitted, by origin: the process that was asked, because it owns the key,
  remote     or the key's owner, which the process asked over the network,
  standby    or the process that has a replica of what the owner knew, at the end of a line
  fallback   or the process that was asked, by its share of the limit: the owner is out of reach

Meanwhile the owner of the hottest key is killed (SIGKILL), some seconds later another process is
started, and in the end the owner of the hottest key is asked to leave (SIGTERM). Lines with >> say
what the demo did; the lines after them are what the nodes reported.

Last comes the verdict. With burst B and rate R, a window of w seconds may admit B + R·w for a
key, and nothing more because a process came or left. The kill may make the others forget what
the owner admitted within its last 20 ms: as many takes as were seen then may be admitted again.
On a busy machine processes lose each other as well: one that reports that it reaches no owner
may admit its share of the limit beside. All windows of the run are checked. The exit status is 0
when every key kept to that and got at least 90 % of what one bucket would have given to the same
requests, but for the moment without an owner after the kill, and when no calls failed but those
that the kill cut off; otherwise it is 1. Ctrl-C ends the run early, with the verdict so far.

Flags:
`

// parseOptions returns flag.ErrHelp after it has printed the help that was asked for.
func parseOptions(args []string, help io.Writer) (options, error) {
	var o options
	flags := flag.NewFlagSet("cluster", flag.ContinueOnError)
	flags.SetOutput(io.Discard) // errors are returned, and are not to be printed twice
	flags.Usage = func() {}
	flags.IntVar(&o.nodes, "nodes", 5, "start `n` node processes")
	flags.Float64Var(&o.rate, "rate", 100, "let `R` requests per second through for each key")
	flags.Float64Var(&o.burst, "burst", 50, "let `B` requests through at once for each key")
	flags.DurationVar(&o.duration, "duration", 20*time.Second, "send requests for `time`")
	flags.BoolVar(&o.chaos, "chaos", true,
		"kill, start and retire nodes; -chaos=false leaves them alone,\nand then B + R·w is all that is allowed")
	flags.StringVar(&o.page, "http", "",
		"show the run on a page at `address`, with buttons to kill, freeze, split, start and retire nodes;\nthen -duration is 10m and -chaos is false unless given")
	err := flags.Parse(args)
	if o.page != "" {
		given := make(map[string]bool)
		flags.Visit(func(f *flag.Flag) { given[f.Name] = true })
		if !given["duration"] {
			o.duration = maxDuration
		}
		if !given["chaos"] {
			o.chaos = false
		}
	}
	switch {
	case errors.Is(err, flag.ErrHelp):
		fmt.Fprint(help, usageText)
		flags.SetOutput(help)
		flags.PrintDefaults()
		return o, flag.ErrHelp
	case err != nil:
		return o, err
	case flags.NArg() > 0:
		return o, fmt.Errorf("unexpected argument %q", flags.Arg(0))
	}
	return o, o.validate()
}

func (o options) validate() error {
	switch {
	case o.nodes < 1 || o.nodes > maxNodes:
		return fmt.Errorf("-nodes is %d; it must be from 1 to %d", o.nodes, maxNodes)
	case o.nodes == 1 && o.chaos:
		return errors.New("-nodes is 1: when that one is killed nobody is left; use at least 2, or -chaos=false")
	case !(o.rate > 0) || o.rate > maxRate:
		return fmt.Errorf("-rate is %v; it must be greater than 0, at most %d", o.rate, maxRate)
	case !(o.burst >= 1) || o.burst > maxBurst:
		return fmt.Errorf("-burst is %v; it must be from 1 to %d, because a request costs 1", o.burst, maxBurst)
	case o.page != "" && !isAddress(o.page):
		return fmt.Errorf("-http is %q; it must be host:port, for example 127.0.0.1:8090", o.page)
	case o.duration < minDuration || o.duration > maxDuration:
		return fmt.Errorf("-duration is %v; it must be from %v to %v", o.duration, minDuration, maxDuration)
	}
	return nil
}

func isAddress(address string) bool {
	_, port, err := net.SplitHostPort(address)
	if err != nil {
		return false
	}
	_, err = net.LookupPort("tcp", port)
	return err == nil && port != ""
}

// offered is how many requests per second the driver sends.
func (o options) offered() float64 {
	total := 0.0
	for _, d := range demands {
		total += d.times * o.rate
	}
	return total
}
