// Package deploy has what goes into a cluster beside a service: kubernetes.yaml, a manifest for Kubernetes, alerts.yaml,
// alert rules for Prometheus, and grafana.json, a dashboard. The last two are over the metrics of module metrics, which
// tests them, with Prometheus itself in metrics/rulecheck.
//
// It is a module of its own, so that what the manifest's test needs never reaches a user.
package deploy
