package main

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"strings"

	"github.com/peerlimit/peerlimit"
)

// errBadFlag means that the command line is wrong, so that starting again will not help.
var errBadFlag = errors.New("bad flag")

// options is a command line that was checked.
type options struct {
	addr     string
	limit    peerlimit.Limit // of each client
	bind     string
	join     []string
	expect   int // instances
	insecure bool
	status   string // where the status page is served; empty: nowhere

	secretFile string   // what all instances share; its content is not an option, to stay out of the list of processes
	accept     []string // files with secrets that are understood as well
}

// newFlags returns the flags and the options they set, which hold the defaults until then.
func newFlags() (*flag.FlagSet, *options) {
	opts := &options{limit: peerlimit.PerSecond(10).WithBurst(20)}
	flags := flag.NewFlagSet("httpserver", flag.ContinueOnError)
	flags.StringVar(&opts.addr, "addr", ":8080", "serve HTTP at `host:port`")
	flags.Float64Var(&opts.limit.Tokens, "rate", opts.limit.Tokens, "let each client IP send `n` requests a second")
	flags.Float64Var(&opts.limit.Burst, "burst", opts.limit.Burst, "let each client IP send `n` requests at once")
	flags.StringVar(&opts.bind, "bind", "", "gossip with other instances at `host:port` (default a free port of 127.0.0.1)")
	flags.Func("join", "share the limits with the instances at these `host:port,...`", func(seeds string) error {
		opts.join = splitSeeds(seeds)
		return nil
	})
	flags.IntVar(&opts.expect, "expect", 0, "expected `number` of instances; until so many were seen, one that is alone limits to its share, 1/number")
	flags.StringVar(&opts.secretFile, "secret-file", "", "encrypt with the secret in this `file`: at least 32 bytes, the same for all instances")
	flags.Func("accept-secret-file", "understand the secret in this `file` as well, while it is being changed", func(name string) error {
		opts.accept = append(opts.accept, name)
		return nil
	})
	flags.StringVar(&opts.status, "status", "", "serve the status page at `host:port`, for operators only (default nowhere)")
	flags.BoolVar(&opts.insecure, "insecure", false, "allow -bind to an address that is not loopback, without encryption")
	return flags, opts
}

// splitSeeds splits at commas. What is between them is the node's to judge.
func splitSeeds(list string) []string {
	if list == "" {
		return nil // as in scripts: -join "$SEEDS"
	}
	seeds := strings.Split(list, ",")
	for i, seed := range seeds {
		seeds[i] = strings.TrimSpace(seed)
	}
	return seeds
}

// parseOptions returns the options, flag.ErrHelp, or an error that matches errBadFlag and names a flag and its value.
func parseOptions(args []string) (options, error) {
	flags, opts := newFlags()
	flags.SetOutput(io.Discard) // the caller reports the error, once
	err := flags.Parse(args)
	switch {
	case errors.Is(err, flag.ErrHelp):
		return options{}, err
	case err == nil && flags.NArg() > 0:
		err = fmt.Errorf("%q is not a flag", flags.Arg(0))
	case err == nil:
		err = opts.check()
	}
	if err != nil {
		return options{}, fmt.Errorf("%w: %w (-h explains the flags)", errBadFlag, err)
	}
	return *opts, nil
}

// check refuses what cannot work. It leaves -bind and -join to the node.
func (o *options) check() error {
	if o.addr == "" {
		return errors.New(`-addr "": it names no port`) // which would mean any free one
	}
	if _, err := net.ResolveTCPAddr("tcp", o.addr); err != nil {
		return fmt.Errorf("-addr %q: %w", o.addr, err)
	}
	if _, err := net.ResolveTCPAddr("tcp", o.status); o.status != "" && err != nil {
		return fmt.Errorf("-status %q: %w", o.status, err)
	}
	if err := peerlimit.PerSecond(o.limit.Tokens).Validate(); err != nil {
		return fmt.Errorf("-rate %v: %w", o.limit.Tokens, err)
	}
	if !(o.limit.Burst >= 1) {
		return fmt.Errorf("-burst %v: a request costs one token, so less than 1 lets nothing through", o.limit.Burst)
	}
	if err := o.limit.Validate(); err != nil {
		return fmt.Errorf("-burst %v: %w", o.limit.Burst, err)
	}
	return nil
}

// printUsage is the answer to -h.
func printUsage(out io.Writer) {
	fmt.Fprint(out, `httpserver limits each client IP at GET /token (a token bucket: answers or refuses at once) and
GET /leaky (a leaky bucket: answers when it is the request's turn). Instances that are joined share the limits.

`)
	flags, _ := newFlags()
	flags.SetOutput(out)
	flags.PrintDefaults()
}
