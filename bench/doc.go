// Package bench measures peerlimit side by side with what a user would otherwise pick. It is a module of its own, so that
// what it compares with never reaches a user of the library.
//
//	go test -bench . ./...
//	./side.sh
//
// The latter, of command side, compares all contestants in eleven minutes; contestant and gubernator/contestant are what it
// starts, and contest is what these share. Command report and chaos.sh are of the scenarios of package chaos.
package bench
