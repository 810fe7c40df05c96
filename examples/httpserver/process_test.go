package main

import (
	"errors"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// hangs is when a test gives up on a process. Nothing takes nearly as long.
const hangs = time.Minute

// output is what a process has printed so far.
type output struct {
	mu      sync.Mutex // guards the fields below
	text    strings.Builder
	changed chan struct{} // closed and replaced when something is printed
}

func (o *output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	close(o.changed)
	o.changed = make(chan struct{})
	return o.text.Write(p)
}

// String returns all of it.
func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.text.String()
}

// await returns what the pattern's group matched, once the process has printed it.
func (o *output) await(t *testing.T, pattern string) string {
	t.Helper()
	wanted := regexp.MustCompile(pattern)
	hung := time.NewTimer(hangs)
	defer hung.Stop()
	for {
		o.mu.Lock()
		text, changed := o.text.String(), o.changed
		o.mu.Unlock()
		if match := wanted.FindStringSubmatch(text); match != nil {
			return match[len(match)-1]
		}
		select {
		case <-changed:
		case <-hung.C:
			require.Failf(t, "a process has not printed what it should", "%s\nbut:\n%s", pattern, text)
		}
	}
}

// process is one instance of the service.
type process struct {
	command *exec.Cmd
	out     *output
	ended   chan error // what it exited with, once
}

// build compiles the service and returns the path of the program.
func build(t *testing.T) string {
	t.Helper()
	program := filepath.Join(t.TempDir(), "httpserver")
	text, err := exec.CommandContext(t.Context(), "go", "build", "-o", program, ".").CombinedOutput()
	require.NoError(t, err, "%s", text)
	return program
}

// launch starts a process that does not outlive the test.
func launch(t *testing.T, program string, args ...string) *process {
	t.Helper()
	out := &output{changed: make(chan struct{})}
	p := &process{command: exec.Command(program, args...), out: out, ended: make(chan error, 1)}
	p.command.Stdout, p.command.Stderr = out, out
	require.NoError(t, p.command.Start())
	exited := make(chan struct{})
	go func() {
		p.ended <- p.command.Wait()
		close(exited)
	}()
	t.Cleanup(func() {
		_ = p.command.Process.Kill() // fails when it has ended
		<-exited
	})
	return p
}

// exit waits for the process to end by itself and returns its status.
func (p *process) exit(t *testing.T) int {
	t.Helper()
	select {
	case err := <-p.ended:
		var failure *exec.ExitError
		if err != nil && !errors.As(err, &failure) {
			require.NoError(t, err)
		}
		return p.command.ProcessState.ExitCode()
	case <-time.After(hangs):
		require.Fail(t, "a process has not ended", p.out)
		return -1
	}
}

// fetch returns the status, the body and the Retry-After of an answer.
func fetch(t *testing.T, url string) (status int, body, retryAfter string) {
	t.Helper()
	response, err := http.Get(url)
	require.NoError(t, err)
	defer response.Body.Close()
	text, err := io.ReadAll(response.Body)
	require.NoError(t, err)
	return response.StatusCode, string(text), response.Header.Get("Retry-After")
}

const (
	urlLine    = `listening on (http://127\.0\.0\.1:\d+) `
	statusLine = `how this instance is: (http://127\.0\.0\.1:\d+)\n`
	joinLine   = `instances started with -join (127\.0\.0\.1:\d+) share these limits\n`
)

func TestProcesses(t *testing.T) {
	program := build(t)
	t.Run("two that are joined share a limit", func(t *testing.T) { testTwoShareALimit(t, program) })
	t.Run("what cannot be started says why", func(t *testing.T) { testExitStatus(t, program) })
}

func testTwoShareALimit(t *testing.T, program string) {
	limit := []string{"-addr", "127.0.0.1:0", "-rate", "0.001", "-burst", "7"}
	first := launch(t, program, append(limit, "-status", "127.0.0.1:0")...)
	seed := first.out.await(t, joinLine)
	second := launch(t, program, append(limit, "-join", seed)...)
	urls := []string{first.out.await(t, urlLine), second.out.await(t, urlLine)}
	for _, p := range []*process{first, second} {
		p.out.await(t, `connected to member.*\n`)
		p.out.await(t, `owners of partitions changed.*2 members .*\n`)
	}

	status, page, _ := fetch(t, first.out.await(t, statusLine))
	assert.Equal(t, http.StatusOK, status)
	assert.Contains(t, page, "Ask about a key")
	status, _, _ = fetch(t, urls[0]+"/debug/peerlimit")
	assert.Equal(t, http.StatusNotFound, status, "clients do not get to it")

	tokens := drive(t, urls, "/token")
	leaks := drive(t, urls, "/leaky") // one leaves at once; the next would wait for 1000 s and is refused

	require.NoError(t, second.command.Process.Signal(syscall.SIGTERM))
	assert.Zero(t, second.exit(t), second.out)
	status, body, _ := fetch(t, urls[0]+"/healthz") // the other one has gone
	assert.Equal(t, http.StatusOK, status)
	assert.Equal(t, "ok\n", body)
	require.NoError(t, first.command.Process.Signal(os.Interrupt))
	assert.Zero(t, first.exit(t), first.out)

	if strings.Contains(first.out.String()+second.out.String(), "fallback began") {
		// This machine stood still for longer than the RPC timeout: what the other process decided alone comes on top, and
		// it gives out half.
		assert.Less(t, tokens, 2*7)
		assert.Less(t, leaks, 3)
		return
	}
	assert.Equal(t, 7, tokens)
	assert.Equal(t, 1, leaks)
}

// drive asks all instances in turn, 20 times in all, and returns how many requests were allowed.
func drive(t *testing.T, urls []string, path string) (allowed int) {
	t.Helper()
	for i := range 20 {
		status, body, retryAfter := fetch(t, urls[i%len(urls)]+path)
		if status == http.StatusOK {
			allowed++
			assert.Equal(t, `{"allowed":true,"ip":"127.0.0.1","message":"Request allowed"}`, body)
			assert.Empty(t, retryAfter)
			continue
		}
		assert.Equal(t, http.StatusTooManyRequests, status)
		assert.Equal(t, `{"allowed":false,"ip":"127.0.0.1","message":"Rate limit exceeded"}`, body)
		seconds, err := strconv.Atoi(retryAfter)
		require.NoError(t, err)
		assert.Positive(t, seconds)
	}
	return allowed
}

func testExitStatus(t *testing.T, program string) {
	bad := launch(t, program, "-rate", "-1")
	assert.Equal(t, 2, bad.exit(t))
	assert.Contains(t, bad.out.String(), "httpserver: bad flag: -rate -1: ")

	first := launch(t, program, "-addr", "127.0.0.1:0")
	addr := strings.TrimPrefix(first.out.await(t, urlLine), "http://")
	second := launch(t, program, "-addr", addr)
	assert.Equal(t, 1, second.exit(t))
	assert.Contains(t, second.out.String(), `httpserver: -addr "`+addr+`": `)
	assert.Contains(t, second.out.String(), "address already in use")
}
