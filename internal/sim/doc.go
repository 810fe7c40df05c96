// Package sim is a network in memory, with seeded faults, for tests of whole
// clusters in one process.
//
// A [Network] holds hosts, each with one IP address. [Network.Host] gives the
// view of one host: streams that behave as TCP, packets that behave as UDP.
// Faults are set per pair of hosts and per direction while everything runs:
// latency, loss, duplication, cuts, splits; and per host: freeze, kill, power
// off, restart.
//
// # Time
//
// The package reads no clock but that of package time, so it runs in real time
// and, unchanged, inside a [testing/synctest] bubble, where a minute of network
// time costs as long as the work in it. A Network must be made in the bubble
// that uses it. It has no goroutine of its own, only one timer: everything
// that is due at an instant is delivered together.
//
// # Seeds
//
// Each direction of each pair of hosts has its own random generator, derived
// from the seed and the two addresses, and each packet or stretch of stream
// takes the same number of values from it whatever the conditions are. So what
// happens on one link does not depend on how the scheduler interleaves the
// others, and a failing seed mostly fails again. It is controlled time and
// seeded faults, not determinism: goroutines of one host that send at the same
// instant are still ordered by the scheduler.
//
// # What streams do
//
// Bytes arrive in order, late by the link's latency. A window of 256 KiB of
// bytes not yet read by the peer bounds what can be written ahead; then Write
// blocks. Bytes that a cut or a loss swallows are sent again after 200 ms, then
// after twice that and so on up to 120 s, counted from the loss, as Linux does:
// healing a cut moves no byte before the next such instant. After the sixteenth
// (924.6 s) the writer's side fails with ETIMEDOUT. While only the way back is
// cut, bytes arrive but are not acknowledged: the writer goes on for 200 ms
// and then holds back like any TCP whose congestion window has collapsed.
// Dial asks again after 1, 2, 4 … s and gives up after 127 s.
//
// Simplified: acknowledgements and window updates take no time of their own;
// there is no bandwidth limit, no fast retransmit, no keepalive, no half close.
//
// # What packets do
//
// Packets are copied, late by the link's latency, reordered by its jitter,
// sometimes lost or doubled, and dropped when the receiver's socket buffer is
// full. WriteTo says nothing of any of that.
package sim
