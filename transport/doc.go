// Package transport moves bytes between the nodes of a cluster: requests with
// answers, one-way messages, and the handshake that makes sure the node at the
// other end is the one that was meant. It knows nothing of limits, and its API
// is not stable yet: services use package peerlimit.
//
// # Shape
//
// A [Client] keeps one connection to every peer and has many calls in flight on
// it. A [Server] answers them. A node runs both; a connection carries requests
// in one direction only, from the side that dialled it.
//
// A lone call leaves immediately: nothing is ever held back in the hope of more.
// Whatever has been queued while a write was under way goes out in the next
// one, so writes grow with the load and not with a timer.
//
// # When a peer cannot be reached
//
// A caller must find out quickly, because it has another way to go. So a link
// has a state that costs one atomic load to read:
//
//	LinkConnecting  the first dial or handshake is under way: calls wait for it
//	LinkUp          calls are sent
//	LinkSuspect     connected, but the last calls all timed out: calls fail at
//	                once, the link asks on its own with pings
//	LinkDown        dial or handshake refused, connection broken or silent for
//	                too long: calls fail immediately, the link redials on its own
//
// The link pings only while something has been sent and nothing has come back
// since. An idle link sends nothing, a link with traffic is its own quorum, and
// a peer whose handlers are slow answers pings and so is not mistaken for a peer
// that is cut off.
//
// # Wire format
//
// All integers are big-endian. A connection starts with one handshake message
// each way, from the client first:
//
//	"PLMT" | u16 length of the rest | lowest version u8 | highest version u8 |
//	    cluster | from | to                                        (client)
//	"PLMT" | u16 length of the rest | status u8 | version u8 |
//	    cluster | name                                             (server)
//
// Strings are a length byte and that many bytes; the rest is 4096 bytes at most.
// The values of status are those of [HandshakeStatus]. Bytes after the last known
// field are skipped, so a later version can add fields. The version spoken is
// the lower of both highest; it is refused when it is below either lowest.
//
// Frames follow, in both directions:
//
//	u32 length of the rest | kind u8 | call id u32 | payload
//
// The kinds are 1 request, 2 response, 3 one-way, 4 ping, 5 pong, 6 busy (the
// request was not executed) and 7 too large (it was, but the response does not
// fit). A response, busy or too large carries the id of its request; the others
// have none. A frame of unknown kind is skipped. A length below 5 or above
// [MaxFrame] ends the connection.
package transport
