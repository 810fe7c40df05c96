// Package rulecheck tests docs/alerts.yaml and docs/grafana.json with Prometheus's own libraries. It is a module of its
// own because those are heavy.
package rulecheck
