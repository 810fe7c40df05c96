//go:build !race

package peerlimit_test

// defaultSeeds is how many seeds TestSchedules runs when it is not told.
const defaultSeeds = 60

// raceDetector says that everything takes ten times as long, so that only what finds other races is run.
const raceDetector = false
