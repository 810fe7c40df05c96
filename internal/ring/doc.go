// Package ring says which member of a cluster owns each partition, and which members are next in line. It is pure: a Ring is a
// function of the set of member names, so nodes with the same members agree without talking. It also holds the other hashes that
// all nodes of a cluster must agree on: which partition a key belongs to, and the order of members for one key.
//
// Owners come from github.com/buraksezer/consistent. The members behind the owner are read off the same virtual nodes.
package ring
