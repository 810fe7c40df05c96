package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"os"
	"os/exec"
	"slices"
	"sync"
	"syscall"
	"time"

	"github.com/peerlimit/peerlimit"
)

// childVariable makes this program a node process when it is set in its environment.
const childVariable = "PEERLIMIT_SCALE_CHILD"

// order is what a node process is told to do, a line of JSON each; it answers with a line each.
type order struct {
	Do      string        // start, meet, load, probe, fill, status
	Join    string        // of start
	Members int           // of meet
	Callers int           // of load
	Keys    int           // of load and probe: so many; of fill: up to this one
	From    int           // of fill: the first key
	Lasts   time.Duration // of load and probe
	Rate    float64       // of probe: takes a second
	Heap    bool          // of status: the live heap as well, which takes a while
}

// report is what came of an order.
type report struct {
	Error     string
	Address   string        // of start
	Took      time.Duration // of meet and fill
	CPU       time.Duration // of load: what the process has used meanwhile
	Decisions uint64        // of load
	Calls     []call        // of probe
	Status    nodeStatus
}

// call is one take of a probe.
type call struct {
	At, Took time.Duration // since the probe began
	Origin   string
	Denied   bool
}

// nodeStatus is how a node is.
type nodeStatus struct {
	CPU         time.Duration // since the process began
	Owned, Held int
	HeapMB      float64 // if it was asked for
	Lag         time.Duration
}

// limit is never in the way of what is asked for, and lets no bucket be full again while this measures: to get back a token
// takes three minutes.
var limit = peerlimit.PerHour(20).WithBurst(1e9)

// node is what a node process has.
type node struct {
	*peerlimit.Node
	limiter *peerlimit.Limiter
}

// runChild obeys orders until there are no more.
func runChild(in io.Reader, out io.Writer) error {
	var n node
	defer func() {
		if n.Node != nil {
			_ = n.Close()
		}
	}()
	answers := json.NewEncoder(out)
	for lines := bufio.NewScanner(in); lines.Scan(); {
		var o order
		if err := json.Unmarshal(lines.Bytes(), &o); err != nil {
			return err
		}
		r, err := n.obey(o)
		if err != nil {
			r.Error = err.Error()
		}
		if err := answers.Encode(r); err != nil {
			return err
		}
	}
	return nil
}

func (n *node) obey(o order) (r report, err error) {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	began := time.Now()
	switch o.Do {
	case "start":
		config := peerlimit.Config{NoLeases: true, NoDenialCache: true, MaxKeys: 10_000_000, Logger: slog.New(slog.DiscardHandler)}
		if o.Join != "" {
			config.Join = []string{o.Join}
		}
		if n.Node, err = peerlimit.Start(config); err != nil {
			return r, err
		}
		n.limiter, err = n.Limiter("scale", limit)
		r.Address = n.Self().Addr
	case "meet":
		err = n.WaitReady(ctx, o.Members)
	case "load":
		before := processorTime()
		r.Decisions, err = n.load(ctx, o)
		r.CPU = processorTime() - before
	case "probe":
		r.Calls, err = n.probe(ctx, o)
	case "fill":
		err = n.fill(ctx, o)
	case "status":
		s := n.Stats()
		r.Status = nodeStatus{CPU: processorTime(), Owned: s.PartitionsOwned, Held: s.PartitionsHeld, Lag: s.ReplicaLag}
		if o.Heap {
			r.Status.HeapMB = heapMB()
		}
	default:
		err = fmt.Errorf("do is %q", o.Do)
	}
	r.Took = time.Since(began)
	return r, err
}

func keyName(i int) string { return fmt.Sprintf("user-%015d", i) } // 20 bytes

