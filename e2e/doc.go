// Package e2e drives the pages of peerlimit with a real browser: the status page, and the page of the demo. It is a module of
// its own, so that what drives the browser never reaches a user of the library.
//
//	go test ./...                                           with Chromium installed; without, the tests say so and are skipped
//	go test ./... -args -screenshots ../docs/pictures       writes the pictures that the README shows
//
// Accessibility is checked by axe-core 4.14.1, which is kept beside as it is published on npm.
package e2e
