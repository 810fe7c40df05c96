// Package chaos tests peerlimit on real processes: real sockets, real schedulers, real signals. The simulation shows that
// the protocol is right; this shows that the program is.
//
// A scenario starts a cluster of 3 to 9 nodes (chaos/node), each a process, and drives them from other processes
// (chaos/driver) that record every call with the times of its start and end on the machine's monotonic clock. Then it does
// what the scenario is about: SIGKILL, SIGSTOP, SIGTERM, or a network that drops packets. The merged records are judged by
// internal/oracle, one ideal bucket per key, against what docs/guarantees.md allows for just that.
//
//	go test ./chaos                            the harness itself, and one quick scenario
//	go test ./chaos -chaos.ci                  the short ones, in less than four minutes
//	go test ./chaos -chaos.long -timeout 2h    all of them
//	go test ./chaos -chaos.run 'Kill' -v       those whose names match
//
// -chaos.repeat N runs each one N times; -chaos.out DIR writes a [Result] of each to DIR, for the report; and with
// -chaos.node PROGRAM another program is the node, which need not be peerlimit: see chaos/node for what it must do, and
// chaos/gubernator for one that does. chaos/report.sh runs all of them with both and writes docs/chaos.md.
//
// Cuts and splits need network namespaces: each node has one of its own, and the scenario runs in another, which routes
// between them and can drop what one node sends to another. It is made with the processes and ends with them, so nothing is
// left behind, however they end. Where that is not possible those scenarios are skipped.
package chaos
