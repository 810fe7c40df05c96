// Package onecore is imported, for its effect alone, by tests that run in bubbles of testing/synctest: with the race
// detector they run on one core. Timers of a bubble that are due as soon as they are started run at once, in whichever
// goroutine started them, and all of them share one context of the detector: two at the same moment, on two cores, crash it
// (https://go.dev/issue/78156, Go 1.26). Races are found on one core just as well, as the detector goes by what is ordered
// before what, not by what happened to be at the same time; without the detector the same tests run on all cores.
// It also tells tests whether the detector is on.
package onecore
