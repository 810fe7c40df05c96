//go:build race

package peerlimit_test

// defaultSeeds is how many seeds TestSchedules runs when it is not told: with the race detector each takes ten times as
// long.
const defaultSeeds = 5

// raceDetector says that everything takes ten times as long, so that only what finds other races is run.
const raceDetector = true
