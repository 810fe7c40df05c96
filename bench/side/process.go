package main

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/peerlimit/peerlimit/bench/contest"
)

// process is a contestant's.
type process struct {
	name    string
	command *exec.Cmd
	in      io.WriteCloser // held open: the process ends with it
	send    *json.Encoder
	receive *json.Decoder
}

func startProcess(name string, arguments ...string) (*process, error) {
	p := &process{name: name, command: exec.Command(arguments[0], arguments[1:]...)}
	p.command.Stderr = os.Stderr
	p.command.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL} // nothing is left, however this one ends
	var err error
	if p.in, err = p.command.StdinPipe(); err != nil {
		return nil, err
	}
	out, err := p.command.StdoutPipe()
	if err != nil {
		return nil, err
	}
	p.send, p.receive = json.NewEncoder(p.in), json.NewDecoder(bufio.NewReader(out))
	return p, p.command.Start()
}

func (p *process) do(command contest.Command) (answer contest.Answer, err error) {
	if err = p.send.Encode(command); err == nil {
		err = p.receive.Decode(&answer)
	}
	if err == nil && answer.Error != "" {
		err = errors.New(answer.Error)
	}
	if err != nil {
		err = fmt.Errorf("%s: %w", p.name, err)
	}
	return answer, err
}

func (p *process) pid() int { return p.command.Process.Pid }

// stop ends the process. It is killed: saying goodbye to others that end as well would take a second.
func (p *process) stop() error {
	_ = p.command.Process.Kill()
	return ended(p.command.Wait())
}

// ended leaves out that a process was killed.
func ended(err error) error {
	var killed *exec.ExitError
	if errors.As(err, &killed) {
		return nil
	}
	return err
}

// redisServer is one that keeps nothing on disk.
type redisServer struct {
	command *exec.Cmd
	address string
}

func startRedis(program string) (*redisServer, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0") // the server cannot choose a port itself
	if err != nil {
		return nil, err
	}
	address := l.Addr().String()
	if err := l.Close(); err != nil {
		return nil, err
	}
	_, port, _ := net.SplitHostPort(address)
	r := &redisServer{address: address, command: exec.Command(program,
		"--bind", "127.0.0.1", "--port", port, "--save", "", "--appendonly", "no", "--maxclients", "4096", "--loglevel", "warning")}
	r.command.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := r.command.Start(); err != nil {
		return nil, err
	}
	for deadline := time.Now().Add(patience); time.Now().Before(deadline); time.Sleep(10 * time.Millisecond) {
		if conn, err := net.Dial("tcp", address); err == nil {
			return r, conn.Close()
		}
	}
	return nil, errors.Join(fmt.Errorf("%s does not listen on %s", program, address), r.stop())
}

func (r *redisServer) stop() error {
	_ = r.command.Process.Kill() // there is nothing it should save
	return ended(r.command.Wait())
}

// patience is how long a server may take to listen.
const patience = 10 * time.Second

// usedMemory is what the server says that it uses.
func (r *redisServer) usedMemory() (int64, error) {
	conn, err := net.Dial("tcp", r.address)
	if err != nil {
		return 0, err
	}
	defer conn.Close()
	if _, err := io.WriteString(conn, "INFO memory\r\n"); err != nil {
		return 0, err
	}
	for lines := bufio.NewScanner(conn); lines.Scan(); {
		if number, ok := strings.CutPrefix(lines.Text(), "used_memory:"); ok {
			return strconv.ParseInt(strings.TrimSpace(number), 10, 64)
		}
	}
	return 0, errors.New("the server does not say what memory it uses")
}

// clockTick is the unit of processor times in /proc, the same on all of Linux' platforms.
const clockTick = 10 * time.Millisecond

// processorTime is what another process has used.
func processorTime(pid int) (time.Duration, error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0, err
	}
	_, rest, _ := strings.Cut(string(text), ") ") // the name before may have spaces
	fields := strings.Fields(rest)
	if len(fields) < 13 {
		return 0, fmt.Errorf("process %d: %q is not understood", pid, text)
	}
	user, err := strconv.ParseInt(fields[11], 10, 64)
	if err != nil {
		return 0, err
	}
	system, err := strconv.ParseInt(fields[12], 10, 64)
	return time.Duration(user+system) * clockTick, err
}
