// Command driver sends takes to the nodes of a scenario of package chaos, at a steady pace, and records every call. It
// reads commands from its standard input, a line each, until that ends:
//
//	add NAME URL    sends to a node, too
//	drop NAME       sends no more to it, and says "dropped NAME" when its last call is over
//
// and writes a line for each call, in the order in which they end:
//
//	NAME KEY START END STATUS [WHY]
//
// with times in nanoseconds of the monotonic clock, which all processes of a machine share. STATUS is allowed, denied,
// failed (the node answered that it could not decide), broken (it did not answer) or alive (a request that needs no
// decision was answered). It asks for takes so often and for so long as -most and -for say, and fails when its input has not ended by then.
package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// tick is how often requests that are due are sent.
	tick = 10 * time.Millisecond

	// inFlight bounds the requests to one node that have not been answered: it is above what is sent in a second, and one
	// that is stopped does not hold up those to others.
	inFlight = 256

	// callTimeout is far above any decision. A node that is stopped for longer has not answered.
	callTimeout = 10 * time.Second

	// alivePause is how often a node is asked what needs no decision.
	alivePause = 50 * time.Millisecond
)

func main() {
	var (
		hot    = flag.Float64("hot", 50, "takes a second of the saturated key from each node")
		scarce = flag.Float64("scarce", 50, "takes a second of the exhausted keys, all together, from each node")
		keys   = flag.Int("keys", 40, "number of exhausted keys")
		most   = flag.Int64("most", 250_000, "takes to ask for in all, at most")
		lasts  = flag.Duration("for", 5*time.Minute, "how long to ask, at most")
	)
	flag.Parse()
	d := &driver{hot: *hot, scarce: *scarce, keys: *keys, most: *most, out: bufio.NewWriter(os.Stdout), targets: make(map[string]*target)}
	timed, cancel := context.WithTimeoutCause(context.Background(), *lasts, fmt.Errorf("driver: still asked to go on after %v", *lasts))
	defer cancel()
	d.bounded, d.exceed = context.WithCancelCause(timed)
	defer d.exceed(nil)
	if err := d.obey(os.Stdin); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// driver obeys commands; each target has goroutines of its own.
type driver struct {
	hot, scarce float64
	keys        int
	targets     map[string]*target

	most    int64 // takes
	asked   atomic.Int64
	bounded context.Context // it ends when a bound is exceeded, and says which
	exceed  context.CancelCauseFunc

	mu  sync.Mutex // guards out; held for writing one line
	out *bufio.Writer
}

// target is a node that is being asked.
type target struct {
	name, url string
	client    *http.Client
	slots     chan struct{} // one is taken for each request that has not been answered
	stop      context.CancelFunc
	running   sync.WaitGroup
}

// obey carries out commands until they end.
func (d *driver) obey(commands io.Reader) error {
	var dropping sync.WaitGroup
	lines := bufio.NewScanner(commands)
	for lines.Scan() {
		switch words := strings.Fields(lines.Text()); {
		case len(words) == 3 && words[0] == "add" && d.targets[words[1]] == nil:
			d.add(words[1], words[2])
		case len(words) == 2 && words[0] == "drop" && d.targets[words[1]] != nil:
			t := d.targets[words[1]]
			delete(d.targets, words[1])
			dropping.Go(func() {
				t.end()
				d.say("dropped %s", t.name)
			})
		default:
			return fmt.Errorf("driver: cannot do %q", lines.Text())
		}
	}
	for _, t := range d.targets {
		dropping.Go(t.end)
	}
	dropping.Wait()
	d.mu.Lock()
	defer d.mu.Unlock()
	return errors.Join(lines.Err(), d.out.Flush(), context.Cause(d.bounded))
}

// say writes a line, and everything before it.
func (d *driver) say(format string, values ...any) {
	d.mu.Lock()
	defer d.mu.Unlock()
	_, _ = fmt.Fprintf(d.out, format+"\n", values...) // the harness is gone, and so is this process in a moment
	_ = d.out.Flush()
}

func (d *driver) add(name, url string) {
	ctx, stop := context.WithCancel(d.bounded)
	t := &target{
		name: name, url: url, stop: stop, slots: make(chan struct{}, inFlight),
		client: &http.Client{Timeout: callTimeout, Transport: &http.Transport{MaxIdleConnsPerHost: inFlight}},
	}
	d.targets[name] = t
	t.running.Go(func() { d.drive(ctx, t) })
	t.running.Go(func() { d.look(ctx, t) })
}

// end sends no more, and returns when everything has been answered.
func (t *target) end() {
	t.stop()
	t.running.Wait()
	t.client.CloseIdleConnections()
}

// drive asks for takes at a steady pace. What a node is too slow for is not made up for.
func (d *driver) drive(ctx context.Context, t *target) {
	ticker := time.NewTicker(tick)
	defer ticker.Stop()
	var dueHot, dueScarce float64
	next := 0
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
		for dueHot += d.hot * tick.Seconds(); dueHot >= 1; dueHot-- {
			d.ask(t, "hot")
		}
		for dueScarce += d.scarce * tick.Seconds(); dueScarce >= 1; dueScarce-- {
			d.ask(t, fmt.Sprintf("scarce%d", next%d.keys))
			next++
		}
	}
}

// ask takes a token of a key, without waiting for it. It asks nothing when too many have not been answered.
func (d *driver) ask(t *target, key string) {
	select {
	case t.slots <- struct{}{}:
	default:
		return
	}
	if d.asked.Add(1) > d.most {
		d.exceed(fmt.Errorf("driver: still asked to go on after %d takes", d.most))
		<-t.slots
		return
	}
	t.running.Go(func() {
		defer func() { <-t.slots }()
		start := now()
		status, why := t.take(key)
		d.say("%s %s %d %d %s %s", t.name, key, start, now(), status, why)
	})
}

func (t *target) take(key string) (status, why string) {
	response, err := t.client.Post(t.url+"/take?key="+url.QueryEscape(key), "", nil) // #nosec G704 -- the harness says where
	if err != nil {
		return "broken", err.Error()
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	if err != nil {
		return "broken", err.Error()
	}
	if response.StatusCode != http.StatusOK {
		return "failed", strings.TrimSpace(string(body))
	}
	var decision struct {
		Allowed bool   `json:"allowed"`
		Origin  string `json:"origin"`
	}
	if err := json.Unmarshal(body, &decision); err != nil {
		return "failed", err.Error()
	}
	if decision.Allowed {
		return "allowed", decision.Origin
	}
	return "denied", decision.Origin
}

// look asks what needs no decision, so that it is known how long the machine takes for a request anyway.
func (d *driver) look(ctx context.Context, t *target) {
	ticker := time.NewTicker(alivePause)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
		start := now()
		response, err := t.client.Get(t.url + "/alive") // #nosec G704 -- the harness says where
		if err != nil {
			continue
		}
		_, _ = io.Copy(io.Discard, response.Body)
		_ = response.Body.Close()
		d.say("%s - %d %d alive", t.name, start, now())
	}
}

// now returns the time of the machine's monotonic clock in nanoseconds.
func now() int64 {
	var t unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &t); err != nil {
		panic(err) // every Unix has it
	}
	return t.Nano()
}
