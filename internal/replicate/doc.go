// Package replicate keeps what a node holds with its standbys as well, and says when a copy may be dropped. replicator.go
// sends, accept.go takes in what others send, settle.go asks and answers about copies that are not needed any more.
package replicate
