// Package waits knows the callers of one node that wait for a turn at some bucket, on this node or another, and wakes them.
package waits
