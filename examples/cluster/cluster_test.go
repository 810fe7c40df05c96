//go:build unix

package main

import (
	"bufio"
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// The tests below run the whole program, as processes. The test binary is that program when testEnv is set.
const testEnv = "PEERLIMIT_CLUSTER_TEST"

func TestMain(m *testing.M) {
	if os.Getenv(testEnv) != "" || os.Getenv(nodeEnv) != "" {
		main()
	}
	os.Exit(m.Run())
}

// program is a run of the demo.
type program struct {
	*exec.Cmd
	t      *testing.T
	output bytes.Buffer // standard output, as far as it was read
	errors bytes.Buffer // standard error, to be read when the program has ended
	lines  *bufio.Scanner
}

func startProgram(t *testing.T, args ...string) *program {
	p := &program{t: t, Cmd: exec.Command(os.Args[0], args...)}
	p.Env = append(os.Environ(), testEnv+"=1")
	p.Stderr = &p.errors
	stdout, err := p.StdoutPipe()
	require.NoError(t, err)
	p.lines = bufio.NewScanner(stdout)
	require.NoError(t, p.Start())
	t.Cleanup(func() { _ = p.Process.Kill() }) // for a test that failed; the nodes end with it
	return p
}

// readTo reads the output up to the first line that contains text, or all of it.
func (p *program) readTo(text string) {
	for p.lines.Scan() {
		fmt.Fprintln(&p.output, p.lines.Text())
		if text != "" && strings.Contains(p.lines.Text(), text) {
			return
		}
	}
	if text != "" {
		_ = p.Wait()
		p.t.Fatalf("no line contains %q:\n%s\n%s", text, &p.output, &p.errors)
	}
}

// finish reads all the rest, and returns the exit status.
func (p *program) finish() int {
	p.readTo("")
	err := p.Wait()
	p.t.Logf("%s\n%s", &p.output, &p.errors)
	if _, exited := err.(*exec.ExitError); err != nil && !exited {
		p.t.Fatal(err)
	}
	return p.ProcessState.ExitCode()
}

var pidPattern = regexp.MustCompile(`(?:pid|process) (\d+)`)

// nodes returns the ids of all node processes that the output names.
func (p *program) nodes() map[int]bool {
	pids := make(map[int]bool)
	for _, match := range pidPattern.FindAllStringSubmatch(p.output.String(), -1) {
		pid, err := strconv.Atoi(match[1])
		require.NoError(p.t, err)
		pids[pid] = true
	}
	return pids
}

// isRunning reports whether a process is there, and not only waits for somebody to ask how it ended.
func isRunning(pid int) bool {
	if syscall.Kill(pid, 0) != nil {
		return false
	}
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return os.IsNotExist(err) && syscall.Kill(pid, 0) == nil // there is no /proc here, or it has just ended
	}
	_, state, _ := strings.Cut(string(stat), ") ")
	return !strings.HasPrefix(state, "Z")
}

func TestRunWithChaos(t *testing.T) {
	p := startProgram(t, "-nodes", "3", "-duration", "6s")
	status := p.finish()
	out := p.output.String()
	assert.Equal(t, exitHeld, status)
	for _, text := range []string{
		">> KILL node-", ">> START node-4", ">> LEAVE node-", "\nHELD    alice ", "\nHELD    bob ", "\nHELD    carol ",
		"\nHELD    No window of any key", " 0 failed.",
	} {
		assert.Contains(t, out, text)
	}
	assert.NotContains(t, out, "BROKEN")
	assertFits(t, out)

	nodes := p.nodes()
	assert.Len(t, nodes, 4)
	for pid := range nodes {
		assert.False(t, isRunning(pid), "process %d is left", pid)
	}
}

func TestInterruptedRunIsJudgedAndLeavesNobody(t *testing.T) {
	p := startProgram(t, "-nodes", "2", "-duration", "5m", "-chaos=false", "-rate", "20", "-burst", "10")
	p.readTo(" offered ")
	p.readTo(" s ") // the first sample
	require.NoError(t, p.Process.Signal(os.Interrupt))
	assert.Equal(t, exitInterrupted, p.finish())
	assert.Contains(t, p.output.String(), "(ended early)")
	assert.Contains(t, p.output.String(), "\nHELD    No window of any key")

	nodes := p.nodes()
	assert.Len(t, nodes, 2)
	for pid := range nodes {
		assert.False(t, isRunning(pid), "process %d is left", pid)
	}
}

func TestNodesEndWithTheirParent(t *testing.T) {
	p := startProgram(t, "-nodes", "3", "-duration", "5m", "-chaos=false")
	p.readTo(" offered ")
	nodes := p.nodes()
	require.Len(t, nodes, 3)
	for pid := range nodes {
		require.True(t, isRunning(pid))
	}
	require.NoError(t, p.Process.Kill())
	assert.Equal(t, -1, p.finish(), "killed by a signal")
	for pid := range nodes {
		assert.Eventually(t, func() bool { return !isRunning(pid) }, time.Minute, 10*time.Millisecond, "process %d is left", pid)
	}
}

// A node that dies without having been killed by the demo is a failure, and the run ends.
func TestNodeThatDiesIsNoticed(t *testing.T) {
	p := startProgram(t, "-nodes", "2", "-duration", "5m", "-chaos=false")
	p.readTo(" offered ")
	for pid := range p.nodes() {
		require.NoError(t, syscall.Kill(pid, syscall.SIGKILL))
		break
	}
	assert.Equal(t, exitBroken, p.finish())
	assert.Regexp(t, `BROKEN  node-\d ended by itself: signal: killed`, p.output.String())
}

// A node process that is started by hand, or whose parent is gone before it has said anything, does nothing.
func TestNodeWithoutConfiguration(t *testing.T) {
	for input, want := range map[string]string{"": "no configuration", "{\n": "configuration \"{"} {
		node := exec.Command(os.Args[0])
		node.Env = append(os.Environ(), nodeEnv+"=1")
		node.Stdin = strings.NewReader(input)
		output, err := node.CombinedOutput()
		require.Error(t, err)
		assert.Equal(t, exitUsage, node.ProcessState.ExitCode())
		assert.Contains(t, string(output), want)
	}
}