// load takes from random keys, each caller again as soon as it has an answer.
func (n *node) load(ctx context.Context, o order) (decisions uint64, err error) {
	keys := make([]string, o.Keys)
	for i := range keys {
		keys[i] = keyName(i)
	}
	var callers sync.WaitGroup
	var mu sync.Mutex
	end := time.Now().Add(o.Lasts)
	for range o.Callers {
		callers.Go(func() {
			count, random := uint64(0), rand.New(rand.NewPCG(rand.Uint64(), 1))
			var failed error
			for failed == nil && time.Now().Before(end) {
				_, failed = n.limiter.Take(ctx, keys[random.IntN(len(keys))], 1)
				count++
			}
			mu.Lock()
			defer mu.Unlock()
			decisions, err = decisions+count, errors.Join(err, failed)
		})
	}
	callers.Wait()
	return decisions, err
}

// probe takes from random keys at a steady rate, one after the other, and tells how each take went.
func (n *node) probe(ctx context.Context, o order) (calls []call, err error) {
	began, pause := time.Now(), time.Duration(float64(time.Second)/o.Rate)
	for i := 0; time.Since(began) < o.Lasts; i++ {
		time.Sleep(time.Until(began.Add(time.Duration(i) * pause)))
		at := time.Since(began)
		d, err := n.limiter.Take(ctx, keyName(rand.IntN(o.Keys)), 1)
		if err != nil {
			return calls, err
		}
		calls = append(calls, call{at, time.Since(began) - at, d.Origin.String(), !d.Allowed})
	}
	return calls, nil
}

// fill takes once from each of some keys.
func (n *node) fill(ctx context.Context, o order) error {
	const callers = 64
	var errs [callers]error
	var filling sync.WaitGroup
	for c := range callers {
		filling.Go(func() {
			for i := o.From + c; i < o.Keys && errs[c] == nil; i += callers {
				_, errs[c] = n.limiter.Take(ctx, keyName(i), 1)
			}
		})
	}
	filling.Wait()
	return errors.Join(errs[:]...)
}

// processorTime is what this process has used.
func processorTime() time.Duration {
	var usage syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &usage); err != nil {
		panic(err)
	}
	return time.Duration(usage.Utime.Nano() + usage.Stime.Nano())
}

// patience bounds every order.
const patience = 2 * time.Minute

// process is a node process, as the measuring process sees it.
type process struct {
	command *exec.Cmd
	in      io.WriteCloser
	out     *bufio.Reader
}

func startProcess() (*process, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	p := &process{command: exec.Command(self)}
	p.command.Env = append(os.Environ(), childVariable+"=1")
	p.command.Stderr = os.Stderr
	if p.in, err = p.command.StdinPipe(); err != nil {
		return nil, err
	}
	out, err := p.command.StdoutPipe()
	if err != nil {
		return nil, err
	}
	p.out = bufio.NewReader(out)
	return p, p.command.Start()
}

// tell has a process obey an order, and returns its report.
func (p *process) tell(o order) (r report, err error) {
	line, err := json.Marshal(o)
	if err != nil {
		return r, err
	}
	if _, err := p.in.Write(append(line, '\n')); err != nil {
		return r, err
	}
	if line, err = p.out.ReadBytes('\n'); err != nil {
		return r, fmt.Errorf("%s: %w", o.Do, err)
	}
	if err := json.Unmarshal(line, &r); err != nil {
		return r, err
	}
	if r.Error != "" {
		return r, fmt.Errorf("%s: %s", o.Do, r.Error)
	}
	return r, nil
}

// cluster is processes that are one.
type cluster []*process

// add starts another process, which joins the first.
func (c *cluster) add(join *string) (*process, error) {
	p, err := startProcess()
	if err != nil {
		return nil, err
	}
	*c = append(*c, p)
	r, err := p.tell(order{Do: "start", Join: *join})
	if *join == "" {
		*join = r.Address
	}
	return p, err
}

// all has all processes obey an order at the same time.
func (c cluster) all(o order) ([]report, error) {
	reports, errs := make([]report, len(c)), make([]error, len(c))
	var telling sync.WaitGroup
	for i, p := range c {
		telling.Go(func() { reports[i], errs[i] = p.tell(o) })
	}
	telling.Wait()
	return reports, errors.Join(errs...)
}

// close ends all processes, the last one first.
func (c cluster) close() {
	for _, p := range slices.Backward(c) {
		_ = p.in.Close()
	}
	for _, p := range c {
		_ = p.command.Wait() // they were ended
	}
}
