// Package intern has values by key, each key's once: as long as anything refers to a value, the same one is found, and a value
// that nobody uses is given back.
package intern
