// Package deploy has a manifest for Kubernetes and the test of it. It is a module of its own, so that what the test needs
// never reaches a user.
package deploy
