// Package iolimit makes readers, writers and connections share bandwidth: all that draw on the same key under the same
// limiter, on whatever nodes of the cluster, pass no more bytes together than the limit allows.
//
// A byte is a token. A limiter of 10 MB a second, and a download that draws on one customer's share of it:
//
//	egress, err := node.Limiter("egress", peerlimit.PerSecond(10e6).WithBurst(1e6))
//	if err != nil { ... }
//	w, err := iolimit.NewWriter(ctx, responseWriter, iolimit.Bandwidth{Taker: egress, Key: customer})
//	if err != nil { ... }
//	defer w.Close()
//	_, err = io.Copy(w, file)
//
// [NewReader] is for what comes in, and [NewConn] for both directions of a [net.Conn].
//
// # How much is taken at once
//
// What was not written yet is paid for before it is written, what was read before it is handed out. A transfer that is
// slow, or moves little, takes just the bytes at hand. One that moves much takes ahead what it uses in 10 ms at its own speed of
// late, at most what the limit lets pass in 5 ms, and at most [Bandwidth.MaxTake]. So those that together are at the
// limit take some 200 times a second in all, or once in MaxTake bytes, and not for each packet; and each of them that
// wants more gets as much as the others. Long writes are made in pieces of that size, at least 512 bytes, so that others
// get their turn between them.
//
// What was taken ahead is used by the calls that follow. It is given back 20 ms after the last take, and by Close.
//
// # What it guarantees
//
// Since the limiter was full, and until any moment t later, no more than burst + rate*t bytes have passed. In any window
// of length w, no more than burst + rate*w, and what was paid for just before it: at most MaxTake bytes of each transfer.
// When nodes fail, package peerlimit says what more can pass. A transfer that stops waiting, at a deadline or by Close, gives
// up its turn as [peerlimit.Reservation.Cancel] does: nothing is lost but a turn that others wait behind.
package iolimit
