//go:build !race

package onecore

// RaceDetector reports whether the race detector is on. What takes ten times as long with it, and finds no other races than
// its neighbours, is shortened or left out.
const RaceDetector = false
