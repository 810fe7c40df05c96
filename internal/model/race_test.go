//go:build race

package model_test

// raceEnabled makes the searches shorter: the model has one goroutine, and the detector makes it several times slower.
const raceEnabled = true
