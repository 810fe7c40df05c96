// Package bench measures peerlimit side by side with what a user would otherwise pick. It is a module of its own, so that
// what it compares with never reaches a user of the library.
//
//	go test -bench . ./...
package bench
