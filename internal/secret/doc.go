// Package secret derives the keys of a cluster from its secret, and encrypts with them: gossip by memberlist's keyring, takes by
// mutual TLS.
package secret
