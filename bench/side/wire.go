package main

import (
	"fmt"
	"os"
	"strconv"
	"strings"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// wire is what went over TCP connections, as the kernel counts it for each of them: payload, without headers of TCP and IP,
// and without what was sent again.
type wire struct {
	Out  uint64 // sent by the process that is asked, over connections that it has made
	Back uint64 // received by it over these
	All  uint64 // sent by all processes, over all connections
}

// traffic is what the connections that there are have carried so far.
type traffic map[uint32]carried // by socket

type carried struct {
	sent, received uint64
	dialled        bool // by the process that is asked
}

// trafficOf looks at the connections of processes, of which the first is asked. Those that end meanwhile are not counted.
func trafficOf(pids []int) (traffic, error) {
	processOf := make(map[uint32]int)
	for _, pid := range pids {
		if err := addSockets(processOf, pid); err != nil {
			return nil, err
		}
	}
	sockets, err := netlink.SocketDiagTCPInfo(unix.AF_INET)
	if err != nil {
		return nil, fmt.Errorf("connections: %w", err)
	}
	listening := make(map[uint16]bool)
	for _, s := range sockets {
		if s.InetDiagMsg.State == netlink.TCP_LISTEN {
			listening[s.InetDiagMsg.ID.SourcePort] = true
		}
	}
	t := make(traffic)
	for _, s := range sockets {
		pid, ours := processOf[s.InetDiagMsg.INode]
		if !ours || s.TCPInfo == nil || s.InetDiagMsg.State == netlink.TCP_LISTEN {
			continue
		}
		t[s.InetDiagMsg.INode] = carried{
			sent: s.TCPInfo.Bytes_sent - s.TCPInfo.Bytes_retrans, received: s.TCPInfo.Bytes_received,
			dialled: pid == pids[0] && !listening[s.InetDiagMsg.ID.SourcePort],
		}
	}
	return t, nil
}

// addSockets adds the sockets that a process has open.
func addSockets(processOf map[uint32]int, pid int) error {
	dir := fmt.Sprintf("/proc/%d/fd", pid)
	files, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	for _, file := range files {
		target, err := os.Readlink(dir + "/" + file.Name())
		if err != nil {
			continue // it was closed meanwhile
		}
		number, ok := strings.CutPrefix(target, "socket:[")
		if !ok {
			continue
		}
		if inode, err := strconv.ParseUint(strings.TrimSuffix(number, "]"), 10, 32); err == nil {
			processOf[uint32(inode)] = pid
		}
	}
	return nil
}

// since is what was carried after an earlier look.
func (t traffic) since(before traffic) *wire {
	var w wire
	for socket, now := range t {
		then := before[socket]
		if now.sent < then.sent || now.received < then.received {
			then = carried{} // another connection under the same number
		}
		w.All += now.sent - then.sent
		if now.dialled {
			w.Out += now.sent - then.sent
			w.Back += now.received - then.received
		}
	}
	return &w
}
