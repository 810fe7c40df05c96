//go:build linux

package chaos

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"
)

// router is a network in which every node has a namespace of its own, with one link to the namespace of this process, which
// passes on what they send to each other, or does not. Node i has the address 10.77.i.2.
type router struct {
	home       *os.File // the namespace of this process
	namespaces map[int]*os.File
	cuts       map[[2]int]bool
}

func newRouter(t *testing.T) *router {
	require.NoError(t, os.WriteFile("/proc/sys/net/ipv4/ip_forward", []byte("1"), 0))
	require.NoError(t, ip(nil, "link set lo up"))
	home, err := os.Open("/proc/self/ns/net")
	require.NoError(t, err)
	t.Cleanup(func() { _ = home.Close() })
	return &router{home: home, namespaces: make(map[int]*os.File), cuts: make(map[[2]int]bool)}
}

func address(node int) string { return fmt.Sprintf("10.77.%d.2", node) }

// namespace returns that of a node, and makes it when it is not there yet.
func (r *router) namespace(t *testing.T, node int) *os.File {
	if made := r.namespaces[node]; made != nil {
		return made
	}
	made, err := launch().newNamespace()
	require.NoError(t, err)
	t.Cleanup(func() { _ = made.Close() })
	link := fmt.Sprintf("v%d", node)
	for _, do := range []struct {
		where *os.File
		what  string
	}{
		{made, "link set lo up"},
		{made, fmt.Sprintf("link add eth0 type veth peer name %s netns %s", link, path(r.home))},
		{made, fmt.Sprintf("addr add %s/24 dev eth0", address(node))},
		{made, "link set eth0 up"},
		{nil, fmt.Sprintf("addr add 10.77.%d.1/24 dev %s", node, link)},
		{nil, fmt.Sprintf("link set %s up", link)},
		{made, fmt.Sprintf("route add default via 10.77.%d.1", node)},
	} {
		require.NoError(t, ip(do.where, do.what))
	}
	r.namespaces[node] = made
	return made
}

// cut drops what one node sends to another, without a word to either.
func (r *router) cut(from, to int) error { return r.rule("add", from, to, true) }

// mend ends a cut.
func (r *router) mend(from, to int) error { return r.rule("del", from, to, false) }

func (r *router) rule(do string, from, to int, cut bool) error {
	if r.cuts[[2]int{from, to}] == cut {
		return nil
	}
	r.cuts[[2]int{from, to}] = cut
	return ip(nil, fmt.Sprintf("rule %s iif v%d to %s/32 blackhole", do, from, address(to)))
}

// ip runs a command of iproute2.
func ip(namespace *os.File, what string) error {
	var output bytes.Buffer
	command := exec.Command("ip", strings.Fields(what)...)
	command.Stdout, command.Stderr = &output, &output
	err := launch().start(command, namespace)
	if err == nil {
		err = command.Wait()
	}
	if err != nil {
		return fmt.Errorf("ip %s: %w: %s", what, err, output.Bytes())
	}
	return nil
}

// runInside runs one scenario in a process of its own, in a network namespace that ends with it.
func runInside(t *testing.T, name string) {
	if _, err := exec.LookPath("ip"); err != nil {
		t.Skip("needs the command ip, of iproute2, to make networks")
	}
	self, err := os.Executable()
	require.NoError(t, err)
	args := append([]string{}, os.Args[1:]...)
	args = append(args, "-chaos.inside", "-chaos.repeat=1", "-test.count=1", "-test.run=^TestScenarios$/^"+name+"$")
	command := exec.Command(self, args...)
	command.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET}
	if os.Getuid() != 0 {
		command.SysProcAttr.Cloneflags |= syscall.CLONE_NEWUSER
		command.SysProcAttr.UidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getuid(), Size: 1}}
		command.SysProcAttr.GidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getgid(), Size: 1}}
	}
	var output bytes.Buffer
	command.Stdout, command.Stderr = &output, &output
	if err := launch().start(command, nil); err != nil {
		t.Skipf("no network namespace can be made here: %v", err)
	}
	err = command.Wait()
	t.Log(output.String())
	require.NoError(t, err)
}
