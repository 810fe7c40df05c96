//go:build linux

package chaos

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"time"
)

// node is a node of the cluster: a process, and the addresses it has however often it is started.
type node struct {
	number          int
	name            string
	bind, rpc, http string

	command *exec.Cmd
	log     *lockedBuffer
	ended   chan struct{} // closed when the process is gone and err is set
	err     error
}

// start starts the node's program with the limits of a scenario.
func (n *node) start(program string, namespace *os.File, s *scenario, join []string) error {
	n.log, n.ended, n.err = new(lockedBuffer), make(chan struct{}), nil
	n.command = exec.Command(program, "-name", n.name, "-bind", n.bind, "-rpc", n.rpc, "-http", n.http,
		"-join", strings.Join(join, ","), "-burst", fmt.Sprint(s.hot.burst), "-rate", fmt.Sprint(s.hot.rate))
	if s.rpcTimeout > 0 {
		n.command.Args = append(n.command.Args, "-rpc-timeout", s.rpcTimeout.String())
	}
	n.command.Stderr = n.log
	if err := launch().start(n.command, namespace); err != nil {
		return fmt.Errorf("starting %s: %w", n.name, err)
	}
	command, ended := n.command, n.ended
	go func() { // ends with the process
		err := command.Wait()
		n.err = err
		close(ended)
	}()
	return nil
}

func (n *node) signal(s syscall.Signal) error { return n.command.Process.Signal(s) }

// end kills the process if it still runs, stopped or not, and waits until it is gone.
func (n *node) end() {
	if n.command == nil {
		return
	}
	_ = n.command.Process.Kill() // an error means that it has ended
	<-n.ended
}

// get asks the node for something, and returns what it answers with status 200.
func (n *node) get(ctx context.Context, path string) (string, error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+n.http+path, nil)
	if err != nil {
		return "", err
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return "", err
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	if err != nil || response.StatusCode != http.StatusOK {
		return "", fmt.Errorf("%s answers %s to %s: %s (%v)", n.name, response.Status, path, body, err)
	}
	return string(body), nil
}

// driver is a process of chaos/driver. What it records is read as it comes.
type driver struct {
	command *exec.Cmd
	stdin   io.WriteCloser
	log     lockedBuffer
	read    sync.WaitGroup

	mu      sync.Mutex // guards what follows
	records []record
	dropped map[string]chan struct{} // closed when the last call to a node is over
	err     error
}

func startDriver(program string, arguments ...string) (*driver, error) {
	d := &driver{command: exec.Command(program, arguments...), dropped: make(map[string]chan struct{})}
	d.command.Stderr = &d.log
	var err error
	if d.stdin, err = d.command.StdinPipe(); err != nil {
		return nil, err
	}
	stdout, err := d.command.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := launch().start(d.command, nil); err != nil {
		return nil, fmt.Errorf("starting a driver: %w", err)
	}
	d.read.Go(func() { d.collect(stdout) })
	return d, nil
}

// collect reads records until the driver ends.
func (d *driver) collect(stdout io.Reader) {
	lines := bufio.NewScanner(stdout)
	for lines.Scan() {
		name, isDrop := strings.CutPrefix(lines.Text(), "dropped ")
		d.mu.Lock()
		if isDrop {
			close(d.dropped[name])
			delete(d.dropped, name)
		} else if r, err := parseRecord(lines.Text()); err != nil {
			d.err = err
		} else {
			d.records = append(d.records, r)
		}
		d.mu.Unlock()
	}
}

// add lets the driver ask a node, too.
func (d *driver) add(n *node) error {
	_, err := fmt.Fprintf(d.stdin, "add %s http://%s\n", n.name, n.http)
	return err
}

// drop lets the driver ask a node no more. The channel is closed when its last call is over.
func (d *driver) drop(n *node) (over <-chan struct{}, err error) {
	done := make(chan struct{})
	d.mu.Lock()
	d.dropped[n.name] = done
	d.mu.Unlock()
	_, err = fmt.Fprintf(d.stdin, "drop %s\n", n.name)
	return done, err
}

// finish ends the driver when its calls are over, and returns what it recorded.
func (d *driver) finish() ([]record, error) {
	_ = d.stdin.Close()
	d.read.Wait()
	if err := d.command.Wait(); err != nil {
		return nil, fmt.Errorf("driver: %w: %s", err, d.log.String())
	}
	return d.records, d.err
}

// kill ends the driver at once. It may be called after finish.
func (d *driver) kill() {
	_ = d.command.Process.Kill()
	d.read.Wait()
	_ = d.command.Wait() // an error only says that it was killed, or that finish has waited already
}

// freeAddresses returns different addresses that nobody listens at. All are listened at until the last one is found: the system may
// pick a port that was just closed again. Every node has a host of its own on loopback, since Gubernator tells its members apart by that.
func freeAddresses(node, count int) (addresses []string, err error) {
	for range count {
		listener, err := net.Listen("tcp", fmt.Sprintf("127.0.0.%d:0", node))
		if err != nil {
			return nil, err
		}
		defer listener.Close()
		addresses = append(addresses, listener.Addr().String())
	}
	return addresses, nil
}

// lockedBuffer is the log of a process.
type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lockedBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// poll calls a function until it succeeds or the context ends.
func poll(ctx context.Context, try func() error) error {
	var last error // that is not of ctx itself
	for {
		err := try()
		if err == nil {
			return nil
		}
		if ctx.Err() == nil || last == nil {
			last = err
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("%w; the last attempt: %w", ctx.Err(), last)
		case <-time.After(20 * time.Millisecond):
		}
	}
}
