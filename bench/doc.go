// Package bench measures peerlimit side by side with what a user would otherwise pick. It is a module of its own, so that
// what it compares with never reaches a user of the library.
//
//	go test -bench . ./...
//	./side.sh
//
// The latter, of command side, compares all contestants in eleven minutes. It starts commands contestant, with all Go
// libraries, and gubernator; package contest is what these two and side say to each other. Command scale, by
// scale.sh, measures how peerlimit grows. Both keep what they have measured in results; benchmarks.sh runs both, and writes
// docs/benchmarks.md from the last results of each and the prose in document.
package bench
