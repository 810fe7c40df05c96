package main

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

// process is a node process, seen from the demo. Its goroutine reads what it reports and waits for its end.
type process struct {
	name  string
	cmd   *exec.Cmd
	stdin io.Closer // its end ends the process
	log   tail      // what it wrote to standard error

	ready chan struct{} // closed when info is set
	info  nodeReady

	fate  atomic.Int32  // what the demo has done to it
	ended chan struct{} // closed when the process is gone and err is set
	err   error         // how it ended
}

// Fates of a process.
const (
	alive int32 = iota
	leaving
	ending
	stopped // and may go on
)

// processGrace is how long a process may take to end when its input has ended; it does so at once unless it is stopped.
const processGrace = time.Second

// startProcess starts this program again as a node. onReport is called for everything it reports but readiness, and
// onEnd when it is gone, from one goroutine.
func startProcess(config nodeConfig, onReport func(*process, nodeReport), onEnd func(*process)) (*process, error) {
	line, err := json.Marshal(config)
	if err != nil {
		return nil, err
	}
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	p := &process{name: config.Name, ready: make(chan struct{}), ended: make(chan struct{})}
	p.cmd = exec.Command(self) // #nosec G204 -- itself
	p.cmd.Env = append(os.Environ(), nodeEnv+"=1")
	p.cmd.Stderr = &p.log
	stdin, err := p.cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	p.stdin = stdin
	stdout, err := p.cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := p.cmd.Start(); err != nil {
		return nil, fmt.Errorf("starting %s: %w", p.name, err)
	}
	go p.watch(stdout, onReport, onEnd)
	if _, err := stdin.Write(append(line, '\n')); err != nil {
		p.stop()
		return nil, fmt.Errorf("starting %s: %w", p.name, err)
	}
	return p, nil
}

// watch reads the process's reports until it ends.
func (p *process) watch(stdout io.Reader, onReport func(*process, nodeReport), onEnd func(*process)) {
	lines := bufio.NewScanner(stdout)
	for lines.Scan() {
		var r nodeReport
		if err := json.Unmarshal(lines.Bytes(), &r); err != nil {
			fmt.Fprintf(&p.log, "unintelligible report %q: %v\n", lines.Text(), err)
			continue
		}
		if r.Ready != nil {
			p.info = *r.Ready
			close(p.ready)
			continue
		}
		onReport(p, r)
	}
	p.err = p.cmd.Wait()
	close(p.ended)
	onEnd(p)
}

// kill ends the process with SIGKILL.
func (p *process) kill() error {
	p.fate.Store(ending)
	return p.cmd.Process.Kill()
}

// askToLeave sends SIGTERM, as a deployment does.
func (p *process) askToLeave() error {
	p.fate.Store(leaving)
	return p.cmd.Process.Signal(syscall.SIGTERM)
}

// freeze stops the process where it is, and wake lets it go on.
func (p *process) freeze() error {
	p.fate.Store(stopped)
	return freeze(p.cmd.Process)
}

func (p *process) wake() error {
	p.fate.Store(alive)
	return wake(p.cmd.Process)
}

// stop ends the process, however it is doing, and returns when it is gone.
func (p *process) stop() {
	p.fate.Store(ending)
	_ = p.stdin.Close()
	timer := time.NewTimer(processGrace)
	defer timer.Stop()
	select {
	case <-p.ended:
	case <-timer.C:
		_ = p.cmd.Process.Kill() // an error means that it has just ended
		<-p.ended
	}
}

// failure tells how the process ended, with its last words. It is nil when it ended as the demo wanted it to.
func (p *process) failure() error {
	err, what := p.err, "ended by itself"
	switch fate := p.fate.Load(); {
	case fate == ending, fate == leaving && err == nil:
		return nil
	case fate == leaving:
		what = "did not leave in order"
	case err == nil:
		err = errors.New("exit status 0")
	}
	if words := shownLines(strings.TrimSpace(p.log.String())); words != "" {
		return fmt.Errorf("%s %s: %w; its last words:\n%s", p.name, what, err, words)
	}
	return fmt.Errorf("%s %s: %w", p.name, what, err)
}

// tail keeps the end of what is written to it.
type tail struct {
	mu   sync.Mutex // guards text
	text []byte
}

// maxTail is enough for the message of a panic and the stack that caused it.
const maxTail = 4 << 10

func (t *tail) Write(b []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.text = append(t.text, b...)
	if over := len(t.text) - maxTail; over > 0 {
		t.text = append(t.text[:0], t.text[over:]...)
	}
	return len(b), nil
}

func (t *tail) String() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return string(t.text)
}
