//go:build race

package peerlimit_test

// defaultSeeds is how many seeds TestSchedules runs when it is not told: with the race detector each takes ten times as
// long.
const defaultSeeds = 15
