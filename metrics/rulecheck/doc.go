// Package rulecheck tests deploy/alerts.yaml and deploy/grafana.json with Prometheus's own libraries. It is a module of its
// own because those are heavy.
//
//	go test -count=1 ./...
//
// The go command does not see that files outside of a module have changed, so it must be told not to use its cache.
package rulecheck
