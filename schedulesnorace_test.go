//go:build !race

package peerlimit_test

// defaultSeeds is how many seeds TestSchedules runs when it is not told.
const defaultSeeds = 60
